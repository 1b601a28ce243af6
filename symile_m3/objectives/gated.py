"""Gated Symile: a gate for each pair of query and candidate takes unreliable modalities out of the product.

Rheude et al., "Hidden in the Multiplicative Interaction: Uncovering Fragility in Multimodal Contrastive Learning",
arXiv:2604.05834. From its abstract: the gate weighs modalities by attention for each candidate, moves an unreliable
one towards a learned neutral direction, and has an explicit NULL option. Equations were not at hand; what follows is
our reading of the authors' code (github.com/TillmannRheude/gated_symile: a gate of mode `attention` and type `sigmoid`,
trained with negatives `pair`). For a candidate c of modality t and a query modality m with representation e:

    w = sigmoid(k_m(e) . q_t(c) / T) (1 - sigmoid((h(c) + h_t) / T))
    g = |e| normalised(a e / |e| + (1 - a) n_m),   a = 1 - s (1 - w)

and the logit is the scale times the multilinear inner product of the g of all query modalities and c. Here q_t and k_m
are linear maps, then normalised, h a perceptron for the NULL option, n_m the neutral direction, and s, between 0 and 1,
the learned strength of the gate: at 0 the logit is Symile's. Each modality is retrieved in turn, from among all
candidates of the batch, where the code draws some. Its term that pulls representations towards their gated ones is left
out. Theirs are normalised, ours keep their length, which the scale takes up.

A gate moves a vector along the line to the neutral direction, so the products for all pairs of query and candidate come
from 2^(M-1) matrix products, without a vector a pair.

Suffixes: B rows of this rank, N rows of all ranks or candidates, Q queries, D dimensions, M modalities, K dimensions
of the attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce
from itertools import product as combinations_of

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision
from symile_m3.objectives.contrast import Similarity, Whole, matrix_loss, products
from symile_m3.objectives.heads import HeadValues, wide_values
from symile_m3.objectives.scores import tiled

_LEAST_TEMPERATURE = 0.1


def new_gates(modalities: int, dim: int) -> nn.ParameterDict:
    """What Gated Symile learns beside the representations, drawn from the global generator.

    Starts as the authors' code does: the strength at 0.05, the temperature near 0.6, and as many dimensions of the
    attention.
    """
    size = min(256, dim)
    return nn.ParameterDict(
        {
            "candidate_MKD": torch.randn(modalities, size, dim) / math.sqrt(dim),
            "query_MKD": torch.randn(modalities, size, dim) / math.sqrt(dim),
            "neutral_MD": F.normalize(torch.randn(modalities, dim), dim=-1),
            "null_KD": torch.randn(size, dim) / math.sqrt(dim),
            "null_K": torch.zeros(size),
            "null_out_K": torch.randn(size) / math.sqrt(size),
            "null_M": torch.zeros(modalities),
            "temperature": torch.tensor(math.log(0.7)),
            "strength": torch.tensor(-3.0),
        }
    )


def gated_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    head: HeadValues,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the modalities of the cross-entropy of each sample's own candidate among all of the batch.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32.
        scale: the factor of the logits, one number.
        head: from `new_gates`.
        observed: one (B,) mask a modality, True where the representation is of something observed and not the
            embedding of a missing one; nothing is retrieved for the other rows, but they are candidates. None for
            complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results, about; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, a head for others, or a scale that is not finite.
    """
    _, dim = check_reps(reps_BD)
    everything = range(len(reps_BD))
    _check_gates(head, len(reps_BD), dim)
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)

        def similarity_of(modality: int) -> Similarity:
            given = [other for other in everything if other != modality]
            return partial(_gated_products, head=head, retrieved=modality, given=given, factor=whole.factor)

        copies = 12 * len(reps_BD) + 2 * 2 ** len(reps_BD)
        return matrix_loss(whole, similarity_of, copies=copies, memory_budget=memory_budget, both_ways=False)


