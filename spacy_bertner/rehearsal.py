"""Learning new labels without forgetting the old: distillation from the model as it was before.

The teacher is a copy of the model from when training began, and the student imitates it where the annotation does not say
otherwise (Monaikul et al. 2021, "Continual Learning for Named Entity Recognition", their ExtendNER): a token of an
annotated entity is learnt as ever; at one that is annotated `O` the student follows the teacher, since whoever annotated
new labels alone has left the old ones out. What the annotation does know is held against the teacher: `O` says that the
token is of none of the labels that the data annotates, so what the teacher gives to these goes to `O`. Data that
annotates all labels is thereby learnt as it stands.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from .tags import MISSING, OUTSIDE, Ints1d, TagSet, split_tag


@dataclass
class Teacher:
    """The model as it was.

    model: the copy; it does not change.
    n_tags: so many of its columns, the first ones, were trained; those of labels that were added since come after them.
    """

    model: Model[list[Doc], list[Floats2d]]
    n_tags: int

    def probabilities(self, docs: Sequence[Doc]) -> Floats2d:
        """Return the probabilities of its tags, (n_tokens of all Docs, n_tags); NaN where the model has no scores."""
        ops = self.model.ops
        Y = ops.xp.concatenate(self.model.predict(list(docs)))[:, : self.n_tags]
        return ops.softmax(Y)


@dataclass
class Rehearsal:
    """Where training began, which says whether there is anything to rehearse.

    n_trained: so many tags, the first ones, have been trained. learns_labels: whether labels that are new are added as they
        come up: where the component was loaded, not initialized. annotated: the labels that the training data annotates, as
        far as they are known. has_updated: whether there has been an update since. teacher: the model as it was, if it is
        to be rehearsed.
    """

    n_trained: int = 0
    learns_labels: bool = False
    annotated: set[str] = field(default_factory=set)
    has_updated: bool = False
    teacher: Teacher | None = None

    def take_teacher(self, model: Model[list[Doc], list[Floats2d]]) -> None:
        """Keep a copy of the model as the teacher, unless there is one, or nothing was trained."""
        if self.teacher is None and self.n_trained:
            self.teacher = Teacher(copy.deepcopy(model), self.n_trained)

    def resumed(self, model: Model[list[Doc], list[Floats2d]], *, n_tags: int) -> "Rehearsal":
        """Return the state in which `Language.resume_training` begins: with a copy of the model of so many tags."""
        n_trained = n_tags if self.has_updated else self.n_trained
        can_teach = n_trained and not is_shared(model)
        return Rehearsal(n_trained, self.learns_labels, teacher=Teacher(model, n_trained) if can_teach else None)


def is_shared(model: Model) -> bool:
    """Whether the model listens to another component, which changes in training too, so that a copy is no teacher."""
    return any(hasattr(node, "upstream_name") for node in model.walk())


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
    """Hold the student's scores against what teacher and annotation say of the tokens that are in no annotated entity.

    A token annotated `O` is to have the teacher's probabilities, with those of annotated labels moved to `O`, and none of
    a new label. A token without annotation is to share out among the teacher's tags as the teacher does what it gives to
    them together, whatever that is.

    ops: Thinc's operations for the device of the arrays.
    Y: the student's scores, (n_tokens, n_tags). P: the teacher's probabilities, (n_tokens, n_old), over the first tags.
    truth: (n_tokens,), numbers of tags, `MISSING` where there is no annotation. is_kept: (n_tokens,), False for those
        without scores.
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
        columns = xp.asarray([i for i, found in enumerate(is_annotated) if found])
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
    """Make a callback for `[initialize.before_init]`: it sets `rehearse` of a component that comes from a pipeline.

    In a config file a component with a `source` has no settings of its own.

    component: its name. weight: what to set `rehearse` to.
    """

    def set_rehearse(nlp: Language) -> Language:
        pipe = nlp.get_pipe(component)
        if not hasattr(pipe, "set_rehearse"):
            raise ValueError(f"component: {component!r} is no bert_ner component")
        pipe.set_rehearse(weight)
        return nlp

    return set_rehearse
