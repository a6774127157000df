"""The formats of annotation tools: examples beside documents written by hand, out and in again, and what is wrong."""

import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import spacy
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert, read_conll
from spacy_bertner.formats.docbin import DocSpool
from spacy_bertner.formats.json_files import read_values
from spacy_bertner.formats.source import Source
from spacy_bertner.formats.tools import FORMATS, fill, find_format
from spacy_bertner.formats.write import write_docs

from ..behaviour.hostile import any_word
from .helpers import from_bin, run

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

EXPORTS = Path(__file__).parent / "exports"
NAMES = sorted(path.name.removesuffix(".expected") for path in EXPORTS.glob("*.expected"))
NLP = spacy.blank("en")


def view(doc):
    return [f"{ent.start_char}-{ent.end_char} {ent.label_} {ent.text}" for ent in doc.ents]


def test_there_are_enough():
    assert len(NAMES) >= 14


@pytest.mark.parametrize("name", NAMES)
def test_export(name, tmp_path):
    expected = json.loads((EXPORTS / f"{name}.expected").read_text(encoding="utf-8"))
    (record,) = convert([EXPORTS / name], tmp_path, ReadOptions(**expected.get("options", {}))).files
    docs = from_bin(tmp_path / f"{Path(name).stem}.spacy")
    assert [doc.text for doc in docs] == [doc["text"] for doc in expected["docs"]]
    assert [view(doc) for doc in docs] == [doc["ents"] for doc in expected["docs"]]
    missing = [[token.i for token in doc if token.ent_iob == 0] for doc in docs]
    assert missing == [doc.get("missing", []) for doc in expected["docs"]]
    assert record.skipped == expected.get("skipped", {})
    assert record.layout == name.partition(".")[0].partition("_")[0].replace("label", "label-studio").replace(
        "spacy", "spacy-json"
    ).replace("annotate", "spacy-json")


@st.composite
def docs(draw):
    text = " ".join(draw(st.lists(any_word().map(lambda word: word[:200]), max_size=6)))
    doc = NLP.make_doc(text)
    ends = sorted(draw(st.sets(st.integers(0, len(doc)), max_size=6)))
    labels = st.sampled_from(["PER", "B-X", "I", "x/y", "é"])
    spans = [Span(doc, a, b, draw(labels)) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    doc.set_ents(spans, default="outside")
    return doc


def out_and_in_again(corpus, name, folder):
    """Write documents and read them; those that the format refuses are left out. Returns the others, and what was read."""
    written, labels = [], {ent.label_ for doc in corpus for ent in doc.ents}
    for doc in corpus:
        try:
            write_docs([doc], name, folder / "try" if name == "brat" else io.BytesIO(), "a", None, labels)
            written.append(doc)
        except ConversionError as err:
            assert re.search(r"document 1: .*(cannot hold)$", str(err), re.DOTALL)
    path = folder / f"a{FORMATS[name].suffix}"
    if name == "brat":
        path.mkdir()
        counts, paths = write_docs(written, name, path, "a", None, labels), path.glob("*.ann")
    else:
        with path.open("wb") as file:
            counts, paths = write_docs(written, name, file, "a", None, labels), [path]
    assert counts == Counter(ent.label_ for doc in written for ent in doc.ents)
    if name == "conll":
        return written, list(read_conll(path, vocab=NLP.vocab)) if any(map(words, written)) else []
    spool = DocSpool()
    for path in sorted(paths) if written else ():
        source = Source.from_path(path)
        assert find_format(source, ReadOptions()) == name
        fill(spool, source, name, ReadOptions(), NLP.tokenizer, Path("a"), None)
    return written, list(spool.docs(NLP.vocab))


def words(doc):
    return [token.text for token in doc if not token.is_space]


def without_entities(text):
    doc = NLP.make_doc(text)
    doc.set_ents([], default="outside")
    return doc


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(corpus=st.lists(docs(), min_size=1, max_size=3))
@example(corpus=[without_entities("\ufeff")])
@example(corpus=[without_entities("\ufeffAyla left")])
@example(corpus=[without_entities("A\0y\0l\0a\0")])
@example(corpus=[without_entities("\0A\0y\0l\0a")])
@example(corpus=[without_entities("\rAyla\r\nleft\r")])
def test_out_and_in_again(name, corpus):
    # Which is the way of WikiANN
    assume(name != "conll" or not all(word.startswith("en:") for doc in corpus for word in words(doc)))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "try").mkdir()
        written, read = out_and_in_again(corpus, name, Path(folder))
    if name == "conll":  # which has no white space
        written = [doc for doc in written if words(doc)]
        assert list(map(words, read)) == list(map(words, written))
        found, given = ([[(ent.label_, words(ent)) for ent in doc.ents] for doc in of] for of in (read, written))
        assert found == given
    elif name in ("hf", "parquet"):
        assert [[token.text for token in doc] for doc in read] == [[token.text for token in doc] for doc in written]
        found, given = ([[(e.start, e.end, e.label_) for e in doc.ents] for doc in of] for of in (read, written))
        assert found == given
    else:
        assert [(doc.text, view(doc)) for doc in read] == [(doc.text, view(doc)) for doc in written]


