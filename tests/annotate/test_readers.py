"""Every input format against `nlp.pipe` over the same texts, and faults with file and line."""

import csv
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_bertner.annotate.readers import READERS, ReadSettings
from spacy_bertner.annotate.run import annotate
from spacy_bertner.cli import bertner
from spacy_bertner.formats.convert import ConversionError
from spacy_bertner.formats.source import Source

from ..conftest import SENTENCES
from .conftest import TEXTS, expected, found_spans, read_jsonl, spans, write_jsonl


def write_input(kind: str, folder: Path) -> str:
    """The texts as a file (or folder, or glob) of a kind."""
    path = folder / f"input.{kind}"
    if kind == "text":
        for i, text in enumerate(TEXTS):
            (folder / "texts").mkdir(exist_ok=True)
            (folder / "texts" / f"{i:02}.txt").write_text(text, encoding="utf8")
        return str(folder / "texts")
    if kind == "lines":
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode())
    elif kind == "jsonl":
        write_jsonl(path, ({"text": text} for text in TEXTS))
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf8") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows([["id", "text"], *enumerate(TEXTS)])
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"id": range(len(TEXTS)), "text": TEXTS}), path)
    elif kind == "spacy":
        nlp = spacy.blank("en")
        # The gold entities of a corpus are not those that the pipeline finds
        docs = [Doc(nlp.vocab, words=words.split(), ents=tags.split()) for words, tags in SENTENCES]
        DocBin(docs=docs).to_disk(path)
    else:
        lines = (f"{word}\t{tag}\n" for words, tags in SENTENCES for word, tag in _tokens(words, tags))
        path.write_text("".join(lines), encoding="utf8")
    return str(path)


def _tokens(words: str, tags: str):
    return [("-DOCSTART-", "O"), *zip(words.split(), tags.split(), strict=True)]


@pytest.mark.parametrize("kind", READERS)
def test_every_kind_of_input(kind, tmp_path, ner):
    given = write_input(kind, tmp_path)
    reading = ReadSettings(input_format=kind if kind == "lines" else None)
    annotate(ner, [given], tmp_path / "out.jsonl", reading=reading)
    records = read_jsonl(tmp_path / "out.jsonl")
    if kind in ("spacy", "conll"):  # their tokens are kept
        docs = [Doc(ner.vocab, words=text.split()) for text in TEXTS]
        assert [record["text"].strip() for record in records] == TEXTS
        assert found_spans(records) == [spans(doc) for doc in ner.pipe(docs)]
    else:
        assert [record["text"] for record in records] == TEXTS
        assert found_spans(records) == expected(ner)
    if kind in ("csv", "tsv", "parquet"):
        assert [int(record["id"]) for record in records] == list(range(len(TEXTS)))
    if kind == "text":
        assert records[3]["source"] == str(tmp_path / "texts" / "03.txt")


def test_values_that_are_no_text(tmp_path, ner):
    given = write_jsonl(tmp_path / "in.jsonl", [{"text": None}, {"text": 5}, {"text": "\ud800"}, {"text": ""}])
    annotate(ner, [given], tmp_path / "out.jsonl")
    records = read_jsonl(tmp_path / "out.jsonl")
    assert [record.get("error", "").split(":")[0] for record in records] == ["text", "text", "UnicodeEncodeError", ""]
    assert records[2]["text"] == "\ud800" and records[3] == {"text": "", "entities": []}


BAD = {
    "in.jsonl": [
        (b'{"text": "a"}\n{"text": \n', ":2: invalid JSON: Expecting value, column 10"),
        (b'{"text": "a"}\n\n[1]\n', ":3: not a JSON object"),
        (b'{"text": "a"}\n{"body": "b"}\n', ":2: no key 'text'; there are 'body'. Set --text-key"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', ":2: not utf-8: byte 0xff"),
        (b"", ": the file is empty"),
        (b"\n\n", ": no records in this file"),
    ],
    "in.csv": [
        (b"id,body\n1,a\n", ":1: no column 'text'; there are 'id', 'body'"),
        (b"id,text\n1,a\n2,b,c\n", ":3: 3 columns, the header has 2"),
        (b'id,text\n1,"a"b\n', ":2: invalid CSV"),
        (b"id,text\n1,\xff\n", ":2: not utf-8"),
        (b"id,text,id\n1,a,2\n", ":1: there is more than one column 'id'"),
        (b"id,text\n", ": no records in this file"),
    ],
    "in.tsv": [
        (b"Kolb\tB-PER\n", ":1: no column 'text'; there are 'Kolb', 'B-PER'. Set --text-key; for a CoNLL file, --input")
    ],
    "in.txt": [(b"a\nb\xff", ":2: not utf-8: byte 0xff")],
    "in.spacy": [(b"not one", ": not a DocBin"), (DocBin().to_bytes(), ": no records in this file")],
    "in.conll": [(b"Kolb\tB-PER\nOslo\n", ":2: ")],
    "in.pdf": [(b"%PDF", ": unknown ending '.pdf'")],
}


@pytest.mark.parametrize(("name", "data", "message"), [(name, *case) for name in BAD for case in BAD[name]])
def test_bad_input(name, data, message, tmp_path):
    path, output = tmp_path / name, tmp_path / "out.jsonl"
    path.write_bytes(data)
    output.write_text("what was there", encoding="utf8")
    # The pipeline is not even looked for
    result = CliRunner().invoke(bertner, ["annotate", "no-such", str(path), str(output), "--force"])
    assert result.exit_code == 1 and f"{path}{message}" in result.stderr
    assert output.read_text(encoding="utf8") == "what was there"


def test_every_fault_is_named(tmp_path, ner):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{\n{"text": "b"}\n}\n', encoding="utf8")
    (tmp_path / "b.jsonl").write_text("1\n", encoding="utf8")
    with pytest.raises(ConversionError) as caught:
        annotate(ner, [tmp_path], tmp_path / "out.jsonl")
    assert [(Path(fault.path).name, fault.line) for fault in caught.value.faults] == [
        ("a.jsonl", 2), ("a.jsonl", 4), ("b.jsonl", 1)
    ]  # fmt: skip
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("kind", ["conll", "spacy"])
def test_checked_once_and_read_once(kind, tmp_path, ner, monkeypatch):
    """Of a CoNLL file the check reads the lines and the run makes the Docs; a DocBin is unpacked by the run alone."""
    calls = []

    def counted(owner, name):
        function = getattr(owner, name)

        def wrapper(*args, **kwargs):
            for item in function(*args, **kwargs):
                calls.append(name)
                yield item

        monkeypatch.setattr(owner, name, wrapper)

    counted(Source, "lines")
    counted(DocBin, "get_docs")
    path = write_input(kind, tmp_path)
    annotate(ner, [path], tmp_path / "out.jsonl")
    if kind == "spacy":
        assert calls.count("get_docs") == len(TEXTS) + 1  # the check looks at the first
    else:
        n_lines = Path(path).read_text(encoding="utf8").count("\n")
        # All lines as a sample for the layout, the scan, the first document when checking; then the documents
        assert 3 * n_lines <= calls.count("lines") < 3.5 * n_lines


def test_not_parquet(tmp_path, ner):
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1 and no more of it")
    with pytest.raises(ConversionError, match=r"in.parquet: not a Parquet file"):
        annotate(ner, [path], tmp_path / "out.jsonl")
