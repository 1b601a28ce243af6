"""Ranks of the right candidates, against every query and candidate taken one by one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from symile_m3.errors import TrainingError
from symile_m3.objectives import clip_scores, symile_scores
from symile_m3.objectives.scores import Scores
from symile_m3.ranking import Answers, first_candidate, first_right
from symile_m3.repstore import Gathered, Replaced, StoredRows, store

QUERIES, CANDIDATES, DIM, LABELS = 20, 31, 8, 7


def question(words: int, seed: int = 0) -> tuple[list[Tensor], Tensor, Answers]:
    generator = torch.Generator().manual_seed(seed)
    queries = [torch.randn(QUERIES, DIM, generator=generator) for _ in range(2)]
    candidates = torch.randn(CANDIDATES, DIM, generator=generator)
    wanted = torch.randint(LABELS, (QUERIES,), generator=generator)
    labels = torch.randint(LABELS, (CANDIDATES, words), generator=generator)
    return queries, candidates, Answers(wanted_Q=wanted, labels_NW=labels)


def naive_rank(scores: list[float], right: list[bool]) -> int:
    """Wrong candidates before right ones where scores are equal."""
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], right[n]))
    return next((place for place, n in enumerate(order, 1) if right[n]), 0)


def naive_ranks(scores: Scores, queries: list[Tensor], candidates: Tensor, answers: Answers) -> list[int]:
    found = []
    for q in range(len(queries[0])):
        row = [
            float(scores([rep[q : q + 1].double() for rep in queries], candidates[n : n + 1].double()))
            for n in range(len(candidates))
        ]
        found.append(naive_rank(row, [int(answers.wanted_Q[q]) in labels for labels in answers.labels_NW.tolist()]))
    return found


@pytest.mark.parametrize("scores", [symile_scores, clip_scores])
@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("budget", [1 << 30, 6000, 1])
def test_ranks_are_those_of_each_query_alone(scores: Scores, words: int, budget: int) -> None:
    queries, candidates, answers = question(words)
    ranks = first_right(scores, queries, candidates, answers, memory_budget=budget)
    assert ranks.tolist() == naive_ranks(scores, queries, candidates, answers)
    assert len(set(ranks.tolist())) > 3


def test_equal_scores_earn_nothing() -> None:
    """A model that says the same of everything, or no number, is never right but where all candidates are."""
    queries, candidates, answers = question(1)
    wrong = (answers.labels_NW[:, 0] != answers.wanted_Q[:, None]).sum(dim=1)
    for value in (0.0, math.nan):
        same = [torch.full_like(rep, value) for rep in queries]
        for budget in (1 << 30, 1000):
            ranks = first_right(symile_scores, same, candidates, answers, memory_budget=budget)
            assert ranks.tolist() == (wrong + 1).tolist()


def test_a_query_without_an_answer_has_no_rank() -> None:
    queries, candidates, answers = question(2)
    wanted = answers.wanted_Q.clone()
    wanted[3] = LABELS + 2
    ranks = first_right(symile_scores, queries, candidates, Answers(wanted_Q=wanted, labels_NW=answers.labels_NW))
    assert ranks[3] == 0
    assert bool((ranks[torch.arange(QUERIES) != 3] > 0).all())


def test_chance_is_the_share_of_right_candidates() -> None:
    *_, answers = question(3)
    counts = [sum(wanted in labels for labels in answers.labels_NW.tolist()) for wanted in answers.wanted_Q.tolist()]
    assert answers.counts().tolist() == counts
    assert answers.chance() == pytest.approx(sum(counts) / QUERIES / CANDIDATES)


def test_what_does_not_fit_is_refused() -> None:
    queries, candidates, answers = question(1)
    with pytest.raises(ValueError, match="20 queries with labels, but representations of"):
        first_right(symile_scores, [queries[0], queries[1][:5]], candidates, answers)
    with pytest.raises(ValueError, match="30 candidates, 31 with labels"):
        first_right(symile_scores, queries, candidates[:30], answers)
    with pytest.raises(ValueError, match="labels must be"):
        Answers(wanted_Q=answers.labels_NW, labels_NW=answers.labels_NW)


def test_rows_on_disk_are_those_in_memory() -> None:
    rows = torch.randn(50, DIM)
    stored = store(torch.split(rows, 7), 50, in_memory=100)
    kept = store(torch.split(rows, 7), 50)
    assert isinstance(stored, StoredRows)
    assert isinstance(kept, Tensor)
    assert len(stored) == len(kept) == 50
    for chosen in (torch.arange(50), torch.tensor([3, 4, 5, 49, 0, 0, 7]), torch.arange(0)):
        assert torch.equal(stored[chosen], rows[chosen])
        assert torch.equal(kept[chosen], rows[chosen])
    with pytest.raises(IndexError, match="of 50"):
        stored[torch.tensor([50])]


def test_ranks_from_disk_are_those_from_memory() -> None:
    queries, candidates, answers = question(2)
    expected = first_right(symile_scores, queries, candidates, answers)
    on_disk = [store([rep], QUERIES, in_memory=0) for rep in queries]
    found = first_right(
        symile_scores, on_disk, store([candidates], CANDIDATES, in_memory=0), answers, memory_budget=4000
    )
    assert torch.equal(found, expected)


def test_rows_are_gathered_and_replaced() -> None:
    rows, index = torch.randn(5, DIM), torch.tensor([4, 0, 0, 2])
    gathered = Gathered(rows, index)
    assert len(gathered) == 4
    assert torch.equal(gathered[torch.tensor([3, 0])], rows[[2, 4]])
    missing, by = torch.tensor([False, True, False, True]), torch.ones(DIM)
    replaced = Replaced(gathered, missing, by)[torch.arange(4)]
    assert torch.equal(replaced[missing], torch.ones(2, DIM))
    assert torch.equal(replaced[~missing], rows[[4, 0]])


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes nothing, as a full disk does."""
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
    monkeypatch.setattr("tempfile.TemporaryFile", lambda buffering: full)
    with full, pytest.raises(TrainingError, match=r"no place for representations \(No space left on device\).*TMPDIR"):
        StoredRows(DIM).append(torch.zeros(3, DIM))


@pytest.mark.parametrize("scores", [symile_scores, clip_scores])
@pytest.mark.parametrize("budget", [1 << 30, 6000, 1])
def test_the_candidate_retrieved_is_the_best_and_right_where_the_rank_is_one(scores: Scores, budget: int) -> None:
    queries, candidates, answers = question(1)
    found = first_candidate(scores, queries, candidates, answers, memory_budget=budget)
    assert found.tolist() == scores(queries, candidates).argmax(dim=1).tolist()
    right = answers.labels_NW[found, 0] == answers.wanted_Q
    assert right.tolist() == (first_right(scores, queries, candidates, answers) == 1).tolist()


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_of_equal_scores_a_wrong_candidate_is_retrieved(value: float) -> None:
    queries, candidates, answers = question(1)
    same = [torch.full_like(rep, value) for rep in queries]
    for budget in (1 << 30, 1000):
        found = first_candidate(symile_scores, same, candidates, answers, memory_budget=budget)
        assert not bool((answers.labels_NW[found, 0] == answers.wanted_Q).any())