@pytest.mark.parametrize("name", FORMATS)
def test_by_the_command(name, tmp_path):
    docs = [
        Doc(NLP.vocab, ["Ayla", "\n", "Okri", "é", "💩"], ents=["B-PER", "I-PER", "I-PER", "O", "B-X"]) for _ in "ab"
    ]
    docs[0].spans["other"] = [docs[0][:1]]
    DocBin(docs=docs).to_disk(tmp_path / "a.spacy")
    result = run(tmp_path / "a.spacy", tmp_path / "out", "--to", name, "--ledger", tmp_path / "ledger.json")
    assert result.exit_code == 0, result.stderr
    assert "left out: entities in doc.spans['other'] 1" in result.stdout
    (record,) = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))["files"]
    assert record["entities"] == {"PER": 2, "X": 2} and record["skipped"] == {"entities in doc.spans['other']": 1}
    assert run(tmp_path / "out", tmp_path / "back").exit_code == 0
    read = [doc for path in sorted((tmp_path / "back").iterdir()) for doc in from_bin(path)]
    assert [[ent.label_ for ent in doc.ents] for doc in read] == [["PER", "X"]] * 2
    if FORMATS[name].holds_overlaps:
        assert [view(other) for other in read] == list(map(view, docs))


def test_brat_folder_is_whole_or_not_there(tmp_path):
    DocBin(docs=[Doc(NLP.vocab, ["Text", str(i)], ents=["O", "O"]) for i in range(2000)]).to_disk(tmp_path / "a.spacy")
    command = [sys.executable, "-m", "spacy", "bertner", "convert", str(tmp_path / "a.spacy"), str(tmp_path / "out")]
    with subprocess.Popen([*command, "--to", "brat"]) as process:
        while process.poll() is None and len(list(tmp_path.glob("out/.*/*.ann"))) < 20:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "a").exists()
    assert "no file with a known ending" in run(tmp_path / "out", tmp_path / "back").stderr
    assert run(tmp_path / "a.spacy", tmp_path / "out", "--to", "brat").exit_code == 0
    assert len(list((tmp_path / "out" / "a").iterdir())) == 4000
    assert "a: exists already" in run(tmp_path / "a.spacy", tmp_path / "out", "--to", "brat").stderr


