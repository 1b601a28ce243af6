"""Log-sum-exps over the N^M multilinear inner products of all combinations of rows, without holding them.

With M modalities, cell (i, j, ..., k) of the cube is the sum over d of the products of row i of the first, row j of
the second, ... and row k of the last. Every modality's anchors read the same cells: anchor i of modality m has those
whose m-th index is i. So each cell is computed once for all anchors, in chunks that are matrix products of
combinations of rows of the first M - 1 modalities with the rows of the last; the log-sum-exps of the chunks are
combined, and the backward pass goes over the chunks again. A chunk that fits in the memory budget is kept for it,
the others are computed again.

Work: 2 N^M D operations forward and 4 backward, or 6 where the chunk has to be computed again. Memory beside the
budget: N^(M-1) numbers.

Suffixes: N rows, D dimensions, M modalities, P combinations of all modalities but the last two (a prefix), Q rows of
the last but one, R = P Q combinations of all but the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from symile_m3.objectives.blocks import MASKED
from symile_m3.objectives.checks import MEMORY_BUDGET, full_precision, once
from symile_m3.objectives.distributed import Ranks

_CACHE = 4 * 2**20  # bytes of combined rows a chunk on a CPU: they are written and read several times


def cube_logsumexp(
    reps_ND: Sequence[Tensor],
    *,
    ids_N: Tensor | None = None,
    ranks: Ranks | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """For each modality and row, the logarithm of the sum of exp over the cells that hold that row.

    Args:
        reps_ND: one (N, D) a modality, at least two; the same on every rank.
        ids_N: cells other than the diagonal's whose rows all have the same id are left out.
        ranks: share the cells; each takes those of its own rows of the first modality. The gradients are this
            rank's share of them, times the number of ranks (see `distributed`).
        memory_budget: bytes.

    Returns:
        (M, N), the positive of each anchor included.
    """
    return _CubeLogSumExp.apply(ids_N, ranks or Ranks(), memory_budget, *reps_ND)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some combinations of the prefix, each with some rows of the last modality but one.

    Attributes:
        first, last: numbers of the combinations, the second excluded.
        rows: of each modality of the prefix, (P,) each.
        prefix_PD: the products of these rows; None where there is no prefix.
        start, stop: rows of the last modality but one, the second excluded.
    """

    first: int
    last: int
    rows: list[Tensor]
    prefix_PD: Tensor | None
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """(P, Q)"""
        return self.last - self.first, self.stop - self.start

    @property
    def places(self) -> list[Any]:
        """Indices of a modality's rows that broadcast to (P, Q), for all modalities but the last."""
        return [*(row_P[:, None] for row_P in self.rows), slice(self.start, self.stop)]


