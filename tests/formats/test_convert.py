"""Reading CoNLL files: every dialect, every fault, nothing lost.

What is expected is written by hand beside each small file in `dialects/`, or counted in the raw
files by other means than the reader's.
"""

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from spacy.cli._util import app
from spacy.tokens import Doc, DocBin
from spacy.training.converters import conll_ner_to_docs
from spacy.vocab import Vocab
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401 (registers the command)
from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert, read_conll

DIALECTS = Path(__file__).parent / "dialects"
NAMES = sorted(path.name.removesuffix(".json") for path in DIALECTS.glob("*.json"))
DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data) are not here")


def read(text, **options):
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return list(read_conll(io.BytesIO(data), ReadOptions(**options), vocab=Vocab()))


def faults(text, **options):
    with pytest.raises(ConversionError) as caught:
        read(text, **options)
    return [(fault.line, fault.what) for fault in caught.value.faults]


def view(span):
    return f"{span.start}-{span.end} {span.label_} {span.text}"


def sentences(doc):
    words: list[list[str]] = []
    for token in doc:
        if token.is_sent_start or not words:
            words.append([])
        words[-1].append(token.text)
    return words


def entities(docs):
    return [[(e.start, e.end, e.label_) for e in doc.ents] for doc in docs]


def from_bin(path):
    return list(DocBin().from_disk(path).get_docs(Vocab()))


def run(*args, stdin=None):
    return CliRunner().invoke(app, ["bertner", "convert", *map(str, args)], input=stdin)


def check_docs(docs, expected):
    assert len(docs) == len(expected)
    for doc, want in zip(docs, expected, strict=True):
        words = [word for sentence in want["sents"] for word in sentence]
        assert [token.text for token in doc] == words
        if want.get("sentences_known", True):
            assert sentences(doc) == want["sents"]
            assert all(token.is_sent_start is not None for token in doc)
        else:
            assert not any(token.is_sent_start for token in doc[1:])
            assert doc[-1].is_sent_start is None or len(doc) == 1
        assert [view(ent) for ent in doc.ents] == want["ents"]
        assert [token.tag_ for token in doc] == want.get("tags", [""] * len(words))
        assert [token.i for token in doc if token.ent_iob == 0] == want.get("missing", [])
        assert doc.has_unknown_spaces == ("text" not in want)
        if "text" in want:
            assert doc.text == want["text"]
        assert ("sc" in doc.spans) == ("spans" in want)
        if "spans" in want:
            assert [view(span) for span in doc.spans["sc"]] == want["spans"]


# --- dialects


def test_there_are_dialects():
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_dialect(name, tmp_path):
    expected = json.loads((DIALECTS / f"{name}.json").read_text(encoding="utf-8"))
    options = ReadOptions(**expected.get("options", {}))
    check_docs(list(read_conll(DIALECTS / name, options)), expected["docs"])
    # The same through the DocBin, and with the ledger's figures.
    book = convert([DIALECTS / name], tmp_path, options)
    check_docs(from_bin(tmp_path / f"{Path(name).stem}.spacy"), expected["docs"])
    (record,) = book.files
    assert record.scheme == expected["scheme"]
    assert record.documents == len(expected["docs"])
    sents = [sentence for doc in expected["docs"] for sentence in doc["sents"]]
    assert record.sentences in (None, len(sents))
    assert record.tokens == sum(len(sentence) for sentence in sents)
    labels = Counter(ent.split(" ")[1] for doc in expected["docs"] for ent in doc["ents"])
    assert record.entities == labels
    assert record.missing == sum(len(doc.get("missing", [])) for doc in expected["docs"])


# --- real corpora: words and entities counted in the raw text


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
    book = convert([DATA / name], tmp_path, ReadOptions(n_sents=1 if n_docs is None else 0))
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


@needs_data
@pytest.mark.parametrize("split", ["train", "devel", "test"])
def test_ncbi_in_two_schemes_is_the_same(split, tmp_path):
    for scheme in ("iob", "iobes"):
        convert([DATA / "ncbi_disease" / scheme / f"{split}.tsv"], tmp_path / scheme)
    one, two = (tmp_path / scheme / f"{split}.spacy" for scheme in ("iob", "iobes"))
    assert one.read_bytes() == two.read_bytes()


