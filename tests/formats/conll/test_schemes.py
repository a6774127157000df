"""The same entities in every scheme and layout."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_bertner.formats.convert import ReadOptions, convert
from spacy_bertner.tags import SCHEMES as TABLE

from ..helpers import DATA, needs_data, read, same_as_spacy, sentences


@needs_data
@pytest.mark.parametrize("split", ["train", "devel", "test"])
def test_ncbi_in_two_schemes_is_the_same(split, tmp_path):
    for scheme in ("iob", "iobes"):
        convert([DATA / "ncbi_disease" / scheme / f"{split}.tsv"], tmp_path / scheme)
    one, two = (tmp_path / scheme / f"{split}.spacy" for scheme in ("iob", "iobes"))
    assert one.read_bytes() == two.read_bytes()


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=8).filter(
    lambda w: not w.isspace() and not w.startswith(("#", "-DOCSTART")) and "|" not in w
)


LABELS = st.sampled_from(["PER", "LOC", "product-car", "a/b", "O", "é"])


@st.composite
def corpora(draw):
    """Documents of sentences of (words, entities): what there is to find."""
    docs = []
    for _ in range(draw(st.integers(1, 3))):
        doc = []
        for _ in range(draw(st.integers(1, 3))):
            words, ents = [], []
            for _ in range(draw(st.integers(1, 4))):
                n = draw(st.integers(1, 3))
                label = draw(st.one_of(st.none(), LABELS))
                if label is not None:
                    ents.append((len(words), len(words) + n, label))
                words.extend(draw(WORDS) for _ in range(n))
            doc.append((words, ents))
        docs.append(doc)
    return docs


def encode(n_tokens, ents, scheme):
    tags = ["O"] * n_tokens
    for i, (start, end, label) in enumerate(ents):
        if scheme in ("IO", "IOB1"):
            follows = i > 0 and ents[i - 1][1:] == (start, label)
            letters = ["B" if follows else "I"] + ["I"] * (end - start - 1)
        elif scheme == "IOB2":
            letters = ["B"] + ["I"] * (end - start - 1)
        else:
            begin, inside, last, single = scheme
            n = end - start
            letters = [single] if n == 1 else [begin, *[inside] * (n - 2), last]
        tags[start:end] = [f"{letter}-{label}" for letter in letters]
    return tags


SCHEMES = {
    "IOB1": "IOB1",
    "IOB2": "IOB2",
    "BIOES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
}


def write(docs, tags_of, layout):
    """The text of a corpus in a layout."""
    out = []
    for number, doc in enumerate(docs):
        if layout == "conllu":
            out.append(f"# newdoc id = {number}")
        elif layout != "inline":
            mark = {"space": "-DOCSTART- -X- O", "tab": "-DOCSTART-\t-X-\tO"}.get(layout)
            out += [mark or "-DOCSTART-", ""]
        else:
            out.append("-DOCSTART-|O")
        for words, ents in doc:
            tags = tags_of(words, ents)
            pairs = list(zip(words, tags, strict=True))
            if layout == "space":
                out += [f"{word} NN {tag}" for word, tag in pairs]
            elif layout in ("tab", "crlf"):
                out += [f"{word}\t{tag}" for word, tag in pairs]
            elif layout == "conllu":
                row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\tname={}"
                out += [row.format(i, word, tag) for i, (word, tag) in enumerate(pairs, 1)]
            elif layout == "uner":
                out += [f"{i}\t{word}\t{tag}" for i, (word, tag) in enumerate(pairs, 1)]
            else:
                out.append(" ".join(f"{word}|{tag}" for word, tag in pairs))
            out.append("")
    return ("\r\n" if layout == "crlf" else "\n").join(out)


def assert_same(docs, corpus):
    assert len(docs) == len(corpus)
    for doc, wanted in zip(docs, corpus, strict=True):
        assert sentences(doc) == [words for words, _ in wanted]
        expected, offset = [], 0
        for words, ents in wanted:
            expected += [(offset + start, offset + end, label) for start, end, label in ents]
            offset += len(words)
        assert [(e.start, e.end, e.label_) for e in doc.ents] == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    corpora(),
    st.sampled_from(list(SCHEMES)),
    st.sampled_from(["space", "tab", "crlf", "conllu", "uner", "inline"]),
)
def test_round_trip(corpus, scheme, layout):
    """Random documents → each scheme and layout → the same documents."""
    text = write(corpus, lambda words, ents: encode(len(words), ents, SCHEMES[scheme]), layout)
    named = {"space": "columns", "tab": "columns", "crlf": "columns"}.get(layout, "auto")
    assert_same(read(text, scheme=scheme, layout=named), corpus)
    # Found out, the scheme may be another one, but only one that reads the same.
    assert_same(read(text, layout=named), corpus)


def test_every_name_of_a_scheme_is_known():
    for name, scheme in TABLE.items():
        for alias in (name, *scheme.aliases):
            assert ReadOptions(scheme=alias.lower()).scheme == name


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_all_schemes_give_the_same(corpus):
    seen = []
    for scheme in SCHEMES.values():
        text = write(corpus, lambda words, ents, s=scheme: encode(len(words), ents, s), "tab")
        docs = read(text, layout="columns")
        seen.append([[(t.text, t.ent_iob, t.ent_type_) for t in doc] for doc in docs])
    assert all(one == seen[0] for one in seen)


@settings(max_examples=25, deadline=None)
@given(corpora())
def test_same_as_spacy_on_random_documents(corpus):
    ascii_only = [
        [([re.sub(r"[^a-z]", "x", word) for word in words], [(s, e, "PER") for s, e, _ in ents]) for words, ents in doc]
        for doc in corpus
    ]
    out = []
    for doc in ascii_only:
        out += ["-DOCSTART- -X- O O", ""]
        for words, ents in doc:
            tags = encode(len(words), ents, "IOB2")
            out += [f"{word} NN I-NP {tag}" for word, tag in zip(words, tags, strict=True)]
            out.append("")
    same_as_spacy("\n".join(out))
