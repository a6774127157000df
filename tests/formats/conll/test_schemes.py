"""The same entities in every scheme and layout."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert, read_conll
from spacy_bertner.tags import SCHEMES as TABLE

from ..helpers import DATA, faults, from_bin, needs_data, read, run, same_as_spacy, sentences


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
        elif scheme == "BIOS":
            letters = ["S"] if end - start == 1 else ["B"] + ["I"] * (end - start - 1)
        elif scheme in ("IOE1", "IOE2"):
            is_followed = i + 1 < len(ents) and (ents[i + 1][0], ents[i + 1][2]) == (end, label)
            letters = ["I"] * (end - start - 1) + ["E" if is_followed or scheme == "IOE2" else "I"]
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
    "BIOS": "BIOS",
    "IOE1": "IOE1",
    "IOE2": "IOE2",
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


# text → scheme, entities: tags alone, sentences separated by commas
TAGS = {
    "B I O S O B I I": ("BIOS", ["0-2", "3-4", "5-8"]),
    "S O S, B I": ("BIOS", ["0-1", "2-3", "3-5"]),
    "I E E O E": ("IOE2", ["0-2", "2-3", "4-5"]),
    "E, I I E O": ("IOE2", ["0-1", "1-4"]),
    "I E I I O I": ("IOE1", ["0-2", "2-4", "5-6"]),
    "E I O I": ("IOE1", ["0-1", "1-2", "3-4"]),
    "B E O S": ("BIOES", ["0-2", "3-4"]),
    "S O S": ("BIOES", ["0-1", "2-3"]),
}


@pytest.mark.parametrize("tags", TAGS)
def test_detected(tags, tmp_path):
    scheme, ents = TAGS[tags]
    lines = [f"w {tag}" if tag == "O" else f"w {tag}-X" for tag in tags.replace(",", " ,").split()]
    (tmp_path / "a.conll").write_text("\n".join(lines).replace("w ,-X", ""), encoding="utf-8")
    (record,) = convert([tmp_path / "a.conll"], tmp_path, ReadOptions(n_sents=0)).files
    assert (record.scheme, record.entries) == (scheme, [])
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert [f"{ent.start}-{ent.end}" for ent in doc.ents] == ents


@pytest.mark.parametrize(
    "scheme, tags, line, what",
    [
        ("BIOS", "B-X O S-X", 1, "B-X is the only token of an entity: in scheme BIOS, that is S-"),
        ("BIOS", "O I-X", 2, "I-X follows O (scheme BIOS)"),
        ("IOE2", "I-X O E-X", 1, "I-X is not closed: O follows (scheme IOE2)"),
        ("IOE1", "I-X E-X O", 2, "E-X: in scheme IOE1, E- only separates two entities of one label"),
        ("IOE1", "B-X E-X I-X", 1, "B-X is no tag of scheme IOE1"),
    ],
)
def test_violations(scheme, tags, line, what):
    text = "".join(f"w {tag}\n" for tag in tags.split())
    assert faults(text, scheme=scheme) == [(line, what)]


FILLER = "w O\n" * 800 + "\n"
CLEAN_IOB1 = "a I-X\nb I-X\nc B-X\n\na I-X\nb O\n\n" * 20


def test_few_exceptions_are_repaired_with_a_warning(tmp_path):
    """Two B- after O in a file of IOB1, as in CoNLL-2003: with both schemes the entities are the same."""
    path = tmp_path / "a.conll"
    path.write_text(FILLER + "a O\nb B-Y\nc I-Y\n\n" + CLEAN_IOB1 + "b B-Y\n", encoding="utf-8")
    (record,) = convert([path], tmp_path).files
    assert record.scheme == "IOB1"
    assert record.entities == {"X": 60, "Y": 2}
    assert [entry.line for entry in record.entries] == [803, 946]
    assert record.warnings == [
        "2 of 904 tags violate the scheme IOB1 (IOB2 would have 40) and are repaired; --strict stops at them"
    ]
    result = run(path, tmp_path)
    assert result.exit_code == 0 and "warning: 2 of 904 tags violate the scheme IOB1" in result.stdout
    result = run(path, tmp_path, "--strict")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 2
    with pytest.warns(UserWarning, match="violate the scheme IOB1"):
        list(read_conll(path))


@pytest.mark.parametrize("exception", ["a I-X\n", "a O\nb I-X\n", "a B-X\nb I-Y\n"])
def test_the_other_way_round(exception):
    """I- that begin entities in a file of IOB2."""
    text = FILLER + "a B-X\nb I-X\nc B-X\n\n" * 20 + exception
    with pytest.warns(UserWarning, match="1 of 86. tags violate the scheme IOB2"):
        (doc,) = read(text, n_sents=0)
    assert len(doc.ents) == 41 + exception.count("B-")
    assert len(faults(text, strict=True)) == 1


def test_exceptions_that_are_many_or_change_what_is_read_are_faults():
    assert len(faults(FILLER + "a B-X\n\nb I-X\n\n" * 5)) == 5  # of 810 tags
    assert len(faults(FILLER + "a B-X\nb E-X\nc S-X\n\n" * 5 + "d B-X\n")) == 1  # one scheme alone has these tags
    assert len(faults(FILLER + "a B-X\nb I-X\n\n" * 5 + "a I-X\nb\n")) == 2  # another fault
    assert len(faults(FILLER + "a B-X\nb I-X\n\n" * 5 + "a I-X\n", scheme="IOB2")) == 1  # the user says what it is


def test_an_error_over_many_tags_names_the_next_scheme():
    with pytest.raises(
        ConversionError, match=r"60 of 120 tags violate the scheme IOB2 \(IOB1 would have 60\): choose with"
    ):
        read("a B-X\n\nb I-X\n\n" * 60)


SPELLINGS = {
    "B_PER": "Ayla B_PER\nOkri I_PER\nleft O\n",
    "B_PER in a line": "Ayla|B_PER Okri|I_PER left|O\n",
    "B:PER": "Ayla\tB:PER\nOkri\tI:PER\nleft\tO\n",
    "PER_B": "1\tAyla\tPER_B\n2\tOkri\tPER_I\n3\tleft\t-\n",
    "PER-B": "Ayla PER-B\nOkri PER-I\nleft O\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_tags(spelling):
    (doc,) = read(SPELLINGS[spelling])
    assert [token.text for token in doc] == ["Ayla", "Okri", "left"]
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ayla Okri", "PER")]
    assert doc[2].ent_iob_ == "O"


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