# --- spaCy's own converter, on the one form that it knows

CLEAN = "\n".join(
    [
        "-DOCSTART- -X- O O\n",
        "EU NNP B-NP B-ORG",
        "rejects VBZ B-VP O",
        "German JJ B-NP B-MISC",
        "call NN I-NP I-MISC",
        "British JJ B-NP B-MISC",
        ". . O O\n",
        "Peter NNP B-NP B-PER",
        "Blackburn NNP I-NP I-PER\n",
        "-DOCSTART- -X- O O\n",
        "BRUSSELS NNP B-NP B-LOC",
        "1996-08-22 CD I-NP O\n",
    ]
)


def same_as_spacy(text):
    theirs = list(conll_ner_to_docs(text, n_sents=0, no_print=True))
    ours = read(text)
    assert [[t.text for t in doc] for doc in ours] == [[t.text for t in doc] for doc in theirs]
    assert [[t.tag_ for t in doc] for doc in ours] == [[t.tag_ for t in doc] for doc in theirs]
    assert entities(ours) == entities(theirs)
    starts = [[bool(t.is_sent_start) for t in doc] for doc in ours]
    assert starts == [[bool(t.is_sent_start) for t in doc] for doc in theirs]


def test_same_entities_as_spacy_on_clean_conll2003():
    same_as_spacy(CLEAN)


# --- faults

