"""Training objectives, each a loss with the retrieval score that goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symile_m3.errors import UsageError
from symile_m3.objectives.clip import clip_loss, clip_scores
from symile_m3.objectives.symile import derangement, mip, symile_loss, symile_scores, total_correlation_bound

__all__ = [
    "OBJECTIVES",
    "Objective",
    "clip_loss",
    "clip_scores",
    "derangement",
    "get_objective",
    "mip",
    "symile_loss",
    "symile_scores",
    "total_correlation_bound",
]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A training loss together with its retrieval score.

    Attributes:
        name: as on the command line.
        loss: (reps, log_scale, observed masks or None, generator) -> () loss in nats.
        scores: (query reps, candidate reps) -> (Q, N).
        init_log_scale, max_log_scale: where the learned scale starts, and its clamp.
        bounds_total_correlation: whether ln N - loss bounds the total correlation from below.
    """

    name: str
    loss: Callable[[Sequence[Tensor], Tensor, Sequence[Tensor] | None, torch.Generator | None], Tensor]
    scores: Callable[[Sequence[Tensor], Tensor], Tensor]
    init_log_scale: float
    max_log_scale: float
    bounds_total_correlation: bool


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            name="symile",
            loss=lambda reps, log_scale, observed, generator: symile_loss(
                reps, log_scale, observed=observed, generator=generator
            ),
            scores=symile_scores,
            # MIPs of LayerNormed representations are of the order of sqrt(D) for random ones, D for equal ones.
            init_log_scale=-4.0,
            max_log_scale=math.log(1.0),
            bounds_total_correlation=True,
        ),
        Objective(
            name="clip",
            loss=lambda reps, log_scale, observed, generator: clip_loss(reps, log_scale, observed=observed),
            scores=clip_scores,
            init_log_scale=math.log(1 / 0.07),  # as in CLIP, and so is the clamp
            max_log_scale=math.log(100.0),
            bounds_total_correlation=False,
        ),
    )
}


def get_objective(name: str) -> Objective:
    """The objective of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"--objective {name}: unknown; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
