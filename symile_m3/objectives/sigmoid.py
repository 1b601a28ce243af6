"""A sigmoid loss on the multilinear inner product: each tuple is judged by itself, matched or not.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (SigLIP), ICCV 2023, arXiv:2303.15343, equation 1, with
Symile's product in place of the cosine, which is new here: with t the scale and b a learned bias, an anchor's loss is

    softplus(-(t mip(positive) + b)) + the sum over its negatives of softplus(t mip(negative) + b)

and the mean is taken over the anchors and the modalities. No log-sum-exp ties an anchor's negatives together. For two
modalities of unit length it is SigLIP's loss. Like it, the bias starts where a tuple is taken for a negative, as nearly
all are.

Suffixes: B rows of this rank, N rows of all ranks, C of a chunk, D dimensions, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from symile_m3.objectives.checks import MEMORY_BUDGET, check_reps, full_precision
from symile_m3.objectives.contrast import Whole, in_chunks, products, row_chunks
from symile_m3.objectives.heads import HeadValues, wide_values
from symile_m3.objectives.negatives import Block, Negatives, blocks, combined_rows, draw_shuffles
from symile_m3.objectives.symile import mip


def new_bias(modalities: int, dim: int) -> nn.ParameterDict:
    """The bias, which takes any number of modalities and dimensions; -6 suits batches of some hundreds."""
    return nn.ParameterDict({"bias": torch.tensor(-6.0)})


def check_sigmoid_negatives(negatives: str) -> Negatives:
    """The negatives of this name.

    Raises:
        ValueError: unknown, or n2.
    """
    chosen = Negatives.parse(negatives)
    if chosen.kind == "n2":
        raise ValueError("negatives 'n2': the sigmoid loss takes n, n:k and faces")
    return chosen


def sigmoid_loss(
    reps_BD: Sequence[Tensor],
    scale: Tensor | float,
    *,
    head: HeadValues,
    negatives: str = "n",
    observed: Sequence[Tensor] | None = None,
    mask_same: Tensor | None = None,
    generator: torch.Generator | None = None,
    shuffles: Tensor | None = None,
    group: ProcessGroup | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """Mean over the modalities, and over their anchors, of the sum of the losses of an anchor's tuples.

    Args:
        reps_BD: one (B, D) a modality, at least two. In half precision they are widened to float32.
        scale: the factor of the products, one number.
        head: from `new_bias`.
        negatives: `n`, `n:k` or `faces`, as Symile's.
        observed: one (B,) mask a modality, True where the representation is of something observed; the other
            rows are candidates but no anchors. None for complete data.
        mask_same: (B,) integers; a negative of which every row has its anchor's is left out. None for none.
        generator: of the shuffles.
        shuffles: (S, B), drawn ahead with `draw_shuffles`. On several ranks those of the first count.
        group: ranks that hold the rest of the batch, each B rows; see `symile_m3.objectives.distributed`.
        memory_budget: bytes beside arguments and results, about; what does not fit is computed again for the gradients.

    Returns:
        () loss in nats; float32, or float64 if given so.

    Raises:
        ValueError: shapes that differ, fewer than two modalities, other negatives, shuffles that do not go with them,
            or a scale that is not finite.
    """
    chosen = check_sigmoid_negatives(negatives)
    check_reps(reps_BD)
    with full_precision(reps_BD[0]):
        whole = Whole.of(reps_BD, scale, observed, mask_same, group)
        rows = len(whole.reps_ND[0])
        found = blocks(chosen, len(whole.reps_ND))
        if shuffles is None:
            shuffles = draw_shuffles(negatives, len(whole.reps_ND), rows, generator)
        wanted = (sum(block.shuffled for block in found), rows)
        if tuple(shuffles.shape) != wanted:
            raise ValueError(f"shuffles of shape {tuple(shuffles.shape)}: these negatives and reps need {wanted}")
        shuffle = iter(whole.ranks.of_first(shuffles.to(whole.reps_ND[0].device)))
        bias = wide_values(head, whole.reps_ND[0])["bias"]
        start, stop = whole.own
        positives_B = F.softplus(-(whole.factor * mip([rep_ND[start:stop] for rep_ND in whole.reps_ND]) + bias))
        share = whole.reps_ND[0].new_zeros(())
        for block in found:
            successor_N = next(shuffle) if block.shuffled else None
            sums_B = _block_sums(whole, block, successor_N, bias, memory_budget // len(found))
            for anchor in block.kept:
                share = share + (whole.weights_MN[anchor, start:stop] * sums_B).sum()
        share = share + (whole.weights_MN[:, start:stop] * positives_B).sum()
        return whole.ranks.total(share)


def _block_sums(whole: Whole, block: Block, successor_N: Tensor | None, bias: Tensor, memory_budget: int) -> Tensor:
    """(B,) sums over a block's negatives of the own rows."""
    start, stop = whole.own
    queries_BD = reduce(torch.mul, [whole.reps_ND[kept][start:stop] for kept in block.kept]) * whole.factor
    rows = combined_rows(len(block.varied), successor_N)
    keys_ND = reduce(
        torch.mul,
        [
            whole.reps_ND[varied] if row_N is None else whole.reps_ND[varied][row_N]
            for varied, row_N in zip(block.varied, rows, strict=True)
        ],
    )

    def of(chunk: slice) -> Tensor:
        logits_CN = products(queries_BD[chunk], keys_ND) + bias
        own_C = torch.arange(start + chunk.start, start + chunk.stop, device=logits_CN.device)
        left_out_CN = own_C[:, None] == torch.arange(len(keys_ND), device=logits_CN.device)
        if whole.ids_N is not None:
            ids_C1 = whole.ids_N[own_C][:, None]
            same_CN = ids_C1 == whole.ids_N
            for row_N in rows[1:]:
                same_CN &= ids_C1 == whole.ids_N[row_N]
            left_out_CN |= same_CN
        return F.softplus(logits_CN).masked_fill(left_out_CN, 0.0).sum(dim=1)

    chunks = row_chunks(stop - start, len(keys_ND), keys_ND.element_size(), 6, memory_budget)
    return torch.cat(in_chunks(of, chunks))