FAULTS = {
    "one column in a line": ("A O\nb\nC B-X\n", {}, [(2, "too few columns: 1, not 2")]),
    "two columns of four": (
        "A N x O\nb O\nC N x B-X\n",
        {},
        [(2, "too few columns: 2, not 4")],
    ),
    "a column too many": ("A O\nb c O\nC B-X\n", {}, [(2, "too many columns: 3, not 2")]),
    "underscore": (
        "A O\nb B_PER\nC B-X\n",
        {},
        [(2, "tag 'B_PER' is of no known form")],
    ),
    "I- after O": (
        "A O\nb I-X\nc O\nD B-X\n",
        {},
        [(2, "I-X follows O (scheme IOB2)")],
    ),
    "I- of another label": (
        "A B-X\nb I-Y\n",
        {},
        [(2, "I-Y follows B-X (scheme IOB2)")],
    ),
    "I- at a start": (
        "A B-X\n\nb I-X\n",
        {},
        [(3, "I-X begins a sentence (scheme IOB2)")],
    ),
    "never closed": (
        "A B-X\nb O\nc B-X\nd E-X\ne S-X\n",
        {},
        [(1, "B-X is not closed: O follows (scheme BIOES)")],
    ),
    "never closed at an end": (
        "a B-X\nb E-X\nc S-X\nd B-X\n",
        {},
        [(4, "B-X is not closed: the sentence ends (scheme BIOES)")],
    ),
    "prefix of another scheme": (
        "a B-X\nb E-X\nc B-X\nd I-X\n",
        {"scheme": "IOB2"},
        [(2, "E-X is no tag of scheme IOB2")],
    ),
    "B- in IOB1": (
        "a B-X\nb I-X\n",
        {"scheme": "IOB1"},
        [(1, "B-X begins a sentence: in scheme IOB1, B- only separates two entities of one label")],
    ),
    "no label": ("a B\nb O\n", {}, [(1, "tag 'B' names no label")]),
    "words only": (
        "A\nb\nc\n",
        {},
        [(1, "the file has one column: words without tags")],
    ),
    "no tags": (
        "A NN\nb VB\nc NN\n",
        {},
        [(1, "column 2 holds no tags, only NN, VB")],
    ),
    "empty": ("", {}, [(1, "the file holds no tokens")]),
    "blank": ("\n \n\t\n", {}, [(1, "the file holds no tokens")]),
    "marks only": ("-DOCSTART- O\n\n-DOCSTART- O\n", {}, [(1, "the file holds no tokens")]),
    "undecodable": (
        b"A O\ncaf\xe9 B-X\nb O\n",
        {},
        [(2, "not utf-8: byte 0xe9")],
    ),
    "no word": ("A\tO\n\tB-X\nb\tO\n", {}, [(2, "no word in this line")]),
    "no such column": (
        "A O\n",
        {"tag_col": 3},
        [(1, "tag column: no column 3; the file has 2")],
    ),
    "no such name": (
        "A O\n",
        {"tag_col": "NER"},
        [(1, "tag column: no column is called 'NER'; the file names no columns")],
    ),
    "a token # with a bad tag": (
        "# B_X\nb O\nc B-X\n",
        {},
        [(1, "tag 'B_X' is of no known form")],
    ),
    "no entities in CoNLL-U": (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n",
        {},
        [(1, "no named entities: neither a column of tags nor name=B-PER in MISC")],
    ),
    "a short line of CoNLL-U": (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X\n2\tb\t_\tX\n",
        {},
        [(2, "too few columns: 4, not 10")],
    ),
    "a line without its index": (
        "1\ta\tO\n2\tb\tB-X\nx\tc\tO\n4\td\tO\n5\te\tO\n6\tf\tO\n7\tg\tO\n8\th\tO\n",
        {},
        [(3, "'x' is no index of a token")],
    ),
    "a word without its tag, in a line": (
        "a|O b c|B-X d|O e|O f|O\ng|O h|O i|O j|O k|O l|O\n",
        {},
        [(1, "'b' has 1 of 2 fields")],
    ),
    "one column for two things": (
        "a O\nb B-X\n",
        {"tag_col": 1},
        [(1, "column 1 cannot be two things at once")],
    ),
    "most lines without a tag": (
        "a\nb\nc O\n",
        {},
        [(1, "too few columns: 1, not 2"), (2, "too few columns: 1, not 2")],
    ),
    "UTF-16": (
        "A O\n".encode("utf-16"),
        {},
        [(None, "starts with the byte order mark of UTF-16: set the encoding")],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault(case):
    text, options, expected = FAULTS[case]
    assert faults(text, **options) == expected


def test_all_faults_of_a_run_at_once(tmp_path):
    (tmp_path / "a.conll").write_text("A O\nb\nC I-X\nd O\ne B-X\n", encoding="utf-8")
    (tmp_path / "b.conll").write_text("ok B-X\n", encoding="utf-8")
    (tmp_path / "c.conll").write_text("A O\r\nb B_X\r\n", encoding="utf-8")
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


# --- repair

REPAIRS = [
    (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X\n2\tb\t_\tX\n",
        "a b",
        ["B-X", "-"],
        [2],
    ),
    # text, words, ENT_IOB by letter with label, (line, action) of the entries
    ("A B-X\nb\nC I-X\n", "A b C", ["B-X", "-", "B-X"], [2, 3]),
    ("A x O\nb B-X\nC y I-X\n", "A b C", ["O", "B-X", "I-X"], [2]),
    ("A O\nNew York B-X\nC I-X\n", "A|New York|C", ["O", "B-X", "I-X"], [2]),
    ("A\tO\nb\tB-X\tmore\nC\tI-X\n", "A b C", ["O", "B-X", "I-X"], [2]),
    ("A O\nb B_PER\nC i-PER\n", "A b C", ["O", "B-PER", "I-PER"], [2, 3]),
    ("A o\nb 0\nC B-X\nd XYZ\ne B\n", "A b C d e", ["O", "O", "B-X", "-", "-"], [1, 2, 4, 5]),
    ("A B-X\nb O\nc I-X\nd I-Y\n", "A b c d", ["B-X", "O", "B-X", "B-Y"], [3, 4]),
    ("a B-X\nb O\nc S-X\nd I-X\ne E-X\n", "a b c d e", ["B-X", "O", "B-X", "B-X", "I-X"], [1, 4]),
    (b"caf\xe9 B-X\nb O\n", "caf\ufffd b", ["B-X", "O"], [1]),
    ("A\tB-X\n\tI-X\nb\tI-X\n", "A b", ["B-X", "I-X"], [2]),
]


@pytest.mark.parametrize("text, words, tags, lines", REPAIRS)
def test_repair(text, words, tags, lines, tmp_path):
    path = tmp_path / "a.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    with pytest.raises(ConversionError) as caught:
        convert([path], tmp_path)
    assert [fault.line for fault in caught.value.faults] == lines
    book = convert([path], tmp_path, ReadOptions(repair=True), ledger=tmp_path / "ledger.json")
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert [token.text for token in doc] == words.split("|" if "|" in words else " ")
    got = []
    for token in doc:
        iob = token.ent_iob_ or "-"
        got.append(f"{iob}-{token.ent_type_}" if token.ent_type_ else iob)
    assert got == tags
    assert [entry.line for entry in book.files[0].entries] == lines
    noted = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    raw = text if isinstance(text, str) else text.decode("utf-8", "replace")
    rows = raw.split("\n")
    for entry in noted["files"][0]["entries"]:
        assert entry["text"].encode("utf-8", "replace")
        assert entry["reason"] and entry["action"]
        if isinstance(text, str):
            assert entry["text"] == rows[entry["line"] - 1]


def test_repair_does_not_excuse_everything():
    for text in ("", "A\nb\n", "A NN\nb VB\n"):
        assert faults(text, repair=True) == faults(text)


def test_dropped_tags_of_empty_nodes_are_noted(tmp_path):
    row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\t{}\n"
    text = row.format("1", "a", "name=O") + row.format("1.1", "b", "name=B-X")
    (tmp_path / "a.conllu").write_text(text, encoding="utf-8")
    (record,) = convert([tmp_path / "a.conllu"], tmp_path).files
    assert record.empty_nodes == 1
    assert [(entry.line, entry.action) for entry in record.entries] == [(2, "dropped")]


# --- what is written, and when


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
    path.write_text("A B-X\nb O\n\nc B-X\n", encoding="utf-8")
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


def test_merge(tmp_path):
    for name, word in (("a", "A"), ("b", "B")):
        (tmp_path / f"{name}.conll").write_text(f"{word} B-{word}\nx O\n", encoding="utf-8")
    book = convert([tmp_path], tmp_path / "out", merge="all")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all.spacy"]
    docs = from_bin(tmp_path / "out" / "all.spacy")
    assert [view(doc.ents[0]) for doc in docs] == ["0-1 A A", "0-1 B B"]
    assert [record.tokens for record in book.files] == [2, 2]
    assert book.entities == {"A": 1, "B": 1}


def test_ledger(tmp_path):
    path, ledger = tmp_path / "a.conll", tmp_path / "deep" / "ledger.json"
    path.write_text("# a = b\nA NN B-X\nb NN _\n\nc NN B-Y\nd NN O\n", encoding="utf-8")
    result = run(path, tmp_path, "--ledger", ledger)
    assert result.exit_code == 0
    assert "X 1, Y 1" in result.stdout
    noted = json.loads(ledger.read_text(encoding="utf-8"))
    assert noted == {
        "files": [
            {
                "input": str(path),
                "output": str(tmp_path / "a.spacy"),
                "layout": "columns",
                "columns": {"word": "1", "tag": "3", "pos": "2"},
                "scheme": "IOB2",
                "documents_by": "every 10 sentences",
                "spaces": "unknown",
                "documents": 1,
                "sentences": 2,
                "tokens": 4,
                "missing": 1,
                "entities": {"X": 1, "Y": 1},
                "layer": {},
                "comments": 1,
                "multi_word_tokens": 0,
                "empty_nodes": 0,
                "misaligned": [],
                "entries": [],
            }
        ],
        "left_out": [],
        "totals": {
            "documents": 1,
            "tokens": 4,
            "entities": {"X": 1, "Y": 1},
            "misaligned": 0,
            "entries": 0,
        },
    }


def test_entities_that_would_not_align_are_named(tmp_path):
    """With known spaces the corpus reader tokenises again: `U.S|.` becomes `U.S.`."""
    row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\t{}\n"
    rows = [
        row.format(1, "the", "_"),
        row.format(2, "U.S", "name=B-LOC|SpaceAfter=No"),
        row.format(3, ".", "_"),
        row.format(4, "Rome", "name=B-LOC"),
    ]
    path = tmp_path / "a.conllu"
    path.write_text("".join(rows), encoding="utf-8")
    (record,) = convert([path], tmp_path).files
    assert [(lost.document, lost.start, lost.end, lost.text) for lost in record.misaligned] == [(1, 4, 7, "U.S")]
    import spacy
    from spacy.training import Example

    (doc,) = from_bin(tmp_path / "a.spacy")
    nlp = spacy.blank("en")
    aligned = Example(nlp.make_doc(doc.text), doc).get_aligned_spans_y2x(doc.ents)
    assert [span.text for span in aligned] == ["Rome"]
    # Without known spaces nothing is tokenised again, and nothing can be lost.
    assert all(doc.has_unknown_spaces for doc in read_conll(DIALECTS / "conll2003.conll"))


def test_missing_annotation_is_masked():
    from spacy.training import Example

    (doc,) = read("Anna B-PER\nmet _\nBob O\n")
    assert [token.ent_iob for token in doc] == [3, 0, 2]
    eg = Example(Doc(doc.vocab, words=["Anna", "met", "Bob"]), doc)
    assert eg.get_aligned_ner() == ["U-PER", None, "O"]


def test_read_conll_takes_the_vocab_given_even_an_empty_one():
    vocab = Vocab()
    assert len(vocab) == 0
    for doc in read_conll(DIALECTS / "conll2003.conll", vocab=vocab):
        assert doc.vocab is vocab


def test_read_conll_sources(tmp_path):
    lines = ["EU B-ORG", "rejects O", "", "x O"]
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


# --- properties

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=8).filter(
    lambda w: not w.isspace() and not w.startswith(("#", "-DOCSTART")) and "|" not in w
)
LABELS = st.sampled_from(["PER", "LOC", "product-car", "a/b", "O", "é"])


@st.composite
def corpora(draw):
    """Documents of sentences of (words, entities): what there is to find."""
    docs = []
    for _ in range(draw(st.integers(1, 3))):
        doc = []
        for _ in range(draw(st.integers(1, 3))):
            words, ents = [], []
            for _ in range(draw(st.integers(1, 4))):
                n = draw(st.integers(1, 3))
                label = draw(st.one_of(st.none(), LABELS))
                if label is not None:
                    ents.append((len(words), len(words) + n, label))
                words.extend(draw(WORDS) for _ in range(n))
            doc.append((words, ents))
        docs.append(doc)
    return docs


def encode(n_tokens, ents, scheme):
    tags = ["O"] * n_tokens
    for i, (start, end, label) in enumerate(ents):
        if scheme in ("IO", "IOB1"):
            follows = i > 0 and ents[i - 1][1:] == (start, label)
            letters = ["B" if follows else "I"] + ["I"] * (end - start - 1)
        elif scheme == "IOB2":
            letters = ["B"] + ["I"] * (end - start - 1)
        else:
            begin, inside, last, single = scheme
            n = end - start
            letters = [single] if n == 1 else [begin, *[inside] * (n - 2), last]
        tags[start:end] = [f"{letter}-{label}" for letter in letters]
    return tags


SCHEMES = {
    "IOB1": "IOB1",
    "IOB2": "IOB2",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}


def write(docs, tags_of, layout):
    """The text of a corpus in a layout."""
    out = []
    for number, doc in enumerate(docs):
        if layout == "conllu":
            out.append(f"# newdoc id = {number}")
        elif layout != "inline":
            mark = {"space": "-DOCSTART- -X- O", "tab": "-DOCSTART-\t-X-\tO"}.get(layout)
            out += [mark or "-DOCSTART-", ""]
        else:
            out.append("-DOCSTART-|O")
        for words, ents in doc:
            tags = tags_of(words, ents)
            pairs = list(zip(words, tags, strict=True))
            if layout == "space":
                out += [f"{word} NN {tag}" for word, tag in pairs]
            elif layout in ("tab", "crlf"):
                out += [f"{word}\t{tag}" for word, tag in pairs]
            elif layout == "conllu":
                row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\tname={}"
                out += [row.format(i, word, tag) for i, (word, tag) in enumerate(pairs, 1)]
            elif layout == "uner":
                out += [f"{i}\t{word}\t{tag}" for i, (word, tag) in enumerate(pairs, 1)]
            else:
                out.append(" ".join(f"{word}|{tag}" for word, tag in pairs))
            out.append("")
    return ("\r\n" if layout == "crlf" else "\n").join(out)


def assert_same(docs, corpus):
    assert len(docs) == len(corpus)
    for doc, wanted in zip(docs, corpus, strict=True):
        assert sentences(doc) == [words for words, _ in wanted]
        expected, offset = [], 0
        for words, ents in wanted:
            expected += [(offset + start, offset + end, label) for start, end, label in ents]
            offset += len(words)
        assert [(e.start, e.end, e.label_) for e in doc.ents] == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    corpora(),
    st.sampled_from(list(SCHEMES)),
    st.sampled_from(["space", "tab", "crlf", "conllu", "uner", "inline"]),
)
def test_round_trip(corpus, scheme, layout):
    """Random documents → each scheme and layout → the same documents."""
    text = write(corpus, lambda words, ents: encode(len(words), ents, SCHEMES[scheme]), layout)
    named = {"space": "columns", "tab": "columns", "crlf": "columns"}.get(layout, "auto")
    assert_same(read(text, scheme=scheme, layout=named), corpus)
    # Found out, the scheme may be another one, but only one that reads the same.
    assert_same(read(text, layout=named), corpus)


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_all_schemes_give_the_same(corpus):
    seen = []
    for scheme in SCHEMES.values():
        text = write(corpus, lambda words, ents, s=scheme: encode(len(words), ents, s), "tab")
        docs = read(text, layout="columns")
        seen.append([[(t.text, t.ent_iob, t.ent_type_) for t in doc] for doc in docs])
    assert all(one == seen[0] for one in seen)


