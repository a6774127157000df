"""What to annotate next: the entropies against all legal sequences, the choice against one worked out by hand."""

import itertools
import json
import math

import numpy as np
import pytest
import spacy
from spacy.cli._util import app
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_bertner.annotate.records import Record
from spacy_bertner.annotate.suggest import Candidate, choose, suggest, tag_entropies

from .conftest import TEXTS, expected, read_jsonl, spans, write_jsonl


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_entropies_are_those_of_all_legal_sequences(ner, temperature):
    component = ner.get_pipe("bert_ner")
    component.cfg["temperature"] = temperature
    tags = component.tag_set
    docs = [Doc(ner.vocab, ["Kolb", "left", "Oslo"]), Doc(ner.vocab, []), Doc(ner.vocab, ["Elbe"])]
    rows = np.split(component.tag_rows(docs).scores.astype(float) / temperature, [3])
    found = tag_entropies(component, docs)
    assert [len(of_doc) for of_doc in found] == [3, 0, 1]
    for scores, of_doc in zip(rows, (found[0], found[2]), strict=True):
        shares = np.zeros(scores.shape)
        for path in itertools.product(range(len(tags)), repeat=len(scores)):
            is_legal = tags.legal_start[path[0]] and tags.legal_end[path[-1]]
            if is_legal and all(tags.legal[a, b] for a, b in itertools.pairwise(path)):
                weight = math.exp(sum(scores[i, tag] for i, tag in enumerate(path)))
                for i, tag in enumerate(path):
                    shares[i, tag] += weight
        shares /= shares.sum(axis=1, keepdims=True)
        entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in shares.tolist()]
        np.testing.assert_allclose(of_doc, entropies, rtol=1e-6)


def candidate(name, words, entropies):
    return Candidate(Record(name, 0, ""), sum(entropies) / len(words), words, np.array(entropies))


def test_choice_is_spread():
    pool = [
        candidate("first", [1, 2], [0.9, 0.1]),  # 0.5
        candidate("the same again", [1, 2], [0.9, 0.08]),  # 0.49, and 0.245 beside the first
        candidate("one word in common", [1, 3], [0.4, 0.4]),  # 0.4, and 0.3 beside it
        candidate("nothing in common", [4, 5, 6], [0.9, 0.0, 0.0]),  # 0.3
        candidate("sure", [7], [0.01]),
    ]
    chosen = [record.source for record in choose(pool, 4)]
    assert chosen == ["first", "one word in common", "nothing in common", "the same again"]
    assert len(choose(pool, 9)) == 5


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
    assert not out.exists()
    result = CliRunner().invoke(
        app, ["bertner", "suggest", str(tmp_path / "nlp"), str(texts_file), str(out), "--n", "2"]
    )
    assert result.exit_code == 0 and f"2 of {len(TEXTS)} texts" in result.stdout, result.stderr
    assert "exists already; --force" in message(texts_file, out)
