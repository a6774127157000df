"""The files of a report, by the command and without matplotlib."""

import json
import sys

from spacy_bertner.report import build_report, write_report

from .conftest import ruler, run


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
    assert code == 1 and f"{out}: is not empty; --force overwrites an earlier report" in output
    code, output = run(pipeline, data, out, "--train", data, "--compare", pipeline, "--force")
    assert code == 0
    assert {p: p.read_bytes() for p in before} == before and (out / "notes.txt").exists()


def test_without_matplotlib(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = write_report(build_report(ruler(), data), tmp_path / "out")
    assert [path.name for path in files] == ["report.html", "report.json", "report.md"]
    assert 'pip install "spacy-bertner[plot]"' in files[2].read_text(encoding="utf8")