@settings(max_examples=25, deadline=None)
@given(corpora())
def test_same_as_spacy_on_random_documents(corpus):
    ascii_only = [
        [([re.sub(r"[^a-z]", "x", word) for word in words], [(s, e, "PER") for s, e, _ in ents]) for words, ents in doc]
        for doc in corpus
    ]
    out = []
    for doc in ascii_only:
        out += ["-DOCSTART- -X- O O", ""]
        for words, ents in doc:
            tags = encode(len(words), ents, "IOB2")
            out += [f"{word} NN I-NP {tag}" for word, tag in zip(words, tags, strict=True)]
            out.append("")
    same_as_spacy("\n".join(out))


LINE = st.one_of(
    st.sampled_from(
        [
            *("", " ", "\t", "# a = b", "#", "# O", "-DOCSTART-", "-DOCSTART- O", "A O", "b B-X"),
            *("c\tI-X", "1\td\tO", "2\te\tB-X", "1-2\tf\t_", "1.1\tg\tB-X", "A|O b|B-X", "B_X"),
            *("# global.columns = ID FORM NER", "TOKEN\tNE-COARSE-LIT\tMISC", "x\tO\tNoSpaceAfter"),
            *("1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X", "-X- S-X", "_ _", "\ufeff", "\x00 \x00", "|"),
        ]
    ),
    st.text(max_size=12),
)


