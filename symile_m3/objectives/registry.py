"""Training objectives by name, each a loss with the retrieval score that goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from symile_m3.errors import UsageError
from symile_m3.objectives.bounds import bounds_total_correlation
from symile_m3.objectives.clip import clip_loss
from symile_m3.objectives.cliplite import cliplite_loss
from symile_m3.objectives.confu import confu_loss, confu_scores, new_fusions
from symile_m3.objectives.gated import gated_loss, gated_scores, new_gates
from symile_m3.objectives.gram import gram_loss, gram_scores
from symile_m3.objectives.heads import HeadValues
from symile_m3.objectives.negatives import Negatives
from symile_m3.objectives.scores import Scores, clip_scores, symile_scores, unit_scores
from symile_m3.objectives.sigmoid import check_sigmoid_negatives, new_bias, sigmoid_loss
from symile_m3.objectives.soft import soft_loss
from symile_m3.objectives.symile import symile_loss
from symile_m3.objectives.triangle import triangle_loss, triangle_scores

OBJECTIVES = ("symile", "clip", "gram", "triangle", "gated", "confu", "sigmoid", "soft", "cliplite")

_COSINE = "nothing; its score is the cosine of the pair"
_VOLUME = "nothing; its score is the volume of the pair"

# MIPs of LayerNormed representations are of the order of sqrt(D) for random ones, D for equal ones.
_PRODUCT: dict[str, Any] = {"products": True, "init_log_scale": -4.0, "max_log_scale": math.log(1.0)}
# As in CLIP, and so is the clamp.
_COSINES: dict[str, Any] = {"init_log_scale": math.log(1 / 0.07), "max_log_scale": math.log(100.0)}
_SUMMED: dict[str, Any] = {"scores": clip_scores, "unit_scores": unit_scores, "alone": _COSINE, **_COSINES}


class Loss(Protocol):
    """A loss in nats of one (B, D) representation a modality and the factor of its logits.

    Each takes these options and leaves aside what it has no use for: `head`, what the objective learns, where it has
    an `Objective.head`; `labels`, one (B,) a modality, or `similarity`, one (B, N) a modality, where
    `Objective.wants_labels`.
    """

    def __call__(
        self,
        reps_BD: Sequence[Tensor],
        scale: Tensor,
        *,
        observed: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        group: ProcessGroup | None = None,
        head: HeadValues | None = None,
        labels: Sequence[Tensor] | None = None,
        similarity: Sequence[Tensor] | None = None,
    ) -> Tensor: ...


class RoleScores(Protocol):
    """Scores that depend on what was learned, and on which modalities are retrieved and given."""

    def __call__(
        self,
        query_reps_QD: Sequence[Tensor],
        candidates_ND: Tensor,
        *,
        head: HeadValues,
        retrieved: int,
        given: Sequence[int],
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A training loss together with its retrieval score.

    Attributes:
        name: as on the command line.
        loss: in nats, () of the representations.
        scores: (query reps, candidate reps) -> (Q, N), where all modalities play the same part; see `scores_with`.
        init_log_scale, max_log_scale: where the learned logarithm of the scale starts, and its clamp.
        products: whether the logits are multilinear inner products, whose size depends on D.
        bounds_total_correlation: whether `total_correlation_bound` holds for the loss.
        head: (M, D) -> what it learns beside the representations and the scale; None for nothing.
        role_scores: the scores, where they depend on it and on the modalities' parts.
        multilinear: whether the score is the MIP: a mean representation then gives the expected score, and the
            score is a critic of all modalities at once.
        unit_scores: where the score is a sum of cosines, the same of queries that are normalised already: a mean of
            normalised representations then gives the expected score. None where it is not.
        alone: what stands for the missing part of a query of fewer modalities, where the score does without; empty
            where it does not.
        modalities: how many it is for; None for any number.
        takes_negatives: whether the recipe's negatives are for it.
        wants_labels: whether its loss takes labels of each modality, or how alike the samples are.
    """

    name: str
    loss: Loss
    scores: Scores
    init_log_scale: float
    max_log_scale: float
    products: bool = False
    bounds_total_correlation: bool = False
    head: Callable[[int, int], nn.ParameterDict] | None = None
    role_scores: RoleScores | None = None
    multilinear: bool = False
    unit_scores: Scores | None = None
    alone: str = ""
    modalities: int | None = None
    takes_negatives: bool = False
    wants_labels: bool = False

    def check_modalities(self, count: int) -> None:
        """Make sure that it is for so many modalities.

        Raises:
            UsageError: it is not.
        """
        if self.modalities not in (None, count):
            raise UsageError(
                f"objective {self.name}: it is for {self.modalities} modalities, and these are {count}; "
                "symile, clip and gram take any number"
            )

    def term(self, rep: Tensor) -> Tensor:
        """What of a representation (..., D) is averaged over media, and enters `scores_with(..., terms=True)`.

        It is normalised where the score is a sum of cosines, and so linear in what this gives.
        """
        return rep if self.unit_scores is None else F.normalize(rep, dim=-1)

    def scores_with(
        self, head: HeadValues | None, *, retrieved: int, given: Sequence[int], terms: bool = False
    ) -> Scores:
        """The scores under what was learned, for a modality retrieved from others.

        Args:
            head: of the model, for objectives that have one.
            retrieved, given: numbers of the modalities, in the order that the loss takes them; `given` in the order
                of the query's representations.
            terms: whether queries are given as `term` makes them, or as means of such.

        Raises:
            ValueError: the objective has learned something, and it is not given.
        """
        if terms and self.unit_scores is not None:
            return self.unit_scores
        if self.role_scores is None:
            return self.scores
        if head is None:
            raise ValueError(f"{self.name}: its scores need what it has learned")
        return partial(self.role_scores, head=head, retrieved=retrieved, given=tuple(given))


