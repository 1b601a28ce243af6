"""TRIANGLE: the area of the triangle whose corners are the normalised representations of three modalities.

Cicchetti, Grassucci, Comminiello, "A TRIANGLE Enables Multimodal Alignment Beyond Cosine Similarity", NeurIPS 2025,
arXiv:2509.24734. With unit vectors a, b, c, u = a - c and v = b - c, the area is sqrt(|u|^2 |v|^2 - (u.v)^2) / 2: 0
where two corners meet, at most 3 sqrt(3) / 4. The logit is minus the area times a scale, contrasted as in `gram`.

Defined for three modalities and no other number. The paper replaces one modality, the text; here each is replaced in
turn. The authors' code leaves the root out, which its comments say; here is the area of the paper. Its further term,
which teaches an encoder to tell matched from mismatched tuples, is left out.

Suffixes: B rows of this rank, N rows of all ranks or candidates, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision
from symile_m3.objectives.contrast import Similarity, Whole, matrix_loss, products
from symile_m3.objectives.gram import root
from symile_m3.objectives.scores import tiled


def triangle_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the modalities, and over both directions, of the cross-entropy of minus the areas.

    Args:
        reps_BD: one (B, D) for each of three modalities; normalised here, and widened to at least float32.
        scale: the factor of the logits, one number; the inverse of the paper's temperature.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results, about; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, not three modalities, or a scale that is not finite.
    """
    check_reps(reps_BD)
    if len(reps_BD) != 3:
        raise ValueError(f"{len(reps_BD)} modalities: a triangle has three corners; gram takes any number")
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)
        similarity: Similarity = partial(_logits, factor=whole.factor)
        return matrix_loss(whole, lambda modality: similarity, copies=14, memory_budget=memory_budget)


def triangle_scores(
    query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """Minus the area of the triangle of every query with every candidate, (Q, N).

    Args:
        query_reps_QD: one (Q, D) for each of the query's two modalities.
        candidates_ND: representations of the retrieved modality.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: not two modalities, or shapes that do not fit each other.
    """
    if len(query_reps_QD) not in (0, 2):  # none is named with the shapes
        raise ValueError(f"a query of {len(query_reps_QD)} modalities: two and a candidate make a triangle")
    return tiled(lambda reps, tile: -areas(reps, tile), query_reps_QD, candidates_ND, memory_budget // 6)


def areas(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    """(Q, N) areas of each query's two modalities with each candidate, whatever their lengths."""
    first_QD, second_QD = (F.normalize(rep_QD, dim=-1) for rep_QD in query_reps_QD)
    unit_ND = F.normalize(candidates_ND, dim=-1)
    first_QN, second_QN = products(first_QD, unit_ND), products(second_QD, unit_ND)
    both_Q1 = (first_QD * second_QD).sum(dim=-1, keepdim=True)
    # |u|^2 = 2 - 2 a.c, |v|^2 = 2 - 2 b.c, u.v = 1 + a.b - a.c - b.c
    square_QN = 4 * (1 - first_QN) * (1 - second_QN) - (1 + both_Q1 - first_QN - second_QN).square()
    return root(square_QN) / 2


def _logits(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, factor: Tensor) -> Tensor:
    return -factor * areas(query_reps_QD, candidates_ND)
