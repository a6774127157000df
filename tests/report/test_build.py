"""A whole report, and data that none can be made of."""

import pytest
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_bertner.report import build_report

from ..conftest import SENTENCES
from .conftest import docs_of, ruler, run, save


def test_ledger(data, tmp_path):
    from spacy_bertner.formats.convert import ReadOptions, convert

    (tmp_path / "odd.conll").write_text("Oslo B-LOC\nx I-PER\n\n", encoding="utf8")
    convert([str(tmp_path / "odd.conll")], tmp_path / "out", ReadOptions(repair=True), ledger=tmp_path / "ledger.json")
    report = build_report(ruler(), data, ledger=tmp_path / "ledger.json")
    assert report["lost"]["conversion"]["total"] == 1
    assert report["lost"]["conversion"]["examples"][0]["place"] == f"{tmp_path / 'odd.conll'}:2"


def test_folders_and_gpu_free_code(data):
    assert build_report(ruler(), data.parent)["counts"]["documents"] == len(SENTENCES)


def bad_data(folder, kind):
    vocab = Vocab()
    path = folder / "bad.spacy"
    if kind == "empty file":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("Oslo B-LOC\n", encoding="utf8")
    elif kind == "cut":
        path.write_bytes(DocBin(docs=docs_of(vocab)).to_bytes()[:100])
    elif kind == "no documents":
        save(path, [])
    elif kind == "no gold":
        save(path, [Doc(vocab, words=["Oslo"])])
    elif kind == "no entities":
        save(path, [Doc(vocab, words=["Oslo"], ents=["O"])])
    elif kind == "other labels":
        save(path, [Doc(vocab, words=["Oslo"], ents=["B-GPE"])])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty file", "the file is empty"),
        ("text", "is not a .spacy file; `python -m spacy bertner convert` makes one from CoNLL files"),
        ("cut", "is a damaged .spacy file"),
        ("no documents", "has no documents"),
        ("no gold", "no document can be scored; 1 of 1: has no entity annotation"),
        ("no entities", "the annotation has no entities: there is nothing to score"),
        ("other labels", "none of its labels (GPE) is one of the pipeline"),
        ("folder", "no .spacy file in this folder"),
        ("missing", "no such file or folder"),
    ],
)
def test_bad_data(kind, message, pipeline, tmp_path):
    path = bad_data(tmp_path, kind)
    code, output = run(pipeline, path, tmp_path / "out")
    assert code == 1 and f"report: {path}: {message}" in output
    assert not (tmp_path / "out").exists()


def test_bad_settings(pipeline, data, tmp_path):
    out = tmp_path / "out"
    code, output = run(tmp_path / "nowhere", data, out)
    assert code == 1 and "nowhere" in output
    assert "--n-bins: 0 is not a number above 0" in run(pipeline, data, out, "--n-bins", 0)[1]
    assert f"{data}: is a file" in run(pipeline, data, data)[1]
    code, output = run(pipeline, data, out, "--spans-key", "sc")
    assert code == 1 and "has no doc.spans['sc']; its span groups are: none" in output
    code, output = run(pipeline, data, out, "--ledger", data)
    assert code == 1 and f"{data}: is not what `convert --ledger` writes" in output
    save(tmp_path / "o.spacy", [Doc(Vocab(), words=["Oslo"], ents=["O"])])
    code, output = run(pipeline, data, out, "--train", tmp_path / "o.spacy")
    assert code == 1 and "o.spacy: the training data has no entities" in output
    assert not out.exists()


def test_labels_that_the_pipeline_lacks_are_a_warning(tmp_path):
    nlp = ruler({"Oslo": "LOC"})
    docs = [Doc(nlp.vocab, words=["Oslo", "Kolb", "Aas"], ents=["B-LOC", "B-PERSON", "B-PERSON"])]
    report = build_report(nlp, save(tmp_path / "data.spacy", docs))
    assert report["warnings"] == [
        "The pipeline does not have the labels PERSON (2) of the data: 2 of 3 entities cannot be found with the right "
        "label, and count as missed in the strict figures."
    ]
    assert report["entities"]["micro"]["recall"] == pytest.approx(1 / 3)
