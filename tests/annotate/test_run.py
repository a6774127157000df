"""The command as a whole."""

import json
import subprocess

import pytest
from typer.testing import CliRunner

from spacy_bertner.annotate.run import RecordError, RunSettings, annotate
from spacy_bertner.cli import bertner

from .conftest import COMMAND, TEXTS, expected, found_spans, read_jsonl, write_jsonl


def test_standard_input_to_standard_output(tmp_path, pipeline, ner):
    data = b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode()
    done = subprocess.run([*COMMAND, str(pipeline), "-", "-"], input=data, capture_output=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    assert found_spans(records) == expected(ner)


def test_strict_stops(tmp_path, ner, texts_file):
    ner.add_pipe("annotate_tests_raises")
    bad = next(i for i, text in enumerate(TEXTS) if "Elbe" in text)
    output = tmp_path / "out.jsonl"
    with pytest.raises(RecordError, match=rf"texts.jsonl:{bad + 1}: ValueError: no rivers"):
        annotate(ner, [texts_file], output, RunSettings(strict=True))
    assert [record["text"] for record in read_jsonl(output)] == TEXTS[:bad]
    summary = annotate(ner, [texts_file], output, RunSettings(resume=True))
    assert summary.n_resumed == bad and [record["text"] for record in read_jsonl(output)] == TEXTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.jsonl", "out.pdf"], "unknown ending '.pdf'"),
        (["in.jsonl", "out.jsonl", "--format", "pdf"], "--format: 'pdf' is unknown"),
        (["in.jsonl", "-", "--format", "spacy"], "name a file"),
        (["no-such.jsonl", "out.jsonl"], "no-such.jsonl: no such file or folder"),
        (["*.nothing", "out.jsonl"], "*.nothing: no file matches this pattern"),
        (["empty", "out.jsonl"], "empty: no file with a known ending in this folder"),
        (["in.jsonl", "in.jsonl", "--force"], "in.jsonl: is the output too"),
        (["in.jsonl", "in.jsonl"], "exists already; --force overwrites it"),
        (["in.jsonl", "empty", "--format", "jsonl"], "empty: is a folder"),
        (["in.jsonl", "out.jsonl", "--force", "--resume"], "set one of them"),
        (["in.jsonl", "-", "--resume"], "a run to standard output cannot be resumed"),
        (["in.jsonl", "out.jsonl", "--batch-size", "0"], "--batch-size: 0 is less than 1"),
        (["in.jsonl", "out.jsonl", "--encoding", "utf-16"], "lines cannot be told apart"),
        (["in.jsonl", "out.jsonl", "--engine", "spark"], "--engine: 'spark' is unknown"),
        (["in.jsonl", "out.jsonl", "--disable", "tagger"], "no component 'tagger'; there are bert_ner"),
        (["in.jsonl", "out.jsonl", "--threshold", "2"], "--threshold: "),
    ],
)
def test_bad_settings(arguments, message, tmp_path, pipeline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "in.jsonl", [{"text": "Kolb"}])
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(bertner, ["annotate", str(pipeline), *arguments])
    assert result.exit_code == 1 and message in result.stderr
    assert read_jsonl(tmp_path / "in.jsonl") == [{"text": "Kolb"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in.jsonl"]


def test_all_records_bad_is_status_1(tmp_path, pipeline):
    given = write_jsonl(tmp_path / "in.jsonl", [{"text": None}])
    result = CliRunner().invoke(bertner, ["annotate", str(pipeline), str(given), str(tmp_path / "out.jsonl")])
    assert result.exit_code == 1 and "1 records, 1 with errors" in result.stderr
    assert f"error record: {given}:1: text: null, not a text" in result.stderr
