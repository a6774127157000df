"""What to annotate next, by the command and from Python."""

import json

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401 (adds its commands to the app)
from spacy_bertner.annotate.suggest import suggest
from spacy_bertner.annotate.uncertainty import tag_entropies

from .conftest import TEXTS, expected, read_jsonl, spans, write_jsonl


def test_tasks_of_the_least_sure_texts(ner, tmp_path, texts_file):
    result = suggest(ner, [texts_file], tmp_path / "tasks.jsonl", 3)
    tasks = read_jsonl(tmp_path / "tasks.jsonl")
    assert result.n_texts == len(TEXTS) and len(tasks) == 3
    docs = [ner.make_doc(text) for text in TEXTS]
    means = [entropies.mean() for entropies in tag_entropies(ner.get_pipe("bert_ner"), docs)]
    assert tasks[0]["text"] == TEXTS[int(np.argmax(means))]
    gold = dict(zip(TEXTS, expected(ner), strict=True))
    for task in tasks:
        assert [(span["start"], span["end"], span["label"]) for span in task["spans"]] == gold[task["text"]]
        assert all(0 <= span["score"] <= 1 for span in task["spans"])
        assert "answer" not in task and TEXTS[task["id"]] == task["text"]


@pytest.mark.parametrize("strategy", ["uncertainty", "random"])
def test_annotated_and_repeated_texts_are_left_out(ner, tmp_path, strategy):
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": text} for text in [*TEXTS, *TEXTS, "", None, f" {TEXTS[0]}"]))
    done = tmp_path / "done.json"  # Label Studio's
    done.write_text(json.dumps([{"data": {"text": text}, "annotations": []} for text in TEXTS[:3]]), encoding="utf8")
    more = tmp_path / "more.spacy"
    spacy.tokens.DocBin(docs=[ner.make_doc(TEXTS[3])]).to_disk(more)
    result = suggest(ner, [given], tmp_path / "out.jsonl", 1000, exclude=[done, more], strategy=strategy)
    assert sorted(task["text"] for task in read_jsonl(tmp_path / "out.jsonl")) == sorted(TEXTS[4:])
    assert (result.n_texts, result.n_excluded, result.n_repeated) == (2 * len(TEXTS) + 3, 9, len(TEXTS) - 4)
    assert len(result.errors) == 1 and "null, not a text" in result.errors[0]