def get_objective(name: str, negatives: str = "n") -> Objective:
    """The objective of this name; the negatives are Symile's and the sigmoid loss's, the others have one kind.

    Raises:
        UsageError: there is none, or no such negatives.
    """
    try:
        Negatives.parse(negatives)
        if name == "symile":
            return Objective(
                name=name,
                loss=_taking(partial(symile_loss, negatives=negatives), "generator"),
                scores=symile_scores,
                bounds_total_correlation=bounds_total_correlation(negatives),
                multilinear=True,
                takes_negatives=True,
                **_PRODUCT,
            )
        if name == "sigmoid":
            check_sigmoid_negatives(negatives)
            return Objective(
                name=name,
                loss=_taking(partial(sigmoid_loss, negatives=negatives), "generator", "head"),
                scores=symile_scores,
                head=new_bias,
                multilinear=True,
                takes_negatives=True,
                **_PRODUCT,
            )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if name not in _WITHOUT_NEGATIVES:
        raise UsageError(f"--objective {name}: unknown; known: {', '.join(OBJECTIVES)}")
    return _WITHOUT_NEGATIVES[name]


def _taking(loss: Callable[..., Tensor], *wanted: str) -> Loss:
    """The loss, called with those of a `Loss`'s options that it takes."""

    def called(reps_BD: Sequence[Tensor], scale: Tensor, **options: Any) -> Tensor:
        taken = {key: value for key, value in options.items() if key in ("observed", "group", *wanted)}
        return loss(reps_BD, scale, **taken)

    return called


def _without_head(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    raise ValueError("these scores depend on what was learned and on the modalities: take `Objective.scores_with`")


_WITHOUT_NEGATIVES = {
    objective.name: objective
    for objective in (
        Objective(name="clip", loss=_taking(clip_loss), **_SUMMED),
        Objective(name="gram", loss=_taking(gram_loss), scores=gram_scores, alone=_VOLUME, **_COSINES),
        Objective(name="triangle", loss=_taking(triangle_loss), scores=triangle_scores, modalities=3, **_COSINES),
        Objective(
            name="gated",
            loss=_taking(gated_loss, "head"),
            scores=_without_head,
            head=new_gates,
            role_scores=gated_scores,
            **_PRODUCT,
        ),
        Objective(
            name="confu",
            loss=_taking(confu_loss, "head"),
            scores=_without_head,
            head=new_fusions,
            role_scores=confu_scores,
            alone=_COSINE,
            **_COSINES,
        ),
        Objective(
            name="soft",
            loss=_taking(soft_loss, "labels", "similarity"),
            scores=symile_scores,
            multilinear=True,
            wants_labels=True,
            **_PRODUCT,
        ),
        Objective(name="cliplite", loss=_taking(cliplite_loss, "generator"), **_SUMMED),
    )
}
