"""Soft targets on Symile's product: candidates that resemble a sample's own are in part right.

After Sobal et al., "X-Sample Contrastive Loss" (X-CLR), 2024, arXiv:2407.18134: the cross-entropy of the logits against
a softmax of given similarities in place of one right answer,

    loss of i = - sum over j of s_ij log q_ij

with s_i the softmax of similarity_ij / 0.1 and q_i that of the logits. The paper contrasts images, and images with
texts. Here the logits are multilinear inner products: each modality is retrieved from all others of its sample, among
the rows of the batch, and similarity_ij says how well row j of that modality would do for sample i. It comes from
labels of each modality (1 where they are equal, else 0; the class of an image, the language of a clip) or is given, as
that of texts that share words (`symile_m3.wordbags`; the recipe's `soft_targets`). Labels are more than the other
objectives are told: compare with that in mind. With neither, only the own row is right.

Suffixes: B rows of this rank, N rows of all ranks, D dimensions, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives.blocks import MASKED
from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, check_rows, full_precision
from symile_m3.objectives.contrast import Whole, in_chunks, products, row_chunks

TEMPERATURE = 0.1
"""The paper's tau, of the similarities."""


def soft_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    labels: Sequence[Tensor] | None = None,
    similarity: Sequence[Tensor] | None = None,
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the modalities of the cross-entropy of each sample's candidates against its soft targets.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32.
        scale: the factor of the products, one number.
        labels: one (B,) a modality, integers; rows of equal labels are equally right.
        similarity: in place of labels, one (B, N) a modality: of this rank's samples with all rows, about 0 to 1.
        observed: one (B,) mask a modality, True where the representation is of something observed; nothing is
            retrieved for the other rows, and they are no one's target. None for complete data.
        mask_same: (B,) integers; a candidate that has its sample's is left out, and its target too. None for none.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results, about; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so. At its least it is the entropy of the targets.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, labels and similarities both, or a scale that is not
            finite.
    """
    batch, _ = check_reps(reps_BD)
    if labels is not None and similarity is not None:
        raise ValueError("labels and similarities: give one of them")
    for name, given in (("labels", labels), ("similarity", similarity)):
        if given is not None and len(given) != len(reps_BD):
            raise ValueError(f"{len(given)} {name} for {len(reps_BD)} modalities: give one a modality")
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)
        rows = len(whole.reps_ND[0])
        for label_B in labels or ():
            check_rows("labels", label_B, batch)
        for similarity_BN in similarity or ():
            if tuple(similarity_BN.shape) != (batch, rows):
                raise ValueError(f"similarity of shape {tuple(similarity_BN.shape)}: {(batch, rows)} is needed")
        start, stop = whole.own
        shares = []
        for modality, candidates_ND in enumerate(whole.reps_ND):
            label_N = None if labels is None else whole.ranks.gather_rows(labels[modality])
            losses_B = _entropies(
                whole,
                modality,
                reduce(torch.mul, [rep_ND[start:stop] for rep_ND in whole.others(modality)]) * whole.factor,
                candidates_ND,
                label_N,
                None if similarity is None else similarity[modality],
                memory_budget // len(whole.reps_ND),
            )
            shares.append((whole.weights_MN[modality, start:stop] * losses_B).sum())
        return whole.ranks.total(torch.stack(shares).sum())


def _entropies(
    whole: Whole,
    modality: int,
    queries_BD: Tensor,
    candidates_ND: Tensor,
    label_N: Tensor | None,
    similarity_BN: Tensor | None,
    memory_budget: int,
) -> Tensor:
    """(B,) cross-entropies of the own rows."""
    first, _ = whole.own

    def of(rows: slice) -> Tensor:
        logits_CN = products(queries_BD[rows], candidates_ND)
        row_C = torch.arange(first + rows.start, first + rows.stop, device=logits_CN.device)
        own_CN = row_C[:, None] == torch.arange(len(candidates_ND), device=logits_CN.device)
        if label_N is not None:
            alike_CN = (label_N[row_C][:, None] == label_N).to(logits_CN) / TEMPERATURE
        elif similarity_BN is not None:
            alike_CN = similarity_BN[rows].to(logits_CN) / TEMPERATURE
        else:
            alike_CN = torch.full_like(logits_CN, MASKED).masked_fill(own_CN, 0.0)
        if whole.observed_MN is not None:
            alike_CN = alike_CN.masked_fill(~whole.observed_MN[modality] & ~own_CN, MASKED)
        if whole.ids_N is not None:
            same_CN = (whole.ids_N[row_C][:, None] == whole.ids_N) & ~own_CN
            logits_CN, alike_CN = logits_CN.masked_fill(same_CN, MASKED), alike_CN.masked_fill(same_CN, MASKED)
        targets_CN = alike_CN.softmax(dim=1)
        # Targets of what is left out are exactly 0, and its logit is finite.
        return logits_CN.logsumexp(dim=1) - (targets_CN * logits_CN).sum(dim=1)

    chunks = row_chunks(len(queries_BD), len(candidates_ND), candidates_ND.element_size(), 10, memory_budget)
    return torch.cat(in_chunks(of, chunks))
