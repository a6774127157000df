"""Print some sentences of a .spacy file with the entities that a pipeline finds, and write a displaCy page of a document.

python scripts/show_entities.py training/model-best corpus/test.spacy metrics/entities.html
"""

import argparse
from itertools import chain, islice
from pathlib import Path

import spacy
from spacy import displacy
from spacy.tokens import Doc, DocBin
from wasabi import color

from spacy_bertner.formats.detokenize import guess_spaces

COLORS = {"PER": "#f4b6c2", "ORG": "#a8d5e5", "LOC": "#c9e4b4", "MISC": "#f7dc9c"}


def readable(nlp: spacy.Language, reference: Doc) -> Doc:
    """Copy the words of a Doc, with natural spaces where the data does not say."""
    words = [token.text for token in reference]
    spaces = [bool(token.whitespace_) for token in reference]
    if reference.has_unknown_spaces:
        spaces = list(chain.from_iterable(guess_spaces([t.text for t in sent]) for sent in reference.sents))
    return Doc(nlp.vocab, words=words, spaces=spaces, sent_starts=[token.is_sent_start for token in reference])


def marked(doc: Doc) -> str:
    """The text with each entity underlined and its label behind it."""
    parts, end = [], 0
    for ent in doc.ents:
        parts += [doc.text[end : ent.start_char], color(ent.text, underline=True), color(f" {ent.label_}", fg="cyan")]
        end = ent.end_char
    return "".join([*parts, doc.text[end:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline")
    parser.add_argument("data", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--sentences", type=int, default=6)
    args = parser.parse_args()
    nlp = spacy.load(args.pipeline)
    docs = [nlp(readable(nlp, doc)) for doc in islice(DocBin().from_disk(args.data).get_docs(nlp.vocab), 3)]
    with_entities = (sent.as_doc() for doc in docs for sent in doc.sents if sent.ents)
    for sentence in islice(with_entities, args.sentences):
        print(f"  {marked(sentence)}\n")
    page = displacy.render(docs, style="ent", page=True, options={"colors": COLORS})
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(page, encoding="utf8")
    print(f"The same in colour: {args.page}")


if __name__ == "__main__":
    main()