def write_rows(path, tags, features):
    """As `datasets` does it: the features as JSON in the metadata of the schema."""
    table = pyarrow.table({"id": ["0"], "tokens": [["Ayla", "Okri", "left"]], "ner_tags": [tags]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else {}
    parquet.write_table(table.replace_schema_metadata(metadata), path)


NAMES_OF_TAGS = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature",
    [{"feature": NAMES_OF_TAGS, "_type": "Sequence"}, {"feature": NAMES_OF_TAGS, "_type": "List"}, [NAMES_OF_TAGS]],
)
def test_names_of_tags_in_parquet(feature, tmp_path):
    write_rows(tmp_path / "a.parquet", [1, 2, 0], {"ner_tags": feature, "id": {"dtype": "string", "_type": "Value"}})
    convert([tmp_path / "a.parquet"], tmp_path)
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ayla Okri", "PER")]


def test_parquet_without_names_or_columns(tmp_path):
    path = tmp_path / "a.parquet"
    write_rows(path, [1, 2, 0], None)
    assert "a.parquet: record 1 ner_tags are numbers: --labels" in run(path, tmp_path / "out").stderr
    assert run(path, tmp_path / "out", "--labels", "O,B-PER,I-PER").exit_code == 0
    parquet.write_table(pyarrow.table({"text": ["Ayla"]}), path)
    assert "a.parquet: has no columns tokens and ner_tags; there are 'text'" in run(path, tmp_path / "out").stderr
    path.write_bytes(b"PAR1")
    assert "a.parquet: is not a Parquet file" in run(path, tmp_path / "out").stderr


def test_parquet_has_the_names_of_tags(tmp_path):
    doc = Doc(NLP.vocab, ["Ayla", "left", "Oslo"], ents=["B-PER", "O", "B-LOC"])
    with (tmp_path / "a.parquet").open("wb") as file:
        write_docs([doc], "parquet", file, "a", None, {"PER", "LOC"})
    read = parquet.read_table(tmp_path / "a.parquet")
    assert read.to_pylist() == [{"tokens": ["Ayla", "left", "Oslo"], "ner_tags": [3, 0, 1]}]
    feature = json.loads(read.schema.metadata[b"huggingface"])["info"]["features"]["ner_tags"]
    assert feature == {
        "feature": {"names": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"], "_type": "ClassLabel"},
        "_type": "Sequence",
    }


TEXT = '"text": "Ayla Okri"'


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "a.jsonl",
            f'{{{TEXT}, "label": [[0, 12, "PER"]]}}',
            "a.jsonl:1: PER (0-12) is outside the text, which ends at 9",
        ),
        ("a.jsonl", f'{{{TEXT}, "label": [[4, 0, "PER"]]}}', "a.jsonl:1: PER (4-0) ends before it starts"),
        ("a.jsonl", f'{{{TEXT}, "label": [[0, 4, null]]}}', "a.jsonl:1: the label of the entity at 0-4 is null"),
        ("a.jsonl", f'{{{TEXT}, "label": [[0, 4, 3]]}}', "is a number; export with the names of labels"),
        ("a.jsonl", f'{{{TEXT}, "label": [[0, 4, "!PER"]]}}', "negative annotation"),
        ("a.jsonl", f'{{{TEXT}, "label": [["0", 4, "X"]]}}', "entity 'X' has the offsets '0' and 4, not whole numbers"),
        (
            "a.jsonl",
            f'{{{TEXT}, "label": [[0, 3, "X"]]}}',
            "X 'Ayl' (0-3) does not start and end with a token: the tokens",
        ),
        ("a.jsonl", f'{{{TEXT}, "label": [[0, 4, "X"], [0, 9, "Y"]]}}', "X 'Ayla' (0-4) overlaps Y 'Ayla Okri' (0-9)"),
        ("a.jsonl", f'{{{TEXT}, "label": []}}\n{{{TEXT}, "spans": []}}', "a.jsonl:2: has none of the keys"),
        ("a.jsonl", f'{{{TEXT}, "label": []}}\n[1]', "a.jsonl:2: is no JSON object"),
        ("a.jsonl", f'{{{TEXT}, "label": []}}\n{{"text": null}}', "a.jsonl:2: text: null, not a text"),
        ("a.jsonl", f'{{{TEXT}, "label": []}}\n{{"text": ', "a.jsonl:2: invalid JSON: Expecting value, column 10"),
        ("a.jsonl", '{"text": "\\ud83d", "label": []}', "half of a surrogate pair"),
        (
            "a.json",
            '[["a", {"entities": []}],\n ["b", {"entities": [}]]',
            "a.json:2: invalid JSON: record 2: Expecting value",
        ),
        ("a.json", '[["a", {"entities": []}]', "a comma or the end of the array is missing"),
        ("a.json", '{"name": 1}', "is JSON of no known form (keys 'name')"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": [1]}', "ner_tags are numbers: --labels"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": ["O", "O"]}', "has 1 tokens and 2 ner_tags"),
        ("a.ann", "T1\tPER 0 4\tAyla", "a.ann: the text of this annotation is missing"),
        ("a.jsonl", f'{{{TEXT}, "spans": []}}\n{{{TEXT}, "label": [[0, 4, "X"]]}}', "a.jsonl:2: is no task of Prodigy"),
        ("a.jsonl", f'{{{TEXT}, "labels": [1]}}', "is JSON of no known form (keys 'text', 'labels')"),
        ("a.jsonl", f'{{{TEXT}, "label": [null]}}', "is JSON of no known form (keys 'text', 'label')"),
        ("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": [0, null]}', "ner_tags: None is none of the 1 --labels"),
        ("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": [0, false]}', "ner_tags: False is none of the 1 --labels"),
        (
            "a.jsonl",
            '{"tokens": ["a", "b"], "ner_tags": ["B-X", "?"]}',
            "token 2 has the tag '?': a row has no missing",
        ),
        ("a.jsonl", '{"tokens": ["a", "\\ud83d"], "ner_tags": ["O", "O"]}', "a.jsonl:1: the text or a label has bytes"),
        ("a.jsonl", f'{{{TEXT}, "label": [[0, 4, "\\ud83d"]]}}', "a.jsonl:1: the text or a label has bytes"),
        ("a.json", f'[{{"data": {{{TEXT}}}, "annotations": [5]}}]', "record 1 annotations: 5 is no JSON object"),
        (
            "a.json",
            f'[{{"data": {{{TEXT}}}, "annotations": [{{"result": [null]}}]}}]',
            "result: None is no JSON object",
        ),
        (
            "a.json",
            f'[{{"data": {{{TEXT}}}, "annotations": [{{"result": [{{"type": "labels", "value": '
            '{"start": 0, "end": 4, "labels": "PER"}}]}]}]',
            "record 1 labels: str, not a list",
        ),
        (
            "a.json",
            f'[{{{TEXT}, "annotation_id": 1, "label": [{{"start": 0, "end": 4, "labels": ["X"]}}, '
            '{"end": 9, "labels": ["Y"]}]}]',
            "record 1 entity 'Y' has the offsets None and 9, not whole numbers",
        ),
        (
            "a.json",
            f'[{{"fields": {{{TEXT}}}, "responses": [{{"values": {{}}}}]}}]',
            "is JSON of no known form (keys 'fields', 'responses')",
        ),
        (
            "a.jsonl",
            f'{{{TEXT}, "spans": [{{"start": 0, "end": 4, "label": "X"}}], "_input_hash": 1, "_annotator_id": "me"}}\n'
            f'{{{TEXT}, "spans": [], "_input_hash": 1, "_annotator_id": "me"}}',
            "a.jsonl:2: the same task is annotated twice, with other entities: keep one annotation",
        ),
    ],
)
def test_bad_input(name, content, message, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    options = ["--labels", "O"] if "[0, " in content and "tokens" in content else []
    result = run(tmp_path / name, tmp_path / "out", *options, "--missing", "?")
    assert result.exit_code == 1
    assert message in result.stderr and str(tmp_path) in result.stderr
    assert not (tmp_path / "out").exists()


def test_several_annotators_fail(tmp_path):
    with pytest.raises(ConversionError, match=r":2: the same task is annotated by ner-ann and ner-bob"):
        convert([EXPORTS / "prodigy_annotators.jsonl"], tmp_path)
    with pytest.raises(ConversionError, match="nothing by --annotator me in this file, by ner-ann, ner-bob"):
        convert([EXPORTS / "prodigy_annotators.jsonl"], tmp_path, ReadOptions(annotator="me"))


def test_other_units_are_recognised(tmp_path):
    with pytest.raises(ConversionError, match="--offsets utf16") as caught:
        convert([EXPORTS / "label_studio_utf16.json"], tmp_path)
    assert "PER 'Ayla Okri' (3-12) is outside the text, which ends at 11" in str(caught.value)
    text = {"text": "é Ayla", "entities": [{"start": 3, "end": 7, "label": "PER", "text": "Ayla"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ConversionError, match="--offsets bytes"):
        convert([tmp_path / "a.jsonl"], tmp_path)
    convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(offsets="bytes"))
    assert view(from_bin(tmp_path / "a.spacy")[0]) == ["2-6 PER Ayla"]


@pytest.mark.parametrize("alignment, entity", [("contract", "0-4 PER Ayla"), ("expand", "0-9 PER Ayla Okri")])
def test_alignment(alignment, entity, tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{{TEXT}, "label": [[0, 7, "PER"]]}}', encoding="utf-8")
    (record,) = convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(alignment=alignment)).files
    assert view(from_bin(tmp_path / "a.spacy")[0]) == [entity]
    assert record.entries[0].action.startswith(f"{alignment}ed to")


def test_overlaps_go_to_a_group_and_back(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{{TEXT}, "label": [[0, 9, "X"], [0, 4, "Y"]]}}', encoding="utf-8")
    convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(spans_key="sc"))
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert {(span.text, span.label_) for span in doc.spans["sc"]} == {("Ayla Okri", "X"), ("Ayla", "Y")}
    convert([tmp_path / "a.spacy"], tmp_path / "out", ReadOptions(spans_key="sc"), to="doccano")
    value = json.loads((tmp_path / "out" / "a.jsonl").read_text(encoding="utf-8"))
    assert sorted(value["label"]) == [[0, 4, "Y"], [0, 9, "X"]]
    result = run(tmp_path / "a.spacy", tmp_path / "hf", "--to", "hf", "--spans-key", "sc")
    assert "document 1: X 'Ayla Okri' and Y 'Ayla' overlap, which the format hf cannot hold" in result.stderr.replace(
        "Y 'Ayla' and X 'Ayla Okri'", "X 'Ayla Okri' and Y 'Ayla'"
    )
    assert not (tmp_path / "hf").exists()


