"""Log-sum-exps over the O(N) negatives of each anchor, in bounded memory.

A block (see `negatives`) is a matrix of inner products: queries, the products of the rows of the modalities it keeps,
with keys, the products of the combined rows of those it varies. Queries and keys are made when they are needed, in
the forward pass and again in the backward pass; the matrix is computed in chunks of rows. Chunks that fit in the
memory budget are kept for the backward pass, the others computed again.

Suffixes: N rows of all ranks, B rows of this rank, D dimensions, S shuffles, K blocks, C rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from symile_m3.objectives.checks import MEMORY_BUDGET, full_precision, once
from symile_m3.objectives.negatives import Block, combined_rows

MASKED = -1e30  # a logit of nothing: finite, as its gradient has to be 0 and not nan


def block_logsumexp(
    reps_ND: Sequence[Tensor],
    found: Sequence[Block],
    shuffles_SN: Tensor,
    *,
    own: tuple[int, int],
    ids_N: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """For each block and own row i, the logarithm of the sum over the keys j != i of exp(query i . key j).

    Args:
        reps_ND: one (N, D) a modality.
        found: the blocks.
        shuffles_SN: one shuffle for each block that is shuffled, in their order.
        own: first of the own rows, and the one behind the last.
        ids_N: keys whose rows all have the id of row i are left out for it.
        memory_budget: bytes.

    Returns:
        (K, B), about -1e30 where every key is left out.
    """
    result_KB: Tensor = _BlockLogSumExp.apply(tuple(found), shuffles_SN, own, ids_N, memory_budget, *reps_ND)
    return result_KB


class _Matrices:
    """The queries and keys of the blocks, and the chunks of their products."""

    def __init__(
        self,
        reps_ND: Sequence[Tensor],
        found: Sequence[Block],
        shuffles_SN: Tensor,
        own: tuple[int, int],
        ids_N: Tensor | None,
        memory_budget: int,
    ) -> None:
        self.reps_ND, self.ids_N = reps_ND, ids_N
        self.first, self.last = own
        self.found = found
        shuffles = iter(shuffles_SN)
        self.rows = [combined_rows(len(block.varied), next(shuffles) if block.shuffled else None) for block in found]
        columns, itemsize = len(reps_ND[0]), reps_ND[0].element_size()
        self.step = max(1, memory_budget // (16 * itemsize * columns))  # rows of a chunk
        self.spare = memory_budget - 3 * (memory_budget // 16)  # beside a chunk, the one before, and a mask

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of the own rows, counted from the first of them."""
        for start in range(0, self.last - self.first, self.step):
            yield start, min(self.last - self.first, start + self.step)

    def queries(self, number: int) -> list[Tensor]:
        """The own rows of each modality that block `number` keeps, (B, D) each."""
        return [self.reps_ND[modality][self.first : self.last] for modality in self.found[number].kept]

    def keys(self, number: int) -> list[Tensor]:
        """The combined rows of each modality that block `number` varies, (N, D) each."""
        return [
            self.reps_ND[modality] if row_N is None else self.reps_ND[modality].index_select(0, row_N)
            for modality, row_N in zip(self.found[number].varied, self.rows[number], strict=True)
        ]

    def products(self, number: int, queries_BD: Tensor, keys_ND: Tensor, start: int, stop: int) -> Tensor:
        """Queries `start` to `stop` times all keys, (C, N), masked where a key is left out."""
        products_CN = queries_BD[start:stop] @ keys_ND.T
        if self.ids_N is not None:
            same_CN = self.ids_N[self.first + start : self.first + stop, None] == self.ids_N
            for row_N in self.rows[number][1:]:
                same_CN &= self.ids_N[row_N] == self.ids_N
            products_CN.masked_fill_(same_CN, MASKED)
        products_CN.diagonal(self.first + start).fill_(MASKED)
        return products_CN

    def add_gradients(
        self,
        results_ND: Sequence[Tensor],
        number: int,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        queries_gradient_BD: Tensor,
        keys_gradient_ND: Tensor,
        upstream_B1: Tensor,
    ) -> None:
        """Add what the gradients of a block's queries, before the upstream factor, and keys make of its modalities'."""
        for place, modality in enumerate(self.found[number].kept):
            factor_BD = reduce(torch.mul, [*queries[:place], *queries[place + 1 :]], upstream_B1)
            results_ND[modality][self.first : self.last].addcmul_(queries_gradient_BD, factor_BD)
        for place, (modality, row_N) in enumerate(zip(self.found[number].varied, self.rows[number], strict=True)):
            others = [*keys[:place], *keys[place + 1 :]]
            if row_N is not None:
                results_ND[modality].index_add_(0, row_N, reduce(torch.mul, others, keys_gradient_ND))
            elif others:
                results_ND[modality].addcmul_(keys_gradient_ND, reduce(torch.mul, others))
            else:
                results_ND[modality].add_(keys_gradient_ND)


