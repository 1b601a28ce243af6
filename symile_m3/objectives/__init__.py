"""Contrastive objectives for any number of modalities, as functions of their representations.

`symile_loss` and `clip_loss` with the scores that go with them, `total_correlation_bound`, and the modules `Symile` and
`MIPSimilarity` for users of the `symile` package.
"""

from symile_m3.objectives.bounds import bounds_total_correlation, total_correlation_bound
from symile_m3.objectives.clip import clip_loss
from symile_m3.objectives.modules import MIPSimilarity, Symile
from symile_m3.objectives.negatives import Negatives, derangement, draw_shuffles
from symile_m3.objectives.registry import OBJECTIVES, Objective, get_objective
from symile_m3.objectives.scores import best_candidates, clip_scores, symile_scores
from symile_m3.objectives.symile import mip, symile_loss

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
    "derangement",
    "draw_shuffles",
    "get_objective",
    "mip",
    "symile_loss",
    "symile_scores",
    "total_correlation_bound",
]