def test_repair_leaves_tokens_unannotated(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{{TEXT}, "label": [[0, 3, "X"], [5, 9, "Y"]]}}', encoding="utf-8")
    (record,) = convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(repair=True)).files
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert [token.ent_iob for token in doc] == [0, 3] and record.missing == 1
    assert record.entries[0].action == "left out; its tokens are not annotated"


def test_repair_with_other_units(tmp_path):
    """The label that is null is Ann's, whose offsets count UTF-16 units."""
    task = {"text": "😀😀😀😀 Ann met Bob", "label": [[9, 12, None], [17, 20, "PER"]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(task), encoding="utf-8")
    convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(repair=True, offsets="utf16"))
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert {token.text: token.ent_iob for token in doc if token.text in ("Ann", "met", "Bob")} == {
        "Ann": 0,
        "met": 2,
        "Bob": 3,
    }
    (record,) = convert(
        [tmp_path / "a.jsonl"], tmp_path, ReadOptions(repair=True, offsets="utf16", spans_key="sc")
    ).files
    assert [entry.action for entry in record.entries] == ["left out"]


def test_groups_of_spans_are_annotated_as_a_whole(tmp_path):
    task = {"text": "Ann met Bob", "spans": [{"start": 0, "end": 3, "label": "PER"}], "_view_id": "ner"}
    (tmp_path / "a.jsonl").write_text(json.dumps(task), encoding="utf-8")
    with pytest.raises(ConversionError, match=r"a.jsonl:1: .* doc.spans cannot hold tokens that are not annotated"):
        convert([tmp_path / "a.jsonl"], tmp_path, ReadOptions(spans_key="sc"))


