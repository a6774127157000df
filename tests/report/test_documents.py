"""Reading gold documents."""

from spacy.vocab import Vocab

from spacy_bertner.report.documents import read_gold


def test_gold_is_read_without_a_pipeline(data):
    documents = list(read_gold(data, Vocab()))
    assert [d.mention(e) for d in documents[:2] for e in d.gold] == [
        "Maria Kolb",
        "Dresden",
        "Tarrant Group",
        "Nordbank",
    ]
    assert documents[0].text(0, 6) == "Maria Kolb lives in Dresden."  # with the spaces of running text
