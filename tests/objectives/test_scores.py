"""Retrieval scores against their definitions, in tiles of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from symile_m3.objectives import best_candidates, clip_scores, symile_scores
from symile_m3.objectives.scores import Scores

BUDGETS = [1, 3_000, 2**28]
BOTH = [symile_scores, clip_scores]


def random_reps(modalities: int, rows: int, dim: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(modalities)]


def cosine(a: list[float], b: list[float]) -> float:
    def dot(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("queries", [1, 2, 3])
def test_scores_are_their_definitions(queries: int, budget: int) -> None:
    *query, candidates = random_reps(queries + 1, 7, 3)
    candidates = torch.cat([candidates, 2 * candidates[:4]])
    mips = symile_scores(query, candidates, memory_budget=budget)
    cosines = clip_scores(query, candidates, memory_budget=budget)
    assert mips.shape == cosines.shape == (7, 11)
    query_rows, candidate_rows = [rep.tolist() for rep in query], candidates.tolist()
    for q in range(7):
        for n in range(11):
            terms = [math.prod(rep[q][d] for rep in query_rows) * candidate_rows[n][d] for d in range(3)]
            assert mips[q, n].item() == pytest.approx(sum(terms), rel=1e-10, abs=1e-12)
            summed = sum(cosine(rep[q], candidate_rows[n]) for rep in query_rows)
            assert cosines[q, n].item() == pytest.approx(summed, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("scores", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(scores: Scores, dtype: torch.dtype) -> None:
    *query, candidates = (rep.to(dtype) for rep in random_reps(3, 9, 33))
    wide = scores([rep.float() for rep in query], candidates.float())
    assert wide.dtype == torch.float32
    assert torch.equal(scores(query, candidates), wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scores([rep.float() for rep in query], candidates.float()), wide)


@pytest.mark.parametrize("scores", BOTH)
def test_arguments_stay_as_they_are(scores: Scores) -> None:
    *query, candidates = random_reps(3, 5, 4)
    before = [rep.clone() for rep in (*query, candidates)]
    scores(query, candidates)
    best_candidates(scores, query, candidates, 2)
    assert all(torch.equal(rep, old) for rep, old in zip((*query, candidates), before, strict=True))


@pytest.mark.parametrize("scores", BOTH)
def test_scores_pass_gradients_on(scores: Scores) -> None:
    *query, candidates = (rep.requires_grad_() for rep in random_reps(3, 4, 3))
    assert torch.autograd.gradcheck(lambda a, b, c: scores([a, b], c), (*query, candidates))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("scores", BOTH)
def test_the_best_candidates_are_those_of_all_scores(scores: Scores, k: int, budget: int) -> None:
    *query, _ = random_reps(3, 20, 6)
    (candidates,) = random_reps(1, 50, 6, seed=1)
    values, rows = best_candidates(scores, query, candidates, k, memory_budget=budget)
    expected = scores(query, candidates).sort(dim=1, descending=True)
    torch.testing.assert_close(values, expected.values[:, :k], rtol=1e-12, atol=1e-12)
    assert torch.equal(rows, expected.indices[:, :k])


def test_the_best_of_many_candidates_need_little_memory() -> None:
    """All scores would be 4 GB here."""
    peak = 0

    def watched(query: list[Tensor], candidates: Tensor) -> Tensor:
        nonlocal peak
        tile = symile_scores(query, candidates)
        peak = max(peak, tile.nbytes + candidates.nbytes + sum(rep.nbytes for rep in query))
        return tile

    query, candidates = torch.ones(10_000, 2), torch.linspace(0, 1, 100_000)[:, None].repeat(1, 2)
    values, rows = best_candidates(watched, [query], candidates, 1, memory_budget=2**26)
    assert bool((rows == 99_999).all())
    assert bool((values == 2).all())
    assert 2**22 < peak < 2**26


def test_no_queries_have_no_scores() -> None:
    candidates = torch.ones(3, 2)
    assert symile_scores([torch.ones(0, 2)], candidates).shape == (0, 3)
    values, rows = best_candidates(symile_scores, [torch.ones(0, 2)], candidates, 2)
    assert values.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("scores", BOTH)
@pytest.mark.parametrize(
    ("queries", "candidates", "says"),
    [
        ([], (3, 2), "^no modality of the query"),
        ([(4, 2), (5, 2)], (3, 2), r"\[\(4, 2\), \(5, 2\)\] and \(3, 2\)"),
        ([(4, 2)], (3, 3), r"\[\(4, 2\)\] and \(3, 3\)"),
        ([(2,)], (3, 2), r"\[\(2,\)\]"),
        ([(4, 2)], (2,), r"and \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    scores: Scores, queries: list[tuple[int, ...]], candidates: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        scores([torch.ones(shape) for shape in queries], torch.ones(candidates))


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_at_most_the_number_of_candidates(k: int) -> None:
    with pytest.raises(ValueError, match=f"^k = {k}: between 1 and the 3 candidates"):
        best_candidates(symile_scores, [torch.ones(2, 2)], torch.ones(3, 2), k)