def test_an_answer_of_argilla_that_is_null(tmp_path):
    answers = [{"user_id": "a", "value": None}, {"user_id": "b", "value": [{"start": 0, "end": 3, "label": "PER"}]}]
    (tmp_path / "a.json").write_text(json.dumps([{"fields": {"text": "Ann"}, "responses": {"entities": answers}}]))
    convert([tmp_path / "a.json"], tmp_path)
    assert view(from_bin(tmp_path / "a.spacy")[0]) == ["0-3 PER Ann"]


@pytest.mark.parametrize("label", ["A\tB", "A\nB", " A", "A "])
def test_labels_that_conll_cannot_hold(label):
    doc = Doc(NLP.vocab, ["Ann"], ents=[f"B-{label}"])
    with pytest.raises(ConversionError, match="would be read as something else, which the format conll cannot hold"):
        write_docs([doc], "conll", io.BytesIO(), "a", None, {label})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text() | st.integers(), max_size=3), max_size=5), st.sampled_from([None, 1]))
def test_arrays_are_read_as_json_reads_them(values, indent):
    values = [{"x": value} for value in values]
    source = Source.from_stream(io.BytesIO(json.dumps(values, indent=indent).encode()), "a")
    assert [value for _, value in read_values(source, "utf-8", ConversionError())] == values


def test_a_value_longer_than_what_is_read_at_once():
    values = [{"x": "é" * 3_000_000}, {"x": "]"}]
    source = Source.from_stream(io.BytesIO(json.dumps(values, ensure_ascii=False).encode()), "a")
    assert [value for _, value in read_values(source, "utf-8", ConversionError())] == values
