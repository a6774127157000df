"""The ledger: what it counts, and the entities that training would lose."""

import json

from spacy_bertner.formats.convert import convert, read_conll

from .helpers import DIALECTS, from_bin, run


def test_ledger(tmp_path):
    path, ledger = tmp_path / "a.conll", tmp_path / "deep" / "ledger.json"
    path.write_text("# a = b\nA NN B-X\nb NN _\n\nc NN B-Y\nd NN O\n", encoding="utf-8")
    result = run(path, tmp_path, "--ledger", ledger)
    assert result.exit_code == 0
    assert "X 1, Y 1" in result.stdout
    noted = json.loads(ledger.read_text(encoding="utf-8"))
    assert noted == {
        "files": [
            {
                "input": str(path),
                "output": str(tmp_path / "a.spacy"),
                "layout": "columns",
                "columns": {"word": "1", "tag": "3", "pos": "2"},
                "scheme": "IOB2",
                "documents_by": "sentence",
                "spaces": "unknown",
                "documents": 2,
                "sentences": 2,
                "tokens": 4,
                "missing": 1,
                "entities": {"X": 1, "Y": 1},
                "layer": {},
                "comments": 1,
                "multi_word_tokens": 0,
                "empty_nodes": 0,
                "misaligned": [],
                "entries": [],
                "warnings": [],
                "skipped": {},
            }
        ],
        "left_out": [],
        "totals": {
            "documents": 2,
            "tokens": 4,
            "entities": {"X": 1, "Y": 1},
            "misaligned": 0,
            "entries": 0,
        },
    }


def test_documents_without_marks(tmp_path):
    """Sentences that may not belong together are no context: each is a document, and the command says so."""
    note = "no document marks: one document per sentence; --n-sents N groups them"
    text = "A B-X\n\nb O\n\nC B-X\n"
    expected = {
        (): ([["A"], ["b"], ["C"]], "sentence"),
        ("--n-sents", 1): ([["A"], ["b"], ["C"]], "sentence"),
        ("--n-sents", 2): ([["A", "b"], ["C"]], "every 2 sentences"),
        ("--n-sents", 0): ([["A", "b", "C"]], "file"),
    }
    for options, (docs, documents_by) in expected.items():
        (tmp_path / "a.conll").write_text(text, encoding="utf-8")
        result = run(tmp_path / "a.conll", tmp_path, "--ledger", tmp_path / "ledger.json", *options)
        assert result.exit_code == 0
        assert (f"a.conll: {note}\n" in result.stdout) == (documents_by == "sentence")
        assert [[token.text for token in doc] for doc in from_bin(tmp_path / "a.spacy")] == docs
        (record,) = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))["files"]
        assert record["documents_by"] == documents_by
    # Documents that are marked stay whole
    (tmp_path / "a.conll").write_text(f"-DOCSTART- O\n\n{text}", encoding="utf-8")
    result = run(tmp_path / "a.conll", tmp_path)
    assert note not in result.stdout and len(from_bin(tmp_path / "a.spacy")) == 1


def test_entities_that_would_not_align_are_named(tmp_path):
    """With known spaces the corpus reader tokenises again: `U.S|.` becomes `U.S.`."""
    row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\t{}\n"
    rows = [
        row.format(1, "the", "_"),
        row.format(2, "U.S", "name=B-LOC|SpaceAfter=No"),
        row.format(3, ".", "_"),
        row.format(4, "Rome", "name=B-LOC"),
    ]
    path = tmp_path / "a.conllu"
    path.write_text("".join(rows), encoding="utf-8")
    (record,) = convert([path], tmp_path).files
    assert [(lost.document, lost.start, lost.end, lost.text) for lost in record.misaligned] == [(1, 4, 7, "U.S")]
    import spacy
    from spacy.training import Example

    (doc,) = from_bin(tmp_path / "a.spacy")
    nlp = spacy.blank("en")
    aligned = Example(nlp.make_doc(doc.text), doc).get_aligned_spans_y2x(doc.ents)
    assert [span.text for span in aligned] == ["Rome"]
    # Without known spaces nothing is tokenised again, and nothing can be lost.
    assert all(doc.has_unknown_spaces for doc in read_conll(DIALECTS / "conll2003.conll"))
