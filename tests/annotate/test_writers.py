"""Every output format, read back, against `nlp.pipe` over the same texts."""

import csv
import json
from datetime import datetime
from decimal import Decimal

import pytest
import spacy
from spacy.tokens import DocBin, Span
from spacy.training.converters import conll_ner_to_docs

from spacy_bertner.annotate.readers import ReadSettings
from spacy_bertner.annotate.run import RunSettings, annotate
from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert, read_conll

from .conftest import TEXTS, expected, read_jsonl, spans, write_jsonl


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


def found_in(name, tasks):
    if name == "label-studio":
        regions = [
            [r["value"] | {"label": r["value"]["labels"][0]} for r in t["predictions"][0]["result"]] for t in tasks
        ]
    else:
        regions = [task["spans" if name == "prodigy" else "label"] for task in tasks]
    as_tuple = (lambda e: tuple(e)) if name == "doccano" else (lambda e: (e["start"], e["end"], e["label"]))
    return [[as_tuple(entity) for entity in of_task] for of_task in regions]


@pytest.mark.parametrize("name", ["prodigy", "doccano", "label-studio"])
def test_tasks_of_annotation_tools(tmp_path, ner, name):
    fields = [{"text": text, "id": i, "answer": "reject", "label": ["X"]} for i, text in enumerate(TEXTS)]
    given = write_jsonl(tmp_path / "in.jsonl", [*fields, {"text": None, "id": -1}])
    out = tmp_path / "tasks.json"
    annotate(ner, [given], out, RunSettings(output_format=name, batch_size=5))
    content = out.read_text(encoding="utf8")
    *tasks, error = json.loads(content) if name == "label-studio" else map(json.loads, content.splitlines())
    data = [task["data"] if name == "label-studio" else task for task in tasks]
    assert [(of_task["text"], of_task["id"]) for of_task in data] == list(zip(TEXTS, range(len(TEXTS)), strict=True))
    assert found_in(name, tasks) == expected(ner)
    assert "null, not a text" in (error["data"] if name == "label-studio" else error)["error"]
    if name == "prodigy":  # not answered yet
        assert "answer" not in tasks[0] and tasks[0]["input_answer"] == "reject"
    again = annotate(ner, [given], out, RunSettings(output_format=name, batch_size=5, resume=True))
    assert again.n_records in (0, len(fields) + 1) and out.read_text(encoding="utf8") == content
    write_jsonl(given, fields[1:])
    with pytest.raises(ValueError, match="--force"):
        annotate(ner, [given], out, RunSettings(output_format=name, batch_size=5, resume=True))


@pytest.mark.parametrize("name", ["prodigy", "doccano", "label-studio"])
def test_tasks_are_read_back(tmp_path, ner, texts_file, name):
    annotate(ner, [texts_file], tmp_path / "tasks.json", RunSettings(output_format=name))
    if name == "label-studio":  # predictions are not annotation
        with pytest.raises(ConversionError, match=f"{len(TEXTS)} without annotation"):
            convert([tmp_path / "tasks.json"], tmp_path / "out")
    else:
        convert([tmp_path / "tasks.json"], tmp_path / "out", ReadOptions(alignment="expand"))
        docs = DocBin().from_disk(tmp_path / "out" / "tasks.spacy").get_docs(ner.vocab)
        assert [spans(doc) for doc in docs] == expected(ner)
