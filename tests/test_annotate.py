"""Documents in, entities out: against `nlp.pipe` over the same texts, spaCy's own DocBin, and undisturbed runs."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training.converters import conll_ner_to_docs
from typer.testing import CliRunner

from spacy_bertner.annotate.docbin import merge_docbins
from spacy_bertner.annotate.writers import WRITERS
from spacy_bertner.annotate.readers import READERS, ReadSettings
from spacy_bertner.annotate.records import Record, chunks
from spacy_bertner.annotate.run import RecordError, RunSettings, annotate
from spacy_bertner.annotate.worker import Pipeline, set_threshold
from spacy_bertner.cli import bertner
from spacy_bertner.formats.convert import ConversionError, read_conll

from .conftest import SENTENCES, make_examples

TEXTS = [words for words, _ in SENTENCES]


def make_pipeline(checkpoint) -> Language:
    """A pipeline that has learnt a little, so that it finds entities."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert"))}})
    torch.manual_seed(0)
    examples = make_examples(nlp)
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.005
    for _ in range(20):
        nlp.update(examples, sgd=optimizer)
    return nlp


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, checkpoint) -> Path:
    """The folder of such a pipeline."""
    folder = tmp_path_factory.mktemp("pipeline")
    make_pipeline(checkpoint).to_disk(folder)
    return folder


@pytest.fixture
def ner(pipeline) -> Language:
    return spacy.load(pipeline)


def spans(doc: Doc) -> list[tuple[int, int, str]]:
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def expected(ner: Language, texts=TEXTS) -> list[list[tuple[int, int, str]]]:
    found = [spans(doc) for doc in ner.pipe(texts)]
    assert sum(map(len, found)) > 10
    return found


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def found_spans(records: list[dict]) -> list[list[tuple[int, int, str]]]:
    return [[(ent["start"], ent["end"], ent["label"]) for ent in record["entities"]] for record in records]


