"""Documents with their gold and predicted entities; reading those with gold entities from .spacy files."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..files import read_docs
from ..formats.detokenize import guess_spaces


class Entity(NamedTuple):
    """An entity.

    start, end: first token and last + 1. label: its type. score: the pipeline's confidence in it, None if unknown.
    """

    start: int
    end: int
    label: str
    score: float | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First token and last + 1."""
        return self.start, self.end

    @property
    def key(self) -> tuple[int, int, str]:
        """What makes two entities the same: span and label."""
        return self.start, self.end, self.label


@dataclass
class Document:
    """One document.

    number: its position in the data, from 1. words: its tokens. spaces: whether a space follows each of them.
    sentence_starts: the first token of each sentence; 0 alone where sentences are unknown.
    is_annotated: whether each token is annotated (`O` included); None where all are.
    gold, predicted: the entities, in order of their start.
    """

    number: int
    words: list[str]
    spaces: list[bool]
    sentence_starts: list[int]
    is_annotated: list[bool] | None
    gold: list[Entity]
    predicted: list[Entity] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.words)

    def text(self, start: int, end: int) -> str:
        """Return the text from token `start` up to token `end`, without trailing spaces."""
        words = zip(self.words[start:end], self.spaces[start:end], strict=True)
        return "".join(word + " " * space for word, space in words).rstrip(" ")

    def mention(self, entity: Entity) -> str:
        """Return the words of an entity, separated by spaces: the same for every mention of a name."""
        return " ".join(self.words[entity.start : entity.end])


class Lost(NamedTuple):
    """A document, entity or word that is left out of the figures, or not treated as expected.

    document: the number of the document. text: its text, or that of the entity or word. label: of the entity.
    """

    document: int
    text: str
    label: str | None
    reason: str


def read_gold(path: Path, vocab: Vocab, spans_key: str | None = None) -> Iterator[Document | Lost]:
    """Read documents with their gold entities.

    The arguments are those of `read_docs`. spans_key: take entities from this group of `doc.spans`; None: from `doc.ents`.
    Yields a Lost for a document without tokens or annotation. Raises DataError as `read_docs` does.
    """
    for number, doc in enumerate(read_docs(path, vocab), 1):
        yield as_document(number, doc, spans_key)


def as_document(number: int, doc: Doc, spans_key: str | None) -> Document | Lost:
    """Convert a Doc with gold entities; the arguments and the result are those of `read_gold`."""
    if not len(doc):
        return Lost(number, "", None, "has no tokens")
    if spans_key is not None and spans_key not in doc.spans:
        groups = ", ".join(map(repr, doc.spans)) or "none"
        return Lost(number, shorten(doc.text), None, f"has no doc.spans[{spans_key!r}]; its span groups are: {groups}")
    if spans_key is None and not doc.has_annotation("ENT_IOB"):
        return Lost(number, shorten(doc.text), None, "has no entity annotation")
    words = [sys.intern(token.text) for token in doc]
    has_sentences = doc.has_annotation("SENT_START")
    starts = [token.i for token in doc if token.i == 0 or (has_sentences and token.is_sent_start)]
    if doc.has_unknown_spaces:  # natural spacing is easier to read
        bounds = zip(starts, [*starts[1:], len(doc)], strict=True)
        spaces = list(chain.from_iterable(guess_spaces(words[start:end]) for start, end in bounds))
    else:
        spaces = [bool(token.whitespace_) for token in doc]
    is_annotated = [token.ent_iob != 0 for token in doc] if spans_key is None else []
    spans = doc.ents if spans_key is None else doc.spans[spans_key]
    gold = sorted(Entity(span.start, span.end, span.label_) for span in spans)
    return Document(number, words, spaces, starts, None if all(is_annotated) else is_annotated, gold)


def shorten(text: str, n: int = 80) -> str:
    """Cut a text to `n` characters, the last of them an ellipsis."""
    return text if len(text) <= n else text[: n - 1] + "…"