def test_texts_are_left_out_whatever_the_format(ner, tmp_path):
    """Also where a format has the words alone, or a folder of files."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"Ayla , {name} ." for name in ("Abe", "Bo", "Cy", "Di", "Eve", "Fay")]
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": text.replace(" ,", ",").replace(" .", ".")} for text in texts))
    words = [text.split() for text in texts]
    (tmp_path / "a.conll").write_text("".join(f"{word}\tO\n" for word in words[0]), encoding="utf8")
    hf = write_jsonl(tmp_path / "hf.jsonl", [{"tokens": words[1], "ner_tags": [7] * len(words[1])}])
    parquet.write_table(pyarrow.table({"tokens": [words[2]], "ner_tags": [[7] * 4]}), tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"text": [texts[3]]}), tmp_path / "b.parquet")
    (tmp_path / "brat").mkdir()
    (tmp_path / "brat" / "1.txt").write_text(texts[4], encoding="utf8")
    (tmp_path / "brat" / "1.ann").touch()
    exclude = [tmp_path / "a.conll", hf, tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "brat"]
    result = suggest(ner, [given], tmp_path / "out.jsonl", 9, exclude=exclude)
    assert [task["text"] for task in read_jsonl(tmp_path / "out.jsonl")] == ["Ayla, Fay."] and result.n_excluded == 5


@pytest.mark.parametrize("strategy", ["uncertainty", "random"])
def test_each_text_counts_once(ner, tmp_path, strategy):
    """Also one that is not among the best: the pool of texts is full before its copies come."""
    given = write_jsonl(tmp_path / "in.jsonl", ({"text": text} for text in [*TEXTS, *[min(TEXTS, key=len)] * 9]))
    result = suggest(ner, [given], tmp_path / "out.jsonl", 1, strategy=strategy)
    assert result.n_repeated == 9


def test_texts_that_cannot_be_processed(pipeline, tmp_path):
    """All texts of the last chunk."""
    nlp = spacy.load(pipeline)
    nlp.add_pipe("annotate_tests_raises", first=True)
    given = write_jsonl(tmp_path / "in.jsonl", [{"text": "The Elbe"}, {"text": "The Elbe again"}])
    result = suggest(nlp, [given], tmp_path / "out.jsonl", 1)
    assert len(result.errors) == 2 and result.chosen == []


def test_random_choice_depends_on_the_seed(ner, tmp_path, texts_file):
    def draw(seed):
        suggest(ner, [texts_file], tmp_path / "out.jsonl", 4, strategy="random", seed=seed, force=True)
        return [task["text"] for task in read_jsonl(tmp_path / "out.jsonl")]

    assert draw(0) == draw(0) != draw(1)


def test_groups_of_spans_and_other_components(pipeline, tmp_path, texts_file):
    nlp = spacy.load(pipeline)
    component = nlp.get_pipe("bert_ner")
    component.cfg["spans_key"] = "sc"
    nlp.add_pipe("sentencizer", first=True)
    nlp.add_pipe("annotate_tests_raises")
    result = suggest(nlp, [texts_file], tmp_path / "out.json", 3)
    (first, *_) = tasks = json.loads((tmp_path / "out.json").read_text(encoding="utf8"))
    regions = [region for task in tasks for region in task["predictions"][0]["result"]]
    assert regions and all(0 <= region["score"] <= 1 for region in regions)
    other = spacy.load(pipeline)
    found = [
        (r["value"]["start"], r["value"]["end"], r["value"]["labels"][0]) for r in first["predictions"][0]["result"]
    ]
    assert found == spans(other(first["data"]["text"]))
    assert not result.errors and nlp.pipe_names == ["sentencizer", "bert_ner", "annotate_tests_raises"]


def test_what_is_wrong(ner, tmp_path, texts_file):
    def message(*args, pipeline=None):
        path = pipeline or tmp_path / "nlp"
        result = CliRunner().invoke(app, ["bertner", "suggest", str(path), *map(str, args)])
        assert result.exit_code == 1
        return result.stderr

    ner.to_disk(tmp_path / "nlp")
    spacy.blank("en").to_disk(tmp_path / "blank")
    out = tmp_path / "out.jsonl"
    assert "no bert_ner" in message(texts_file, out, pipeline=tmp_path / "blank")
    assert "--n: 0 is less than 1" in message(texts_file, out, "--n", 0)
    assert "--strategy: 'x' is unknown; allowed are uncertainty, random" in message(texts_file, out, "--strategy", "x")
    assert "--format: 'csv' is unknown; allowed are prodigy" in message(texts_file, out, "--format", "csv")
    assert "no key 'body'" in message(texts_file, out, "--text-key", "body")
    assert "missing.jsonl" in message(texts_file, out, "--exclude", tmp_path / "missing.jsonl")
    assert "standard input cannot be left out: name a file" in message(texts_file, out, "--exclude", "-")
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"tokens": ["a"], "ner_tags": [0]}, {"text": "a"}, {"tokens": None}])
    assert "rows.jsonl:2: has no tokens and ner_tags" in message(texts_file, out, "--exclude", rows)
    assert not out.exists()
    result = CliRunner().invoke(
        app, ["bertner", "suggest", str(tmp_path / "nlp"), str(texts_file), str(out), "--n", "2"]
    )
    assert result.exit_code == 0 and f"2 of {len(TEXTS)} texts" in result.stdout, result.stderr
    assert "exists already; --force" in message(texts_file, out)