def never_a_traceback(data, **options):
    try:
        docs = read(data, **options)
    except ConversionError as err:
        assert err.total >= 1 and len(err.faults) >= 1
        for line in str(err).splitlines():
            assert line.startswith(("<stream>:", "… and "))
        return
    assert docs and all(len(doc) for doc in docs)
    bin_ = DocBin(docs=docs)
    back = list(DocBin().from_bytes(bin_.to_bytes()).get_docs(Vocab()))
    assert [[t.text for t in doc] for doc in back] == [[t.text for t in doc] for doc in docs]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
@example(b"\xff\xfe", False)
@example(b"\xef\xbb\xbf", True)
@example(b"\x00\tO\n", False)
def test_random_bytes_never_give_a_traceback(data, repair):
    never_a_traceback(data, repair=repair)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(LINE, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["auto", "columns", "conllu", "table", "inline"]),
    st.sampled_from([None, "IO", "IOB1", "IOB2", "BIOES"]),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-7", "shift-jis"]),
    st.booleans(),
)
def test_random_lines_never_give_a_traceback(lines, end, repair, layout, scheme, enc, detokenize):
    data = end.join(lines).encode(enc, "replace")
    never_a_traceback(data, repair=repair, layout=layout, scheme=scheme, encoding=enc, detokenize=detokenize)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE, max_size=8))
def test_repair_only_fails_on_whole_files(lines):
    """With repair, what is left to fail is the file as a whole, in one line."""
    try:
        read("\n".join(lines), repair=True)
    except ConversionError as err:
        assert err.total == 1
