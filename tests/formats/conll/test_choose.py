"""Which column is what: ids of sentences and documents, several columns of tags, lemmas, tags first."""

import pytest

from spacy_bertner.formats.convert import ConversionError, ReadOptions, convert

from ..helpers import faults, read, sentences, view

# text, options, (sentences of each document, entities of each document)
SIX = ["Ayla went home", "Ben Okri slept"]
FLAT = (SIX, ["0-1 PER Ayla", "3-5 PER Ben Okri"])
GROUPS = {
    "sentence numbers": (
        "0\tAyla\tB-PER\n0\twent\tO\n0\thome\tO\n1\tBen\tB-PER\n1\tOkri\tI-PER\n1\tslept\tO\n",
        [FLAT],
    ),
    "with blank lines": (
        "0\tAyla\tB-PER\n0\twent\tO\n0\thome\tO\n\n1\tBen\tB-PER\n1\tOkri\tI-PER\n1\tslept\tO\n",
        [FLAT],
    ),
    "separated by blanks": (
        "s1 Ayla NNP B-PER\ns1 went VBD O\ns1 home RB O\ns2 Ben NNP B-PER\ns2 Okri NNP I-PER\ns2 slept VBD O\n",
        [FLAT],
    ),
    "neighbours of one label": (
        "0 on O\n0 went O\n0 Ayla I-PER\n1 Ben I-PER\n1 Okri I-PER\n1 slept O\n",
        [(["on went Ayla", "Ben Okri slept"], ["2-3 PER Ayla", "3-5 PER Ben Okri"])],
    ),
    "document ids": (
        "doc1\tAyla\tB-PER\ndoc1\twent\tO\n\ndoc1\thome\tO\n\ndoc2\tBen\tB-PER\ndoc2\tOkri\tI-PER\n\ndoc2\tslept\tO\n",
        [(["Ayla went", "home"], ["0-1 PER Ayla"]), (["Ben Okri", "slept"], ["0-2 PER Ben Okri"])],
    ),
    "numbers that go on after a blank line": (
        "7\tAyla\tB-PER\n7\twent\tO\n\n7\thome\tO\n\n9\tBen\tB-PER\n9\tOkri\tI-PER\n",
        [(["Ayla went", "home"], ["0-1 PER Ayla"]), (["Ben Okri"], ["0-2 PER Ben Okri"])],
    ),
    "numbers that begin anew": (
        "-DOCSTART-\n0\tAyla\tB-PER\n0\twent\tO\n1\thome\tO\n1\tnow\tO\n-DOCSTART-\n0\tBen\tB-PER\n0\tOkri\tI-PER\n",
        [(["Ayla went", "home now"], ["0-1 PER Ayla"]), (["Ben Okri"], ["0-2 PER Ben Okri"])],
    ),
    "document, sentence": (
        "d1 0 Ayla B-PER\nd1 0 went O\nd1 1 home O\nd1 1 now O\nd2 0 Ben B-PER\nd2 0 Okri I-PER\n",
        [(["Ayla went", "home now"], ["0-1 PER Ayla"]), (["Ben Okri"], ["0-2 PER Ben Okri"])],
    ),
    "sentence, token": (
        "1\t1\tAyla\tB-PER\n1\t2\twent\tO\n1\t3\thome\tO\n2\t1\tBen\tB-PER\n2\t2\tOkri\tI-PER\n2\t3\tslept\tO\n",
        [FLAT],
    ),
    "1.1": ("1.1\tAyla\tB-PER\n1.2\twent\tO\n1.3\thome\tO\n2.1\tBen\tB-PER\n2.2\tOkri\tI-PER\n2.3\tslept\tO\n", [FLAT]),
    "1-1": ("1-1 Ayla B-PER\n1-2 went O\n1-3 home O\n2-1 Ben B-PER\n2-2 Okri I-PER\n2-3 slept O\n", [FLAT]),
    "numbers last": (
        "Ayla B-PER 0\nwent O 0\nhome O 0\nBen B-PER 1\nOkri I-PER 1\nslept O 1\n",
        [FLAT],
    ),
    "numbers between": (
        "Ayla 0 B-PER\nwent 0 O\nhome 0 O\nBen 1 B-PER\nOkri 1 I-PER\nslept 1 O\n",
        [FLAT],
    ),
    "two lines": ("7\tAyla\tB-PER\n7\twent\tO\n", [(["Ayla went"], ["0-1 PER Ayla"])]),
    "CSV": (
        "Sentence #,Word,POS,Tag\nSentence: 1,Ayla,NNP,B-PER\n,went,VBD,O\n,home,RB,O\nSentence: 2,Ben,NNP,B-PER\n"
        ",Okri,NNP,I-PER\n,slept,VBD,O\n",
        [FLAT],
    ),
    "CSV with quotes, without a header": (
        'Ayla,B-PER\n",",O\n"""",O\n\nBen,B-PER\n',
        [(['Ayla , "', "Ben"], ["0-1 PER Ayla", "3-4 PER Ben"])],
    ),
    "a header, an id of no known meaning": (
        "id\ttokens\tner_tags\n0\tAyla\tB-PER\n0\twent\tO\n0\thome\tO\n1\tBen\tB-PER\n1\tOkri\tI-PER\n1\tslept\tO\n",
        [FLAT],
    ),
    "a header": (
        "sentence_id words labels\n0 Ayla B-PER\n0 went O\n0 home O\n1 Ben B-PER\n1 Okri I-PER\n1 slept O\n",
        [FLAT],
    ),
    "a header, neighbours": (
        "sentence_id\twords\tlabels\n0\twent\tO\n0\tAyla\tI-PER\n1\tBen\tI-PER\n1\tslept\tO\n",
        [(["went Ayla", "Ben slept"], ["1-2 PER Ayla", "2-3 PER Ben"])],
    ),
    "Sentence #, only in its first row": (
        "Sentence #\tWord\tPOS\tTag\nSentence: 1\tAyla\tNNP\tB-per\n\twent\tVBD\tO\n\thome\tRB\tO\n"
        "Sentence: 2\tBen\tNNP\tB-per\n\tOkri\tNNP\tI-per\n\tslept\tVBD\tO\n",
        [(SIX, ["0-1 per Ayla", "3-5 per Ben Okri"])],
    ),
    "doc_id and sent_id": (
        "doc_id\tsent_id\ttoken\tner\na\t0\tAyla\tB-PER\na\t1\thome\tO\nb\t0\tBen\tB-PER\nb\t0\tOkri\tI-PER\n",
        [(["Ayla", "home"], ["0-1 PER Ayla"]), (["Ben Okri"], ["0-2 PER Ben Okri"])],
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_ids_of_sentences_and_documents(case):
    text, expected = GROUPS[case]
    assert [([" ".join(s) for s in sentences(doc)], [view(ent) for ent in doc.ents]) for doc in read(text)] == expected


def test_words_that_repeat_are_no_ids():
    (doc,) = read("no DT O\nno UH O\nAyla NNP B-PER\nno UH O\n")
    assert [token.text for token in doc] == ["no", "no", "Ayla", "no"]


# text, entities, further layers
LAYERS = {
    "four layers": (
        "the\tB-FAC\tO\tO\tO\t\nhouse\tI-FAC\tO\tO\tO\t\nof\tI-FAC\tO\tO\tO\t\nAyla\tI-FAC\tB-PER\tO\tO\t\n",
        ["0-4 FAC the house of Ayla"],
        ["3-4 PER Ayla"],
    ),
    "nothing in the further ones": ("Ayla\tB-PER\tO\tO\tO\t\nleft\tO\tO\tO\tO\t\n", ["0-1 PER Ayla"], []),
    "inner first": (
        "house B-X O O\nof O O O\nAyla B-PER B-FAC O\nOkri I-PER I-FAC O\n's O I-FAC O\n",
        ["0-1 X house", "2-4 PER Ayla Okri"],
        ["2-5 FAC Ayla Okri 's"],
    ),
    "three levels": (
        "a B-A B-B O\nb I-A I-B B-C\nc I-A O O\n",
        ["0-3 A a b c"],
        ["0-2 B a b", "1-2 C b"],
    ),
    "after an index": ("1 a B-A O O\n2 b I-A B-B O\n3 c O O O\n", ["0-2 A a b"], ["1-2 B b"]),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers_go_to_spans(case, tmp_path):
    text, ents, spans = LAYERS[case]
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    (doc,) = read(text)
    assert [view(ent) for ent in doc.ents] == ents
    assert [view(span) for span in doc.spans["sc"]] == spans
    (record,) = convert([tmp_path / "a.tsv"], tmp_path).files
    assert (record.entities.total(), record.layer.total()) == (len(ents), len(spans))


AMBIGUOUS = {
    "gold and predicted": "Ayla NNP B-PER B-PER\nwent VBD O O\nOslo NNP B-LOC B-PER\nhome RB O O\n",
    "gold and predicted, with an index": "1 Ayla B-PER B-PER\n2 went O O\n3 Oslo B-LOC B-PER\n4 home O O\n",
    "two schemes of labels": "Ayla B-pers B-person\nOslo B-loc B-city\nwent O O\n",
    "word tag word tag": "Ayla B-PER Ben B-PER\nwent O slept O\nhome O Oslo B-LOC\n",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_tags_that_differ_are_not_guessed(case):
    text = AMBIGUOUS[case]
    ((line, what),) = faults(text)
    assert line is None and "hold tags that differ" in what and "--tag-col" in what and "--layer-col" in what
    (doc,) = read(text, tag_col=3 if case.startswith("gold") else 2)
    assert doc.ents[0].text == "Ayla"


def test_the_columns_in_question_are_named():
    with pytest.raises(
        ConversionError, match=r"columns 3 \(LOC, PER\) and 4 \(PER\) hold tags that differ.*--tag-col 3"
    ):
        read(AMBIGUOUS["gold and predicted"])


def test_tags_that_agree_are_taken():
    (doc,) = read("Ayla NNP B-PER B-PER\nwent VBD O O\n")
    assert [view(ent) for ent in doc.ents] == ["0-1 PER Ayla"]
    assert not doc.spans


def test_several_layers_are_chosen_by_the_user():
    text = "Ayla B-PER B-A B-B\nwent O O O\n"
    for layers in ("3,4", "3, -1"):
        (doc,) = read(text, tag_col=2, layer_col=layers)
        assert [view(span) for span in doc.spans["sc"]] == ["0-1 A Ayla", "0-1 B Ayla"]
    assert faults(text, tag_col=2, layer_col="3,9") == [(1, "layer column: no column 9; the file has 4")]


def test_chunks_are_no_named_entities():
    """As in CoNLL-2003; alone, as in CoNLL-2000, they are what there is."""
    (doc,) = read("Ayla NNP B-NP B-PER\nhas VBZ B-VP O\nleft VBN I-VP O\n")
    assert [view(ent) for ent in doc.ents] == ["0-1 PER Ayla"] and not doc.spans
    (doc,) = read("Ayla NNP B-NP\nhas VBZ B-VP\nleft VBN I-VP\n")
    assert [view(ent) for ent in doc.ents] == ["0-1 NP Ayla", "1-3 VP has left"]


TAGS = {
    "word lemma POS chunk tag": ("Cats cat NNS B-NP O\nsaw see VBD B-VP O\nAyla Ayla NNP B-NP B-PER\n", "NNS VBD NNP"),
    "word POS lemma chunk tag": (
        "Cats NNS cat B-NP O\nand CC and I-NP O\ndogs NNS dog I-NP O\nsaw VBD see B-VP O\nAyla NNP ayla B-NP B-PER\n",
        "NNS CC NNS VBD NNP",
    ),
    "word lemma POS tag": ("Dogs dog NNS O\nbite bite VBP O\ncats cat NNS O\nAyla Ayla NNP B-PER\n", "NNS VBP NNS NNP"),
    "word lemma tag": ("Ayla ayla B-PER\nsaw see O\nme me O\n", "  "),
    "no POS": ("Ayla _ _ B-PER\nsaw _ _ O\n", " "),
    "some without POS": ("Ayla NNP B-PER\nsaw _ O\n", "NNP "),
    "the same by the long way": ("Ayla NNP B-PER\n#x _ O\n", "NNP "),
}


@pytest.mark.parametrize("case", TAGS)
def test_pos(case):
    text, tags = TAGS[case]
    assert " ".join(token.tag_ for token in read(text)[0]) == tags


ORDERS = {
    "tag first": "B-PER Ayla\nO went\nO home\n",
    "tag, offsets, word": "B-PER\t0\t4\tAyla\nO\t5\t9\twent\nO\t10\t14\thome\n",
    "tag second": "Ayla B-PER NNP\nwent O VBD\nhome O RB\n",
    "a language before each word": "en:Ayla\tB-PER\nen:went\tO\nen:home\tO\n",
    "another one": "zh-classical:Ayla B-PER\nzh-classical:went O\nzh-classical:home O\n",
}


@pytest.mark.filterwarnings("ignore:.*before each word is dropped")
@pytest.mark.parametrize("case", ORDERS)
def test_unusual_orders(case):
    (doc,) = read(ORDERS[case])
    assert doc.text.rstrip() == "Ayla went home"
    assert [view(ent) for ent in doc.ents] == ["0-1 PER Ayla"]


def test_colons_that_are_part_of_words_stay():
    (doc,) = read("at:home B-X\nen:went O\n")
    assert [token.text for token in doc] == ["at:home", "en:went"]


def test_the_ledger_names_the_columns(tmp_path):
    (tmp_path / "a.tsv").write_text(GROUPS["document, sentence"][0], encoding="utf-8")
    (record,) = convert([tmp_path / "a.tsv"], tmp_path, ReadOptions()).files
    assert record.columns == {"word": "3", "tag": "4", "document": "1", "sentence": "2"}
    assert record.documents_by == "marks" and record.documents == 2