class _Cells:
    """The cells of this rank, and how they are walked through."""

    def __init__(self, reps_ND: Sequence[Tensor], ids_N: Tensor | None, ranks: Ranks, memory_budget: int) -> None:
        *self.prefix_ND, self.middle_ND, self.last_ND = reps_ND
        self.ids_N = ids_N
        self.rows, self.dim = self.last_ND.shape
        own = ranks.own(self.rows // ranks.world)
        later = self.rows ** max(0, len(self.prefix_ND) - 1)  # combinations of the prefix with one row of the first
        self.prefixes = (own[0] * later, own[1] * later) if self.prefix_ND else (0, 1)
        self.middles = (0, self.rows) if self.prefix_ND else own
        limit = memory_budget // 4 if self.last_ND.device.type != "cpu" else min(memory_budget // 4, _CACHE)
        self.step = max(1, limit // (self.last_ND.element_size() * max(self.rows, self.dim)))  # combinations a chunk
        self.spare = memory_budget - 3 * limit  # beside a chunk's combined rows, their cells and the weights of these

    def chunks(self) -> Iterator[_Chunk]:
        (low, high), (start, stop) = self.prefixes, self.middles
        prefixes, middles = max(1, self.step // (stop - start)), min(stop - start, self.step)
        for first in range(low, high, prefixes):
            last = min(first + prefixes, high)
            rows = self._rows_of(first, last)
            parts_PD = [rep_ND[row_P] for rep_ND, row_P in zip(self.prefix_ND, rows, strict=True)]
            prefix_PD = reduce(torch.mul, parts_PD) if parts_PD else None
            for row in range(start, stop, middles):
                yield _Chunk(first, last, rows, prefix_PD, row, min(row + middles, stop))

    def _rows_of(self, first: int, last: int) -> list[Tensor]:
        number_P = torch.arange(first, last, device=self.last_ND.device)
        rows: list[Tensor] = []
        for _ in self.prefix_ND:
            rows.insert(0, number_P % self.rows)
            number_P = number_P // self.rows
        return rows

    def buffer(self) -> Tensor:
        """Room for the combined rows of any chunk; none where there is no prefix to combine."""
        (low, high), (start, stop) = self.prefixes, self.middles
        rows = min(self.step, (high - low) * (stop - start)) if self.prefix_ND else 0
        return self.last_ND.new_empty(rows, self.dim)

    def combined(self, chunk: _Chunk, buffer_RD: Tensor) -> Tensor:
        """Products of the rows of all modalities but the last, in the buffer where there is a prefix."""
        middle_QD = self.middle_ND[chunk.start : chunk.stop]
        if chunk.prefix_PD is None:
            return middle_QD
        combined_RD = buffer_RD[: chunk.shape[0] * chunk.shape[1]]
        torch.mul(chunk.prefix_PD[:, None], middle_QD, out=combined_RD.view(*chunk.shape, self.dim))
        return combined_RD

    def exponentials(self, chunk: _Chunk, combined_RD: Tensor) -> tuple[Tensor, float | None]:
        """Exponentials of the cells relative to the largest, and that; what is left out is 0.

        Where the cells lie so far apart that exponentials would underflow: the cells themselves, and None; what is
        left out is masked. The log-sum-exps of those are stable, and take about twice the time.
        """
        cells_RN = combined_RD @ self.last_ND.T
        left_out_RN = self._left_out(chunk)
        lowest, highest = torch.stack(torch.aminmax(cells_RN)).tolist()
        far_apart = not highest - lowest < _span(cells_RN.dtype)
        if not far_apart:
            cells_RN.sub_(highest).exp_()
        if left_out_RN is not None:
            cells_RN.masked_fill_(left_out_RN, MASKED if far_apart else 0.0)
        return cells_RN, None if far_apart else highest

    def _left_out(self, chunk: _Chunk) -> Tensor | None:
        """Which cells of a chunk are left out, (R, N), if any."""
        if self.ids_N is None:
            return None
        row_N = torch.arange(self.rows, device=self.ids_N.device)
        row_Q = row_N[chunk.start : chunk.stop]
        ids_Q = self.ids_N[row_Q]
        same_PQ = torch.ones(chunk.shape, dtype=torch.bool, device=self.ids_N.device)
        diagonal_PQ = same_PQ.clone()
        for row_P in chunk.rows:
            same_PQ &= self.ids_N[row_P][:, None] == ids_Q
            diagonal_PQ &= row_P[:, None] == row_Q
        left_out_PQN = same_PQ[:, :, None] & (ids_Q[:, None] == self.ids_N)
        left_out_PQN &= ~(diagonal_PQ[:, :, None] & (row_Q[:, None] == row_N))
        return left_out_PQN.flatten(0, 1)


def _span(dtype: torch.dtype) -> float:
    """How far apart two numbers may be that exp is taken of, with room for the upstream gradient of a scaled loss."""
    return 0.7 * math.log(torch.finfo(dtype).max)


class _CubeLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids_N: Tensor | None, ranks: Ranks, memory_budget: int, *reps_ND: Tensor) -> Tensor:
        cells = _Cells(reps_ND, ids_N, ranks, memory_budget)
        buffer_RD = cells.buffer()
        # Over the last modality's rows, of all combinations of the others'; those of other ranks stay masked.
        by_row = cells.last_ND.new_full((cells.rows ** (len(reps_ND) - 2), cells.rows), MASKED)
        by_column_N = cells.last_ND.new_full((cells.rows,), MASKED)
        kept, highests = [], []
        for chunk in cells.chunks():
            weights_RN, highest = cells.exponentials(chunk, cells.combined(chunk, buffer_RD))
            if highest is None:
                over_row_R, over_column_N = weights_RN.logsumexp(dim=1), weights_RN.logsumexp(dim=0)
            else:
                over_row_R, over_column_N = (
                    weights_RN.sum(dim=dim).log_().add_(highest).clamp_min_(MASKED) for dim in (1, 0)
                )
            by_row[chunk.first : chunk.last, chunk.start : chunk.stop] = over_row_R.view(chunk.shape)
            torch.logaddexp(by_column_N, over_column_N, out=by_column_N)
            cells.spare -= weights_RN.numel() * weights_RN.element_size()
            if cells.spare >= 0 and any(ctx.needs_input_grad):
                kept.append(weights_RN)
                highests.append(highest)
        by_row = by_row.view((cells.rows,) * (len(reps_ND) - 1))
        axes = set(range(by_row.dim()))
        partial = [by_row.logsumexp(sorted(axes - {axis})) for axis in sorted(axes)] if len(axes) > 1 else [by_row]
        logsumexp_MN = ranks.logsumexp(torch.stack([*partial, by_column_N]))
        ctx.save_for_backward(logsumexp_MN, ids_N, *reps_ND, *kept)
        ctx.ranks, ctx.memory_budget, ctx.highests = ranks, memory_budget, highests
        return logsumexp_MN

    @staticmethod
    @once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logsumexp_MN, ids_N, *tensors = ctx.saved_tensors
        modalities = len(logsumexp_MN)
        reps_ND, kept = tensors[:modalities], tensors[modalities:]
        cells = _Cells(reps_ND, ids_N, ctx.ranks, ctx.memory_budget)
        upstream_MN = ctx.ranks.scaled_up(gradients[0])
        results_ND = [torch.zeros_like(rep_ND) for rep_ND in reps_ND]
        with full_precision(cells.last_ND):
            buffer_RD = cells.buffer()
            for number, chunk in enumerate(cells.chunks()):
                combined_RD = cells.combined(chunk, buffer_RD)
                if number < len(kept):
                    found = kept[number], ctx.highests[number]
                else:
                    found = cells.exponentials(chunk, combined_RD)
                weights_RN = _weights(chunk, *found, logsumexp_MN, upstream_MN)
                results_ND[-1].addmm_(weights_RN.T, combined_RD)
                _add_gradients(results_ND, cells, chunk, weights_RN, buffer_RD)
        return None, None, None, *results_ND


def _weights(
    chunk: _Chunk, cells_RN: Tensor, highest: float | None, logsumexp_MN: Tensor, upstream_MN: Tensor
) -> Tensor:
    """The gradient of each cell: for each of its anchors, their upstream gradient times its share of their sum."""
    # The anchors of the first modalities, (P, Q), relative to the least log-sum-exp: no cell of theirs exceeds it.
    anchors = [logsumexp_MN[modality][place] for modality, place in enumerate(chunk.places)]
    least = reduce(torch.minimum, anchors).expand(chunk.shape)
    by_row = torch.zeros_like(least, memory_format=torch.contiguous_format)
    for modality, place in enumerate(chunk.places):
        by_row += upstream_MN[modality][place] * torch.exp(least - anchors[modality])
    least_R1, by_row_R1 = least.reshape(-1, 1), by_row.view(-1, 1)
    last_N, by_column_N = logsumexp_MN[-1], upstream_MN[-1]
    if highest is None:
        weights_RN = (cells_RN - least_R1).exp_().mul_(by_row_R1)
        return weights_RN.addcmul_((cells_RN - last_N).exp_(), by_column_N)
    # A log-sum-exp is below the chunk's lowest cell only where all of an anchor's cells in it are left out.
    span = _span(cells_RN.dtype)
    by_row_R1 = by_row_R1 * torch.exp((highest - least_R1).clamp(max=span))
    by_column_N = by_column_N * torch.exp((highest - last_N).clamp(max=span))
    return (by_row_R1 + by_column_N).mul_(cells_RN)


def _add_gradients(
    results_ND: Sequence[Tensor], cells: _Cells, chunk: _Chunk, weights_RN: Tensor, buffer_RD: Tensor
) -> None:
    """Add the gradients of all modalities but the last; in the buffer they take the place of the combined rows."""
    middle_QD = results_ND[-2][chunk.start : chunk.stop]
    if chunk.prefix_PD is None:
        torch.mm(weights_RN, cells.last_ND, out=middle_QD)
        return
    gradient_RD = torch.mm(weights_RN, cells.last_ND, out=buffer_RD[: len(weights_RN)])
    gradient_PQD = gradient_RD.view(*chunk.shape, cells.dim)
    for gradient_QD, prefix_D in zip(gradient_PQD, chunk.prefix_PD, strict=True):
        middle_QD.addcmul_(gradient_QD, prefix_D)
    gradient_PD = gradient_PQD.mul_(cells.middle_ND[chunk.start : chunk.stop]).sum(dim=1)
    for modality, row_P in enumerate(chunk.rows):
        others = [cells.prefix_ND[m][other_P] for m, other_P in enumerate(chunk.rows) if m != modality]
        results_ND[modality].index_add_(0, row_P, reduce(torch.mul, others, gradient_PD))
