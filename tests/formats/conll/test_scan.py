"""Every fault is found, and repaired where that is asked for; no input gives a traceback."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin
from spacy.vocab import Vocab

from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert

from ..helpers import faults, from_bin, read

FAULTS = {
    "one column in a line": ("A O\nb\nC B-X\n", {}, [(2, "too few columns: 1, not 2")]),
    "two columns of four": (
        "A N x O\nb O\nC N x B-X\n",
        {},
        [(2, "too few columns: 2, not 4")],
    ),
    "a column too many": ("A O\nb c O\nC B-X\n", {}, [(2, "too many columns: 3, not 2")]),
    "underscore": (
        "A O\nb B_PER\nC B-X\n",
        {},
        [(2, "tag 'B_PER' is of no known form")],
    ),
    "I- after O": (
        "A O\nb I-X\nc O\nD B-X\n",
        {},
        [(2, "I-X follows O (scheme IOB2)")],
    ),
    "I- of another label": (
        "A B-X\nb I-Y\n",
        {},
        [(2, "I-Y follows B-X (scheme IOB2)")],
    ),
    "I- at a start": (
        "A B-X\n\nb I-X\n",
        {},
        [(3, "I-X begins a sentence (scheme IOB2)")],
    ),
    "never closed": (
        "A B-X\nb O\nc B-X\nd E-X\ne S-X\n",
        {},
        [(1, "B-X is not closed: O follows (scheme BIOES)")],
    ),
    "never closed at an end": (
        "a B-X\nb E-X\nc S-X\nd B-X\n",
        {},
        [(4, "B-X is not closed: the sentence ends (scheme BIOES)")],
    ),
    "prefix of another scheme": (
        "a B-X\nb E-X\nc B-X\nd I-X\n",
        {"scheme": "IOB2"},
        [(2, "E-X is no tag of scheme IOB2")],
    ),
    "B- in IOB1": (
        "a B-X\nb I-X\n",
        {"scheme": "IOB1"},
        [(1, "B-X begins a sentence: in scheme IOB1, B- only separates two entities of one label")],
    ),
    "no label": ("a B\nb O\n", {}, [(1, "tag 'B' names no label: --label NAME does")]),
    "words only": (
        "A\nb\nc\n",
        {},
        [(1, "the file has one column: words without tags")],
    ),
    "no tags": (
        "A NN\nb VB\nc NN\n",
        {},
        [(1, "column 2 holds no tags, only NN, VB")],
    ),
    "empty": ("", {}, [(1, "the file holds no tokens")]),
    "blank": ("\n \n\t\n", {}, [(1, "the file holds no tokens")]),
    "marks only": ("-DOCSTART- O\n\n-DOCSTART- O\n", {}, [(1, "the file holds no tokens")]),
    "undecodable": (
        b"A O\ncaf\xe9 B-X\nb O\n",
        {},
        [(2, "not utf-8: byte 0xe9")],
    ),
    "no word": ("A\tO\n\tB-X\nb\tO\n", {}, [(2, "no word in this line")]),
    "no such column": (
        "A O\n",
        {"tag_col": 3},
        [(1, "tag column: no column 3; the file has 2")],
    ),
    "no such name": (
        "A O\n",
        {"tag_col": "NER"},
        [(1, "tag column: no column is called 'NER'; the file names no columns")],
    ),
    "a token # with a bad tag": (
        "# B_X\nb O\nc B-X\n",
        {},
        [(1, "tag 'B_X' is of no known form")],
    ),
    "no entities in CoNLL-U": (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n",
        {},
        [(1, "no named entities: neither a column of tags nor name=B-PER in MISC")],
    ),
    "a short line of CoNLL-U": (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X\n2\tb\t_\tX\n",
        {},
        [(2, "too few columns: 4, not 10")],
    ),
    "a line without its index": (
        "1\ta\tO\n2\tb\tB-X\nx\tc\tO\n4\td\tO\n5\te\tO\n6\tf\tO\n7\tg\tO\n8\th\tO\n",
        {},
        [(3, "'x' is no index of a token")],
    ),
    "a word without its tag, in a line": (
        "a|O b c|B-X d|O e|O f|O\ng|O h|O i|O j|O k|O l|O\n",
        {},
        [(1, "'b' has 1 of 2 fields")],
    ),
    "one column for two things": (
        "a O\nb B-X\n",
        {"tag_col": 1},
        [(1, "column 1 cannot be two things at once")],
    ),
    "most lines without a tag": (
        "a\nb\nc O\n",
        {},
        [(1, "too few columns: 1, not 2"), (2, "too few columns: 1, not 2")],
    ),
    "UTF-16": (
        "A O\n".encode("utf-16"),
        {},
        [(None, "looks like UTF-16: read it with --encoding utf-16")],
    ),
    "UTF-16 without a mark": (
        "A O\nb B-X\n".encode("utf-16-le"),
        {},
        [(None, "looks like UTF-16-LE: read it with --encoding utf-16-le")],
    ),
    "UTF-32": (
        "A O\n".encode("utf-32"),
        {},
        [(None, "looks like UTF-32: read it with --encoding utf-32")],
    ),
    "negative annotation": (
        "A B-X\nb B-!PER\nc I-!PER\nd O\n",
        {},
        [(n, "'!PER' is negative annotation, which cannot be learned from: remove it") for n in (2, 3)],
    ),
    "negative annotation without prefixes": (
        "A XY\nb !PER\nc O\n",
        {"scheme": "IO"},
        [(2, "'!PER' is negative annotation, which cannot be learned from: remove it")],
    ),
    "negative annotation in BIOES": (
        "A S-X\nb U-!PER\nc O\n",
        {"scheme": "BILOU"},
        [
            (1, "S-X is no tag of scheme BILOU"),
            (2, "'!PER' is negative annotation, which cannot be learned from: remove it"),
        ],
    ),
    "a malformed tag in a further layer": (
        "1\tA\tB-X\tO\n2\tb\tI-X\tB_Y\n3\tc\tI-X\tB-Y\n" + "4\td\tO\tO\n" * 9,
        {},
        [(2, "tag 'B_Y' is of no known form")],
    ),
    "a malformed tag in a layer of the user's": (
        "A B-X O\nb O ?\n",
        {"tag_col": 2, "layer_col": 3},
        [(2, "tag '?' is of no known form")],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault(case):
    text, options, expected = FAULTS[case]
    assert faults(text, **options) == expected


REPAIRS = [
    (
        "1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X\n2\tb\t_\tX\n",
        "a b",
        ["B-X", "-"],
        [2],
    ),
    # text, words, ENT_IOB by letter with label, (line, action) of the entries
    ("A B-X\nb\nC I-X\n", "A b C", ["B-X", "-", "B-X"], [2, 3]),
    ("A x O\nb B-X\nC y I-X\n", "A b C", ["O", "B-X", "I-X"], [2]),
    ("A O\nNew York B-X\nC I-X\n", "A|New York|C", ["O", "B-X", "I-X"], [2]),
    ("A\tO\nb\tB-X\tmore\nC\tI-X\n", "A b C", ["O", "B-X", "I-X"], [2]),
    ("A O\nb B_PER\nC i-PER\n", "A b C", ["O", "B-PER", "I-PER"], [2, 3]),
    ("A o\nb 0\nC B-X\nd XYZ\ne B\n", "A b C d e", ["O", "O", "B-X", "-", "-"], [1, 2, 4, 5]),
    ("A B-X\nb O\nc I-X\nd I-Y\n", "A b c d", ["B-X", "O", "B-X", "B-Y"], [3, 4]),
    ("a B-X\nb O\nc S-X\nd I-X\ne E-X\n", "a b c d e", ["B-X", "O", "B-X", "B-X", "I-X"], [1, 4]),
    # What a dropped line separates stays apart
    ("A\tB-X\n\tB-X\nb\tI-X\nc\tO\n", "A b c", ["B-X", "B-X", "O"], [2, 3]),
    ("A\tB-X\n\tO\nb\tI-X\nc\tO\n", "A b c", ["B-X", "B-X", "O"], [2, 3]),
    ("A\tB-X\n\tB-Y\n\tB-X\nb\tI-X\nc\tO\nd\tO\n", "A b c d", ["B-X", "B-X", "O", "O"], [2, 3, 4]),
    ("A\tB-X\n\tI-X\n\tI-X\nb\tI-X\nc\tO\nd\tO\n", "A b c d", ["B-X", "I-X", "O", "O"], [2, 3]),
    ("A\tS-X\n\tB-X\nb\tE-X\n", "A b", ["B-X", "B-X"], [2, 3]),
    ("A\tB-X\n\tB-Y\nb\tI-Y\n", "A b", ["B-X", "B-Y"], [2, 3]),
    # Labels that hold a blank stay apart
    (
        "A B-Full Name\nb O\nC B-Full Address\nd I-Full Address\ne O\nf O\ng O\n",
        "A b C d e f g",
        ["B-Full Name", "O", "B-Full Address", "I-Full Address", "O", "O", "O"],
        [1, 3, 4],
    ),
    (
        "A N B-Full Name\nb N O\nC N B-Full X Y\nd N O\ne N B-X\n",
        "A b C d e",
        ["B-Full Name", "O", "B-Full X Y", "O", "B-X"],
        [1, 3],
    ),
    (
        "A B-Full Name\nb I-Full Name\nc O\n\nD B-Full Address\ne I-Full Address\nf O\n",
        "A b c D e f",
        ["B-Full Name", "I-Full Name", "O", "B-Full Address", "I-Full Address", "O"],
        [1, 2, 5, 6],
    ),
    (b"caf\xe9 B-X\nb O\n", "caf\ufffd b", ["B-X", "O"], [1]),
    ("A\tB-X\n\tI-X\nb\tI-X\n", "A b", ["B-X", "I-X"], [2]),
]


@pytest.mark.parametrize("layout", ["auto", "inline"])
def test_labels_with_blanks_in_lines(layout, tmp_path):
    text = f"A|B-Full Name b|I-Full Name {'c|O ' * 50}\nD|B-Full Address e|I-Full Address f|O\n"
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ConversionError, match="labels hold blanks"):
        convert([tmp_path / "a.txt"], tmp_path, ReadOptions(repair=True, layout=layout))


@pytest.mark.parametrize("text, words, tags, lines", REPAIRS)
def test_repair(text, words, tags, lines, tmp_path):
    path = tmp_path / "a.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    with pytest.raises(ConversionError) as caught:
        convert([path], tmp_path)
    assert [fault.line for fault in caught.value.faults] == lines
    book = convert([path], tmp_path, ReadOptions(repair=True, n_sents=0), ledger=tmp_path / "ledger.json")
    (doc,) = from_bin(tmp_path / "a.spacy")
    assert [token.text for token in doc] == words.split("|" if "|" in words else " ")
    got = []
    for token in doc:
        iob = token.ent_iob_ or "-"
        got.append(f"{iob}-{token.ent_type_}" if token.ent_type_ else iob)
    assert got == tags
    assert [entry.line for entry in book.files[0].entries] == lines
    noted = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    raw = text if isinstance(text, str) else text.decode("utf-8", "replace")
    rows = raw.split("\n")
    for entry in noted["files"][0]["entries"]:
        assert entry["text"].encode("utf-8", "replace")
        assert entry["reason"] and entry["action"]
        if isinstance(text, str):
            assert entry["text"] == rows[entry["line"] - 1]


def test_repair_does_not_excuse_everything():
    for text in ("", "A\nb\n", "A NN\nb VB\n"):
        assert faults(text, repair=True) == faults(text)


LOST = {
    "plain B and I": "Ayla B\nOkri I\nleft O\n",
    "bare labels": "Ayla PER\nOkri PER\nleft O\n",
    "one sentence a line": "Ayla|B Okri|I left|O\n",
    "negative only": "Ayla B-!PER\nleft O\n",
}


@pytest.mark.parametrize("case", LOST)
def test_repair_never_loses_every_entity(case):
    with pytest.raises(ConversionError, match="no entity can be read") as caught:
        read(LOST[case], repair=True, layout="inline" if "|" in LOST[case] else "auto")
    assert caught.value.total == 1
    assert "--label NAME" in str(caught.value) and "--scheme IO" in str(caught.value)


def test_a_label_for_plain_tags():
    for text in ("Ayla B\nOkri I\nleft O\n", "1\tAyla\tB\n2\tOkri\tE\n3\tleft\tO\n", "Ayla|B Okri|I left|O\n"):
        (doc,) = read(text, label="PER")
        assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ayla Okri", "PER")]


def test_dropped_tags_of_empty_nodes_are_noted(tmp_path):
    row = "{}\t{}\t_\tX\t_\t_\t0\t_\t_\t{}\n"
    text = row.format("1", "a", "name=O") + row.format("1.1", "b", "name=B-X")
    (tmp_path / "a.conllu").write_text(text, encoding="utf-8")
    (record,) = convert([tmp_path / "a.conllu"], tmp_path).files
    assert record.empty_nodes == 1
    assert [(entry.line, entry.action) for entry in record.entries] == [(2, "dropped")]


LINE = st.one_of(
    st.sampled_from(
        [
            *("", " ", "\t", "# a = b", "#", "# O", "-DOCSTART-", "-DOCSTART- O", "A O", "b B-X"),
            *("c\tI-X", "1\td\tO", "2\te\tB-X", "1-2\tf\t_", "1.1\tg\tB-X", "A|O b|B-X", "B_X"),
            *("# global.columns = ID FORM NER", "TOKEN\tNE-COARSE-LIT\tMISC", "x\tO\tNoSpaceAfter"),
            *("1\ta\t_\tX\t_\t_\t0\t_\t_\tname=B-X", "-X- S-X", "_ _", "\ufeff", "\x00 \x00", "|"),
        ]
    ),
    st.text(max_size=12),
)


# lines, documents
COMMENTS = {
    "as many words as columns": ("# id 5239 domain=en\nAyla _ _ B-PER\nleft _ _ O\n", 1),
    "three columns": ("# sentence 3\nAyla NNP B-PER\nleft VBD O\n", 1),
    "newdoc": ("# newdoc\nAyla B-PER\n\n# newdoc\nleft O\n", 2),
    "begin document": (
        "#begin document (x); part 000\nAyla a b c B-PER\n\n#end document\n#begin document (y); part 000\nleft a b c O\n",
        2,
    ),
    "end document": ("Ayla B-PER\n#end document\nleft O\n#end document\n", 2),
    "MEDLINE": ("###MEDLINE:95369245\n\nAyla\tB-PER\n\n###MEDLINE:95369246\n\nleft\tO\n", 2),
    "PMID, separated by blanks": ("## PMID: 12\nAyla B-PER\n\n## PMID: 13\nleft O\n", 2),
}


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("case", COMMENTS)
def test_comments_are_no_words(case, repair):
    text, n_docs = COMMENTS[case]
    docs = read(text, repair=repair)
    assert [token.text for doc in docs for token in doc] == ["Ayla", "left"]
    assert len(docs) == n_docs


def test_a_word_that_looks_like_a_comment_is_one():
    (doc,) = read("# B-X\n#1 I-X\nis O\n# O\n")
    assert [token.text for token in doc] == ["#", "#1", "is", "#"]
    (doc,) = read("#\tNN\tB-X\n# b\tNN\tO\n")
    assert [token.text for token in doc] == ["#", "# b"]


def never_a_traceback(data, **options):
    try:
        docs = read(data, **options)
    except ConversionError as err:
        assert err.total >= 1 and len(err.faults) >= 1
        for line in str(err).splitlines():
            assert line.startswith(("<stream>:", "… and "))
        return
    assert docs and all(len(doc) for doc in docs)
    bin_ = DocBin(docs=docs)
    back = list(DocBin().from_bytes(bin_.to_bytes()).get_docs(Vocab()))
    assert [[t.text for t in doc] for doc in back] == [[t.text for t in doc] for doc in docs]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
@example(b"\xff\xfe", False)
@example(b"\xef\xbb\xbf", True)
@example(b"\x00\tO\n", False)
def test_random_bytes_never_give_a_traceback(data, repair):
    never_a_traceback(data, repair=repair)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(LINE, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["auto", "columns", "conllu", "table", "inline"]),
    st.sampled_from([None, "IO", "IOB1", "IOB2", "BIOES"]),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-7", "shift-jis"]),
    st.booleans(),
)
def test_random_lines_never_give_a_traceback(lines, end, repair, layout, scheme, enc, detokenize):
    data = end.join(lines).encode(enc, "replace")
    never_a_traceback(data, repair=repair, layout=layout, scheme=scheme, encoding=enc, detokenize=detokenize)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE, max_size=8))
def test_repair_only_fails_on_whole_files(lines):
    """With repair, what is left to fail is the file as a whole, in one line."""
    try:
        read("\n".join(lines), repair=True)
    except ConversionError as err:
        assert err.total == 1
