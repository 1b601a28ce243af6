"""Affine encoders, one a vector, and what stands for a missing one.

Suffixes: M vectors of a sample, B batch, N vectors to encode, d bits, D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from symile_m3.objectives import Objective
from symile_m3.synthetic.process import XorProcess


class Encoders(nn.Module):
    """An affine map for each vector, bits as -1 and 1, and the learned scale of the logits; what else is learned.

    Representations are divided by the root of their mean square, so that each dimension is of the order of 1 and so
    is the product of any number of them. Up to a constant factor, which the learned scale takes, they are the
    normalised representations of the paper.

    Args:
        process: M and d.
        dim: D.
        objective: decides where the learned scale starts and ends, and what else is learned.
        generator: of what the parameters start from; the same for every objective, but for what else is learned.

    Attributes:
        head: what the objective learns beside representations and scale; see `symile_m3.objectives.heads`.
    """

    def __init__(self, process: XorProcess, dim: int, objective: Objective, generator: torch.Generator) -> None:
        super().__init__()
        m, d = process.modalities, process.dim
        bound = 1 / math.sqrt(d)  # as in nn.Linear
        self.weights_MdD = nn.Parameter((2 * torch.rand(m, d, dim, generator=generator) - 1) * bound)
        self.biases_M1D = nn.Parameter((2 * torch.rand(m, 1, dim, generator=generator) - 1) * bound)
        self.missing_M1D = nn.Parameter(torch.randn(m, 1, dim, generator=generator))
        self.log_scale = nn.Parameter(torch.tensor(objective.init_log_scale))
        self.max_log_scale = objective.max_log_scale
        self.head = nn.ParameterDict()
        if objective.head is not None:
            with torch.random.fork_rng(devices=[]):  # a head is drawn from the global generator
                torch.manual_seed(generator.initial_seed())
                self.head = objective.head(m, dim)

    def forward(self, bits_MBd: Tensor, observed_MB: Tensor | None = None) -> list[Tensor]:
        """One (B, D) a vector; where it is not observed, that of the learned embedding."""
        reps_MBD = torch.baddbmm(self.biases_M1D, _signs(bits_MBd), self.weights_MdD)
        if observed_MB is not None:
            reps_MBD = torch.where(observed_MB[..., None], reps_MBD, self.missing_M1D)
        return list(_normalised(reps_MBD))

    def encode(self, index: int, bits_Nd: Tensor) -> Tensor:
        """(N, D) of one vector of a sample, by its number."""
        return _normalised(_signs(bits_Nd) @ self.weights_MdD[index] + self.biases_M1D[index])

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the learned scale within the objective's bound."""
        self.log_scale.clamp_(max=self.max_log_scale)


def _signs(bits: Tensor) -> Tensor:
    return 2 * bits.float() - 1


def _normalised(reps: Tensor) -> Tensor:
    return reps * torch.rsqrt(reps.square().mean(dim=-1, keepdim=True) + 1e-12)
