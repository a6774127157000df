"""Converting files: nothing lost, every fault by file and line, whole outputs or none."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from spacy.tokens import DocBin
from spacy.vocab import Vocab

from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert, read_conll

from .helpers import DATA, DIALECTS, from_bin, needs_data, run, view


def raw_blocks(path):
    """Sentences as lists of (word, tag), by cutting the text; a mark may lack its blank line."""
    text = path.read_text(encoding="utf-8").replace("-DOCSTART- O\n", "\n")
    for block in re.split(r"\n[ \t]*(?=\n)", text):
        lines = [line for line in block.split("\n") if line.strip(" \t")]
        if lines:
            yield [tuple(re.split(r"[ \t]", line)) for line in lines]


def chunk_ends(tags):
    """Entities as (start, end, label): where a chunk ends, after `conlleval`, and how long it is.
    The labels come with their hyphens."""
    found, start = [], None
    padded = [*tags, "O"]
    for i, tag in enumerate(padded):
        prefix, _, label = tag.partition("-")
        prev_prefix, _, prev_label = padded[i - 1].partition("-") if i else ("O", "", "")
        ends = start is not None and (prefix in "OBS" or label != prev_label or prev_prefix in ("E", "S"))
        if ends:
            found.append((start, i, prev_label))
            start = None
        if prefix != "O" and start is None:
            start = i
    return found


@needs_data
@pytest.mark.parametrize(
    "name, n_docs, n_sents, n_tokens",
    [
        ("wikigold/train.conll", 105, 1387, 31962),
        ("wikigold/dev.conll", 20, 123, 2922),
        ("wikigold/test.conll", 20, 186, 4123),
        ("wnut17/wnut17train.conll", None, 3394, 62730),
        ("wnut17/emerging.dev.conll", None, 1009, 15733),
        ("ncbi_disease/iob/train.tsv", None, 5424, 135701),
        ("ncbi_disease/iob/devel.tsv", None, 923, 23969),
        ("ncbi_disease/iob/test.tsv", None, 940, 24497),
    ],
)
def test_real_corpora_lose_nothing(name, n_docs, n_sents, n_tokens, tmp_path):
    blocks = list(raw_blocks(DATA / name))
    book = convert([DATA / name], tmp_path, ReadOptions())
    (record,) = book.files
    docs = from_bin(tmp_path / f"{Path(name).stem}.spacy")
    assert len(docs) == (n_docs or n_sents)
    assert record.sentences == n_sents == len(blocks)
    assert record.tokens == n_tokens == sum(map(len, docs))
    words = [word for block in blocks for word, _ in block]
    assert [token.text for doc in docs for token in doc] == words
    expected, offset = [], 0
    for block in blocks:
        for start, end, label in chunk_ends([tag for _, tag in block]):
            expected.append((offset + start, offset + end, label))
        offset += len(block)
    got, offset = [], 0
    for doc in docs:
        got.extend((offset + e.start, offset + e.end, e.label_) for e in doc.ents)
        offset += len(doc)
    assert got == expected
    assert record.entities == Counter(label for _, _, label in expected)
    assert not record.entries
    tags = [tag for block in blocks for _, tag in block]
    if "wikigold" not in name:
        assert sum(record.entities.values()) == sum(tag[0] == "B" for tag in tags)


def test_all_faults_of_a_run_at_once(tmp_path):
    (tmp_path / "a.conll").write_text("A O\nb\nC I-X\nd O\ne B-X\n", encoding="utf-8")
    (tmp_path / "b.conll").write_text("ok B-X\n", encoding="utf-8")
    (tmp_path / "c.conll").write_text("A O\r\nb B_X\r\nc B-X\r\n", encoding="utf-8")
    out = tmp_path / "out"
    result = run(tmp_path / "a.conll", tmp_path / "b.conll", tmp_path / "c.conll", out)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{tmp_path}/a.conll:2: too few columns: 1, not 2: b",
        f"{tmp_path}/a.conll:3: I-X follows _ (scheme IOB2): C I-X",
        f"{tmp_path}/c.conll:2: tag 'B_X' is of no known form: b B_X",
    ]
    assert not out.exists()


def test_only_the_first_fifty_faults_are_shown(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("A B-X\n" + "b\n\n" * 130 + "c O\n" * 200, encoding="utf-8")
    result = run(path, tmp_path / "out")
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert len(lines) == 51
    assert lines[0] == f"{path}:2: too few columns: 1, not 2: b"
    assert lines[50] == "… and 80 more faults (130 in all)"


@pytest.mark.parametrize(
    "args, message",
    [
        (["missing.conll", "out"], "missing.conll: no such file or folder"),
        (["*.nothing", "out"], "*.nothing: no file matches this pattern"),
        (["hollow", "out"], "hollow: no file with a known ending in this folder"),
        (["other", "out"], "other: no file with a known ending in this folder"),
        (["a.conll", "a.conll/x"], ""),
        (["a.conll", "b.txt"], "b.txt: the output must be a folder, and this is a file"),
        (["a.conll", "out", "--scheme", "XYZ"], "scheme='XYZ'"),
        (["a.conll", "out", "--encoding", "nope"], "encoding='nope'"),
        (["a.conll", "out", "--encoding", "hex"], "encoding='hex'"),
        (["a.conll", "out", "--lang", "qq"], "lang='qq'"),
        (["a.conll", "out", "--n-sents", "-1"], "n_sents=-1"),
        (["a.conll", "out", "--tag-col", "0"], "tag_col='0'"),
        (["a.conll", "out", "--merge", "../x"], "../x: the name of the merged file"),
        (["a.conll", "out", "--ledger", "a.conll"], "a.conll: would overwrite an input"),
        (["a.conll", "out", "--ledger", "out/a.spacy"], "would overwrite an output"),
        (["a.conll", "sub/a.tsv", "out"], "sub/a.tsv: would overwrite out/a.spacy"),
        (["out/a.spacy", "out"], "would overwrite an input"),
        (["a.conll", "out", "--ledger", "sub"], "sub: would be a file, and this is a folder"),
    ],
)
def test_users_mistakes_are_one_line(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("hollow", "other", "sub", "out"):
        Path(folder).mkdir()
    for name in ("a.conll", "sub/a.tsv", "b.txt", "other/x.pdf"):
        Path(name).write_text("A\tB-X\n", encoding="utf-8")
    if args[0] == "out/a.spacy":
        Path("out/a.spacy").write_text("A\tB-X\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    result = run(*args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_itself(tmp_path):
    """Through `python -m spacy`, with standard input and without a traceback."""
    command = [sys.executable, "-m", "spacy", "bertner", "convert", "-", str(tmp_path / "out")]
    text = "EU B-ORG\nrejects O\n"
    good = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    assert good.returncode == 0, good.stderr
    assert b"IOB2" in good.stdout
    (doc,) = from_bin(tmp_path / "out" / "stdin.spacy")
    assert [view(ent) for ent in doc.ents] == ["0-1 ORG EU"]
    bad = subprocess.run(command, input=b"EU B-ORG\nrejects\n", capture_output=True, check=False)
    assert bad.returncode == 1
    assert bad.stderr == b"<stdin>:2: too few columns: 1, not 2: rejects\n"


def test_an_error_leaves_the_old_output(tmp_path):
    good, bad = tmp_path / "a.conll", tmp_path / "b.conll"
    good.write_text("A B-X\n", encoding="utf-8")
    bad.write_text("A B-X\nb\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.spacy").write_bytes(b"old")
    with pytest.raises(ConversionError):
        convert([good, bad], out, ledger=tmp_path / "ledger.json")
    assert (out / "a.spacy").read_bytes() == b"old"
    assert [path.name for path in out.iterdir()] == ["a.spacy"]
    assert not (tmp_path / "ledger.json").exists()


def test_a_failure_to_write_leaves_the_old_output(tmp_path, monkeypatch):
    path = tmp_path / "a.conll"
    path.write_text("A B-X\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.spacy").write_bytes(b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run(path, out)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert (out / "a.spacy").read_bytes() == b"old"
    assert [path.name for path in out.iterdir()] == ["a.spacy"]


def test_a_kill_leaves_the_old_output(tmp_path):
    """Killed between the writing and the move: what is there is the old file, whole."""
    path = tmp_path / "a.conll"
    path.write_text("A B-X\n", encoding="utf-8")
    (tmp_path / "a.spacy").write_bytes(b"old")
    code = (
        "import os, signal\n"
        "from spacy_bertner.formats.convert import convert\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"convert([{str(path)!r}], {str(tmp_path)!r})\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "a.spacy").read_bytes() == b"old"
    # What the killed run left behind is not taken for a corpus.
    (left,) = (p for p in tmp_path.iterdir() if p.name not in ("a.conll", "a.spacy"))
    assert left.name.startswith(".") and not left.name.endswith(".spacy")
    convert([path], tmp_path)
    assert len(from_bin(tmp_path / "a.spacy")) == 1


def test_conservation_is_checked(tmp_path, monkeypatch):
    """Should the writing lose a word or an entity, the run fails."""
    path = tmp_path / "a.conll"
    path.write_text("A B-X\nb O\nc B-X\n", encoding="utf-8")
    add = DocBin.add
    monkeypatch.setattr(DocBin, "add", lambda self, doc: add(self, doc[:-1].as_doc()))
    with pytest.raises(ConversionError, match="3 words read, 2 written"):
        convert([path], tmp_path)

    def forget(self, doc):
        doc.ents = doc.ents[:-1]
        add(self, doc)

    monkeypatch.setattr(DocBin, "add", forget)
    with pytest.raises(ConversionError, match="entities read"):
        convert([path], tmp_path)
    assert not (tmp_path / "a.spacy").exists()


def test_merge(tmp_path):
    for name, word in (("a", "A"), ("b", "B")):
        (tmp_path / f"{name}.conll").write_text(f"{word} B-{word}\nx O\n", encoding="utf-8")
    book = convert([tmp_path], tmp_path / "out", merge="all")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all.spacy"]
    docs = from_bin(tmp_path / "out" / "all.spacy")
    assert [view(doc.ents[0]) for doc in docs] == ["0-1 A A", "0-1 B B"]
    assert [record.tokens for record in book.files] == [2, 2]
    assert book.entities == {"A": 1, "B": 1}


@pytest.mark.parametrize("n", [1, 2])
def test_an_output_that_ends_in_spacy_is_a_file(n, tmp_path):
    paths = [tmp_path / f"{i}.conll" for i in range(n)]
    for path in paths:
        path.write_text("A B-X\n", encoding="utf-8")
    for _ in range(2):  # overwritten like any other output
        assert run(*paths, tmp_path / "deep" / "out.spacy").exit_code == 0
        assert len(from_bin(tmp_path / "deep" / "out.spacy")) == n
    (tmp_path / "folder.spacy").mkdir()
    assert run(paths[0], tmp_path / "folder.spacy").exit_code == 0
    assert (tmp_path / "folder.spacy" / "0.spacy").is_file()
    result = run(paths[0], tmp_path / "0.conll" / "out.spacy")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1


def test_the_ledger_takes_its_place_last(tmp_path, monkeypatch):
    """So that after a kill between two moves no new ledger stands beside an old output."""
    for name in "ab":
        (tmp_path / f"{name}.conll").write_text("A B-X\n", encoding="utf-8")
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (moved.append(Path(target).name), replace(self, target)))
    convert([tmp_path / "a.conll", tmp_path / "b.conll"], tmp_path, ledger=tmp_path / "ledger.json")
    assert moved == ["b.spacy", "a.spacy", "ledger.json"]


def test_read_conll_takes_the_vocab_given_even_an_empty_one():
    vocab = Vocab()
    assert len(vocab) == 0
    for doc in read_conll(DIALECTS / "conll2003.conll", vocab=vocab):
        assert doc.vocab is vocab


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Reading five times as many documents takes no more memory; nor do five times the faults."""
    import tracemalloc

    def peak(n_docs, last):
        path = tmp_path / "a.conll"
        text = "-DOCSTART- O\n\n" + "some O\nword B-X\nor O\nother I-X\n\n".replace("I-X", last) * 20
        path.write_text(text * n_docs, encoding="utf-8")
        tracemalloc.start()
        try:
            n_tokens = sum(len(doc) for doc in read_conll(path, vocab=Vocab()))
            assert n_tokens == 80 * n_docs
        except ConversionError as err:
            assert err.total == 20 * n_docs
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    for last in ("B-X", "I-X"):
        peak(10, last)
        assert peak(500, last) < 1.3 * peak(100, last) + 100_000
