"""Tags that depend on the line before: brackets (OntoNotes), ids (WebAnno)."""

import pytest

from ..helpers import faults, read, sentences, view

CONLL2012 = """\
#begin document (nw/x/00/x_0001); part 000
nw/x/00/x_0001 0 0 Ayla NNP (TOP(S(NP* - - - - (PERSON* (ARG0* * (3
nw/x/00/x_0001 0 1 Okri NNP *) - - - - *) *) * 3)
nw/x/00/x_0001 0 2 left VBD (VP* leave 01 1 - * (V*) * -
nw/x/00/x_0001 0 3 Oslo NNP *)) - - - - (GPE) (ARG1*) * -

nw/x/00/x_0001 0 0 # SYM * - - - - * (1)
nw/x/00/x_0001 0 1 Rain NN (TOP*) - - - - * -

#end document
#begin document (nw/x/00/x_0001); part 001
nw/x/00/x_0001 1 0 Ben NNP (TOP*) - - - - (PERSON*) -
#end document
"""


def test_conll2012():
    one, two = read(CONLL2012)
    assert sentences(one) == [["Ayla", "Okri", "left", "Oslo"], ["#", "Rain"]]
    assert [view(ent) for ent in one.ents] == ["0-2 PERSON Ayla Okri", "3-4 GPE Oslo"]
    assert [token.tag_ for token in one] == ["NNP", "NNP", "VBD", "NNP", "SYM", "NN"]
    assert [view(ent) for ent in two.ents] == ["0-1 PERSON Ben"]


def test_conll2012_with_tabs_and_without_comments():
    text = "\n".join(line.replace(" ", "\t") for line in CONLL2012.splitlines() if line[:1] != "#")
    (doc,) = read(text)
    assert [ent.text for ent in doc.ents] == ["Ayla Okri", "Oslo", "Ben"]


def test_conll2012_faults():
    text = CONLL2012.replace("(GPE)", "*)")
    assert faults(text) == [(5, "tag '*)' is of no known form")]
    (doc, _) = read(text, repair=True)
    assert doc[3].ent_iob == 0
    assert faults(CONLL2012.replace("- - - - *)", "- - - - (ORG*)"))[0] == (3, "tag '(ORG*)' is of no known form")
    assert faults("a O\n", layout="conll2012") == [
        (1, "no eleventh column of named entities in brackets, such as (PERSON*")
    ]


@pytest.mark.parametrize("text", ["Ayla NNP (PER*\nOkri NNP *)\nleft VBD *\n", "Ayla\t(PER*\nOkri\t*)\nleft\t*\n"])
def test_brackets_elsewhere(text):
    (doc,) = read(text)
    assert [view(ent) for ent in doc.ents] == ["0-2 PER Ayla Okri"]


WEBANNO = """\
#FORMAT=WebAnno TSV 3.3
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.lexmorph.type.pos.POS|coarseValue|PosValue
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity|identifier|value


#Text=Ayla Okri left Oslo Norway
1-1\t0-4\tAyla\tN\tNNP\t*[1]\tPER[1]\t
1-2\t5-9\tOkri\tN\tNNP\t*[1]\tPER[1]\t
1-3\t10-14\tleft\tV\tVBD\t_\t_\t
1-4\t15-19\tOslo\tN\tNNP\t*[2]\tLOC[2]\t
1-5\t20-26\tNorway\tN\tNNP\t*\tLOC\t

#Text=Ben slept
2-1\t27-30\tBen\tN\tNNP\t*\tPER\t
2-2\t31-36\tslept\tV\tVBD\t_\t_\t
"""


def test_webanno():
    (doc,) = read(WEBANNO)
    assert sentences(doc) == [["Ayla", "Okri", "left", "Oslo", "Norway"], ["Ben", "slept"]]
    assert [view(ent) for ent in doc.ents] == ["0-2 PER Ayla Okri", "3-4 LOC Oslo", "4-5 LOC Norway", "5-6 PER Ben"]


def test_webanno_neighbours_and_other_layers():
    text = WEBANNO.replace("*[2]\tLOC[2]", "*[2]\tPER[2]").replace("left\tV\tVBD\t_\t_", "left\tV\tVBD\t*[2]\tPER[2]")
    (doc,) = read(text)
    assert [view(ent) for ent in doc.ents][:2] == ["0-2 PER Ayla Okri", "2-4 PER left Oslo"]
    text = WEBANNO.replace("NamedEntity|identifier|value", "Mention|kind")
    assert "no column NamedEntity.value among POS.coarseValue, POS.PosValue, Mention.kind" in faults(text)[0][1]
    assert "--tag-col" in faults(text)[0][1]
    (doc,) = read(WEBANNO.replace("NamedEntity|identifier|value", "Mention|id|kind"), tag_col="Mention.kind")
    assert len(doc.ents) == 4


def test_webanno_stacked_annotation_is_a_fault():
    text = WEBANNO.replace("LOC[2]", "LOC[2]|ORG[3]")
    assert faults(text) == [(10, "tag 'LOC[2]|ORG[3]' is of no known form")]


def test_webanno_parts_of_tokens_are_no_words():
    text = WEBANNO.replace("1-4\t", "1-3.1\t10-12\tle\tV\tVBD\t_\tX\t\n1-4\t")
    (doc,) = read(text)
    assert [token.text for token in doc][:5] == ["Ayla", "Okri", "left", "Oslo", "Norway"]
