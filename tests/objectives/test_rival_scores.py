"""Scores of the objectives that Symile is compared with, each pair against its definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import naive_rivals as naive
import pytest
import torch
from rival_cases import head_of, random_reps
from torch import Tensor

from symile_m3.objectives import best_candidates, clip_scores, confu_scores, get_objective, gram_scores, triangle_scores
from symile_m3.objectives.scores import Scores

DIM = 4
GIVEN = {0: (1, 2), 1: (0, 2), 2: (0, 1)}  # of three modalities, by which is retrieved
NAMES = ["gram", "triangle", "gated", "confu"]
BUDGETS = [1, 5000, 2**28]


def scores_of(name: str, retrieved: int) -> Scores:
    return get_objective(name).scores_with(head_of(name, 3, DIM), retrieved=retrieved, given=GIVEN[retrieved])


def definition(name: str, retrieved: int) -> Callable[[list[naive.Vector], naive.Vector], Tensor]:
    head = head_of(name, 3, DIM)
    return {
        "gram": lambda query, row: -naive.naive_volume([*query, row]),
        "triangle": lambda query, row: -naive.naive_area([*query, row]),
        "gated": lambda query, row: naive.naive_gated_score(head, retrieved, GIVEN[retrieved], query, row),
        "confu": lambda query, row: naive.naive_cosine(naive.naive_fused(head, retrieved, query), row),
    }[name]


def vectors(rep: Tensor) -> list[naive.Vector]:
    return [list(row) for row in rep]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("retrieved", GIVEN)
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_their_definitions(name: str, retrieved: int, budget: int) -> None:
    *query, candidates = random_reps(3, 3, DIM)
    candidates = torch.cat([candidates, 2 * candidates[:1], -candidates[:1]])
    scores = scores_of(name, retrieved)
    found = scores(query, candidates, memory_budget=budget)  # type: ignore[call-arg]
    expected = [
        [definition(name, retrieved)(list(pair), row) for row in vectors(candidates)]
        for pair in zip(*map(vectors, query), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_volumes_are_of_any_number_of_modalities() -> None:
    *query, candidates = random_reps(4, 3, 5)
    for given in range(1, 4):
        found = gram_scores(query[:given], candidates)
        rows = [vectors(rep) for rep in query[:given]]
        expected = [
            [-naive.naive_volume([*(rep[q] for rep in rows), row]) for row in vectors(candidates)] for q in range(3)
        ]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened(name: str, dtype: torch.dtype) -> None:
    *query, candidates = (rep.to(dtype) for rep in random_reps(3, 9, DIM))
    scores = scores_of(name, 0)
    wide = scores([rep.float() for rep in query], candidates.float())
    assert wide.dtype == torch.float32
    assert torch.equal(scores(query, candidates), wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scores([rep.float() for rep in query], candidates.float()), wide)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_best_candidates_are_those_of_all_scores(name: str, budget: int) -> None:
    *query, _ = random_reps(3, 20, DIM)
    (candidates,) = random_reps(1, 50, DIM, seed=1)
    scores = scores_of(name, 2)
    values, rows = best_candidates(scores, query, candidates, 3, memory_budget=budget)
    expected = scores(query, candidates).sort(dim=1, descending=True)
    torch.testing.assert_close(values, expected.values[:, :3], rtol=1e-12, atol=1e-12)
    assert torch.equal(rows, expected.indices[:, :3])


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    scores = scores_of(name, 0)
    for shapes, candidates in [
        ([(4, DIM), (5, DIM)], (3, DIM)),
        ([(4, DIM)] * 2, (3, DIM + 1)),
        ([(DIM,)] * 2, (DIM,)),
    ]:
        with pytest.raises(ValueError, match=r"^queries must all be \(Q, D\)"):
            scores([torch.ones(shape) for shape in shapes], torch.ones(candidates))


@pytest.mark.parametrize("name", ["triangle", "gated"])
def test_a_query_of_another_number_of_modalities_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="modalities"):
        scores_of(name, 0)(random_reps(3, 4, DIM), torch.ones(5, DIM).double())


def test_without_all_modalities_confu_sums_cosines() -> None:
    rep, candidates = random_reps(2, 5, DIM)
    found = confu_scores([rep], candidates, head=head_of("confu", 3, DIM), retrieved=0, given=[2])
    assert torch.equal(found, clip_scores([rep], candidates))


def test_a_fusion_takes_its_modalities_in_their_own_order() -> None:
    first, second, candidates = random_reps(3, 5, DIM)
    head = head_of("confu", 3, DIM)

    def scores(query: Sequence[Tensor], given: Sequence[int]) -> Tensor:
        return confu_scores(query, candidates, head=head, retrieved=0, given=given)

    assert torch.equal(scores([first, second], (1, 2)), scores([second, first], (2, 1)))
    assert not torch.equal(scores([first, second], (1, 2)), scores([second, first], (1, 2)))


def test_no_queries_have_no_scores() -> None:
    for name in NAMES:
        assert scores_of(name, 0)([torch.ones(0, DIM)] * 2, torch.ones(3, DIM)).shape == (0, 3)
    assert triangle_scores([torch.ones(2, DIM)] * 2, torch.ones(0, DIM)).shape == (2, 0)
