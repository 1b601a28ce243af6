"""The objectives that Symile is compared with, as their definitions say them: loops over () float64 tensors.

A head's tensors are indexed down to single numbers. See `naive_losses`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from naive_losses import Rep, cross_entropy, mean, naive_candidates, naive_clip, naive_cosine, naive_mip
from torch import Tensor

Vector = list[Tensor]
Observed = Sequence[Sequence[bool]] | None
Ids = Sequence[int] | None
Score = Callable[[int, list[Vector], Vector], Tensor]  # modality, the vectors of the others, a row of the modality

ZERO = torch.zeros((), dtype=torch.float64)
FLAT = 1e-6


def dot(a: Vector, b: Vector) -> Tensor:
    return sum((x * y for x, y in zip(a, b, strict=True)), ZERO)


def unit(a: Vector) -> Vector:
    length = torch.sqrt(dot(a, a))
    return [x / length for x in a]


def root(square: Tensor) -> Tensor:
    return torch.sqrt(square) if square.item() > FLAT else (square + FLAT) / (2 * math.sqrt(FLAT))


def determinant(matrix: list[list[Tensor]]) -> Tensor:
    """By elimination, unlike the library."""
    rows = [list(row) for row in matrix]
    result = torch.ones((), dtype=torch.float64)
    for i in range(len(rows)):
        result = result * rows[i][i]
        for j in range(i + 1, len(rows)):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return result


def naive_volume(vectors: Sequence[Vector]) -> Tensor:
    units = [unit(vector) for vector in vectors]
    return root(determinant([[dot(a, b) for b in units] for a in units]))


def naive_area(vectors: Sequence[Vector]) -> Tensor:
    a, b, c = (unit(vector) for vector in vectors)
    u = [x - y for x, y in zip(a, c, strict=True)]
    v = [x - y for x, y in zip(b, c, strict=True)]
    return root(dot(u, u) * dot(v, v) - dot(u, v) ** 2) / 2


def naive_gate(head: Mapping[str, Tensor], modality: int, rep: Vector, retrieved: int, candidate: Vector) -> Vector:
    """A query modality's representation, moved towards its neutral direction as far as the candidate wants."""

    def through(weights: Tensor, vector: Vector) -> Vector:
        return [dot(list(row), vector) for row in weights]

    temperature = torch.log(1 + torch.exp(head["temperature"])) + 0.1
    middle = sum(candidate, ZERO) / len(candidate)
    spread = torch.sqrt(sum(((x - middle) ** 2 for x in candidate), ZERO) / len(candidate) + 1e-5)
    hidden = through(head["null_KD"], [(x - middle) / spread for x in candidate])
    hidden = [torch.clamp(x + y, min=0) for x, y in zip(hidden, head["null_K"], strict=True)]
    null = torch.sigmoid((dot(hidden, list(head["null_out_K"])) + head["null_M"][retrieved]) / temperature)
    attention = dot(
        unit(through(head["query_MKD"][modality], rep)), unit(through(head["candidate_MKD"][retrieved], candidate))
    )
    weight = torch.sigmoid(attention / temperature) * (1 - null)
    share = 1 - torch.sigmoid(head["strength"]) * (1 - weight)
    neutral = unit(list(head["neutral_MD"][modality]))
    moved = unit([share * x + (1 - share) * y for x, y in zip(unit(rep), neutral, strict=True)])
    length = torch.sqrt(dot(rep, rep))
    return [length * x for x in moved]


def naive_gated_score(
    head: Mapping[str, Tensor], retrieved: int, given: Sequence[int], query: Sequence[Vector], candidate: Vector
) -> Tensor:
    gated = [naive_gate(head, modality, rep, retrieved, candidate) for modality, rep in zip(given, query, strict=True)]
    return sum((math.prod(numbers, start=x) for x, *numbers in zip(candidate, *gated, strict=True)), ZERO)


def naive_fused(head: Mapping[str, Tensor], left_out: int, query: Sequence[Vector]) -> Vector:
    inputs = [x for vector in query for x in vector]
    hidden = [
        torch.clamp(dot(list(row), inputs) + bias, min=0)
        for row, bias in zip(head["into_MHI"][left_out], head["into_MH"][left_out], strict=True)
    ]
    return unit(
        [
            dot(list(row), hidden) + bias
            for row, bias in zip(head["out_MDH"][left_out], head["out_MD"][left_out], strict=True)
        ]
    )


def naive_retrieval(
    reps: Sequence[Rep], scale: Tensor, score: Score, observed: Observed, ids: Ids, both_ways: bool
) -> Tensor:
    """Each row of each modality among the candidates of its sample's others, and among other samples' others."""
    size, losses = len(reps[0]), []
    for modality in range(len(reps)):
        others = [[rep[i] for number, rep in enumerate(reps) if number != modality] for i in range(size)]
        anchors = []
        for i in range(size):
            if observed is not None and not observed[modality][i]:
                continue
            rest = [j for j in range(size) if j != i and (ids is None or ids[j] != ids[i])]
            own = scale * score(modality, others[i], reps[modality][i])
            candidates = [scale * score(modality, others[i], reps[modality][j]) for j in rest]
            anchors.append(cross_entropy(own, candidates))
            if both_ways:
                tuples = [scale * score(modality, others[j], reps[modality][i]) for j in rest]
                anchors[-1] = (anchors[-1] + cross_entropy(own, tuples)) / 2
        losses.append(mean(anchors))
    return mean(losses)


