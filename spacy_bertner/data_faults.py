"""What cannot be learned from the training data: collected before training, and reported in one warning.

Such data does not stop a training run, since its owner may know about it; but they should hear of it.
"""

import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from .files import docbin_files
from .span_groups import with_group_as_entities

# How many examples of each kind are named
N_NAMED = 5
MAX_CHARS = 60
# A label with at most RARE entities is reported where another has COMMON
RARE, COMMON = 2, 20


@dataclass
class Kind:
    """One kind of fault: its name, how often it occurs, and the first few places."""

    what: str
    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more, at `place`."""
        self.count += 1
        if len(self.places) < N_NAMED:
            self.places.append(place)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.places)} more" if self.count > len(self.places) else ""
        return f"{self.what}, {self.count}: {'; '.join(self.places)}{more}"


class Faults:
    """Collects, example by example, what cannot be learned.

    labels: the labels that are learned.
    has_rows: a function from a Doc to one boolean per token, whether the model has scores for it.
    spans_key: the group of `doc.spans` that is learned; None for `doc.ents`.
    """

    def __init__(
        self,
        labels: Collection[str],
        has_rows: Callable[[Doc], Collection[bool]],
        spans_key: str | None = None,
    ) -> None:
        self.labels = labels
        self.has_rows = has_rows
        self.spans_key = spans_key
        self.n_docs = 0
        self.n_entities = 0
        self.unannotated = Kind("documents without entity annotation")
        self.partly = Kind("documents with tokens without annotation, of which the other tokens are learned")
        self.overlapping = Kind("entities that overlap longer or earlier ones, left out of training")
        self.misaligned = Kind("entities whose ends do not fall on those of the pipeline's tokens")
        self.invisible = Kind("entities of tokens that have no word pieces")
        self.unknown = Kind("entities of labels that the component does not have")
        self.contradictions = Kind("documents with the words of an earlier one but other entities; both are learned")
        self.unknown_labels: set[str] = set()
        self._labels: dict[str, Kind] = {}
        self._annotations: dict[int, int] = {}

    @property
    def kinds(self) -> list[Kind]:
        """The kinds that occur."""
        kinds = [self.unannotated, self.partly, self.overlapping, self.misaligned, self.invisible, self.unknown]
        kinds += [self.contradictions, self._rare_labels()]
        return [kind for kind in kinds if kind.count]

    def _rare_labels(self) -> Kind:
        kind = Kind(f"entities of labels that occur at most {RARE} times, unlike the others: misspelled?")
        if any(label.count >= COMMON for label in self._labels.values()):
            for label in self._labels.values():
                for place in label.places if label.count <= RARE else ():
                    kind.add(place)
        return kind

    def add(self, example: Example) -> None:
        """Check one example."""
        self.n_docs += 1
        where = f"document {self.n_docs}"
        overlapping: list[Span] = []
        if self.spans_key is not None:
            example, overlapping = with_group_as_entities(example, self.spans_key)
        doc, predicted = example.reference, example.predicted
        for entity in overlapping:
            self.n_entities += 1
            self.overlapping.add(f"{entity.label_} {_shorten(entity.text)!r} in {where}")
        if not doc.has_annotation("ENT_IOB"):
            if len(doc):
                self.unannotated.add(f"{where} ({_shorten(doc.text)!r})")
            return
        if any(token.ent_iob == 0 for token in doc) and not overlapping:
            self.partly.add(f"{where} ({_shorten(doc.text)!r})")
        is_same = len(doc) == len(predicted) and all(a.orth == b.orth for a, b in zip(doc, predicted, strict=True))
        rows: Collection[bool] | None = None
        for entity in doc.ents:
            self.n_entities += 1
            place = f"{entity.label_} {_shorten(entity.text)!r} in {where}"
            self._labels.setdefault(entity.label_, Kind(entity.label_)).add(place)
            aligned: Iterable[Span] = [entity] if is_same else example.get_aligned_spans_y2x([entity])
            span = next(iter(aligned), None)
            if span is None:
                self.misaligned.add(place)
                continue
            if rows is None:
                rows = self.has_rows(predicted)
            if not any(rows[span.start : span.end]):  # type: ignore[index]
                self.invisible.add(place)
            elif entity.label_ not in self.labels:
                self.unknown.add(place)
                self.unknown_labels.add(entity.label_)
        annotation = hash(tuple((e.start, e.end, e.label) for e in doc.ents))
        if self._annotations.setdefault(hash(tuple(t.orth for t in doc)), annotation) != annotation:
            self.contradictions.add(f"{where} ({_shorten(doc.text)!r})")

    def message(self, name: str) -> str:
        """Return a report with one line per kind of fault; empty if there are none."""
        if not self.kinds:
            return ""
        lines = [f"{name}: of {self.n_docs} documents with {self.n_entities} entities to learn from:"]
        return "\n".join(lines + [f"- {kind}" for kind in self.kinds])


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def check_corpora(nlp: Language) -> None:
    """Raise ValueError if a path of the training config's corpora holds no .spacy files (see `files.docbin_files`).

    What is missing is left to spaCy: a loaded pipeline still has the paths that it was trained with.
    """
    for name in ("train_corpus", "dev_corpus"):
        corpus = _corpus_settings(nlp, name)
        path = corpus.get("path")
        if corpus.get("@readers") == "spacy.Corpus.v1" and path is not None and Path(path).exists():
            docbin_files(Path(path))


def _corpus_settings(nlp: Language, name: str) -> Any:
    """Return the section of the config that `[training]` names as `train_corpus` or `dev_corpus`; empty if there is none."""
    config = nlp.config.interpolate()
    corpus: Any = config
    for part in str(config.get("training", {}).get(name)).split("."):
        corpus = corpus.get(part, {})
    return corpus


def check_score_weights(nlp: Language, name: str, key: str) -> None:
    """Warn if a training run would choose its best model without regard to the entities in `doc.spans[key]`.

    nlp: the pipeline, with the training config. name: the component's name. key: its `spans_key`.
    """
    weights = nlp.config.interpolate()["training"]["score_weights"]
    if _corpus_settings(nlp, "dev_corpus").get("path", "") is None or any(
        weights.get(f"spans_{key}_{score}") for score in "fpr"
    ):
        return
    warnings.warn(
        f"{name}: spans_key is {key!r}, and [training.score_weights] gives no weight to its scores: add "
        f"spans_{key}_f = 1.0 there (and ents_f = 0.0 where no other component sets doc.ents), or the best model is chosen "
        "without it",
        stacklevel=3,
    )
