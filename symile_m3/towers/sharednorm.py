"""Batch norms over a batch that several processes share: its mean and variance are those of all rows.

PyTorch's own (`torch.nn.SyncBatchNorm`) runs on GPUs only. Suffixes: B rows of this process, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm

from symile_m3.towers.nets import NetTower


class SharedBatchNorm(_BatchNorm):
    """A batch norm whose rows are those of all processes of a group, which may have different numbers of them.

    Args:
        norm: whose settings, weights and running figures it takes over.
        group: the processes.
    """

    def __init__(self, norm: _BatchNorm, group: ProcessGroup) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)
        self.group = group
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) normalised over all but the channels."""
        if not self.training:
            plain_BC: Tensor = super().forward(input)
            return plain_BC
        x_BC = input.float()
        others = [0, *range(2, x_BC.ndim)]
        shape = [1, -1, *[1] * (x_BC.ndim - 2)]
        rows = x_BC.new_tensor([x_BC.numel() / x_BC.shape[1]])
        sums = _Summed.apply(torch.cat([x_BC.sum(dim=others), rows]), self.group)
        count = sums[-1].detach().clamp_min(1)
        mean_C = sums[:-1] / count
        centred_BC = x_BC - mean_C.view(shape)
        variance_C = _Summed.apply(centred_BC.square().sum(dim=others), self.group) / count
        self._track(mean_C.detach(), variance_C.detach(), count)
        normal_BC: Tensor = centred_BC * (variance_C + self.eps).rsqrt().view(shape)
        if self.affine:
            normal_BC = normal_BC * self.weight.view(shape) + self.bias.view(shape)
        return normal_BC.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
        """Move the running figures towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * (count / (count - 1).clamp_min(1)), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions behind the channels is taken."""


class _Summed(torch.autograd.Function):
    """The sum over the processes; so is its gradient, as what each makes of the sum is part of the loss."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        total = share.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


def share_norms(model: nn.Module, group: ProcessGroup) -> None:
    """Let every batch norm of a model see the rows of all processes, and towers count observed rows over them."""
    for module in list(model.modules()):
        if isinstance(module, NetTower):
            module.group = group
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SharedBatchNorm):
                setattr(module, name, SharedBatchNorm(child, group))
