"""Resumed runs against uninterrupted ones."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import spacy

from spacy_bertner.annotate.run import RunSettings, annotate
from spacy_bertner.annotate.writers import WRITERS

from .conftest import COMMAND, TEXTS, read_jsonl, write_jsonl


@pytest.mark.parametrize("form", WRITERS)
def test_cut_off_anywhere(form, tmp_path, ner):
    """The journal of a killed run ends at any byte."""
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": text, "n": "ü"} for text in TEXTS[:5]))
    whole, output = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    settings = RunSettings(form, batch_size=2)
    grows = WRITERS[form].grows
    annotate(ner, [given], whole, settings)
    journal = output if grows else tmp_path / f"out.{form}.part"
    ner.add_pipe("annotate_tests_stops", last=True)
    ner.get_pipe("annotate_tests_stops").after = 4
    with pytest.raises(KeyboardInterrupt):
        annotate(ner, [given], output, settings)
    ner.remove_pipe("annotate_tests_stops")
    state = tmp_path / f"out.{form}.run"
    assert journal.exists() and state.exists() and (grows) == output.exists()
    data, run = journal.read_bytes(), state.read_bytes()
    assert data.count(b"\n") == 4
    ends = {i for i, byte in enumerate(data) if data[i - 1] == 10 or byte == 10}
    for cut in sorted({*range(0, len(data), 37), *ends, len(data)}):
        journal.write_bytes(data[:cut])
        state.write_bytes(run)
        output.unlink(missing_ok=True) if not grows else None
        summary = annotate(ner, [given], output, RunSettings(form, batch_size=2, resume=True))
        assert summary.n_resumed == data[:cut].count(b"\n")
        assert output.read_bytes() == whole.read_bytes()
        assert not state.exists() and (grows or not journal.exists())
    assert annotate(ner, [given], output, RunSettings(form, batch_size=2, resume=True)).n_records == (5 if grows else 0)
    assert output.read_bytes() == whole.read_bytes()


def test_lines_of_the_right_length_without_their_content(tmp_path, ner, texts_file):
    """As after a power cut: the size of the file is on the disk, its last blocks are not."""
    output, run = tmp_path / "out.jsonl", tmp_path / "out.jsonl.run"
    ner.add_pipe("annotate_tests_stops")
    with pytest.raises(KeyboardInterrupt):
        annotate(ner, [texts_file], output)
    ner.remove_pipe("annotate_tests_stops")
    state = run.read_bytes()
    annotate(ner, [texts_file], output, RunSettings(resume=True))
    whole = output.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        whole[:-9] + b"\0" * 9,
        whole[:-40] + b"\0" * 39 + b"\n",
        whole[:middle] + b"\0" * 40 + whole[middle + 40 :],
    ):
        output.write_bytes(damaged)
        run.write_bytes(state)
        summary = annotate(ner, [texts_file], output, RunSettings(resume=True))
        assert 0 < summary.n_resumed < len(TEXTS)
        assert output.read_bytes() == whole and not run.exists()


@pytest.fixture
def ruler(tmp_path) -> Path:
    """The folder of a pipeline that loads at once."""
    nlp = spacy.blank("en")
    patterns = [{"label": "LOC", "pattern": place} for place in ("Oslo", "Porto", "Dresden", "Tallinn")]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(tmp_path / "ruler")
    return tmp_path / "ruler"


def start_and_kill(arguments: list[str], lines: list[bytes], journal: Path, n_records: int) -> None:
    """Run the command on standard input until it has written so many records; then kill it."""
    process = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"".join(lines))
    process.stdin.flush()
    while not (journal.exists() and journal.read_bytes().count(b"\n") == n_records):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    # Standard error ends with the last process that has it
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(("form", "n_process"), [("jsonl", "1"), ("spacy", "2")])
def test_killed_and_gone_on_with(form, n_process, tmp_path, ruler, texts_file):
    """And no process of a killed run stays behind."""
    whole, output = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    journal = output if form == "jsonl" else tmp_path / "out.spacy.part"
    annotate(ruler, [texts_file], whole)
    lines = texts_file.read_bytes().splitlines(keepends=True)
    arguments = [str(ruler), "-", str(output), "--batch-size", "2", "--n-process", n_process]
    # Of four chunks under way in two processes the first is waited for
    start_and_kill(arguments, lines[:8] if n_process == "1" else lines[:14], journal, 8)
    with journal.open("ab") as file:  # in the middle of a record
        file.write(b'{"text": "Maria Ko' if form == "jsonl" else b"eJyrVkrOz")
    done = subprocess.run([*COMMAND, *arguments, "--resume"], input=b"".join(lines), check=True, capture_output=True)
    assert b"20 records, 8 of them there before" in done.stderr
    assert output.read_bytes() == whole.read_bytes()
    names = ["ruler", "texts.jsonl", whole.name, output.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    done = subprocess.run([*COMMAND, *arguments, "--resume"], input=b"".join(lines), check=True, capture_output=True)
    assert b"complete already" in done.stderr and output.read_bytes() == whole.read_bytes()


def test_output_of_another_is_left_as_it_is(tmp_path, ner, texts_file):
    """--resume goes on with nothing that it does not know."""
    for name, data in (("a.jsonl", b'{"a": 1}\n{"b": 2}'), ("b.jsonl", b"my notes"), ("c.csv.part", b"YQ==\nYW")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="--force starts again"):
            annotate(ner, [texts_file], tmp_path / name.removesuffix(".part"), RunSettings(resume=True))
        assert (tmp_path / name).read_bytes() == data


@pytest.mark.parametrize("form", [form for form in WRITERS if not WRITERS[form].grows])
def test_whole_file_of_another_is_not_taken_for_complete(form, tmp_path, ner, texts_file):
    output = tmp_path / f"out.{form}"
    shorter = write_jsonl(tmp_path / "other.jsonl", ({"text": text} for text in TEXTS[:5]))
    annotate(ner, [shorter], output, RunSettings(form))
    assert annotate(ner, [shorter], output, RunSettings(form, resume=True)).n_records == 0
    of_another_run = output.read_bytes()
    for data in (
        b"my notes\n",
        b"id,name\n1,Kolb\n",
        of_another_run[:-9] if form in ("spacy", "csv") else b"",
        of_another_run,
    ):
        output.write_bytes(data)
        with pytest.raises(ValueError, match="was not written by a run over these inputs"):
            annotate(ner, [texts_file], output, RunSettings(form, resume=True))
        assert output.read_bytes() == data


def test_going_on_with_another_run(tmp_path, ner, texts_file):
    ner.add_pipe("annotate_tests_stops").after = 15
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        annotate(ner, [texts_file], output, RunSettings(batch_size=4))
    ner.remove_pipe("annotate_tests_stops")
    with pytest.raises(FileExistsError, match="a run is unfinished"):
        annotate(ner, [texts_file], output, RunSettings(batch_size=4))
    with pytest.raises(ValueError, match="batch_size: 4, now 5"):
        annotate(ner, [texts_file], output, RunSettings(batch_size=5, resume=True))
    other = write_jsonl(tmp_path / "other.jsonl", ({"text": text} for text in TEXTS))
    with pytest.raises(ValueError, match="inputs"):
        annotate(ner, [other], output, RunSettings(batch_size=4, resume=True))
    (tmp_path / "out.jsonl.run").unlink()
    with pytest.raises(ValueError, match=r"has 12 records, and no out.jsonl.run says of which run"):
        annotate(ner, [texts_file], output, RunSettings(batch_size=4, resume=True))
    with pytest.raises(ValueError, match="does not have the text"):
        # Even where nothing says which run it was
        reordered = write_jsonl(tmp_path / "other.jsonl", ({"text": text} for text in reversed(TEXTS)))
        annotate(ner, [reordered], output, RunSettings(resume=True))
    with pytest.raises(ValueError, match="the output has 12 records, the input 2"):
        shorter = write_jsonl(tmp_path / "other.jsonl", ({"text": text} for text in TEXTS[:2]))
        annotate(ner, [shorter], output, RunSettings(resume=True))
    assert len(read_jsonl(output)) == 12


def test_two_runs_at_once(tmp_path, ner, texts_file):
    fcntl = pytest.importorskip("fcntl")
    output = tmp_path / "out.jsonl"
    with output.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing it"):
            annotate(ner, [texts_file], output, RunSettings(resume=True))
