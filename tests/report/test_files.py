"""The files of a report, by the command and without matplotlib."""

import json
import sys
import warnings

import pytest
from spacy.tokens import Doc

from spacy_bertner.report import build_report, write_report
from spacy_bertner.report.confidence import confidence
from spacy_bertner.report.plots import make_plots

from .conftest import random_documents, ruler, run, save


def test_command(pipeline, data, tmp_path):
    code, output = run(pipeline, data, tmp_path / "out", "--train", data, "--compare", pipeline)
    assert code == 0, output
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"report.html", "report.json", "report.md", "labels.png", "confusion.png"}
    report = json.loads((out / "report.json").read_text(encoding="utf8"))
    assert report["entities"] == build_report(ruler(), data)["entities"]
    assert f"F1 {report['entities']['micro']['f1']:.1%}" in output
    assert report["pipeline"] == f"{pipeline} (en_pipeline 0.0.0)"
    assert list(report) == [
        "format", "pipeline", "data", "train", "spans_key", "counts", "warnings", "entities", "kinds", "tokens", "errors",
        "confusion", "by_length", "by_position", "by_seen", "inconsistent", "confidence", "lost", "comparison",
    ]  # fmt: skip
    for name in ("labels.png", "confusion.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in (out / "report.md").read_text(encoding="utf8")
    # The same again, byte for byte, only where it is asked for
    before = {p: p.read_bytes() for p in out.iterdir()}
    (out / "notes.txt").write_text("mine", encoding="utf8")
    code, output = run(pipeline, data, out, "--train", data, "--compare", pipeline)
    assert code == 1 and f"report: {out}: exists already; --force overwrites it" in output
    code, output = run(pipeline, data, out, "--train", data, "--compare", pipeline, "--force")
    assert code == 0
    assert {p: p.read_bytes() for p in before} == before and (out / "notes.txt").exists()


def test_without_matplotlib(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = write_report(build_report(ruler(), data), tmp_path / "out")
    assert [path.name for path in files] == ["report.html", "report.json", "report.md"]
    assert 'pip install "spacy-bertner[plot]"' in files[2].read_text(encoding="utf8")


def with_scores(folder, nlp, labels):
    doc = Doc(nlp.vocab, words=["Oslo", "Kolb", "left"], ents=[f"B-{labels[0]}", f"B-{labels[1]}", "O"])
    report = build_report(ruler({"Oslo": labels[0], "left": labels[1]}), save(folder / "data.spacy", [doc]))
    documents = random_documents()
    return {**report, "confidence": confidence(documents)}


def test_the_same_report_gives_the_same_files(tmp_path, nlp):
    report = with_scores(tmp_path, nlp, ["LOC", "PER"])
    first, second = (write_report(report, tmp_path / name) for name in ("1", "2"))
    assert [path.name for path in first][3:] == ["labels.png", "confusion.png", "reliability.png", "thresholds.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_text(encoding="utf8").count('src="data:image/svg+xml;base64,') == 2


def test_labels_in_any_script_are_legible_in_plots(tmp_path, nlp):
    """By a font that has their characters or, where none is installed, by their code points; matplotlib warns of boxes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = [
            make_plots(with_scores(tmp_path, nlp, labels))["png"] for labels in (["地点", "人物"], ["地方", "人民"])
        ]
    assert all(plots[0][name] != plots[1][name] for name in ("labels", "confusion"))


def test_what_cannot_be_written_leaves_no_half_report(data, tmp_path, monkeypatch):
    report = build_report(ruler(), data)
    write_report(report, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("spacy_bertner.report.files.make_markdown", lambda *_: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_report({**report, "data": "other"}, tmp_path / "out", force=True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
