"""Pairwise CLIP over any number of modalities: the mean of the CLIP losses of all pairs.

Radford et al. 2021, on each pair as in section 2.2 of Saporta et al. 2024. Suffixes: B batch,
D dimensions, Q queries, N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from symile_m3.objectives.symile import anchored_cross_entropy, check_reps


def clip_loss(reps_BD: Sequence[Tensor], log_scale: Tensor, *, observed: Sequence[Tensor] | None = None) -> Tensor:
    """Mean over the pairs of modalities, and over both directions, of the cross-entropy of the cosines.

    Args:
        reps_BD: one (B, D) a modality, at least two.
        log_scale: () logarithm of the factor that the cosines are multiplied by.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.

    Returns:
        () loss in nats.

    Raises:
        ValueError: shapes differ, or fewer than two modalities.
    """
    check_reps(reps_BD)
    scale = log_scale.exp()
    losses = []
    units_BD = [F.normalize(rep, dim=-1) for rep in reps_BD]
    for first, second in combinations(range(len(units_BD)), 2):
        logits_BB = units_BD[first] @ units_BD[second].T * scale
        losses += [
            anchored_cross_entropy(logits_BB, observed[first] if observed else None),
            anchored_cross_entropy(logits_BB.T, observed[second] if observed else None),
        ]
    return torch.stack(losses).mean()


def clip_scores(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    """Sum over the query's modalities of the cosine with each candidate, (Q, N).

    The cosines among the query's own modalities are the same for all candidates, and left out.

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
    """
    query_QD = torch.stack([F.normalize(rep, dim=-1) for rep in query_reps_QD]).sum(dim=0)
    return query_QD @ F.normalize(candidates_ND, dim=-1).T
