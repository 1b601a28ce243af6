"""The Symile objective, for any number of modalities and several kinds of negatives.

Saporta et al., "Contrasting with Symile", NeurIPS 2024: equation 4 (the multilinear inner product as a critic),
algorithm 1 (negatives `n`) and its variant with all combinations (`n2`). Suffixes: B rows of this rank, N rows of
all ranks, D dimensions, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.blocks import block_logsumexp
from symile_m3.objectives.checks import (
    MEMORY_BUDGET,
    check_ids,
    check_observed,
    check_reps,
    check_scale,
    full_precision,
    widened,
)
from symile_m3.objectives.cube import cube_logsumexp
from symile_m3.objectives.distributed import Ranks
from symile_m3.objectives.negatives import Block, Negatives, blocks, draw_shuffles


def mip(reps: Sequence[Tensor]) -> Tensor:
    """Multilinear inner product: the sum over the last dimension of the elementwise product.

    Args:
        reps: tensors that broadcast against each other, (..., D).
    """
    return reduce(torch.mul, reps).sum(dim=-1)


def symile_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    negatives: str = "n",
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    generator: torch.Generator | None = None,
    shuffles: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Symile: each modality is the anchor in turn, and tells the positive from negative combinations by the MIP.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32, also
            under autocast.
        scale: the factor that the MIPs are multiplied by, one number.
        negatives: `n`, B - 1 an anchor, at O(B) products of rows; `n:k`, k (B - 1); `faces`, those of `n` and those
            that keep all but one or two modalities at the positive's row; `n2`, all B^(M-1) - 1. With two
            modalities each of them is CLIP's loss on inner products.
        observed: one (B,) mask a modality, True where the representation is of something observed and not
            the embedding of a missing one; such rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative of which every row has its anchor's is left out. None for none.
        generator: of the shuffles.
        shuffles: (S, B), drawn ahead with `draw_shuffles`; needed under `torch.compile`, which takes no generator.
            On several ranks those of the first count, and so does its generator.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results; what does not fit is computed again for the gradients.

    Returns:
        () mean over the modalities, and over their anchors, of the cross-entropy, in nats; float32, or float64 if
        given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, unknown negatives, shuffles that do not go with
            them, or a scale that is not finite (on an accelerator it is not read, and the loss is nan).
    """
    chosen = Negatives.parse(negatives)
    batch, _ = check_reps(reps_BD)
    check_observed(observed, len(reps_BD), batch)
    ids_B = None if mask_same is None else check_ids(mask_same, batch)
    ranks = Ranks(group)
    with full_precision(reps_BD[0]):
        first_BD, *rest_BD = widened(reps_BD)
        # The MIP is linear in each modality, so scaling one scales every logit.
        reps_ND = ranks.gather([first_BD * check_scale(scale, first_BD), *rest_BD])
        ids_N = None if ids_B is None else ranks.gather_rows(ids_B)
        weights_MN = anchor_weights(reps_ND, observed, ranks)
        if shuffles is None:
            shuffles = draw_shuffles(negatives, len(reps_ND), len(reps_ND[0]), generator)
        found = blocks(chosen, len(reps_ND))
        wanted = (sum(block.shuffled for block in found), len(reps_ND[0]))
        if tuple(shuffles.shape) != wanted:
            raise ValueError(f"shuffles of shape {tuple(shuffles.shape)}: these negatives and reps need {wanted}")
        if chosen.kind == "n2":
            return cube_loss(reps_ND, weights_MN, ids_N, ranks, memory_budget)
        shuffles_SN = ranks.of_first(shuffles.to(reps_ND[0].device))
        return _block_loss(reps_ND, weights_MN, found, shuffles_SN, ids_N, ranks, memory_budget)


def anchor_weights(reps_ND: Sequence[Tensor], observed: Sequence[Tensor] | None, ranks: Ranks) -> Tensor:
    """What each anchor counts for in the loss, (M, N): the same within a modality, and together 1.

    What is not observed counts for nothing: a missing anchor is the same embedding for every sample, and there is
    nothing in it to tell the positive by.
    """
    modalities, rows = len(reps_ND), len(reps_ND[0])
    if observed is None:
        return reps_ND[0].new_full((modalities, rows), 1 / (modalities * rows))
    observed_NM = ranks.gather_rows(torch.stack([mask.bool() for mask in observed], dim=1))
    observed_MN = observed_NM.T.to(reps_ND[0])
    return observed_MN / (observed_MN.sum(dim=1, keepdim=True).clamp_min(1) * modalities)


def cube_loss(
    reps_ND: Sequence[Tensor], weights_MN: Tensor, ids_N: Tensor | None, ranks: Ranks, memory_budget: int
) -> Tensor:
    """Weighted sum of every anchor's cross-entropy over all combinations of rows."""
    logsumexp_MN = cube_logsumexp(reps_ND, ids_N=ids_N, ranks=ranks, memory_budget=memory_budget)
    return (weights_MN * (logsumexp_MN - mip(reps_ND))).sum()


def _block_loss(
    reps_ND: Sequence[Tensor],
    weights_MN: Tensor,
    found: Sequence[Block],
    shuffles_SN: Tensor,
    ids_N: Tensor | None,
    ranks: Ranks,
    memory_budget: int,
) -> Tensor:
    start, stop = ranks.own(len(reps_ND[0]) // ranks.world)
    logsumexp_KB = block_logsumexp(
        reps_ND, found, shuffles_SN, own=(start, stop), ids_N=ids_N, memory_budget=memory_budget
    )
    negatives_MB = torch.stack(
        [
            logsumexp_KB[[number for number, block in enumerate(found) if anchor in block.kept]].logsumexp(dim=0)
            for anchor in range(len(reps_ND))
        ]
    )
    margins_MB = negatives_MB - mip([rep_ND[start:stop] for rep_ND in reps_ND])
    losses_MB = torch.logaddexp(margins_MB, torch.zeros_like(margins_MB))
    return ranks.total((weights_MN[:, start:stop] * losses_MB).sum())
