"""At which place of its candidates a query finds the first right one, with all candidates, in bounded memory.

Suffixes: Q queries, N candidates, D dimensions, W labels a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from symile_m3.objectives.scores import Scores

MEMORY_BUDGET = 1 << 30
"""Bytes of the blocks of representations and scores that are held at a time."""


class Representations(Protocol):
    """Rows of D dimensions, such as a tensor (N, D) or `symile_m3.repstore.StoredRows`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Which candidates are right: those that have the query's label among theirs.

    Attributes:
        wanted_Q: (Q,) label of each query.
        labels_NW: (N, W) labels of each candidate: the class of an image, the language of a clip, the words of a text.
    """

    wanted_Q: Tensor
    labels_NW: Tensor

    def __post_init__(self) -> None:
        if self.wanted_Q.ndim != 1 or self.labels_NW.ndim != 2:
            raise ValueError(
                f"labels must be (Q,) and (N, W), not {tuple(self.wanted_Q.shape)} and {tuple(self.labels_NW.shape)}"
            )

    def counts(self) -> Tensor:
        """(Q,) how many candidates are right for each query."""
        if not len(self.wanted_Q) or not self.labels_NW.numel():
            return torch.zeros_like(self.wanted_Q)
        highest = int(max(self.wanted_Q.max(), self.labels_NW.max())) + 1
        ordered_NW = self.labels_NW.sort(dim=1).values
        repeated_NW = torch.zeros_like(ordered_NW, dtype=torch.bool)
        repeated_NW[:, 1:] = ordered_NW[:, 1:] == ordered_NW[:, :-1]  # a text may hold a word twice
        return torch.bincount(ordered_NW[~repeated_NW], minlength=highest)[self.wanted_Q]

    def chance(self) -> float:
        """How often a candidate drawn from all is right: the mean over the queries of the share that is."""
        return float(self.counts().double().mean()) / len(self.labels_NW)


def first_right(
    scores: Scores,
    query_reps: Sequence[Representations],
    candidates: Representations,
    answers: Answers,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """The rank of the best right candidate of every query among all candidates.

    It is one more than the number of wrong candidates whose score is not lower: a wrong one with the same score, or
    one that is not a number, goes before a right one, so that equal scores earn nothing. Right ones do not count
    against each other.

    Queries of one label are taken together, so that their right candidates are few: the score to beat is found
    among these, and then all candidates are counted against it, tile by tile. Scores are never held for more than a
    tile, and representations for a block of queries and a tile of candidates.

    Args:
        scores: such as `symile_scores`; must judge each pair of query and candidate by itself.
        query_reps: one for each modality of the query, Q rows each.
        candidates: N rows of the retrieved modality.
        memory_budget: bytes of a block of queries, a tile of candidates and their scores; `scores` itself has some.

    Returns:
        (Q,) ranks from 1; 0 for a query that no candidate is right for.

    Raises:
        ValueError: numbers of rows that do not fit the labels, or no candidates.
    """
    lengths = [len(rep) for rep in query_reps]
    if not lengths or set(lengths) != {len(answers.wanted_Q)}:
        raise ValueError(f"{len(answers.wanted_Q)} queries with labels, but representations of {lengths}")
    if not len(candidates) or len(candidates) != len(answers.labels_NW):
        raise ValueError(f"{len(candidates)} candidates, {len(answers.labels_NW)} with labels: as many, at least one")
    ranks_Q = torch.zeros_like(answers.wanted_Q)
    if not len(ranks_Q):
        return ranks_Q
    dim = query_reps[0][torch.zeros(1, dtype=torch.long)].shape[1]
    query_rows, candidate_rows = _tile(len(query_reps), dim, memory_budget)
    order_Q = answers.wanted_Q.argsort(stable=True)
    every_N = torch.arange(len(candidates))
    for rows in torch.split(order_Q, query_rows):
        reps = [rep[rows] for rep in query_reps]
        wanted_Q1 = answers.wanted_Q[rows][:, None]

        def tiles(
            of: Tensor, reps: list[Tensor] = reps, wanted_Q1: Tensor = wanted_Q1
        ) -> Iterator[tuple[Tensor, Tensor]]:
            """The scores of some candidates, and which of them are right."""
            for part in torch.split(of, candidate_rows):
                scores_QN = scores(reps, candidates[part])
                yield scores_QN, _right(answers.labels_NW[part], wanted_Q1, scores_QN.device)

        if len(candidates) <= candidate_rows:  # one tile serves both passes
            kept = list(tiles(every_N))
            best_Q = _best_right(iter(kept), len(rows), reps[0])
            ahead_Q = _ahead(iter(kept), best_Q)
        else:
            some_N = torch.isin(answers.labels_NW, torch.unique(wanted_Q1)).any(dim=1).nonzero()[:, 0]
            best_Q = _best_right(tiles(some_N), len(rows), reps[0])
            ahead_Q = _ahead(tiles(every_N), best_Q)
        ranks_Q[rows] = ahead_Q.cpu() + 1
    ranks_Q[answers.counts() == 0] = 0
    return ranks_Q


def first_candidate(
    scores: Scores,
    query_reps: Sequence[Representations],
    candidates: Representations,
    answers: Answers,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    """The candidate that every query retrieves: the one of the highest score.

    Of equal scores, or where one is not a number, a wrong candidate is taken; so it is right exactly where
    `first_right` says 1. Arguments as those of `first_right`.

    Returns:
        (Q,) rows of candidates.
    """
    found_Q = torch.zeros_like(answers.wanted_Q)
    if not len(found_Q):
        return found_Q
    dim = query_reps[0][torch.zeros(1, dtype=torch.long)].shape[1]
    query_rows, candidate_rows = _tile(len(query_reps), dim, memory_budget)
    for rows in torch.split(answers.wanted_Q.argsort(stable=True), query_rows):  # the blocks of `first_right`
        reps = [rep[rows] for rep in query_reps]
        best: list[tuple[Tensor, Tensor]] = []  # (T, Q) scores and rows: the best of each tile, right and wrong apart
        for part in torch.split(torch.arange(len(candidates)), candidate_rows):
            scores_QN = scores(reps, candidates[part])
            right_QN = _right(answers.labels_NW[part], answers.wanted_Q[rows][:, None], scores_QN.device)
            for of_kind_QN in (right_QN, ~right_QN):
                value_Q, at_Q = (of.cpu() for of in scores_QN.masked_fill(~of_kind_QN, -torch.inf).max(dim=1))
                best.append((value_Q, part[at_Q]))
        right_at, wrong_at = (_highest(best[kind::2]) for kind in (0, 1))
        found_Q[rows] = torch.where(right_at[0] > wrong_at[0], right_at[1], wrong_at[1])
    return found_Q


def _highest(best: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(Q,) scores and rows, the highest of all tiles."""
    values_TQ, rows_TQ = (torch.stack(parts) for parts in zip(*best, strict=True))
    value_Q, tile_Q = values_TQ.max(dim=0)
    return value_Q, rows_TQ.gather(0, tile_Q[None])[0]