def gated_scores(
    query_reps_QD: Sequence[Tensor],
    candidates_ND: Tensor,
    *,
    head: HeadValues,
    retrieved: int,
    given: Sequence[int],
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Gated product of every query with every candidate, (Q, N).

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        head: what was learned.
        retrieved, given: which modalities these are, in the order that the loss had them.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, shapes that do not fit each other, or a head for others.
    """
    if len(given) != len(query_reps_QD):
        raise ValueError(f"{len(query_reps_QD)} modalities of the query, but {len(given)} are named")
    scores = partial(_gated_products, head=head, retrieved=retrieved, given=given, factor=None)
    return tiled(scores, query_reps_QD, candidates_ND, memory_budget // (4 + 3 * len(given) + 2 ** len(given)))


def _gated_products(
    query_reps_QD: Sequence[Tensor],
    candidates_ND: Tensor,
    *,
    head: HeadValues,
    retrieved: int,
    given: Sequence[int],
    factor: Tensor | None,
) -> Tensor:
    wide = wide_values(head, candidates_ND)
    lengths_Q = reduce(torch.mul, [rep_QD.norm(dim=-1) for rep_QD in query_reps_QD])
    units_QD = [F.normalize(rep_QD, dim=-1) for rep_QD in query_reps_QD]
    neutral_MD = F.normalize(wide["neutral_MD"], dim=-1)
    temperature = F.softplus(wide["temperature"]) + _LEAST_TEMPERATURE
    strength = wide["strength"].sigmoid()
    # How little a candidate has of a NULL option, and how well each query modality goes with it.
    hidden_NK = F.relu(products(F.layer_norm(candidates_ND, candidates_ND.shape[1:]), wide["null_KD"]) + wide["null_K"])
    null_N = (hidden_NK * wide["null_out_K"]).sum(dim=-1) + wide["null_M"][retrieved]
    trust_N = 1 - (null_N / temperature).sigmoid()
    candidate_NK = F.normalize(products(candidates_ND, wide["candidate_MKD"][retrieved]), dim=-1)
    kept, moved = [], []  # of each query modality, what is left of it and what is neutral, each (Q, N)
    for modality, rep_QD, unit_QD in zip(given, query_reps_QD, units_QD, strict=True):
        query_QK = F.normalize(products(rep_QD, wide["query_MKD"][modality]), dim=-1)
        weights_QN = (products(query_QK, candidate_NK) / temperature).sigmoid() * trust_N
        share_QN = 1 - strength * (1 - weights_QN)
        along_Q1 = (unit_QD * neutral_MD[modality]).sum(dim=-1, keepdim=True)
        square_QN = share_QN**2 + (1 - share_QN) ** 2 + 2 * share_QN * (1 - share_QN) * along_Q1
        length_QN = square_QN.clamp_min(1e-12).sqrt()
        kept.append(share_QN / length_QN)
        moved.append((1 - share_QN) / length_QN)
    terms = []
    for choice in combinations_of((True, False), repeat=len(given)):  # each modality itself, or its neutral direction
        rows = [
            unit_QD if itself else neutral_MD[modality].expand_as(unit_QD)
            for itself, modality, unit_QD in zip(choice, given, units_QD, strict=True)
        ]
        shares = [kept[place] if itself else moved[place] for place, itself in enumerate(choice)]
        terms.append(reduce(torch.mul, shares) * products(reduce(torch.mul, rows), candidates_ND))
    scores_QN: Tensor = torch.stack(terms).sum(dim=0) * lengths_Q[:, None]
    return scores_QN if factor is None else scores_QN * factor


def _check_gates(head: HeadValues, modalities: int, dim: int) -> None:
    shape = tuple(head["neutral_MD"].shape)
    if shape != (modalities, dim):
        raise ValueError(f"gates of {shape[0]} modalities and {shape[1]} dimensions for {modalities} and {dim}")
