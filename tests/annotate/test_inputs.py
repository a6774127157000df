"""Which files are read, and in which order."""

import os
import threading
from pathlib import Path

import pytest

from spacy_bertner.annotate.readers import ReadSettings
from spacy_bertner.annotate.run import RunSettings, annotate

from .conftest import TEXTS, read_jsonl, write_jsonl


def test_inputs_stay_in_order_and_come_once(tmp_path, ner):
    for name in "cab":
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.txt").write_text("d", encoding="utf8")
    (tmp_path / "picture.png").write_bytes(b"x")
    output = tmp_path / "out.jsonl"
    given = [tmp_path / "c.jsonl", tmp_path, f"{tmp_path}/*.jsonl"]
    summary = annotate(ner, given, output)
    assert [record["text"] for record in read_jsonl(output)] == ["c", "a", "b", "d"]
    assert summary.left_out == [str(tmp_path / "picture.png")]
    # Neither is the output of one run the input of the next
    annotate(ner, given, output, RunSettings(force=True))
    assert len(read_jsonl(output)) == 4


def test_pipes_and_names_that_are_no_text(tmp_path, ner):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes with names")
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=(tmp_path / "pipe").write_text, args=("\n".join(TEXTS),))
    thread.start()
    annotate(ner, [tmp_path / "pipe"], tmp_path / "out.jsonl", reading=ReadSettings("lines"))
    thread.join()
    assert [record["text"] for record in read_jsonl(tmp_path / "out.jsonl")] == TEXTS
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.txt")
    Path(name).write_text("Kolb", encoding="utf8")
    annotate(ner, [name], tmp_path / "other.jsonl")
    assert read_jsonl(tmp_path / "other.jsonl")[0]["source"] == name
