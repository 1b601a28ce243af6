"""Retrieval scores of queries against candidates, in tiles that keep within a memory budget.

Suffixes: Q queries, N candidates, D dimensions, K best candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from symile_m3.objectives.checks import MEMORY_BUDGET, full_precision, widened

Scores = Callable[[Sequence[Tensor], Tensor], Tensor]


def symile_scores(
    query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """MIP of every query with every candidate, (Q, N).

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    return tiled(_mips, query_reps_QD, candidates_ND, memory_budget)


def clip_scores(
    query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """Sum over the query's modalities of the cosine with each candidate, (Q, N).

    The cosines among the query's own modalities are the same for all candidates, and left out.

    Args:
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    return tiled(_cosines, query_reps_QD, candidates_ND, memory_budget)


def unit_scores(
    query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    """Sum over the query's modalities of the inner product with each candidate, normalised, (Q, N).

    Of normalised queries that is `clip_scores`; of means of normalised ones, the mean of the cosines.

    Args:
        query_reps_QD: one (Q, D) for each modality of the query, taken as they are.
        candidates_ND: representations of the retrieved modality.
        memory_budget: bytes beside arguments and result.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    return tiled(_inner_products, query_reps_QD, candidates_ND, memory_budget)


def best_candidates(
    scores: Scores,
    query_reps_QD: Sequence[Tensor],
    candidates_ND: Tensor,
    k: int,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[Tensor, Tensor]:
    """The k best candidates of every query, without ever holding all scores.

    Args:
        scores: such as `symile_scores`; must judge each pair of query and candidate by itself.
        query_reps_QD: one (Q, D) for each modality of the query.
        candidates_ND: representations of the retrieved modality.
        k: how many, at most N.
        memory_budget: bytes beside arguments and results.

    Returns:
        (Q, K) scores, best first, and (Q, K) rows of the candidates.

    Raises:
        ValueError: k is not between 1 and N, no modality, or shapes that do not fit each other.
    """
    check_queries(query_reps_QD, candidates_ND)
    if not 1 <= k <= len(candidates_ND):
        raise ValueError(f"k = {k}: between 1 and the {len(candidates_ND)} candidates")
    values, indices = [], []
    for queries in _spans(len(query_reps_QD[0]), _query_rows(candidates_ND, memory_budget)):
        chunk = [rep_QD[queries] for rep_QD in query_reps_QD]
        best: tuple[Tensor, Tensor] | None = None
        for candidates in _spans(len(candidates_ND), _candidate_rows(candidates_ND, memory_budget)):
            tile = scores(chunk, candidates_ND[candidates])
            found, where = tile.topk(min(k, tile.shape[1]), dim=1)
            where += candidates.start
            if best is not None:
                found, where = torch.cat([best[0], found], dim=1), torch.cat([best[1], where], dim=1)
                found, order = found.topk(min(k, found.shape[1]), dim=1)
                where = where.gather(1, order)
            best = found, where
        assert best is not None
        values.append(best[0])
        indices.append(best[1])
    if not values:
        return candidates_ND.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=candidates_ND.device)
    return torch.cat(values), torch.cat(indices)


def check_queries(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> None:
    """Nothing, if queries and candidates fit each other.

    Raises:
        ValueError: otherwise.
    """
    if not query_reps_QD:
        raise ValueError("no modality of the query given: at least one is needed")
    shapes = [tuple(rep.shape) for rep in query_reps_QD]
    wanted = tuple(candidates_ND.shape)
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or len(wanted) != 2 or shapes[0][1] != wanted[1]:
        raise ValueError(f"queries must all be (Q, D) and candidates (N, D) with one D, not {shapes} and {wanted}")


def _mips(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    return reduce(torch.mul, query_reps_QD) @ candidates_ND.T


def _cosines(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    return _inner_products([torch.nn.functional.normalize(rep, dim=-1) for rep in query_reps_QD], candidates_ND)


def _inner_products(query_reps_QD: Sequence[Tensor], candidates_ND: Tensor) -> Tensor:
    query_QD = torch.stack(list(query_reps_QD)).sum(dim=0)
    return query_QD @ torch.nn.functional.normalize(candidates_ND, dim=-1).T


def tiled(scores: Scores, query_reps_QD: Sequence[Tensor], candidates_ND: Tensor, memory_budget: int) -> Tensor:
    """(Q, N) scores, computed for some queries and some candidates at a time, all widened.

    Raises:
        ValueError: no modality, or shapes that do not fit each other.
    """
    check_queries(query_reps_QD, candidates_ND)
    queries = _spans(len(query_reps_QD[0]), _query_rows(candidates_ND, memory_budget))
    candidates = list(_spans(len(candidates_ND), _candidate_rows(candidates_ND, memory_budget)))
    *_, like = widened([*(rep[:0] for rep in query_reps_QD), candidates_ND[:0]])
    result_QN = like.new_empty(len(query_reps_QD[0]), len(candidates_ND))
    with full_precision(candidates_ND):
        for rows in queries:
            chunk = [rep_QD[rows] for rep_QD in query_reps_QD]
            for columns in candidates:
                *reps, tile = widened([*chunk, candidates_ND[columns]])
                result_QN[rows, columns] = scores(reps, tile)
    return result_QN


def _spans(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def _query_rows(candidates_ND: Tensor, memory_budget: int) -> int:
    """Queries of a tile: their product, its parts and their widened copies are to fit in half of the budget."""
    return max(1, min(4096, memory_budget // (2 * 8 * 4 * max(1, candidates_ND.shape[1]))))


def _candidate_rows(candidates_ND: Tensor, memory_budget: int) -> int:
    """Candidates of a tile: they, widened and normalised, and the tile's scores in the other half."""
    queries = _query_rows(candidates_ND, memory_budget)
    return max(1, memory_budget // (2 * 8 * (3 * candidates_ND.shape[1] + 3 * queries)))
