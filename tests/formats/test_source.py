"""Inputs: found by name, folder or pattern; read from files, streams, pipes and lines."""

import io
import os
import subprocess
from pathlib import Path

import pytest

from spacy_bertner.formats.conll.layout import is_conll
from spacy_bertner.formats.convert import ConversionError, convert, read_conll
from spacy_bertner.formats.source import Source, find_files

from .helpers import entities


def test_inputs(tmp_path, monkeypatch):
    """Folders with folders in them, globs, a file named twice."""
    monkeypatch.chdir(tmp_path)
    Path("in/sub/.git").mkdir(parents=True)
    for name in ("in/b.conll", "in/sub/a.x.tsv", "in/sub/.git/c.conll", "in/README.txt", "in/d.md"):
        Path(name).write_text("A B-X\n", encoding="utf-8")
    book = convert(["in", "in/*.conll", "in/b.conll"], "out")
    assert [Path(record.input) for record in book.files] == [
        Path("in/b.conll"),
        Path("in/sub/a.x.tsv"),
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.x.spacy", "b.spacy"]
    assert sorted(book.left_out) == ["in/README.txt", "in/d.md"]


def test_read_conll_sources(tmp_path):
    lines = ["EU B-ORG", "rejects O"]
    path = tmp_path / "a.conll"
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = [[(0, 1, "ORG")]]
    assert entities(read_conll(path)) == expected
    assert entities(read_conll(str(path))) == expected
    assert entities(read_conll(lines)) == expected
    assert entities(read_conll(iter(line + "\n" for line in lines))) == expected
    with path.open("rb") as stream:
        assert entities(read_conll(stream)) == expected
    with path.open(encoding="utf-8") as stream:
        assert entities(read_conll(stream)) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_can_be_read(tmp_path):
    pipe = tmp_path / "a.conll"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["sh", "-c", f"printf 'EU B-ORG\\nx O\\n' > '{pipe}'"])
    assert entities(read_conll(pipe)) == [[(0, 1, "ORG")]]
    assert writer.wait() == 0


def test_outputs_are_no_inputs(tmp_path):
    """Files that the run writes are skipped in folders and patterns, and a fault where given themselves."""
    for name in ("a.conll", "out.conll", "b.md"):
        (tmp_path / name).write_text("A B-X\n", encoding="utf-8")
    faults, outputs = ConversionError(), [tmp_path / "out.conll"]
    files, left_out = find_files([tmp_path, tmp_path / "*.conll", "-", "-"], is_conll, faults, outputs)
    assert files == [tmp_path / "a.conll", None] and left_out == [str(tmp_path / "b.md")]
    assert faults.total == 0
    find_files([tmp_path / "out.conll", tmp_path / "none"], is_conll, faults, outputs)
    assert [fault.what for fault in faults.faults] == [
        "is the output too: name another file for one of them",
        "no such file or folder",
    ]


def test_a_stream_can_be_read_again_after_a_reader_that_stopped_early():
    source = Source.from_stream(io.BytesIO(b"a\nb\n"), "s")
    for _ in range(2):
        lines = source.lines("utf-8")
        assert next(lines) == "a\n"
        lines.close()
    assert list(source.lines("utf-8")) == ["a\n", "b\n"]
