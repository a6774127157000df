"""Nothing is lost, whatever the components do; settings of a pipeline."""

import shutil

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin, Span

from spacy_bertner import files
from spacy_bertner.annotate.run import RunSettings, annotate
from spacy_bertner.annotate.worker import Pipeline, set_threshold
from spacy_bertner.annotate.writers import WRITERS
from spacy_bertner.formats.convert import read_conll

from .conftest import TEXTS, expected, found_spans, read_jsonl, spans, write_jsonl


@pytest.mark.parametrize("kind", ["raises", "drops", "hides"])
@pytest.mark.parametrize("form", WRITERS)
def test_nothing_is_lost(kind, form, tmp_path, ner, texts_file):
    good = expected(ner)
    ner.add_pipe("annotate_tests_drops" if kind == "drops" else "annotate_tests_raises")
    if kind == "hides":
        ner.set_error_handler(lambda *args: None)
    handler = ner.default_error_handler
    output = tmp_path / f"out.{form}"
    summary = annotate(ner, [texts_file], output, RunSettings(form))
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


@pytest.mark.parametrize("form", ["jsonl", "csv", "conll", "html", "spacy"])
def test_entities_in_a_group_of_spans(form, tmp_path, ner, texts_file):
    ner.get_pipe("bert_ner").cfg["spans_key"] = "found"
    docs = list(ner.pipe(TEXTS))
    groups = [doc.spans["found"] for doc in docs]
    expected = [[(span.start_char, span.end_char, span.label_) for span in group] for group in groups]
    scores = [round(float(score), 4) for group in groups for score in group.attrs["scores"]]
    output = tmp_path / f"out.{form}"
    assert annotate(ner, [texts_file], output).n_errors == 0
    n = sum(map(len, expected))
    assert n > 10
    if form == "jsonl":
        records = read_jsonl(output)
        assert found_spans(records) == expected
        assert [ent["score"] for record in records for ent in record["entities"]] == pytest.approx(scores, abs=1e-4)
    elif form == "csv":
        assert len(output.read_text(encoding="utf8").splitlines()) == n + 1
    elif form == "conll":
        assert output.read_text(encoding="utf8").count("\tB-") == n
    elif form == "html":
        assert output.read_text(encoding="utf8").count("<mark") == n
    else:
        docs = DocBin(store_user_data=True).from_disk(output).get_docs(ner.vocab)
        assert [[(s.start_char, s.end_char, s.label_) for s in doc.spans["found"]] for doc in docs] == expected


def test_ids_of_gold_entities_do_not_stay(tmp_path, ner):
    """Also those of the tokens that the pipeline finds no entity in."""
    docs = []
    for text in TEXTS:
        doc = ner.make_doc(text)
        doc.set_ents([Span(doc, i, i + 1, label="OLD", kb_id="Q1", span_id="ruler") for i in range(len(doc))])
        docs.append(doc)
    DocBin(docs=docs).to_disk(tmp_path / "gold.spacy")
    annotate(ner, [tmp_path / "gold.spacy"], tmp_path / "out.spacy")
    found = list(DocBin(store_user_data=True).from_disk(tmp_path / "out.spacy").get_docs(ner.vocab))
    assert sum(len(doc.ents) for doc in found) > 10
    assert not any(token.ent_id_ or token.ent_kb_id_ for doc in found for token in doc)


@pytest.mark.parametrize("score", ["high", None, float("nan"), [0.5], 0.25])
def test_a_score_of_other_code(score, tmp_path, ner, texts_file):
    """`Span._.score` may be an extension of other code, in a pipeline without `bert_ner`."""
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "RIVER", "pattern": "Elbe"}])
    ours = Span.remove_extension("score")
    Span.set_extension("score", default=score)
    try:
        assert annotate(nlp, [texts_file], tmp_path / "out.jsonl").n_errors == 0
    finally:
        Span.set_extension("score", getter=ours[2], setter=ours[3], force=True)
    found = [ent for record in read_jsonl(tmp_path / "out.jsonl") for ent in record["entities"]]
    assert found and {ent["score"] for ent in found} == {0.25 if score == 0.25 else None}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_convert_reads_entities_over_sentence_boundaries(every, tmp_path, ner, texts_file):
    """The entities are the same, wherever a component before has put the sentence boundaries."""

    @Language.component(f"annotate_tests_cut_{every}")
    def cut(doc):
        for token in doc:
            token.is_sent_start = token.i % every == 0
        return doc

    ner.add_pipe(f"annotate_tests_cut_{every}", first=True)
    expected = [[(ent.text, ent.label_) for ent in doc.ents] for doc in ner.pipe(TEXTS)]
    annotate(ner, [texts_file], tmp_path / "out.conll")
    found = [[(ent.text, ent.label_) for ent in doc.ents] for doc in read_conll(tmp_path / "out.conll")]
    assert found == expected and any(" " in text for ents in found for text, _ in ents)


def test_an_empty_text_among_others(tmp_path, ner):
    for name, text in (("a", TEXTS[0]), ("b", ""), ("c", TEXTS[1])):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf8")
    assert annotate(ner, [tmp_path], tmp_path / "out.jsonl").n_errors == 0
    assert [record["text"] for record in read_jsonl(tmp_path / "out.jsonl")] == [TEXTS[0], "", TEXTS[1]]


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


def test_identity_is_that_of_the_files(pipeline, tmp_path):
    """Not of their place, nor of what Python or the system put beside them."""
    folder = tmp_path / "copy"
    shutil.copytree(pipeline, folder)
    loaded = Pipeline(str(folder))
    before = loaded.identity()
    assert before == Pipeline(str(pipeline)).identity()
    for name in ("__pycache__/code.cpython-311.pyc", "bert_ner/__pycache__/code.cpython-312.pyc", ".DS_Store"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert loaded.identity() == before
    assert Pipeline(str(folder), threshold=0.5).identity() != before
    (folder / "bert_ner" / "cfg").write_bytes(b"{}")
    assert loaded.identity() != before


def test_each_file_is_hashed_once(pipeline, monkeypatch):
    hashed = []
    checksum = files._checksum
    monkeypatch.setattr(files, "_checksum", lambda path: hashed.append(path) or checksum(path))
    Pipeline(str(pipeline)).identity()
    assert len(hashed) == len(set(hashed)) > 3
