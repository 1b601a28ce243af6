"""Cross-entropies over a matrix of logits, for objectives whose negatives replace one modality and keep the others.

For each modality t in turn, row i of the matrix is the tuple of all other modalities of sample i, and column j is
row j of modality t. The positives are on the diagonal. A matrix is computed in chunks of rows where it does not fit
in the memory budget, and those are computed again for the gradients.

Suffixes: B rows of this rank, N rows of all ranks, Q rows of a matrix, C its columns, D dimensions, M modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from symile_m3.objectives.blocks import MASKED
from symile_m3.objectives.checks import (
    check_ids,
    check_observed,
    check_reps,
    check_scale,
    full_precision,
    widened,
)
from symile_m3.objectives.distributed import Ranks
from symile_m3.objectives.symile import anchor_weights

T = TypeVar("T")

Similarity = Callable[[Sequence[Tensor], Tensor], Tensor]
"""(Q, D) of each modality but one, (C, D) of that one -> (Q, C) logits."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The arguments of a loss, checked, widened, and those of all ranks together.

    Attributes:
        reps_ND: one (N, D) a modality.
        factor: () of the logits.
        weights_MN: what each row counts for; see `anchor_weights`.
        observed_MN: whether a row is of something observed; None for complete data.
        ids_N: negatives with the same id are left out; None for none.
        ranks: that share the batch.
    """

    reps_ND: list[Tensor]
    factor: Tensor
    weights_MN: Tensor
    observed_MN: Tensor | None
    ids_N: Tensor | None
    ranks: Ranks

    @property
    def own(self) -> tuple[int, int]:
        """First row of this rank and the one behind its last."""
        return self.ranks.own(len(self.reps_ND[0]) // self.ranks.world)

    def others(self, modality: int) -> list[Tensor]:
        """The representations of all modalities but one."""
        return [*self.reps_ND[:modality], *self.reps_ND[modality + 1 :]]

    @classmethod
    def of(
        cls,
        reps_BD: Sequence[Tensor],
        scale: Tensor | float,
        observed: Sequence[Tensor] | None,
        mask_same: Tensor | None,
        group: ProcessGroup | None,
    ) -> Whole:
        """To be called, and used, within `full_precision`.

        Raises:
            ValueError: as `symile_loss` has it.
        """
        batch, _ = check_reps(reps_BD)
        check_observed(observed, len(reps_BD), batch)
        ids_B = None if mask_same is None else check_ids(mask_same, batch)
        ranks = Ranks(group)
        wide_BD = widened(reps_BD)
        factor = check_scale(scale, wide_BD[0])
        reps_ND = ranks.gather(wide_BD)
        observed_MN = None
        if observed is not None:
            observed_MN = ranks.gather_rows(torch.stack([mask.bool() for mask in observed], dim=1)).T
        return cls(
            reps_ND=reps_ND,
            factor=factor,
            weights_MN=anchor_weights(reps_ND, observed, ranks),
            observed_MN=observed_MN,
            ids_N=None if ids_B is None else ranks.gather_rows(ids_B),
            ranks=ranks,
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left_QD: Tensor, right_CD: Tensor) -> Tensor:
        ctx.save_for_backward(left_QD, right_CD)
        with full_precision(left_QD):
            return left_QD @ right_CD.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        left_QD, right_CD = ctx.saved_tensors
        (gradient_QC,) = gradients
        with full_precision(left_QD):
            left = gradient_QC @ right_CD if ctx.needs_input_grad[0] else None
            right = gradient_QC.T @ left_QD if ctx.needs_input_grad[1] else None
        return left, right


def products(left_QD: Tensor, right_CD: Tensor) -> Tensor:
    """(Q, C) inner products, not autocast in the forward pass, nor in the backward pass."""
    result_QC: Tensor = _Product.apply(left_QD, right_CD)
    return result_QC


def matrix_entropies(
    whole: Whole,
    modality: int,
    similarity: Similarity,
    *,
    copies: int,
    memory_budget: int,
    both_ways: bool = True,
) -> Tensor:
    """(B,) cross-entropies of the own rows: of a tuple's candidates, or the mean of these and of a row's tuples.

    Args:
        modality: the one that is replaced.
        similarity: the logits, in which each pair of row and column is judged by itself.
        copies: matrices that the graph of `similarity` holds, about.
        memory_budget: bytes.
        both_ways: whether to contrast each row of the modality with the tuples too.
    """
    start, stop = whole.own
    queries, candidates_ND = whole.others(modality), whole.reps_ND[modality]
    limits: dict[str, Any] = {"ids_N": whole.ids_N, "copies": copies, "memory_budget": memory_budget}
    over_candidates_B, over_tuples_N, positives_B = _sums(
        similarity, [rep_ND[start:stop] for rep_ND in queries], candidates_ND, first=start, **limits
    )
    losses_B = over_candidates_B - positives_B
    if not both_ways:
        return losses_B
    if whole.ranks.world > 1:  # the columns of the own rows need the tuples of all ranks
        _, over_tuples_N, _ = _sums(similarity, queries, candidates_ND[start:stop], columns_first=start, **limits)
    return (losses_B + over_tuples_N - positives_B) / 2


def matrix_loss(
    whole: Whole,
    similarity_of: Callable[[int], Similarity],
    *,
    copies: int,
    memory_budget: int,
    both_ways: bool = True,
) -> Tensor:
    """() the mean over the modalities, and over their observed rows, of `matrix_entropies`."""
    start, stop = whole.own
    shares = [
        whole.weights_MN[modality, start:stop]
        * matrix_entropies(
            whole,
            modality,
            similarity_of(modality),
            copies=copies,
            memory_budget=memory_budget // len(whole.reps_ND),
            both_ways=both_ways,
        )
        for modality in range(len(whole.reps_ND))
    ]
    return whole.ranks.total(torch.stack(shares).sum())


def row_chunks(rows: int, columns: int, itemsize: int, copies: int, memory_budget: int) -> list[slice]:
    """Rows of a matrix in chunks of which `copies` fit in the budget; one where all fit."""
    step = max(1, memory_budget // (copies * itemsize * max(1, columns)))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def in_chunks(of: Callable[[slice], T], chunks: Sequence[slice]) -> list[T]:
    """What a function gives for each chunk of rows; where there are several, it is called again for the gradients."""
    if len(chunks) == 1:
        return [of(chunks[0])]
    return [checkpoint(of, rows, use_reentrant=False, preserve_rng_state=False) for rows in chunks]


def _sums(
    similarity: Similarity,
    queries_QD: Sequence[Tensor],
    candidates_CD: Tensor,
    *,
    ids_N: Tensor | None,
    copies: int,
    memory_budget: int,
    first: int = 0,
    columns_first: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exps over the columns (Q,), over the rows (C,), and the diagonal (Q,).

    Args:
        first, columns_first: which rows of the batch the first query and the first candidate are.
    """
    columns = len(candidates_CD)
    chunks = row_chunks(len(queries_QD[0]), columns, candidates_CD.element_size(), copies, memory_budget)

    def of(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        logits_QC = similarity([rep_QD[rows] for rep_QD in queries_QD], candidates_CD)
        row_Q = torch.arange(first + rows.start, first + rows.stop, device=logits_QC.device)
        column_C = torch.arange(columns_first, columns_first + columns, device=logits_QC.device)
        if ids_N is not None:
            same_QC = (ids_N[row_Q][:, None] == ids_N[column_C]) & (row_Q[:, None] != column_C)
            logits_QC = logits_QC.masked_fill(same_QC, MASKED)
        places_Q = (row_Q - columns_first).clamp(0, columns - 1)
        diagonal_Q = logits_QC.gather(1, places_Q[:, None])[:, 0]
        return logits_QC.logsumexp(dim=1), logits_QC.logsumexp(dim=0), diagonal_Q

    over_columns, over_rows, diagonals = zip(*in_chunks(of, chunks), strict=True)
    return torch.cat(over_columns), torch.stack(over_rows).logsumexp(dim=0), torch.cat(diagonals)