class _BlockLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        found: tuple[Block, ...],
        shuffles_SN: Tensor,
        own: tuple[int, int],
        ids_N: Tensor | None,
        memory_budget: int,
        *reps_ND: Tensor,
    ) -> Tensor:
        matrices = _Matrices(reps_ND, found, shuffles_SN, own, ids_N, memory_budget)
        blocks, kept = [], []
        for number in range(len(found)):
            queries_BD = reduce(torch.mul, matrices.queries(number))
            keys_ND = reduce(torch.mul, matrices.keys(number))
            chunks = []
            for start, stop in matrices.chunks():
                weights_CN = matrices.products(number, queries_BD, keys_ND, start, stop)
                top_C1 = weights_CN.amax(dim=1, keepdim=True)
                weights_CN.sub_(top_C1).exp_()
                sums_C1 = weights_CN.sum(dim=1, keepdim=True)
                chunks.append((sums_C1.log() + top_C1)[:, 0])
                matrices.spare -= weights_CN.numel() * weights_CN.element_size()
                if matrices.spare >= 0 and any(ctx.needs_input_grad):
                    kept.append(weights_CN.div_(sums_C1))
            blocks.append(torch.cat(chunks))
        logsumexp_KB = torch.stack(blocks)
        ctx.save_for_backward(logsumexp_KB, shuffles_SN, ids_N, *reps_ND, *kept)
        ctx.found, ctx.own, ctx.memory_budget, ctx.modalities = found, own, memory_budget, len(reps_ND)
        return logsumexp_KB

    @staticmethod
    @once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (upstream_KB,) = gradients
        logsumexp_KB, shuffles_SN, ids_N, *tensors = ctx.saved_tensors
        reps_ND, kept = tensors[: ctx.modalities], tensors[ctx.modalities :]
        matrices = _Matrices(reps_ND, ctx.found, shuffles_SN, ctx.own, ids_N, ctx.memory_budget)
        results_ND = [torch.zeros_like(rep_ND) for rep_ND in reps_ND]
        with full_precision(reps_ND[0]):
            done = 0
            for number in range(len(ctx.found)):
                queries, keys = matrices.queries(number), matrices.keys(number)
                queries_BD, keys_ND = reduce(torch.mul, queries), reduce(torch.mul, keys)
                upstream_B1 = upstream_KB[number][:, None]
                weighted_BD = queries_BD * upstream_B1
                queries_gradient_BD, keys_gradient_ND = torch.empty_like(queries_BD), torch.empty_like(keys_ND)
                for start, stop in matrices.chunks():
                    if done < len(kept):
                        weights_CN = kept[done]
                    else:
                        weights_CN = matrices.products(number, queries_BD, keys_ND, start, stop)
                        weights_CN.sub_(logsumexp_KB[number, start:stop, None]).exp_()
                    torch.mm(weights_CN, keys_ND, out=queries_gradient_BD[start:stop])
                    torch.addmm(
                        keys_gradient_ND,
                        weights_CN.T,
                        weighted_BD[start:stop],
                        beta=1.0 if start else 0.0,  # 0: what is there is not read
                        out=keys_gradient_ND,
                    )
                    done += 1
                matrices.add_gradients(
                    results_ND, number, queries, keys, queries_gradient_BD, keys_gradient_ND, upstream_B1
                )
        return None, None, None, None, None, *results_ND
