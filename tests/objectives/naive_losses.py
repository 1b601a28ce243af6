"""The objectives as their definitions say them: loops over lists of () float64 tensors, one term after another.

Tensors only so that autograd gives the gradients; no operation here sees more than one number at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product

import torch
from torch import Tensor

Rep = list[list[Tensor]]  # of one modality: its rows, each a list of () tensors
Rows = tuple[int, ...]  # the row that a candidate has of each modality
Reference = tuple[float, list[Tensor], float]  # loss, gradients of the reps, gradient of the scale


def naive_mip(reps: Sequence[Rep], rows: Rows) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for d in range(len(reps[0][0])):
        term = reps[0][rows[0]][d]
        for modality in range(1, len(reps)):
            term = term * reps[modality][rows[modality]][d]
        total = total + term
    return total


def naive_cosine(a: list[Tensor], b: list[Tensor]) -> Tensor:
    def dot(x: list[Tensor], y: list[Tensor]) -> Tensor:
        return sum((p * q for p, q in zip(x, y, strict=True)), torch.zeros((), dtype=torch.float64))

    return dot(a, b) / (torch.sqrt(dot(a, a)) * torch.sqrt(dot(b, b)))


def cross_entropy(positive: Tensor, negatives: list[Tensor]) -> Tensor:
    logits = [positive, *negatives]
    top = max(logit.item() for logit in logits)
    total = torch.zeros((), dtype=torch.float64)
    for logit in logits:
        total = total + torch.exp(logit - top)
    return top + torch.log(total) - positive


def mean(losses: list[Tensor]) -> Tensor:
    """0 of nothing."""
    return sum(losses, torch.zeros((), dtype=torch.float64)) / max(1, len(losses))


def varying(anchor_row: int, modalities: int, varied: Sequence[int], other: int, successor: Sequence[int]) -> Rows:
    """All rows the anchor's, but the first varied modality has row `other`, and each further one the successor."""
    rows = [anchor_row] * modalities
    row = other
    for modality in varied:
        rows[modality] = row
        if modality != varied[-1]:
            row = successor[row]
    return tuple(rows)


def naive_candidates(
    negatives: str, modalities: int, size: int, shuffles: Sequence[Sequence[int]], anchor: int, i: int
) -> list[Rows]:
    """The negatives of row i of one modality."""
    if negatives == "n2":
        every = product(range(size), repeat=modalities)
        return [rows for rows in every if rows[anchor] == i and rows != (i,) * modalities]
    others = [modality for modality in range(modalities) if modality != anchor]
    if modalities == 2:
        return [varying(i, 2, others, j, ()) for j in range(size) if j != i]
    found: list[Rows] = []
    diagonals = [shuffles[k] for k in range(anchor, len(shuffles), modalities)]  # the anchor's, k of them for n:k
    if negatives == "faces":
        found += [varying(i, modalities, [other], j, ()) for other in others for j in range(size) if j != i]
        pairs = list(combinations(range(modalities), 2)) if modalities > 3 else []
        for pair, successor in zip(pairs, shuffles, strict=False):
            if anchor not in pair:
                found += [varying(i, modalities, pair, j, successor) for j in range(size) if j != i]
        diagonals = [shuffles[len(pairs) + anchor]]
    for successor in diagonals:
        found += [varying(i, modalities, others, j, successor) for j in range(size) if j != i]
    return found


def naive_symile(
    reps: Sequence[Rep],
    scale: Tensor,
    negatives: str,
    shuffles: Sequence[Sequence[int]],
    observed: Sequence[Sequence[bool]] | None = None,
    ids: Sequence[int] | None = None,
) -> Tensor:
    modalities, size = len(reps), len(reps[0])
    losses = []
    for anchor in range(modalities):
        anchors = []
        for i in range(size):
            if observed is not None and not observed[anchor][i]:
                continue
            candidates = naive_candidates(negatives, modalities, size, shuffles, anchor, i)
            if ids is not None:
                candidates = [rows for rows in candidates if any(ids[row] != ids[i] for row in rows)]
            logits = [scale * naive_mip(reps, rows) for rows in candidates]
            anchors.append(cross_entropy(scale * naive_mip(reps, (i,) * modalities), logits))
        losses.append(mean(anchors))
    return mean(losses)


def naive_clip(
    reps: Sequence[Rep],
    scale: Tensor,
    observed: Sequence[Sequence[bool]] | None = None,
    ids: Sequence[int] | None = None,
) -> Tensor:
    size = len(reps[0])
    losses = []
    for first, second in combinations(range(len(reps)), 2):
        for a, b in ((first, second), (second, first)):
            anchors = []
            for i in range(size):
                if observed is not None and not observed[a][i]:
                    continue
                others = [j for j in range(size) if j != i and (ids is None or ids[j] != ids[i])]
                logits = [scale * naive_cosine(reps[a][i], reps[b][j]) for j in others]
                anchors.append(cross_entropy(scale * naive_cosine(reps[a][i], reps[b][i]), logits))
            losses.append(mean(anchors))
    return mean(losses)


def naive_loss(
    name: str,
    reps: Sequence[Rep],
    scale: Tensor,
    shuffles: Sequence[Sequence[int]],
    observed: Sequence[Sequence[bool]] | None = None,
    ids: Sequence[int] | None = None,
) -> Tensor:
    """CLIP's, or Symile's with the negatives of this name."""
    if name == "clip":
        return naive_clip(reps, scale, observed, ids)
    return naive_symile(reps, scale, name, shuffles, observed, ids)


def with_gradients(loss: Callable[[Sequence[Rep], Tensor], Tensor], reps: Sequence[Tensor], scale: float) -> Reference:
    """What a naive loss gives for these (B, D), in float64."""
    numbers: list[Rep] = [
        [[torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in row] for row in rep.double().tolist()]
        for rep in reps
    ]
    factor = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    value = loss(numbers, factor)
    leaves = [factor, *(x for rep in numbers for row in rep for x in row)]
    gradients = iter(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))
    scale_gradient = next(gradients).item()
    shaped = [
        torch.tensor([[next(gradients).item() for _ in row] for row in rep], dtype=torch.float64) for rep in numbers
    ]
    return value.item(), shaped, scale_gradient