def naive_gram(reps: Sequence[Rep], scale: Tensor, observed: Observed = None, ids: Ids = None) -> Tensor:
    return naive_retrieval(reps, scale, lambda t, others, row: -naive_volume([*others, row]), observed, ids, True)


def naive_triangle(reps: Sequence[Rep], scale: Tensor, observed: Observed = None, ids: Ids = None) -> Tensor:
    return naive_retrieval(reps, scale, lambda t, others, row: -naive_area([*others, row]), observed, ids, True)


def naive_gated(
    reps: Sequence[Rep], scale: Tensor, head: Mapping[str, Tensor], observed: Observed = None, ids: Ids = None
) -> Tensor:
    def score(modality: int, others: list[Vector], row: Vector) -> Tensor:
        given = [number for number in range(len(reps)) if number != modality]
        return naive_gated_score(head, modality, given, others, row)

    return naive_retrieval(reps, scale, score, observed, ids, False)


def naive_confu(
    reps: Sequence[Rep], scale: Tensor, head: Mapping[str, Tensor], observed: Observed = None, ids: Ids = None
) -> Tensor:
    def score(modality: int, others: list[Vector], row: Vector) -> Tensor:
        return naive_cosine(naive_fused(head, modality, others), row)

    fusions = naive_retrieval(reps, scale, score, observed, ids, True)
    return (fusions + naive_clip(reps, scale, observed, ids)) / 2


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x)) if x.item() < 30 else x + torch.log(1 + torch.exp(-x))


def naive_sigmoid(
    reps: Sequence[Rep],
    scale: Tensor,
    head: Mapping[str, Tensor],
    negatives: str,
    shuffles: Sequence[Sequence[int]],
    observed: Observed = None,
    ids: Ids = None,
) -> Tensor:
    modalities, size, losses = len(reps), len(reps[0]), []
    for anchor in range(modalities):
        anchors = []
        for i in range(size):
            if observed is not None and not observed[anchor][i]:
                continue
            candidates = naive_candidates(negatives, modalities, size, shuffles, anchor, i)
            if ids is not None:
                candidates = [rows for rows in candidates if any(ids[row] != ids[i] for row in rows)]
            loss = softplus(-(scale * naive_mip(reps, (i,) * modalities) + head["bias"]))
            for rows in candidates:
                loss = loss + softplus(scale * naive_mip(reps, rows) + head["bias"])
            anchors.append(loss)
        losses.append(mean(anchors))
    return mean(losses)


def naive_soft(
    reps: Sequence[Rep],
    scale: Tensor,
    similarity: Sequence[Sequence[Sequence[float]]],
    observed: Observed = None,
    ids: Ids = None,
) -> Tensor:
    """`similarity`: of each modality, of each sample with each row."""
    size, losses = len(reps[0]), []
    for modality in range(len(reps)):
        samples = []
        for i in range(size):
            if observed is not None and not observed[modality][i]:
                continue
            candidates = [j for j in range(size) if j == i or ids is None or ids[j] != ids[i]]
            targets = {
                j: math.exp(similarity[modality][i][j] / 0.1)
                for j in candidates
                if j == i or observed is None or observed[modality][j]
            }
            rows = {j: tuple(j if number == modality else i for number in range(len(reps))) for j in candidates}
            logits = {j: scale * naive_mip(reps, rows[j]) for j in candidates}
            entropies = [
                target / sum(targets.values()) * cross_entropy(logits[j], [logits[k] for k in candidates if k != j])
                for j, target in targets.items()
            ]
            samples.append(sum(entropies, ZERO))
        losses.append(mean(samples))
    return mean(losses)


def naive_cliplite(
    reps: Sequence[Rep],
    scale: Tensor,
    shuffles: Sequence[Sequence[int]],
    observed: Observed = None,
    ids: Ids = None,
) -> Tensor:
    losses = []
    for pair, other in zip(combinations(range(len(reps)), 2), shuffles, strict=True):
        for a, b in (pair, pair[::-1]):
            rows = []
            for i in range(len(reps[0])):
                if observed is not None and not observed[a][i]:
                    continue
                j = other[i]
                loss = softplus(-scale * naive_cosine(reps[a][i], reps[b][i]))
                if j != i and (ids is None or ids[j] != ids[i]):
                    loss = loss + softplus(scale * naive_cosine(reps[a][i], reps[b][j]))
                rows.append(loss)
            losses.append(mean(rows))
    return mean(losses)
