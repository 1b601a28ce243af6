"""CLIP-Lite: the Jensen-Shannon bound of the information of each pair, with one negative for each positive.

Shrivastava et al., "CLIP-Lite: Information Efficient Visual Representation Learning with Language Supervision", AISTATS
2023, arXiv:2112.07133, after the estimator of Hjelm et al. 2019 (arXiv:1808.06670, equation 4). Published for two
modalities and one direction; here the mean over all pairs and both directions, so that like pairwise CLIP it sees pairs
only, and nothing of what only three modalities say together. With s the scale and j another row for i, the loss of
modality a with b is the mean over i of

    softplus(-s cos(a_i, b_i)) + softplus(s cos(a_i, b_j))

which is at least 2 ln 2 less twice the Jensen-Shannon divergence of matched pairs from shuffled ones. The authors' code
takes the row behind, i + 1; here j follows i in a random cycle. Their critic's layers and their prior on the images are
left out: the scores are CLIP's.

Suffixes: B rows of this rank, N rows of all ranks, P pairs, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision
from symile_m3.objectives.contrast import Whole
from symile_m3.objectives.negatives import derangement


def cliplite_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    generator: torch.Generator | None = None,
    shuffles: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the pairs of modalities of their Jensen-Shannon loss.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32.
        scale: the factor that the cosines are multiplied by, one number.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        generator: of the shuffles.
        shuffles: (P, B), for each pair the row that is each row's negative; on several ranks those of the first count.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: taken as the other losses take it; nothing of size B x B is made here.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, shuffles of another shape, or a scale that is not
            finite.
    """
    check_reps(reps_BD)
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)
        units_ND = [F.normalize(rep_ND, dim=-1) for rep_ND in whole.reps_ND]
        pairs, rows = list(combinations(range(len(units_ND)), 2)), len(units_ND[0])
        if shuffles is None:
            shuffles = torch.stack([derangement(rows, generator) for _ in pairs])
        if tuple(shuffles.shape) != (len(pairs), rows):
            raise ValueError(f"shuffles of shape {tuple(shuffles.shape)}: {(len(pairs), rows)} are needed")
        shuffles_PN = whole.ranks.of_first(shuffles.to(units_ND[0].device))
        start, stop = whole.own
        row_B = torch.arange(start, stop, device=shuffles_PN.device)
        shares = []
        for (first, second), successor_N in zip(pairs, shuffles_PN, strict=True):
            other_B = successor_N[start:stop]
            left_out_B = other_B == row_B  # of a batch of one
            if whole.ids_N is not None:
                left_out_B = left_out_B | (whole.ids_N[other_B] == whole.ids_N[start:stop])
            positives_B = whole.factor * (units_ND[first][start:stop] * units_ND[second][start:stop]).sum(dim=-1)
            for anchor, candidate in ((first, second), (second, first)):
                cosines_B = (units_ND[anchor][start:stop] * units_ND[candidate][other_B]).sum(dim=-1)
                negatives_B = F.softplus(whole.factor * cosines_B).masked_fill(left_out_B, 0.0)
                # An anchor's rows weigh 1 / M together, and it is in M - 1 of the pairs.
                weights_B = whole.weights_MN[anchor, start:stop] / (len(units_ND) - 1)
                shares.append((weights_B * (F.softplus(-positives_B) + negatives_B)).sum())
        return whole.ranks.total(torch.stack(shares).sum())
