"""The pipeline component `bert_ner`: labels, prediction, annotation, training, saving.

All that it knows about its model is in `model.interface`. Torch and transformers are not imported here, since every
`spacy.blank()` imports all factories.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from spacy.errors import Errors
from spacy.language import Language
from spacy.pipeline.ner import ner_score  # type: ignore[import-not-found]
from spacy.pipeline.spancat import spancat_score
from spacy.pipeline.trainable_pipe import TrainablePipe
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from thinc.api import Config, Model, Optimizer, set_dropout_rate
from thinc.backends import get_array_ops
from thinc.types import Floats2d

from . import serialization
from .confidence import (
    Threshold,
    is_sure,
    register_score,
    validate_temperature,
    validate_threshold,
    validate_threshold_labels,
)
from .data_faults import Faults, check_corpora, check_score_weights
from .decoding import entity_probabilities
from .entities import Entities, TagRows, best_spans, rows_to_tag, write_ents
from .loss import Gradient, encode_annotation, split_like, tag_loss
from .model.interface import Interface, interface_of, scored_tokens
from .processes import Process
from .rehearsal import Rehearsal, check_can_rehearse, distil
from .serialization import follow_current_ops
from .span_groups import annotated_entities, validate_spans_key, with_group_as_entities, write_group
from .tags import (
    MISSING,
    OUTSIDE,
    Bools1d,
    Ints1d,
    TagSet,
    make_tags,
    read_tags,
    validate_label,
    validate_scheme,
    written_prefixes,
)

DEFAULT_CONFIG = """
[model]
@architectures = "spacy_bertner.BertTokenClassifier.v1"
name = "bert-base-cased"
revision = null
window = 256
stride = 240
max_batch_pieces = null
mixed_precision = false
orthography = null
document_context = true
crf = false
head_learn_rate = 1.0
layer_decay = 1.0
freeze_embeddings = false
freeze_layers = 0
gradient_checkpointing = false
transformer_config = {}
lora = null
"""

# A loss this many times that of guessing means that training has diverged
MAX_LOSS = 4.0

# No threshold. A dict can be set for one label, in `spacy.load` and on the command line; but with confection before 1.0
# (spaCy before 3.8.14) it would rule out one number for all labels, which is wanted more often.
NO_THRESHOLD: dict[str, float] | None = None if version("confection").startswith("0.") else {}


def components_of(nlp: Language, *factories: str) -> dict[str, Any]:
    """Return the components of a pipeline that these factories made, by default `bert_ner`, by name, in order."""
    wanted = factories or ("bert_ner",)
    return {name: pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory in wanted}


@Language.factory(
    "bert_ner",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "span._.score"],
    default_config={
        "model": Config().from_str(DEFAULT_CONFIG)["model"],
        "scheme": None,
        "overwrite": False,
        "spans_key": None,
        "threshold": NO_THRESHOLD,
        "temperature": 1.0,
        "rehearse": 0.0,
        "scorer": {"@scorers": "spacy.ner_scorer.v1"},
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_bert_ner(
    nlp: Language,
    name: str,
    model: Model[list[Doc], list[Floats2d]],
    scheme: str | None,
    overwrite: bool,
    spans_key: str | None,
    threshold: Threshold,
    temperature: float,
    rehearse: float,
    scorer: Callable | None,
) -> "BertNER":
    """Make a `bert_ner` component; the settings are those of `BertNER`."""
    return BertNER(
        nlp.vocab,
        model,
        name,
        scheme=scheme,
        overwrite=overwrite,
        spans_key=spans_key,
        threshold=threshold,
        temperature=temperature,
        rehearse=rehearse,
        scorer=scorer,
    )


class BertNER(TrainablePipe):
    """Named-entity recognition by tagging words.

    vocab: the shared vocabulary.
    model: a Thinc model from Docs to rows of tag scores, (n_tokens, n_tags) per Doc.
    name: name of the component in the pipeline.
    scheme: how entities are written as tags: "BIO", "BILUO", "IOB1" or "IO", or another name of one (see `tags.SCHEMES`), by
        which an exported head is then named; None for that of the checkpoint's head, or BIO without a head.
    overwrite: whether to replace entities that are already on a Doc, rather than keep them.
    spans_key: the group of `doc.spans` that entities are learned from and written to; None for `doc.ents`.
    threshold: entities with a lower score are dropped; one number, or one for each label; None for no threshold.
    temperature: tag scores are divided by it before they become probabilities (Guo et al. 2017).
    rehearse: weight, in `update`, of keeping to the predictions from before training where the annotation does not say
        otherwise (see `rehearsal`); 0.0 for plain training.
    scorer: the scoring method. With a `spans_key`, spaCy's scorer for entities is replaced by that for span groups.

    Raises ValueError for settings that cannot work, or if other code has registered a Span extension `score`.
    """

    def __init__(
        self,
        vocab: Any,
        model: Model[list[Doc], list[Floats2d]],
        name: str = "bert_ner",
        *,
        scheme: str | None = None,
        overwrite: bool = False,
        spans_key: str | None = None,
        threshold: Threshold = None,
        temperature: float = 1.0,
        rehearse: float = 0.0,
        scorer: Callable | None = ner_score,
    ) -> None:
        register_score()
        self.vocab = vocab
        self.model = model
        self.name = name
        is_for_ents = scorer in (ner_score, get_ner_prf)
        self.scorer = spancat_score if is_for_ents and spans_key is not None else scorer
        # The setting; `cfg` has the scheme that the tags follow
        self._scheme = None if scheme is None else validate_scheme(scheme)
        self._written = {} if scheme is None else written_prefixes(scheme)
        self.cfg: dict[str, Any] = {
            "scheme": self._scheme or "BIO",
            "overwrite": overwrite,
            "spans_key": validate_spans_key(spans_key),
            "threshold": validate_threshold(threshold),
            "temperature": validate_temperature(temperature),
        }
        self.set_rehearse(rehearse)
        self._set_tags([OUTSIDE])
        self._process = Process()
        self._rehearsal = Rehearsal()
        # Warnings already given
        self._unknown_labels: set[str] = set()
        self._has_diverged = False

    @property
    def _interface(self) -> Interface:
        return interface_of(self.model)

    # Labels

    @property
    def labels(self) -> tuple[str, ...]:
        """The entity labels."""
        return self.tag_set.labels

    @property
    def label_data(self) -> list[str]:
        """The entity labels, as `spacy init labels` writes and `initialize` reads them."""
        return list(self.labels)

    @property
    def tag_set(self) -> TagSet:
        """The tags, in the order of the model's columns."""
        return self._tag_set

    def add_label(self, label: str) -> int:
        """Add an entity label. The head of an initialized model gets new rows; its other rows stay as they are.

        Returns 1, or 0 if the component has the label already. Raises ValueError for a label that no tag can hold.
        """
        if validate_label(label) in self.labels:
            return 0
        self._add_labels([label])
        return 1

    def _add_labels(self, labels: Iterable[str]) -> None:
        # The head of a checkpoint may not have all tags of a label
        needed = make_tags(dict.fromkeys(labels), self.cfg["scheme"])[1:]
        tags = list(dict.fromkeys([*self.tag_set.tags, *needed]))
        if self.model.has_dim("nO"):
            self._interface.resize(self.model, len(tags))
        self._set_tags(tags)

    def _set_tags(self, tags: Sequence[str], written: dict[str, str] | None = None) -> None:
        """Set the tags; `written` is how the checkpoint writes prefixes (see `ReadTags`), None for no change."""
        self._tag_set = TagSet(tags, self.cfg["scheme"])
        self.cfg["tags"] = list(tags)
        self.cfg["written"] = self.cfg.get("written", {}) if written is None else written
        for label in self.labels:
            self.vocab.strings.add(label)

    # Prediction

    def predict(self, docs: Iterable[Doc]) -> list[Entities]:
        """Find the entities of each Doc, without touching it.

        Returns for each Doc its entities as (first token, last token + 1, label, probability), in order.
        Raises ValueError if the model is not initialized or its scores are NaN.
        """
        docs = list(docs)
        entities: list[Entities] = [[] for _ in docs]
        if not any(len(doc) for doc in docs):
            return entities
        rows, transitions = self.tag_rows(docs), self.transitions()
        spans = best_spans(self.tag_set, rows, transitions)
        probabilities = entity_probabilities(
            self.tag_set, rows.scores, rows.is_first, spans, transitions, self.cfg["temperature"]
        )
        of_doc, starts = rows.places([first for first, _, _ in spans])
        _, lasts = rows.places([end - 1 for _, end, _ in spans])
        labels = [label for _, _, label in spans]
        for i, start, last, label, score in zip(of_doc, starts, lasts, labels, probabilities.tolist(), strict=True):
            if is_sure(label, score, self.cfg["threshold"]):
                entities[i].append((start, last + 1, label, score))
        return entities

    def tag_rows(self, docs: list[Doc]) -> TagRows:
        """Compute the tag scores of the tokens that get a tag.

        docs: Docs, not all of them empty.
        Raises ValueError if the model is not initialized, if its scores are NaN, or if it is on a GPU and this process is a
        fork, which cannot use it.
        """
        if not self.model.has_dim("nO"):
            raise ValueError(Errors.E109.format(name=self.name))
        if self._interface.is_on_gpu(self.model) and not self._process.is_this():
            raise ValueError(
                f"{self.name}: the model is on a GPU, which a forked process cannot use. Use n_process=1, or several "
                "programs that each load the pipeline; on a CPU n_process may be greater"
            )
        keeps = not self.cfg["overwrite"] and self.cfg["spans_key"] is None
        rows = rows_to_tag(docs, self._interface.predict_scores(self.model, docs), keeps_ents=keeps)
        if np.isnan(rows.scores).any():
            raise ValueError(
                f"{self.name}: the model's scores are NaN. Training has diverged: lower the learning rate, "
                "or check the weights it started from"
            )
        return rows

    def transitions(self) -> np.ndarray | None:
        """Return the scores of transitions that the model has learned (see `Lattice.of`); None without `crf`."""
        return self._interface.transitions(self.model)

    def set_annotations(self, docs: Iterable[Doc], predictions: list[Entities]) -> None:
        """Write the entities and their scores to `doc.ents` or, with `spans_key`, to that group of `doc.spans`.

        Existing entities are kept, unless `overwrite` is set.

        docs: the Docs. predictions: what `predict` returned for them.
        """
        key, overwrite = self.cfg["spans_key"], self.cfg["overwrite"]
        for doc, entities in zip(docs, predictions, strict=True):
            scores = {(start, end, label): score for start, end, label, score in entities}
            if key is not None:
                write_group(doc, key, scores, overwrite)
            elif len(doc):
                write_ents(doc, scores, overwrite)

    # Training

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch of examples.

        examples: the examples; those without entity annotation contribute nothing.
        drop: dropout rate before the head; at 0.0 the encoder's own dropout is off too.
        sgd: the optimizer, to take a step right away.
        losses: updated under the component's name with the loss per labelled token of these examples; spaCy adds up the
            updates between two evaluations.
        Returns `losses`.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "BertNER.update")
        self.replay_update(examples)
        return self._learn(examples, drop, sgd, losses, self.cfg["rehearse"])

    def replay_update(self, examples: Iterable[Example]) -> None:
        """Do what `update` does before it learns, also for a run that is resumed: take a teacher, add new labels."""
        if not self.model.has_dim("nO"):
            return
        state = self._rehearsal
        if self.cfg["rehearse"] and not state.has_updated:
            check_can_rehearse(self.name, self.model, self.transitions())
            state.take_teacher(self.model)
        state.has_updated = True
        state.annotated |= self._annotated_labels(examples)
        if state.learns_labels:
            labels = sorted(state.annotated)
            if not set(make_tags(labels, self.cfg["scheme"])) <= set(self.tag_set.tags):
                self._add_labels(labels)

    def _learn(
        self, examples: Sequence[Example], drop: float, sgd: Any, losses: dict[str, float], rehearse: float
    ) -> dict[str, float]:
        """As `update`; `rehearse` is the weight of the teacher, if there is one."""
        teacher = self._rehearsal.teacher if rehearse else None
        if self._interface.owns_encoder:  # a shared one has been computed for all examples
            examples = [eg for eg in examples if len(eg.predicted) and (teacher or self._is_annotated(eg))]
        set_dropout_rate(self.model, drop)
        groups = self._interface.group(self.model, [eg.predicted for eg in examples]) if examples else []
        loss: Any = 0.0  # on the device
        n_labelled = 0
        for n_done, (places, docs) in enumerate(groups, start=1):
            group = [examples[i] for i in places]
            # A subclass that is not rehearsed may have the arguments of spaCy's own components
            teaching: dict[str, Any] = {}
            if teacher:
                teaching = {"taught": teacher.probabilities(docs), "rehearse": rehearse}
            scores, backprop = self.model.begin_update(docs)
            group_loss, gradient = self.get_loss(group, scores, **teaching)
            if not isinstance(gradient, Gradient):
                gradient = Gradient(gradient, self._n_learned(group, scores, is_taught=bool(teaching)))
            n = gradient.n_labelled
            loss = loss + group_loss
            n_labelled += n
            if n_done == len(groups):
                # The only time that this waits for a GPU: for the forward passes, not for the last backward pass
                loss = float(loss)
            # A shared layer waits for the gradient of all its listeners, even if it is zero
            if n or not self._interface.owns_encoder:
                backprop(gradient)
            if n and gradient.transitions is not None:
                self._interface.add_transition_gradient(self.model, gradient.transitions)
        if n_labelled:
            self._interface.add_labelled(self.model, n_labelled)
            losses[self.name] += loss / n_labelled
            self._check_loss(loss / n_labelled)
        if sgd is not None and sgd is not False:
            self.finish_update(sgd)
        return losses

    def get_loss(
        self,
        examples: Iterable[Example],
        scores: list[Floats2d],
        *,
        taught: Floats2d | None = None,
        rehearse: float = 0.0,
    ) -> tuple[Any, list[Floats2d]]:
        """Compute the cross-entropy of the tags, summed over the labelled tokens, and its gradient.

        Tokens whose annotation is missing, or that have no word pieces, are left out. With the setting `crf` the loss is the
        negative log-likelihood of the tag sequences, summed over missing tags. Of spans in the group `spans_key` that
        overlap, the longest counts.

        `update` learns from what this returns. A subclass may return any loss with a plain list as its gradient.

        examples: the examples.
        scores: tag scores, (n_tokens, n_tags) for each example.
        taught: the teacher's probabilities, (n_tokens of all examples, n_old). They are learned, at the weight `rehearse`,
            where the annotation is `O` or missing (see `rehearsal.distil`).
        Returns the loss, a number or an array without dimensions on the device of the scores, and its gradient with
        respect to the scores.
        """
        if not scores:
            return 0.0, Gradient([], 0)
        has_row, truth = self._annotation(examples, scores)
        if taught is None:
            return tag_loss(self.tag_set, scores, has_row, truth, self.transitions())
        ops = get_array_ops(scores[0])
        xp = ops.xp
        Y = xp.concatenate(scores)  # (n_tokens, n_tags)
        loss, dY, n = distil(ops, Y, taught, truth, has_row, self.tag_set, self._rehearsal.annotated)
        truth[truth == self.tag_set.outside] = MISSING
        own_loss, own = tag_loss(self.tag_set, scores, has_row, truth, self.transitions())
        dY = xp.concatenate(own) + rehearse * dY
        return own_loss + rehearse * loss, Gradient(split_like(scores, dY), own.n_labelled + n)

    def _annotation(self, examples: Iterable[Example], scores: list[Floats2d]) -> tuple[Bools1d, Ints1d]:
        """Return which tokens of all examples have scores, and the indices of their annotated tags; (n_tokens,) both."""
        has_row = scored_tokens(scores)
        key = self.cfg["spans_key"]
        examples = [eg if key is None else with_group_as_entities(eg, key)[0] for eg in examples]
        truth, unknown = encode_annotation(self.tag_set, examples, has_row)
        if new := unknown - self._unknown_labels:
            self._unknown_labels |= new
            warnings.warn(
                f"{self.name}: labels that the component was not initialized with are left out of training: "
                f"{', '.join(sorted(new))}; it has {', '.join(self.labels)}",
                stacklevel=4,
            )
        return has_row, truth

    def _n_learned(self, examples: Sequence[Example], scores: list[Floats2d], *, is_taught: bool) -> int:
        """Return how many tokens are learned from: the labelled ones or, with a teacher, all that have scores."""
        has_row, truth = self._annotation(examples, scores)
        return int((has_row if is_taught else truth != MISSING).sum())

    def _is_annotated(self, example: Example) -> bool:
        key = self.cfg["spans_key"]
        return example.reference.has_annotation("ENT_IOB") if key is None else key in example.reference.spans

    def _annotated_labels(self, examples: Iterable[Example]) -> set[str]:
        key = self.cfg["spans_key"]
        return {ent.label_ for eg in examples for ent in annotated_entities(eg.reference, key)}

    def _check_loss(self, loss: float) -> None:
        guessing = math.log(max(len(self.tag_set), 2))
        if not loss <= MAX_LOSS * guessing and not self._has_diverged:
            self._has_diverged = True
            warnings.warn(
                f"{self.name}: the loss is {loss:.1f} per token, while guessing among the tags would give {guessing:.1f}: "
                "training diverges. Lower [training.optimizer] learn_rate (5e-5 to 2e-4 is usual)",
                stacklevel=4,
            )

    def finish_update(self, sgd: Optimizer) -> None:
        """Take an optimizer step with the gradient added up since the last one, if there is any."""
        self.model.finish_update(sgd)

    # Rehearsal

    def set_rehearse(self, weight: float) -> None:
        """Set the weight `rehearse`; raises ValueError if it is negative or not finite."""
        if not 0.0 <= weight < math.inf:
            raise ValueError(f"rehearse: {weight} is not a weight; allowed are 0.0 and more")
        self.cfg["rehearse"] = weight

    @property
    def learns_labels(self) -> bool:
        """Whether new labels are added as they come up in training: if the component was loaded, not initialized."""
        return self._rehearsal.learns_labels

    @property
    def _rehearsal_model(self) -> Model[list[Doc], list[Floats2d]] | None:
        """The teacher's model; `Language.resume_training` sets it to a copy of the model."""
        return self._rehearsal.teacher.model if self._rehearsal.teacher else None

    @_rehearsal_model.setter
    def _rehearsal_model(self, model: Model[list[Doc], list[Floats2d]]) -> None:
        self._rehearsal = self._rehearsal.resumed(model, n_tags=len(self.tag_set))

    def rehearse(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | Callable | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from the model as it was, so as not to forget: its tags are to keep the probabilities they had.

        `Language.resume_training` keeps the model as it is; `Language.rehearse` calls this.

        examples: Docs like those that the model was trained on; their annotation is not used.
        drop: dropout rate, as in `update`.
        sgd: the optimizer, or the function that `Language.rehearse` passes in its place.
        losses: updated under the component's name with the divergence per token.
        Returns `losses`. Raises ValueError if the model listens to another component.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "BertNER.rehearse")
        check_can_rehearse(self.name, self.model, self.transitions())
        if self._rehearsal.teacher is None:
            warnings.warn(
                f"{self.name}: nothing to rehearse: call nlp.resume_training() on the trained pipeline before it is "
                "trained further",
                stacklevel=2,
            )
            return losses
        unlabelled = [Example(eg.predicted, Doc(self.vocab, words=[t.text for t in eg.predicted])) for eg in examples]
        return self._learn(unlabelled, drop, sgd, losses, rehearse=1.0)

    # Initialization

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[str] | None = None,
    ) -> None:
        """Load the checkpoint and make the component ready for training or, with a fine-tuned checkpoint, for use.

        get_examples: returns the training examples, from which the labels are taken.
        labels: the entity labels, in place of those in the examples; what `spacy init labels` writes.

        Raises ValueError if there are no labels in the data, `labels` or the checkpoint, if one cannot be written as a tag,
        or if the checkpoint cannot be loaded.
        """
        follow_current_ops(self.model)
        if nlp is not None:
            check_corpora(nlp)
        annotated: set[str] = set()
        if labels is None:
            validate_get_examples(get_examples, "BertNER.initialize")
            annotated = self._annotated_labels(get_examples())
            labels = sorted(annotated)
        elif not isinstance(labels, (list, tuple)):
            raise ValueError(f"labels: {labels!r} is not a list of entity labels, as `spacy init labels` writes it")
        # Labels that were added before stay, as those of spaCy's `ner` do
        labels = [validate_label(label) for label in (*self.labels, *labels)]
        # Until all is well the component counts as not initialized
        self.model.set_dim("nO", None, force=True)  # type: ignore[arg-type]
        head_tags = None
        load_checkpoint, key = self._interface.load_checkpoint, self.cfg["spans_key"]
        if load_checkpoint is not None:
            head_tags = load_checkpoint(self.model)
        elif nlp is not None:
            self._interface.check_upstream(self.model, self, nlp)
        if not labels and not head_tags:
            raise ValueError(
                f"{self.name}: no labels: the training data has no entities{f' in doc.spans[{key!r}]' if key else ''}, no "
                f"labels are given in [initialize.components.{self.name}] or by add_label, and the checkpoint has no "
                "token-classification head"
            )
        self._take_scheme_and_tags(head_tags)
        self._rehearsal = Rehearsal(n_trained=len(head_tags or []), annotated=annotated)
        self._add_labels(labels)
        validate_threshold_labels(self.cfg["threshold"], self.labels)
        self.model.set_dim("nO", len(self.tag_set), force=True)
        docs = None
        if load_checkpoint is None:  # the layer below the head learns its width from Docs
            docs = [eg.predicted for eg in islice(get_examples(), 10) if len(eg.predicted)]
            docs = docs or [Doc(self.vocab, words=["hello"])]
        self.model.initialize(X=docs)
        if annotated or not head_tags or len(list(islice(get_examples(), 2))) > 1:  # else there is nothing to learn
            self._warn_of_faults(get_examples)
        if nlp is not None and key is not None:
            check_score_weights(nlp, self.name, key)

    def _take_scheme_and_tags(self, names: list[str] | None) -> None:
        """Start from the tags that the rows of the checkpoint's head are named after, or from `O` alone."""
        if not names:
            self.cfg["scheme"] = self._scheme or "BIO"
            self._set_tags([OUTSIDE], self._written)
            return
        try:
            read = read_tags(names, self._scheme)
        except ValueError as err:
            raise ValueError(f"name: the labels of the checkpoint's head are {names}: {err}") from err
        self.cfg["scheme"] = read.scheme
        self._set_tags(read.tags, read.written)

    def _warn_of_faults(self, get_examples: Callable[[], Iterable[Example]]) -> None:
        """Report once, before training, what cannot be learned from the data."""
        has_rows = self._interface.has_rows
        faults = Faults(self.labels, lambda doc: has_rows(self.model, doc).tolist(), self.cfg["spans_key"])
        for example in get_examples():
            faults.add(example)
        if message := faults.message(self.name):
            self._unknown_labels |= faults.unknown_labels  # no second warning in training
            warnings.warn(message, stacklevel=3)

    # Saving and loading

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "BertNER":
        """Load what `to_bytes` returned."""
        return self._loaded(serialization.load_bytes(bytes_data, self.model, self.vocab, self._check, exclude), "bytes")

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save into a folder: `model` (a folder with the encoder as transformers has it), `cfg` and `vocab`."""
        serialization.save(path, self.cfg, self.model, self.vocab, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "BertNER":
        """Load from a folder that `to_disk` wrote.

        Raises ValueError, which names the file, if one is missing, damaged, or does not belong to the others.
        """
        return self._loaded(serialization.load(path, self.model, self.vocab, self._check, exclude), str(path))

    def _check(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """Return the saved settings; raise ValueError if they contradict those of the component."""
        if self._scheme not in (None, cfg["scheme"]):
            raise ValueError(
                f"{self.name}: scheme: {self._scheme!r} is set, but the saved model was trained with {cfg['scheme']!r}"
            )
        labels = TagSet(cfg["tags"], cfg["scheme"]).labels
        if self.model.has_dim("nO") and set(labels) != set(self.labels):
            raise ValueError(
                f"{self.name}: has the labels {list(self.labels)}, but the saved model has {list(labels)}; load it into a "
                "new component"
            )
        return cfg

    def _loaded(self, cfg: dict[str, Any], place: str) -> "BertNER":
        """Use the saved scheme and tags; the other settings are the config's, which `spacy.load(config=…)` may change."""
        tags = cfg.get("tags", self.cfg["tags"])
        n_tags = self.model.get_dim("nO") if self.model.has_dim("nO") else len(tags)
        if n_tags != len(tags):
            raise ValueError(
                f"{self.name}: {place}: the model has {n_tags} tags, its cfg {len(tags)}: they do not belong together"
            )
        self.cfg["scheme"] = cfg.get("scheme", self.cfg["scheme"])
        self._set_tags(tags, cfg.get("written"))
        self._rehearsal = Rehearsal(n_trained=len(tags) if self.model.has_dim("nO") else 0, learns_labels=True)
        validate_threshold_labels(self.cfg["threshold"], self.labels)
        self.transitions()  # raises if they do not go with the setting `crf`
        return self
