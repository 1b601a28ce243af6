"""The objectives as modules, with the names and arguments of the `symile` package.

A user of that package changes one import: `from symile_m3 import MIPSimilarity, Symile`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET
from symile_m3.objectives.negatives import Negatives
from symile_m3.objectives.scores import symile_scores
from symile_m3.objectives.symile import symile_loss


class Symile(nn.Module):
    """The Symile loss of a list of representations; see `symile_loss` for what each argument does.

    Differs from the `symile` package in that a shuffle never rebuilds a positive, `n_squared` computes each
    combination once for all anchors and holds only part of them, and inputs are checked. `n_squared` gives the
    same loss and gradients; `n` draws other shuffles.
    """

    def __init__(
        self,
        negative_sampling: str = "n",
        *,
        group: ProcessGroup | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """The loss with these negatives.

        Args:
            negative_sampling: `n`, `n:k`, `faces`, or `n2`, which may also be called `n_squared`.

        Raises:
            ValueError: unknown negatives.
        """
        super().__init__()
        self.negative_sampling = negative_sampling
        self.negatives = str(Negatives.parse("n2" if negative_sampling == "n_squared" else negative_sampling))
        self.group = group
        self.memory_budget = memory_budget

    def forward(
        self,
        representations: Sequence[Tensor],
        logit_scale: Tensor | float,
        *,
        observed: Sequence[Tensor] | None = None,
        mask_same: Tensor | None = None,
        generator: torch.Generator | None = None,
        shuffles: Tensor | None = None,
    ) -> Tensor:
        """() mean cross-entropy in nats of one (B, D) representation a modality."""
        return symile_loss(
            representations,
            logit_scale,
            negatives=self.negatives,
            observed=observed,
            mask_same=mask_same,
            generator=generator,
            shuffles=shuffles,
            group=self.group,
            memory_budget=self.memory_budget,
        )

    def extra_repr(self) -> str:
        return f"negative_sampling={self.negative_sampling!r}"


class MIPSimilarity(nn.Module):
    """Multilinear inner products of queries with candidates, for retrieval and zero-shot classification."""

    def forward(self, candidates: Tensor, query_reps: Sequence[Tensor]) -> Tensor:
        """(Q, N) similarities.

        Args:
            candidates: (N, D) of the modality to retrieve.
            query_reps: one (Q, D), or (D,) for a single query, for each modality of the query; they stay as they are.

        Raises:
            ValueError: no modality, or shapes that do not fit each other.
        """
        return symile_scores([rep[None] if rep.dim() == 1 else rep for rep in query_reps], candidates)
