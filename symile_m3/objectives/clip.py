"""Pairwise CLIP over any number of modalities: the mean of the CLIP losses of all pairs.

Radford et al. 2021, on each pair as in section 2.2 of Saporta et al. 2024. Suffixes: B rows of this rank, N rows of
all ranks, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import (
    MEMORY_BUDGET,
    check_ids,
    check_observed,
    check_reps,
    check_scale,
    full_precision,
    widened,
)
from symile_m3.objectives.distributed import Ranks
from symile_m3.objectives.symile import anchor_weights, cube_loss


def clip_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the pairs of modalities, and over both directions, of the cross-entropy of the cosines.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32, also
            under autocast.
        scale: the factor that the cosines are multiplied by, one number.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, or a scale that is not finite (on an
            accelerator it is not read, and the loss is nan).
    """
    batch, _ = check_reps(reps_BD)
    check_observed(observed, len(reps_BD), batch)
    ids_B = None if mask_same is None else check_ids(mask_same, batch)
    ranks = Ranks(group)
    with full_precision(reps_BD[0]):
        units_BD = [F.normalize(rep_BD, dim=-1) for rep_BD in widened(reps_BD)]
        factor = check_scale(scale, units_BD[0])
        units_ND = ranks.gather(units_BD)
        ids_N = None if ids_B is None else ranks.gather_rows(ids_B)
        pairs = list(combinations(range(len(units_ND)), 2))
        losses = []
        for pair in pairs:
            # With two modalities the cube is the matrix of their products, and its loss that of both directions.
            pair_ND = [units_ND[pair[0]] * factor, units_ND[pair[1]]]
            masks = None if observed is None else [observed[modality] for modality in pair]
            weights_MN = anchor_weights(pair_ND, masks, ranks)
            losses.append(cube_loss(pair_ND, weights_MN, ids_N, ranks, memory_budget // len(pairs)))
        return torch.stack(losses).mean()