def write_jsonl(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf8")
    return path


@pytest.fixture
def texts_file(tmp_path) -> Path:
    return write_jsonl(tmp_path / "texts.jsonl", ({"text": text, "id": i} for i, text in enumerate(TEXTS)))


# Input


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


def test_standard_input_to_standard_output(tmp_path, pipeline, ner):
    data = Path(write_input("lines", tmp_path)).read_bytes()
    done = subprocess.run([*COMMAND, str(pipeline), "-", "-"], input=data, capture_output=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    assert found_spans(records) == expected(ner)


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


def test_fields_are_carried_over(tmp_path, ner):
    given = [
        {"id": 2**70, "body": "Kolb", "text": "other", "entities": [1], "x": {"y": [None, "ü", 1.5]}},
        {"body": "Oslo", "error": "e", "input_error": "f"},
    ]
    annotate(ner, [write_jsonl(tmp_path / "in.jsonl", given)], tmp_path / "o.jsonl", reading=ReadSettings(None, "body"))
    first, second = read_jsonl(tmp_path / "o.jsonl")
    assert first.pop("text") == "Kolb" and isinstance(first.pop("entities"), list)
    assert first == {"id": 2**70, "x": given[0]["x"], "input_text": "other", "input_entities": [1]}
    assert second["input_input_error"] == "e" and second["input_error"] == "f"


def test_fields_that_json_does_not_have(tmp_path, ner):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = [
        float("nan"),
        b"\x00\xff",
        datetime(2026, 1, 2, 3, 4, 5),
        Decimal("1.50"),
        [1.0, float("inf")],
        {"a": None},
    ]
    table = pyarrow.table({"text": ["Kolb"], **{f"x{i}": [value] for i, value in enumerate(values)}})
    parquet.write_table(table, tmp_path / "in.parquet")
    annotate(ner, [tmp_path / "in.parquet"], tmp_path / "out.jsonl")
    line = (tmp_path / "out.jsonl").read_text(encoding="utf8")
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    expected = [None, "AP8=", "2026-01-02T03:04:05", "1.50", [1.0, None], {"a": None}]
    assert [record[f"x{i}"] for i in range(len(values))] == expected
    annotate(ner, [tmp_path / "in.parquet"], tmp_path / "out.spacy")
    (doc,) = DocBin(store_user_data=True).from_disk(tmp_path / "out.spacy").get_docs(ner.vocab)
    assert list(json.loads(doc.user_data["fields"]).values()) == expected


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


# Output


def test_scores_of_the_extension(tmp_path, ner, texts_file):
    scores = [ent._.score for doc in ner.pipe(TEXTS) for ent in doc.ents]
    annotate(ner, [texts_file], tmp_path / "with.jsonl")
    *_, getter, setter = Span.remove_extension("score")
    try:
        annotate(ner, [texts_file], tmp_path / "without.jsonl")
    finally:
        Span.set_extension("score", getter=getter, setter=setter)
    without, scored = (
        [e for r in read_jsonl(tmp_path / f"{n}.jsonl") for e in r["entities"]] for n in ("without", "with")
    )
    assert {ent["score"] for ent in without} == {None}
    assert all(score is not None for score in scores)
    assert [ent["score"] for ent in scored] == pytest.approx(scores, abs=1e-4)
    assert all(list(ent) == ["start", "end", "label", "text", "score"] for ent in scored)


def test_docbin_output(tmp_path, ner, texts_file):
    annotate(ner, [texts_file], tmp_path / "out.spacy")
    docs = list(DocBin(store_user_data=True).from_disk(tmp_path / "out.spacy").get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == TEXTS
    assert [spans(doc) for doc in docs] == expected(ner)
    assert [json.loads(doc.user_data["fields"])["id"] for doc in docs] == list(range(len(TEXTS)))


@pytest.mark.parametrize("n", [0, 1, 20])
def test_merged_docbins_are_spacys_own_bytes(n, ner):
    docs = list(ner.pipe(TEXTS[:n]))
    for i, doc in enumerate(docs):
        doc.user_data["i"] = i
        doc.cats = {"a": i / 3}
        doc.spans["sc"] = [Span(doc, 0, 1, "X")]
    bins = [DocBin(docs=[doc], store_user_data=True).to_bytes() for doc in docs]
    file = io.BytesIO()
    assert merge_docbins(bins, file) == n
    if n:
        assert file.getvalue() == DocBin(docs=docs, store_user_data=True).to_bytes()
    assert len(DocBin(store_user_data=True).from_bytes(file.getvalue())) == n


def test_conll_output_is_read_back(tmp_path, ner):
    texts = [*TEXTS, "A  double space,\n\na line # and -- a hash\tKolb .", "# Oslo # Oslo"]
    annotate(ner, [write_jsonl(tmp_path / "in.jsonl", ({"text": t} for t in texts))], tmp_path / "out.conll")
    written = (tmp_path / "out.conll").read_text(encoding="utf8")
    by_spacy = list(conll_ner_to_docs(written, no_print=True))
    docs = list(ner.pipe(texts))
    for back in (list(read_conll(tmp_path / "out.conll")), by_spacy):
        assert len(back) == len(texts)
        for read, doc in zip(back, docs, strict=True):
            assert [t.text for t in read] == [t.text for t in doc if not t.is_space]
            expected = [(ent.label_, [t.text for t in ent if not t.is_space]) for ent in doc.ents]
            assert [(ent.label_, [t.text for t in ent]) for ent in read.ents] == expected


def test_a_record_of_conll_begins_where_it_says(tmp_path, ner):
    texts = ["", "-DOCSTART- -docstart in Oslo", " \n ", "Kolb"]
    annotate(ner, [write_jsonl(tmp_path / "in.jsonl", ({"text": t} for t in texts))], tmp_path / "out.conll")
    written = (tmp_path / "out.conll").read_text(encoding="utf8")
    # The words alone: what tags the little pipeline gives them is not the matter here
    assert [line.split("\t")[0] for line in written.splitlines() if "DOCSTART" in line.upper()] == [
        *["-DOCSTART- -X- O O"] * 2, "DOCSTART-", "docstart", *["-DOCSTART- -X- O O"] * 2
    ]  # fmt: skip
    assert [len(doc) for doc in read_conll(tmp_path / "out.conll")] == [4, 1]


def test_csv_output(tmp_path, ner, texts_file):
    annotate(ner, [texts_file], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    found = [[] for _ in TEXTS]
    for row in rows:
        start, end = int(row["start"]), int(row["end"])
        found[int(row["record"]) - 1].append((start, end, row["label"]))
        assert row["text"] == TEXTS[int(row["record"]) - 1][start:end]
    assert found == expected(ner)


def test_html_output(tmp_path, ner, texts_file):
    annotate(ner, [texts_file], tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf8")
    assert page.count("<mark") == sum(map(len, expected(ner))) and page.count('class="entities"') == len(TEXTS)
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</body>\n</html>\n")


# Records that cannot be processed


@Language.component("annotate_tests_raises")
def raises(doc):
    if "Elbe" in doc.text:
        raise ValueError("no rivers")
    return doc


class Drops:
    """Leaves Docs out without a word."""

    def __call__(self, doc):
        return doc

    def pipe(self, docs, batch_size):
        return (doc for doc in docs if "Elbe" not in doc.text)


@Language.factory("annotate_tests_drops")
def drops(nlp, name):
    return Drops()


@pytest.mark.parametrize("kind", ["raises", "drops", "hides"])
@pytest.mark.parametrize("form", WRITERS)
def test_nothing_is_lost(kind, form, tmp_path, ner, texts_file):
    good = expected(ner)
    ner.add_pipe("annotate_tests_drops" if kind == "drops" else "annotate_tests_raises")
    if kind == "hides":
        ner.set_error_handler(lambda *args: None)
    handler = ner.default_error_handler
    output = tmp_path / f"out.{form}"
    summary = annotate(ner, [texts_file], output)
    bad = [i for i, text in enumerate(TEXTS) if "Elbe" in text]
    assert summary.n_errors == len(bad) == 2 and summary.n_records == len(TEXTS)
    assert ner.default_error_handler is handler and ner.max_length == 10**6
    reason = "the pipeline gave 0 documents for 1" if kind == "drops" else "ValueError: no rivers"
    if form == "jsonl":
        records = read_jsonl(output)
        assert [i for i, record in enumerate(records) if "error" in record] == bad
        assert records[bad[0]] == {
            "error": reason, "at": f"{texts_file}:{bad[0] + 1}", "text": TEXTS[bad[0]], "id": bad[0]
        }  # fmt: skip
        assert [record["text"] for record in records] == TEXTS
        kept = [record for record in records if "error" not in record]
        assert found_spans(kept) == [ents for i, ents in enumerate(good) if i not in bad]
    elif form == "spacy":
        docs = list(DocBin(store_user_data=True).from_disk(output).get_docs(ner.vocab))
        assert [i for i, doc in enumerate(docs) if doc.user_data.get("error") == reason] == bad
        assert docs[bad[0]].user_data["text"] == TEXTS[bad[0]]
    else:
        assert output.read_text(encoding="utf8").count(reason) == 2


def test_strict_stops(tmp_path, ner, texts_file):
    ner.add_pipe("annotate_tests_raises")
    bad = next(i for i, text in enumerate(TEXTS) if "Elbe" in text)
    output = tmp_path / "out.jsonl"
    with pytest.raises(RecordError, match=rf"texts.jsonl:{bad + 1}: ValueError: no rivers"):
        annotate(ner, [texts_file], output, RunSettings(strict=True))
    assert [record["text"] for record in read_jsonl(output)] == TEXTS[:bad]
    summary = annotate(ner, [texts_file], output, RunSettings(resume=True))
    assert summary.n_resumed == bad and [record["text"] for record in read_jsonl(output)] == TEXTS


def test_values_that_are_no_text(tmp_path, ner):
    given = write_jsonl(tmp_path / "in.jsonl", [{"text": None}, {"text": 5}, {"text": "\ud800"}, {"text": ""}])
    annotate(ner, [given], tmp_path / "out.jsonl")
    records = read_jsonl(tmp_path / "out.jsonl")
    assert [record.get("error", "").split(":")[0] for record in records] == ["text", "text", "UnicodeEncodeError", ""]
    assert records[2]["text"] == "\ud800" and records[3] == {"text": "", "entities": []}


def test_texts_of_any_length(tmp_path, ner):
    ner.max_length = 100
    text = " ".join(TEXTS)
    annotate(ner, [write_jsonl(tmp_path / "in.jsonl", [{"text": text}])], tmp_path / "out.jsonl")
    (record,) = read_jsonl(tmp_path / "out.jsonl")
    ner.max_length = 10**6
    assert found_spans([record]) == [spans(ner(text))]


def test_words_of_the_input_do_not_stay(tmp_path, ner):
    words = [f"w{i}x{i * i}" for i in range(3000)]
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": " ".join(words[i : i + 100])} for i in range(0, 3000, 100)))
    before = len(list(ner.vocab)), len(ner.vocab.strings)
    annotate(ner, [given], tmp_path / "out.jsonl")
    assert (len(list(ner.vocab)), len(ner.vocab.strings)) == before


# Going on after a kill


def test_chunks_depend_on_the_input_alone():
    records = [Record("a", i, "x" * (i % 7)) for i in range(50)]
    found = list(chunks(iter(records), 5, 12))
    assert [record for chunk in found for record in chunk.records] == records
    assert [chunk.first for chunk in found[1:]] == [chunk.end for chunk in found[:-1]]
    for chunk in found:
        sizes = [len(record.content) for record in chunk.records]
        assert len(sizes) <= 5 and sum(sizes[:-1]) < 12
        assert chunk is found[-1] or len(sizes) == 5 or sum(sizes) >= 12


@pytest.mark.parametrize("form", WRITERS)
def test_cut_off_anywhere(form, tmp_path, ner):
    """The journal of a killed run ends at any byte."""
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": text, "n": "ü"} for text in TEXTS[:5]))
    whole, output = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    settings = RunSettings(batch_size=2)
    annotate(ner, [given], whole, settings)
    journal = output if form == "jsonl" else tmp_path / f"out.{form}.part"
    ner.add_pipe("annotate_tests_stops", last=True)
    ner.get_pipe("annotate_tests_stops").after = 4
    with pytest.raises(KeyboardInterrupt):
        annotate(ner, [given], output, settings)
    ner.remove_pipe("annotate_tests_stops")
    state = tmp_path / f"out.{form}.run"
    assert journal.exists() and state.exists() and (form == "jsonl") == output.exists()
    data, run = journal.read_bytes(), state.read_bytes()
    assert data.count(b"\n") == 4
    ends = {i for i, byte in enumerate(data) if data[i - 1] == 10 or byte == 10}
    for cut in sorted({*range(0, len(data), 37), *ends, len(data)}):
        journal.write_bytes(data[:cut])
        state.write_bytes(run)
        output.unlink(missing_ok=True) if form != "jsonl" else None
        summary = annotate(ner, [given], output, RunSettings(batch_size=2, resume=True))
        assert summary.n_resumed == data[:cut].count(b"\n")
        assert output.read_bytes() == whole.read_bytes()
        assert not state.exists() and (form == "jsonl" or not journal.exists())
    assert annotate(ner, [given], output, RunSettings(batch_size=2, resume=True)).n_records == (
        5 if form == "jsonl" else 0
    )
    assert output.read_bytes() == whole.read_bytes()


@Language.factory("annotate_tests_stops")
class Stops:
    """As Ctrl-C would, after some Docs."""

    def __init__(self, nlp, name):
        self.after = 0

    def __call__(self, doc):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return doc


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


COMMAND = [sys.executable, "-m", "spacy", "bertner", "annotate"]


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


@pytest.mark.parametrize("form", [form for form in WRITERS if form != "jsonl"])
def test_whole_file_of_another_is_not_taken_for_complete(form, tmp_path, ner, texts_file):
    output = tmp_path / f"out.{form}"
    shorter = write_jsonl(tmp_path / "other.jsonl", ({"text": text} for text in TEXTS[:5]))
    annotate(ner, [shorter], output)
    assert annotate(ner, [shorter], output, RunSettings(resume=True)).n_records == 0
    of_another_run = output.read_bytes()
    for data in (
        b"my notes\n",
        b"id,name\n1,Kolb\n",
        of_another_run[:-9] if form in ("spacy", "csv") else b"",
        of_another_run,
    ):
        output.write_bytes(data)
        with pytest.raises(ValueError, match="was not written by a run over these inputs"):
            annotate(ner, [texts_file], output, RunSettings(resume=True))
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


def test_processes(tmp_path, pipeline, texts_file):
    annotate(pipeline, [texts_file], tmp_path / "one.jsonl", RunSettings(batch_size=3))
    annotate(str(pipeline), [texts_file], tmp_path / "two.jsonl", RunSettings(batch_size=3, n_process=2))
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    with pytest.raises(OSError, match="E050"):
        annotate("no-such", [texts_file], tmp_path / "three.jsonl", RunSettings(n_process=2))
    assert not (tmp_path / "three.jsonl").exists()


# Bad input


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


def test_not_parquet(tmp_path, ner):
    pytest.importorskip("pyarrow")
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1 and no more of it")
    with pytest.raises(ConversionError, match=r"in.parquet: not a Parquet file"):
        annotate(ner, [path], tmp_path / "out.jsonl")


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


def test_disabled_components(pipeline):
    assert spacy.load(pipeline).pipe_names == ["bert_ner"]
    assert Pipeline(str(pipeline), disable=("bert_ner",)).load().pipe_names == []


def test_threshold_goes_to_the_components_that_have_it(ner):
    cfg = ner.get_pipe("bert_ner").cfg
    had = cfg.pop("threshold", None)
    with pytest.raises(ValueError, match="no component of this pipeline has that setting"):
        set_threshold(ner, 0.5)
    cfg["threshold"] = had
    set_threshold(ner, 0.5)
    assert cfg["threshold"] == 0.5


def test_all_records_bad_is_status_1(tmp_path, pipeline):
    given = write_jsonl(tmp_path / "in.jsonl", [{"text": None}])
    result = CliRunner().invoke(bertner, ["annotate", str(pipeline), str(given), str(tmp_path / "out.jsonl")])
    assert result.exit_code == 1 and "1 records, 1 with errors" in result.stderr
    assert f"error record: {given}:1: text: null, not a text" in result.stderr


# Ray


@pytest.fixture(scope="module")
def cluster():
    """Two workers' worth of Ray on this machine."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_ray(tmp_path, pipeline, texts_file, cluster):
    annotate(pipeline, [texts_file], tmp_path / "local.jsonl", RunSettings(batch_size=3))
    annotate(pipeline, [texts_file], tmp_path / "ray.jsonl", RunSettings(batch_size=3, engine="ray"))
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    with pytest.raises(OSError, match="E050"):
        annotate("no-such", [texts_file], tmp_path / "none.jsonl", RunSettings(engine="ray"))
    with pytest.raises(ValueError, match="--gpus-per-worker: 2 workers of 1000 GPU are more than"):
        annotate(pipeline, [texts_file], tmp_path / "none.jsonl", RunSettings(engine="ray", gpus_per_worker=1000))


CODE = """
import os, signal
from pathlib import Path
from spacy.language import Language

@Language.component("dies_once")
def dies_once(doc):
    marker = Path({marker!r})
    if doc.text.startswith("Turku") and not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return doc
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_ray_worker_killed(tmp_path, ner, texts_file, cluster):
    code, marker = tmp_path / "code.py", tmp_path / "died"
    code.write_text(CODE.format(marker=str(marker)), encoding="utf8")
    Language.component("dies_once", func=lambda doc: doc)
    ner.add_pipe("dies_once", first=True)
    ner.to_disk(tmp_path / "pipeline")
    settings = RunSettings(batch_size=3, engine="ray")
    annotate(ner, [texts_file], tmp_path / "local.jsonl", RunSettings(batch_size=3))
    loaded = Pipeline(str(tmp_path / "pipeline"), code=str(code))
    annotate(loaded, [texts_file], tmp_path / "ray.jsonl", settings)
    assert marker.exists()
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
