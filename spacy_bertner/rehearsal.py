"""Learning new labels without forgetting the old: distillation from the model as it was before.

The teacher is a copy of the model from the start of training, and the student imitates it where the annotation does not say
otherwise (ExtendNER in Monaikul et al. 2021, "Continual Learning for Named Entity Recognition"). Tokens of annotated
entities are learned as usual. For a token annotated `O` the student follows the teacher, since data annotated with new
labels alone leaves the old ones out. But `O` does mean that the token has none of the labels that the data annotates, so the
teacher's probability of these is moved to `O`. Data that annotates all labels is therefore learned as it is.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from .model.listener import listeners
from .tags import MISSING, OUTSIDE, Ints1d, TagSet, split_tag


@dataclass
class Teacher:
    """The model as it was.

    model: the copy, which does not change.
    n_tags: how many of its columns were trained; columns of labels added since come after them.
    """

    model: Model[list[Doc], list[Floats2d]]
    n_tags: int

    def probabilities(self, docs: Sequence[Doc]) -> Floats2d:
        """Return the probabilities of its tags, (n_tokens of all Docs, n_tags); NaN for tokens without scores."""
        ops = self.model.ops
        Y = ops.xp.concatenate(self.model.predict(list(docs)))[:, : self.n_tags]
        return ops.softmax(Y)


@dataclass
class Rehearsal:
    """How training began, which decides whether there is anything to rehearse.

    n_trained: how many tags, the first ones, have been trained. learns_labels: whether new labels are added as they come up,
        as in a component that was loaded, not initialized. annotated: the labels that the training data is known to
        annotate. has_updated: whether there has been an update since. teacher: the model to rehearse, if there is one.
    """

    n_trained: int = 0
    learns_labels: bool = False
    annotated: set[str] = field(default_factory=set)
    has_updated: bool = False
    teacher: Teacher | None = None

    def take_teacher(self, model: Model[list[Doc], list[Floats2d]]) -> None:
        """Keep a copy of the model as the teacher, unless there is a teacher already or nothing was trained."""
        if self.teacher is None and self.n_trained:
            self.teacher = Teacher(copy.deepcopy(model), self.n_trained)

    def resumed(self, model: Model[list[Doc], list[Floats2d]], *, n_tags: int) -> "Rehearsal":
        """Return the state in which `Language.resume_training` begins; model: a copy of the one with `n_tags` tags."""
        n_trained = n_tags if self.has_updated else self.n_trained
        can_teach = n_trained and not is_shared(model)
        return Rehearsal(n_trained, self.learns_labels, teacher=Teacher(model, n_trained) if can_teach else None)


def is_shared(model: Model) -> bool:
    """Return whether the model listens to another component, which also changes in training: a copy is no teacher then."""
    return bool(listeners(model))


def check_can_rehearse(name: str, model: Model, transitions: Any) -> None:
    """Raise ValueError if the model of the component `name` cannot be rehearsed; transitions: its own, if it has any."""
    if transitions is not None:
        raise ValueError(
            f"{name}: rehearse: the model has learned transitions (crf = true), but rehearsal works on the probabilities of "
            "single tags. Train with crf = false, or with rehearse = 0.0"
        )
    if is_shared(model):
        raise ValueError(
            f"{name}: rehearse: the model listens to another component, which changes in training too, so that a copy does "
            'not stay as it was. Give it a layer of its own: replace_listeners = ["model.tok2vec"] beside its source, or '
            "nlp.replace_listeners; or do without: rehearse = 0.0, nlp.rehearse(…, exclude=[…])"
        )


def distil(
    ops: Any, Y: Floats2d, P: Floats2d, truth: Ints1d, is_kept: Any, tag_set: TagSet, annotated: set[str]
) -> tuple[Any, Floats2d, int]:
    """Compare the student with the teacher, for the tokens that are in no annotated entity.

    The target for a token annotated `O` is the teacher's probabilities, with those of annotated labels moved to `O`, and
    zero for new labels. For a token without annotation only the proportions among the teacher's tags are compared.

    ops: Thinc's operations for the device of the arrays.
    Y: the student's scores, (n_tokens, n_tags). P: the teacher's probabilities, (n_tokens, n_old), for the first tags.
    truth: (n_tokens,), indices of tags, `MISSING` if there is no annotation. is_kept: (n_tokens,), False for tokens without
        scores.
    tag_set: the student's tags. annotated: the labels that the data annotates.
    Returns the Kullback-Leibler divergence, summed over these tokens, on the device of the arrays; its gradient with respect
    to Y; and the number of these tokens.
    """
    xp = ops.xp
    dY = xp.zeros_like(Y)
    P = ops.asarray2f(P)  # the student may have moved to another device than the teacher
    n_old = P.shape[1]
    outside = xp.asarray((truth == tag_set.outside).nonzero()[0])
    Q = xp.zeros((len(outside), Y.shape[1]), dtype="float32")
    Q[:, :n_old] = P[outside]
    is_annotated = [tag != OUTSIDE and split_tag(tag)[1] in annotated for tag in tag_set.tags[:n_old]]
    if any(is_annotated):
        columns = xp.asarray([i for i, is_one in enumerate(is_annotated) if is_one])
        Q[:, tag_set.outside] += Q[:, columns].sum(axis=1)
        Q[:, columns] = 0.0
    loss, dY[outside] = _divergence(ops, Y[outside], Q)
    unknown = xp.asarray(((truth == MISSING) & is_kept).nonzero()[0])
    loss_unknown, d_unknown = _divergence(ops, Y[unknown][:, :n_old], P[unknown])
    dY[unknown, :n_old] = d_unknown
    return loss + loss_unknown, dY, len(outside) + len(unknown)


def _divergence(ops: Any, Y: Floats2d, Q: Floats2d) -> tuple[Any, Floats2d]:
    """Return the divergence of the softmax of scores Y from probabilities Q, (n, n_tags) both, and the gradient of Y."""
    if not len(Y):
        return 0.0, Y
    xp = ops.xp
    scores = Y - xp.max(Y, axis=1, keepdims=True)
    log_p = scores - xp.log(xp.exp(scores).sum(axis=1, keepdims=True))
    loss = (Q * (xp.log(xp.maximum(Q, 1e-30)) - log_p)).sum()
    return loss, xp.exp(log_p) - Q


def make_rehearse(component: str = "bert_ner", weight: float = 1.0) -> Callable[[Language], Language]:
    """Make a callback for `[initialize.before_init]` that sets `rehearse` of a component sourced from another pipeline.

    In a config file a component with a `source` has no settings of its own.

    component: its name. weight: the value of `rehearse`.
    """

    def set_rehearse(nlp: Language) -> Language:
        pipe = nlp.get_pipe(component)
        if not hasattr(pipe, "set_rehearse"):
            raise ValueError(f"component: {component!r} is not a bert_ner component")
        pipe.set_rehearse(weight)
        return nlp

    return set_rehearse
