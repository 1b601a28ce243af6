"""Training objectives by name, each a loss with the retrieval score that goes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.errors import UsageError
from symile_m3.objectives.bounds import bounds_total_correlation
from symile_m3.objectives.clip import clip_loss
from symile_m3.objectives.scores import Scores, clip_scores, symile_scores
from symile_m3.objectives.symile import symile_loss

OBJECTIVES = ("symile", "clip")


class Loss(Protocol):
    """A loss in nats of one (B, D) representation a modality and the factor of its logits."""

    def __call__(
        self,
        reps_BD: Sequence[Tensor],
        scale: Tensor,
        *,
        observed: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        group: ProcessGroup | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A training loss together with its retrieval score.

    Attributes:
        name: as on the command line.
        loss: in nats, () of the representations.
        scores: (query reps, candidate reps) -> (Q, N).
        init_log_scale, max_log_scale: where the learned logarithm of the scale starts, and its clamp.
        bounds_total_correlation: whether `total_correlation_bound` holds for the loss.
    """

    name: str
    loss: Loss
    scores: Scores
    init_log_scale: float
    max_log_scale: float
    bounds_total_correlation: bool


def get_objective(name: str, negatives: str = "n") -> Objective:
    """The objective of this name; the negatives are Symile's, CLIP has one kind.

    Raises:
        UsageError: there is none, or no such negatives.
    """
    if name == "symile":
        try:
            bound = bounds_total_correlation(negatives)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return Objective(
            name="symile",
            loss=partial(symile_loss, negatives=negatives),
            scores=symile_scores,
            # MIPs of LayerNormed representations are of the order of sqrt(D) for random ones, D for equal ones.
            init_log_scale=-4.0,
            max_log_scale=math.log(1.0),
            bounds_total_correlation=bound,
        )
    if name == "clip":
        return Objective(
            name="clip",
            loss=_without_generator,
            scores=clip_scores,
            init_log_scale=math.log(1 / 0.07),  # as in CLIP, and so is the clamp
            max_log_scale=math.log(100.0),
            bounds_total_correlation=False,
        )
    raise UsageError(f"--objective {name}: unknown; known: {', '.join(OBJECTIVES)}")


def _without_generator(
    reps_BD: Sequence[Tensor],
    scale: Tensor,
    *,
    observed: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    return clip_loss(reps_BD, scale, observed=observed, group=group)
