"""The Symile objective with O(N) negatives, for any number of modalities.

Saporta et al., "Contrasting with Symile", NeurIPS 2024, equation 4 (the multilinear inner product as a
critic) and algorithm 1. Suffixes: B batch, D dimensions, N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


def mip(reps: Sequence[Tensor]) -> Tensor:
    """Multilinear inner product: the sum over the last dimension of the elementwise product.

    Args:
        reps: tensors that broadcast against each other, (..., D).
    """
    return reduce(torch.mul, reps).sum(dim=-1)


def check_reps(reps: Sequence[Tensor]) -> tuple[int, int]:
    """The (B, D) that all representations share.

    Raises:
        ValueError: fewer than two modalities, or shapes that differ or are not (B, D).
    """
    if len(reps) < 2:
        raise ValueError(f"{len(reps)} modality given: at least two are needed")
    shapes = [tuple(rep.shape) for rep in reps]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"representations must all be (B, D) with one B and one D, not {shapes}")
    return shapes[0][0], shapes[0][1]


def derangement(size: int, generator: torch.Generator | None = None) -> Tensor:
    """A random permutation without fixed points (one cycle), on the CPU; for size 1 the identity."""
    order = torch.randperm(size, generator=generator)
    result = torch.empty_like(order)
    result[order] = order.roll(1)
    return result


def anchored_cross_entropy(logits_BN: Tensor, observed_B: Tensor | None) -> Tensor:
    """Mean cross-entropy with the positives on the diagonal, over the rows whose anchor is observed.

    A missing anchor is the same embedding for every sample: there is nothing in it to tell the positive by.

    Args:
        logits_BN: (B, N) with N >= B.
        observed_B: (B,) True where the anchor is observed; None for all.
    """
    labels_B = torch.arange(len(logits_BN), device=logits_BN.device)
    if observed_B is None:
        return F.cross_entropy(logits_BN, labels_B)
    losses_B = F.cross_entropy(logits_BN, labels_B, reduction="none")
    return (losses_B * observed_B).sum() / observed_B.sum().clamp_min(1)


def symile_loss(
    reps_BD: Sequence[Tensor],
    log_scale: Tensor,
    *,
    observed: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Symile with O(N) negatives, averaged over the anchors.

    Each modality is the anchor in turn. Its B candidates are its positive and, for every other row j, the
    product of row j of the second modality with rows of the further ones that were shuffled independently,
    so that the negatives come from the product of the marginals.

    Args:
        reps_BD: one (B, D) a modality, at least two.
        log_scale: () logarithm of the factor that the MIPs are multiplied by.
        observed: one (B,) mask a modality, True where the representation is of something observed and not
            the embedding of a missing one; such rows are candidates but no anchors. None for complete data.
        generator: of the shuffles.

    Returns:
        () mean over anchors of the cross-entropy, in nats.

    Raises:
        ValueError: shapes differ, or fewer than two modalities.
    """
    batch, _ = check_reps(reps_BD)
    scale = log_scale.exp()
    eye_BN = torch.eye(batch, dtype=torch.bool, device=reps_BD[0].device)
    positives_B = mip(reps_BD)
    losses = []
    for anchor, anchor_BD in enumerate(reps_BD):
        first, *rest = [rep for other, rep in enumerate(reps_BD) if other != anchor]
        candidates_ND = first
        for rep in rest:
            shuffle = derangement(batch, generator).to(rep.device)
            candidates_ND = candidates_ND * rep[shuffle]
        logits_BN = torch.where(eye_BN, positives_B[:, None], anchor_BD @ candidates_ND.T) * scale
        losses.append(anchored_cross_entropy(logits_BN, observed[anchor] if observed else None))
    return torch.stack(losses).mean()


def symile_scores(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    """MIP of every query with every candidate, (Q, N).

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
    """
    return reduce(torch.mul, query_reps_QD) @ candidates_ND.T


def total_correlation_bound(loss_nats: float, candidates: int) -> float:
    """Lower bound of the total correlation in nats, ln N - loss (theorem 3.1 of the paper).

    Holds in expectation for negatives drawn from the product of the marginals, as in `symile_loss`.

    Args:
        loss_nats: mean loss.
        candidates: N, candidates an anchor: the batch size for O(N) negatives.
    """
    return math.log(candidates) - loss_nats
