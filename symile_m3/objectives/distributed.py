"""A batch that is spread over the ranks of a process group, contrasted as the one batch it is.

Every rank calls the loss with its own rows, as many as every other rank. The loss is that of the concatenated
batch, the same number on every rank. Its gradients with respect to a rank's rows are `world` times those of the
one batch, since DistributedDataParallel then takes the mean over the ranks: parameters get exactly the gradients
that one process would give them, the scale included.

Suffixes: B rows of this rank, N rows of all ranks, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The ranks that share a batch; with no group, this process alone.

    Attributes:
        rank, world: this one, and how many there are.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.world = 1 if group is None else dist.get_world_size(group)

    def own(self, rows: int) -> tuple[int, int]:
        """First row of this rank and the one behind its last, where each rank has `rows`."""
        return self.rank * rows, (self.rank + 1) * rows

    def gather(self, reps_BD: Sequence[Tensor]) -> list[Tensor]:
        """The (N, D) rows of all ranks, differentiable: the gradients of all ranks are summed."""
        if self.world == 1:
            return list(reps_BD)
        gathered_NMD: Tensor = _Gather.apply(torch.stack(list(reps_BD), dim=1), self)
        return [rep_ND.contiguous() for rep_ND in gathered_NMD.unbind(dim=1)]

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """The (N,) masks or ids of all ranks."""
        return _gathered(rows_B, self) if self.world > 1 else rows_B

    def total(self, share: Tensor) -> Tensor:
        """Sum of every rank's share of a loss."""
        return _Total.apply(share, self) if self.world > 1 else share

    def scaled_up(self, gradient: Tensor) -> Tensor:
        """A gradient of the whole loss, `world` times as large."""
        return gradient * self.world if self.world > 1 else gradient

    def logsumexp(self, partial: Tensor) -> Tensor:
        """Log-sum-exps over everything from every rank's over its part; not differentiable."""
        if self.world == 1:
            return partial
        top = partial.clone()
        dist.all_reduce(top, dist.ReduceOp.MAX, group=self.group)
        total = (partial - top).exp_()
        dist.all_reduce(total, group=self.group)
        return total.log_().add_(top)

    def of_first(self, index: Tensor) -> Tensor:
        """The first rank's tensor, on every rank."""
        if self.group is not None:
            index = index.clone(memory_format=torch.contiguous_format)
            dist.broadcast(index, dist.get_global_rank(self.group, 0), group=self.group)
        return index


def _gathered(rows: Tensor, ranks: Ranks) -> Tensor:
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(ranks.world)]
    dist.all_gather(parts, rows, group=ranks.group)
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return _gathered(rows, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient, group=ranks.group)
        start, stop = ranks.own(len(gradient) // ranks.world)
        return gradient[start:stop], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = share.clone()
        dist.all_reduce(total, group=ranks.group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.scaled_up(gradients[0]), None
