"""GRAM: the volume of the parallelotope that the normalised representations of all modalities span.

Cicchetti et al., "Gramian Multimodal Representation Learning and Alignment", ICLR 2025, arXiv:2412.11959. With G the
Gram matrix of the unit vectors, the volume is sqrt(det G): 0 where they all point the same way (or where one lies in
the span of the others), 1 where they are orthogonal. The logit is minus the volume times a scale; each positive is
contrasted with tuples of which one modality is replaced, and each row of that modality with other samples' tuples.

The paper replaces one modality of its choice, the text; here each is replaced in turn, as in Symile. Its further
term, which teaches an encoder of all modalities to tell matched from mismatched tuples, is no function of the
representations and left out, and so is its code's smoothing of labels, which none of the others has.

Suffixes: B rows of this rank, N rows of all ranks or candidates, Q queries, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision
from symile_m3.objectives.contrast import Similarity, Whole, matrix_loss, products
from symile_m3.objectives.scores import tiled

FLAT = 1e-6
"""A squared volume or area below which the root is replaced by its tangent there, so that its slope is finite."""


def gram_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the modalities, and over both directions, of the cross-entropy of minus the volumes.

    Args:
        reps_BD: one (B, D) a modality, at least two; normalised here, and widened to at least float32.
        scale: the factor of the logits, one number; the inverse of the paper's temperature.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results, about; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, or a scale that is not finite.
    """
    check_reps(reps_BD)
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)
        similarity: Similarity = partial(_logits, factor=whole.factor)
        copies = 8 + 2 * len(reps_BD) ** 2
        return matrix_loss(whole, lambda modality: similarity, copies=copies, memory_budget=memory_budget)


def gram_scores(
    query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """Minus the volume that every query spans with every candidate, (Q, N).

    A query may be of any number of modalities.

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    matrices = 4 + len(query_reps_QD)
    return tiled(
        lambda reps, tile: -volumes(reps, tile), query_reps_QD, candidates_ND, memory_budget // max(1, matrices)
    )


def volumes(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    """(Q, N) volumes of each query's modalities together with each candidate, whatever their lengths.

    With K the Gram matrix of a query's unit vectors and v their products with the candidate, det G is
    det K - v' adj(K) v: no inverse, so vectors may coincide.
    """
    units_QD = [F.normalize(rep_QD, dim=-1) for rep_QD in query_reps_QD]
    unit_ND = F.normalize(candidates_ND, dim=-1)
    size = len(units_QD)
    ones_Q = torch.ones_like(units_QD[0][:, 0])
    gram = [[ones_Q if i == j else (units_QD[i] * units_QD[j]).sum(dim=-1) for j in range(size)] for i in range(size)]
    with_candidate = [products(unit_QD, unit_ND) for unit_QD in units_QD]
    determinant_QN = determinant(gram)[:, None]
    for i in range(size):
        for j in range(i, size):
            cofactor_Q = determinant(_minor(gram, i, j)) * (-1) ** (i + j) if size > 1 else ones_Q
            times = 1 if i == j else 2
            determinant_QN = determinant_QN - (times * cofactor_Q)[:, None] * with_candidate[i] * with_candidate[j]
    return root(determinant_QN)


def root(square: Tensor) -> Tensor:
    """The square root; below `FLAT` its tangent, whose slope is finite where rounding leaves 0 or less."""
    tangent = (square + FLAT) / (2 * math.sqrt(FLAT))
    return torch.where(square > FLAT, square.clamp_min(FLAT).sqrt(), tangent)


def determinant(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Of a matrix of at least one row, each entry (Q,). By its first row: there are only a few modalities."""
    if len(rows) == 1:
        return rows[0][0]
    terms = [rows[0][j] * determinant(_minor(rows, 0, j)) * (-1) ** j for j in range(len(rows))]
    return torch.stack(terms).sum(dim=0)


def _minor(rows: Sequence[Sequence[Tensor]], i: int, j: int) -> list[list[Tensor]]:
    return [[*row[:j], *row[j + 1 :]] for number, row in enumerate(rows) if number != i]


def _logits(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, factor: Tensor) -> Tensor:
    return -factor * volumes(query_reps_QD, candidates_ND)