def _right(labels_NW: Tensor, wanted_Q1: Tensor, device: torch.device) -> Tensor:
    """(Q, N) whether a candidate is right for a query."""
    labels_NW, wanted_Q1 = labels_NW.to(device), wanted_Q1.to(device)
    right_QN = labels_NW[:, 0] == wanted_Q1
    for w in range(1, labels_NW.shape[1]):
        right_QN |= labels_NW[:, w] == wanted_Q1
    return right_QN


def _best_right(tiles: Iterator[tuple[Tensor, Tensor]], queries: int, like: Tensor) -> Tensor:
    best_Q = torch.full((queries,), -torch.inf, device=like.device)
    for scores_QN, right_QN in tiles:
        found_Q = scores_QN.masked_fill(~right_QN, -torch.inf).amax(dim=1)
        best_Q = torch.maximum(best_Q.to(found_Q.dtype), found_Q)
    return best_Q


def _ahead(tiles: Iterator[tuple[Tensor, Tensor]], best_Q: Tensor) -> Tensor:
    ahead_Q = torch.zeros(len(best_Q), dtype=torch.long, device=best_Q.device)
    for scores_QN, right_QN in tiles:
        lower_QN = scores_QN < best_Q[:, None]
        ahead_Q += len(right_QN[0]) - (lower_QN | right_QN).sum(dim=1)
    return ahead_Q


def _tile(modalities: int, dim: int, memory_budget: int) -> tuple[int, int]:
    """Queries of a block and candidates of a tile: half of the budget for the queries, half for the rest."""
    queries = max(1, min(8192, memory_budget // 2 // (4 * dim * modalities)))
    # Of a candidate: its row, read and perhaps normalised, and a column of scores, masked ones, and masks.
    candidates = max(1, memory_budget // 2 // (8 * dim + 12 * queries))
    return queries, candidates
