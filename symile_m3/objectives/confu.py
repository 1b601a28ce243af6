"""ConFu: a learned fusion of all other modalities is contrasted with each modality, beside the pairs.

Koutoupis et al., "The More, the Merrier: Contrastive Fusion for Higher-Order Multimodal Alignment", CVPR 2026,
arXiv:2511.21331. For three modalities x, y, z with fusions f: the loss is

    lambda (L(f_xy, z) + L(f_xz, y) + L(f_yz, x)) / 3 + (1 - lambda) (L(x, y) + L(y, z) + L(z, x)) / 3

with L the CLIP loss of a pair, both directions, and lambda = 1/2 (the authors' code, github.com/estafons/confu, divides
by 6; an optimiser of Adam's kind takes no notice). A fusion is a perceptron of two layers on the concatenation, one for
each modality left out, normalised. With M modalities it is of the M - 1 others.

Ours fuses the representations, where the code fuses what the encoders give before their last linear map, and has
no dropout. A query of all other modalities is scored by the cosine of its fusion with the candidate, as the
paper's retrieval from two to one; a query of fewer by the sum of its cosines, as the paper's from one to one.

Suffixes: B rows of this rank, N rows of all ranks or candidates, Q queries, D dimensions, M modalities, H hidden units,
I = (M - 1) D inputs of a fusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision, widened
from symile_m3.objectives.clip import clip_loss
from symile_m3.objectives.contrast import Whole, products
from symile_m3.objectives.heads import HeadValues, wide_values
from symile_m3.objectives.scores import clip_scores, tiled
from symile_m3.objectives.symile import cube_loss

HIDDEN = 512
"""Hidden units of a fusion, at most; no more than dimensions."""

FUSED_SHARE = 0.5
"""The paper's lambda."""

LEAST_LENGTH = 1e-3
"""A fusion that comes out shorter is divided by this: where all hidden units are off its slope would know no bounds."""


def new_fusions(modalities: int, dim: int) -> nn.ParameterDict:
    """The perceptrons, one for each modality left out, drawn from the global generator."""
    hidden, inputs = min(HIDDEN, dim), (modalities - 1) * dim
    return nn.ParameterDict(
        {
            "into_MHI": torch.randn(modalities, hidden, inputs) * math.sqrt(2 / inputs),
            "into_MH": torch.zeros(modalities, hidden),
            "out_MDH": torch.randn(modalities, dim, hidden) / math.sqrt(hidden),
            "out_MD": torch.zeros(modalities, dim),
        }
    )


def fused(reps_BD: Sequence[Tensor], head: HeadValues, left_out: int) -> Tensor:
    """(B, D) unit vectors that stand for all modalities but one.

    Args:
        reps_BD: one (B, D) for each modality but the one left out, in their order.
        head: from `new_fusions`.
        left_out: its number.
    """
    values = wide_values(head, reps_BD[0])
    hidden_BH = products(torch.cat(list(reps_BD), dim=-1), values["into_MHI"][left_out]) + values["into_MH"][left_out]
    out_BD = products(F.relu(hidden_BH), values["out_MDH"][left_out]) + values["out_MD"][left_out]
    return F.normalize(out_BD, dim=-1, eps=LEAST_LENGTH)


def confu_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    head: HeadValues,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Half the mean loss of the fusions and half that of the pairs.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32.
        scale: the factor that the cosines are multiplied by, one number.
        head: from `new_fusions`.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors, nor are the fusions that they are the counterparts of. None for
            complete data.
        mask_same: (B,) integers; a negative that has its anchor's is left out. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, a head for others, or a scale that is not finite.
    """
    _, dim = check_reps(reps_BD)
    modalities = len(reps_BD)
    _check_fusions(head, modalities, dim)
    with full_precision(reps_BD[0]):
        wide_BD = widened(reps_BD)
        pairs = clip_loss(
            wide_BD, scale, observed=observed, mask_same=mask_same, group=group, memory_budget=memory_budget // 2
        )
        fused_BD = [
            fused([*wide_BD[:modality], *wide_BD[modality + 1 :]], head, modality) for modality in range(modalities)
        ]
        units_BD = [F.normalize(rep_BD, dim=-1) for rep_BD in wide_BD]
        whole = Whole.of(units_BD, scale, observed, mask_same, group)
        losses = []
        for modality, fused_ND in enumerate(whole.ranks.gather(fused_BD)):
            # The counterparts of what is not observed are no anchors either.
            weights_2N = whole.weights_MN[modality].expand(2, -1) * (modalities / 2)
            both_ND = [fused_ND * whole.factor, whole.reps_ND[modality]]
            losses.append(cube_loss(both_ND, weights_2N, whole.ids_N, whole.ranks, memory_budget // (2 * modalities)))
        return FUSED_SHARE * torch.stack(losses).mean() + (1 - FUSED_SHARE) * pairs


def confu_scores(
    query_reps_QD: Sequence[Tensor],
    candidates_ND: Tensor,
    *,
    head: HeadValues,
    retrieved: int,
    given: Sequence[int],
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Cosine of every query's fusion with every candidate, (Q, N); of fewer modalities the sum of their cosines.

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        head: what was learned.
        retrieved, given: which modalities these are, in the order that the loss had them.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    if len(given) != len(query_reps_QD):
        raise ValueError(f"{len(query_reps_QD)} modalities of the query, but {len(given)} are named")
    if sorted([retrieved, *given]) != list(range(len(head["out_MD"]))):
        return clip_scores(query_reps_QD, candidates_ND, memory_budget=memory_budget)
    ordered = [rep_QD for _, rep_QD in sorted(zip(given, query_reps_QD, strict=True), key=lambda pair: pair[0])]

    def cosines(reps_QD: Sequence[Tensor], tile_ND: Tensor) -> Tensor:
        return products(fused(reps_QD, head, retrieved), F.normalize(tile_ND, dim=-1))

    return tiled(cosines, ordered, candidates_ND, memory_budget // 2)


def _check_fusions(head: HeadValues, modalities: int, dim: int) -> None:
    shape = tuple(head["out_MD"].shape)
    if shape != (modalities, dim):
        raise ValueError(f"fusions of {shape[0]} modalities and {shape[1]} dimensions for {modalities} and {dim}")
