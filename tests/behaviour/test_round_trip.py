"""What `annotate` writes, `convert` and `annotate` read: entity for entity, in every format, whatever the words are."""

import csv
import io
import json

import spacy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from spacy_bertner.annotate.records import Record
from spacy_bertner.annotate.writers import WRITERS, find_entities
from spacy_bertner.formats.conll.layout import starts_mark
from spacy_bertner.formats.convert import read_conll

VOCAB = spacy.blank("en").vocab
# What columns, comments, marks, tags and numbers look like, blanks of all kinds, and letters of more than one kind
PARTS = [
    *"-#|*()O_1 \t\n\u00a0\u2028\u200bÄ",
    "B-PER",
    "2-1",
    "\U0001d518",
    "-DOCSTART-",
    "# newdoc",
    "#begin document",
]
PARTS += [
    "EndOfSentence",
    "TOKEN",
    "NE-COARSE-LIT",
    "#FORMAT=WebAnno TSV 3",
    "# global.columns = FORM",
    "en:",
    "name=B-PER",
]
WORDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("".join) | st.sampled_from(
    ["Ayla", "runs", ".", ","]
)
LABELS = st.sampled_from(["PER", "B-X", "Full Name", "O", "I", "S-B", "x/y", "NP", "é"])


@st.composite
def docs(draw):
    """A Doc with sentences and entities, none of which starts or ends with white space, as `bert_ner` sets them."""
    words = draw(st.lists(WORDS, min_size=1, max_size=8))
    n = len(words)
    starts = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    doc = Doc(VOCAB, words, draw(st.lists(st.booleans(), min_size=n, max_size=n)), sent_starts=[True, *starts[1:]])
    places = [i for i, token in enumerate(doc) if not token.is_space]
    ends = sorted(draw(st.lists(st.sampled_from(places), max_size=6))) if places else []
    spans, last = [], 0
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        if start >= last:
            spans.append(Span(doc, start, end + 1, draw(LABELS)))
            last = end + 1
    doc.ents = spans
    return doc


def write(name, corpus):
    writer, file = WRITERS[name](), io.BytesIO()
    records = [Record("a", i + 1, doc.text) for i, doc in enumerate(corpus)]
    rendered = [
        writer.render(record, i, doc, find_entities(doc))
        for i, (record, doc) in enumerate(zip(records, corpus, strict=True))
    ]
    writer.write(rendered, file)
    return file.getvalue()


def by_characters(doc):
    return [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def as_written(word):
    """A word in a CoNLL file: no tabs and ends of lines, no blanks around it, and nothing that starts a document."""
    word = word.lstrip("-") if starts_mark(word) else word
    return word.translate(str.maketrans("\t\r\n", "   ")).strip(" ")


def by_words(doc):
    return [(ent.label_, [as_written(token.text) for token in ent if not token.is_space]) for ent in doc.ents]


@settings(max_examples=300, deadline=None)
@given(st.lists(docs(), min_size=1, max_size=4))
def test_conll(corpus):
    words = [token.text for doc in corpus for token in doc if not token.is_space]
    assume(words and not all(word.startswith("en:") for word in words))  # which is the way of WikiANN
    read = list(read_conll(io.BytesIO(write("conll", corpus))))
    corpus = [doc for doc in corpus if any(not token.is_space for token in doc)]
    assert list(map(by_words, read)) == list(map(by_words, corpus))


@settings(max_examples=100, deadline=None)
@given(st.lists(docs(), min_size=1, max_size=4))
def test_other_formats(corpus):
    expected = list(map(by_characters, corpus))
    records = [json.loads(line) for line in write("jsonl", corpus).split(b"\n") if line]
    assert [[(e["start"], e["end"], e["label"]) for e in record["entities"]] for record in records] == expected
    binary = DocBin(store_user_data=True).from_bytes(write("spacy", corpus))
    assert list(map(by_characters, binary.get_docs(VOCAB))) == expected
    found = [[] for _ in corpus]
    for row in csv.DictReader(io.StringIO(write("csv", corpus).decode(), newline="")):
        found[int(row["record"]) - 1].append((int(row["start"]), int(row["end"]), row["label"]))
    assert found == expected
