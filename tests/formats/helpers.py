"""What the tests of reading annotated files share."""

import io
from pathlib import Path

import pytest
from spacy.cli._util import app
from spacy.tokens import DocBin
from spacy.training.converters import conll_ner_to_docs
from spacy.vocab import Vocab
from typer.testing import CliRunner

import spacy_bertner.cli  # noqa: F401 (registers the command)
from spacy_bertner.formats.convert import ConversionError, ReadOptions, read_conll

DIALECTS = Path(__file__).parent / "dialects"


NAMES = sorted(path.name.removesuffix(".json") for path in DIALECTS.glob("*.json"))


DATA = Path(__file__).parents[3] / "shared" / "data"


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data) are not here")


def read(text, **options):
    """Read text; without document marks, all of it is one Doc."""
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return list(read_conll(io.BytesIO(data), ReadOptions(**{"n_sents": 0, **options}), vocab=Vocab()))


def faults(text, **options):
    with pytest.raises(ConversionError) as caught:
        read(text, **options)
    return [(fault.line, fault.what) for fault in caught.value.faults]


def view(span):
    return f"{span.start}-{span.end} {span.label_} {span.text}"


def sentences(doc):
    words: list[list[str]] = []
    for token in doc:
        if token.is_sent_start or not words:
            words.append([])
        words[-1].append(token.text)
    return words


def entities(docs):
    return [[(e.start, e.end, e.label_) for e in doc.ents] for doc in docs]


def from_bin(path):
    return list(DocBin().from_disk(path).get_docs(Vocab()))


def run(*args, stdin=None):
    return CliRunner().invoke(app, ["bertner", "convert", *map(str, args)], input=stdin)


def check_docs(docs, expected):
    assert len(docs) == len(expected)
    for doc, want in zip(docs, expected, strict=True):
        words = [word for sentence in want["sents"] for word in sentence]
        assert [token.text for token in doc] == words
        if want.get("sentences_known", True):
            assert sentences(doc) == want["sents"]
            assert all(token.is_sent_start is not None for token in doc)
        else:
            assert not any(token.is_sent_start for token in doc[1:])
            assert doc[-1].is_sent_start is None or len(doc) == 1
        assert [view(ent) for ent in doc.ents] == want["ents"]
        assert [token.tag_ for token in doc] == want.get("tags", [""] * len(words))
        assert [token.i for token in doc if token.ent_iob == 0] == want.get("missing", [])
        assert doc.has_unknown_spaces == ("text" not in want)
        if "text" in want:
            assert doc.text == want["text"]
        assert ("sc" in doc.spans) == ("spans" in want)
        if "spans" in want:
            assert [view(span) for span in doc.spans["sc"]] == want["spans"]


def same_as_spacy(text):
    theirs = list(conll_ner_to_docs(text, n_sents=0, no_print=True))
    ours = read(text)
    assert [[t.text for t in doc] for doc in ours] == [[t.text for t in doc] for doc in theirs]
    assert [[t.tag_ for t in doc] for doc in ours] == [[t.tag_ for t in doc] for doc in theirs]
    assert entities(ours) == entities(theirs)
    starts = [[bool(t.is_sent_start) for t in doc] for doc in ours]
    assert starts == [[bool(t.is_sent_start) for t in doc] for doc in theirs]
