"""Contrastive objectives for any number of modalities, as functions of their representations.

`symile_loss`, `clip_loss` and the losses they are compared with (docs/OBJECTIVES.md), each with the scores that go with
it, `total_correlation_bound`, and the modules `Symile` and `MIPSimilarity` for users of the `symile` package.
"""

from symile_m3.objectives.bounds import bounds_total_correlation, total_correlation_bound
from symile_m3.objectives.clip import clip_loss
from symile_m3.objectives.cliplite import cliplite_loss
from symile_m3.objectives.confu import confu_loss, confu_scores
from symile_m3.objectives.gated import gated_loss, gated_scores
from symile_m3.objectives.gram import gram_loss, gram_scores
from symile_m3.objectives.modules import MIPSimilarity, Symile
from symile_m3.objectives.negatives import Negatives, derangement, draw_shuffles
from symile_m3.objectives.registry import OBJECTIVES, Objective, get_objective
from symile_m3.objectives.scores import best_candidates, clip_scores, symile_scores
from symile_m3.objectives.sigmoid import sigmoid_loss
from symile_m3.objectives.soft import soft_loss
from symile_m3.objectives.symile import mip, symile_loss
from symile_m3.objectives.triangle import triangle_loss, triangle_scores

__all__ = [
    "OBJECTIVES",
    "MIPSimilarity",
    "Negatives",
    "Objective",
    "Symile",
    "best_candidates",
    "bounds_total_correlation",
    "clip_loss",
    "clip_scores",
    "cliplite_loss",
    "confu_loss",
    "confu_scores",
    "derangement",
    "draw_shuffles",
    "gated_loss",
    "gated_scores",
    "get_objective",
    "gram_loss",
    "gram_scores",
    "mip",
    "sigmoid_loss",
    "soft_loss",
    "symile_loss",
    "symile_scores",
    "total_correlation_bound",
    "triangle_loss",
    "triangle_scores",
]
