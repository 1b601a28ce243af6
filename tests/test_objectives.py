"""The objectives against what their definitions say, term by term, and against known information."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symile_m3.errors import UsageError
from symile_m3.objectives import (
    OBJECTIVES,
    Objective,
    clip_loss,
    clip_scores,
    derangement,
    get_objective,
    mip,
    symile_loss,
    symile_scores,
    total_correlation_bound,
)

SHAPES = [(2, 2, 1), (2, 7, 5), (3, 2, 3), (3, 6, 4), (3, 9, 16), (4, 5, 3)]  # modalities, B, D
FLOATS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def random_reps(modalities: int, batch: int, dim: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(modalities)]


def rows(reps: list[Tensor]) -> list[list[list[float]]]:
    return [rep.double().tolist() for rep in reps]


def cross_entropy(logits: list[float], right: int) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(logit - top) for logit in logits)) - logits[right]


def naive_symile(
    reps: list[Tensor], scale: float, generator: torch.Generator, observed: list[Tensor] | None = None
) -> float:
    values, batch, dim = rows(reps), len(reps[0]), reps[0].shape[1]
    losses = []
    for anchor in range(len(reps)):
        first, *rest = [other for other in range(len(reps)) if other != anchor]
        shuffles = [derangement(batch, generator).tolist() for _ in rest]
        anchors = [i for i in range(batch) if observed is None or observed[anchor][i]]
        total = 0.0
        for i in anchors:
            logits = []
            for j in range(batch):
                chosen = [(first, j), *((other, s[j]) for other, s in zip(rest, shuffles, strict=True))]
                if j == i:
                    chosen = [(other, i) for other in (first, *rest)]
                score = 0.0
                for d in range(dim):
                    product = values[anchor][i][d]
                    for other, row in chosen:
                        product *= values[other][row][d]
                    score += product
                logits.append(scale * score)
            total += cross_entropy(logits, i)
        losses.append(total / max(1, len(anchors)))
    return sum(losses) / len(losses)


def cosine(a: list[float], b: list[float]) -> float:
    def product(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    return product(a, b) / math.sqrt(product(a, a) * product(b, b))


def naive_clip(reps: list[Tensor], scale: float, observed: list[Tensor] | None = None) -> float:
    values, batch = rows(reps), len(reps[0])
    losses = []
    for first, second in combinations(range(len(reps)), 2):
        for a, b in ((first, second), (second, first)):
            anchors = [i for i in range(batch) if observed is None or observed[a][i]]
            logits = [[scale * cosine(values[a][i], values[b][j]) for j in range(batch)] for i in anchors]
            total = sum(cross_entropy(row, i) for row, i in zip(logits, anchors, strict=True))
            losses.append(total / max(1, len(anchors)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS, ids=["float64", "float32"])
@pytest.mark.parametrize(("modalities", "batch", "dim"), SHAPES)
def test_symile_loss_is_its_definition(
    modalities: int, batch: int, dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    reps = [rep.to(dtype) for rep in random_reps(modalities, batch, dim)]
    log_scale = torch.tensor(-0.5, dtype=dtype)
    loss = symile_loss(reps, log_scale, generator=torch.Generator().manual_seed(3))
    expected = naive_symile(reps, math.exp(-0.5), torch.Generator().manual_seed(3))
    assert loss.dtype == dtype
    assert loss.shape == ()
    assert abs(loss.item() - expected) < tolerance * abs(expected)


@pytest.mark.parametrize(("dtype", "tolerance"), FLOATS, ids=["float64", "float32"])
@pytest.mark.parametrize(("modalities", "batch", "dim"), SHAPES)
def test_clip_loss_is_its_definition(
    modalities: int, batch: int, dim: int, dtype: torch.dtype, tolerance: float
) -> None:
    reps = [rep.to(dtype) for rep in random_reps(modalities, batch, dim)]
    loss = clip_loss(reps, torch.tensor(1.5, dtype=dtype))
    expected = naive_clip(reps, math.exp(1.5))
    assert loss.dtype == dtype
    assert abs(loss.item() - expected) < tolerance * abs(expected)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_what_is_missing_is_no_anchor(modalities: int) -> None:
    reps, scale = random_reps(modalities, 8, 5), torch.tensor(-0.5, dtype=torch.float64)
    observed = [torch.rand(8, generator=torch.Generator().manual_seed(m)) < 0.6 for m in range(modalities)]
    observed[-1][:] = False  # a modality that no sample of the batch has
    assert all(0 < int(mask.sum()) < 8 for mask in observed[:-1])
    symile = symile_loss(reps, scale, observed=observed, generator=torch.Generator().manual_seed(3)).item()
    expected = naive_symile(reps, math.exp(-0.5), torch.Generator().manual_seed(3), observed)
    assert symile == pytest.approx(expected, rel=1e-10)
    clip = clip_loss(reps, scale, observed=observed).item()
    assert clip == pytest.approx(naive_clip(reps, math.exp(-0.5), observed), rel=1e-10)
    complete = [torch.ones(8, dtype=torch.bool)] * modalities
    for name, objective in OBJECTIVES.items():
        whole, masked = (
            objective.loss(reps, scale, masks, torch.Generator().manual_seed(3)) for masks in (None, complete)
        )
        torch.testing.assert_close(whole, masked, msg=name)


def test_shuffles_come_from_the_generator_alone() -> None:
    reps, scale = random_reps(3, 30, 4), torch.tensor(0.0, dtype=torch.float64)
    torch.manual_seed(1)
    first = symile_loss(reps, scale, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    assert torch.equal(first, symile_loss(reps, scale, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, symile_loss(reps, scale, generator=torch.Generator().manual_seed(6)))


def test_with_two_modalities_symile_is_infonce_of_the_products() -> None:
    a, b = random_reps(2, 6, 3)
    labels = torch.arange(6)
    both = [torch.nn.functional.cross_entropy(logits, labels) for logits in (a @ b.T, b @ a.T)]
    loss = symile_loss([a, b], torch.tensor(0.0, dtype=torch.float64))
    torch.testing.assert_close(loss, torch.stack(both).mean())


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("name", ["symile", "clip"])
def test_gradients(name: str, modalities: int) -> None:
    reps = [rep.requires_grad_() for rep in random_reps(modalities, 3, 2)]
    log_scale = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)

    def loss(log_scale: Tensor, *reps: Tensor) -> Tensor:
        return OBJECTIVES[name].loss(reps, log_scale, None, torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(loss, (log_scale, *reps))


def test_mip_sums_the_products_and_broadcasts() -> None:
    a, b, c = (torch.tensor(values) for values in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    assert mip([a, b, c]).item() == 1 * 3 * 5 + 2 * 4 * 6
    grid = mip([torch.ones(4, 1, 2), torch.ones(1, 3, 2)])
    assert grid.shape == (4, 3)
    assert bool((grid == 2).all())


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(0, 2**32))
def test_a_derangement_moves_every_row(size: int, seed: int) -> None:
    shuffle = derangement(size, torch.Generator().manual_seed(seed))
    assert sorted(shuffle.tolist()) == list(range(size))
    assert bool((shuffle != torch.arange(size)).all())
    assert torch.equal(shuffle, derangement(size, torch.Generator().manual_seed(seed)))


def test_derangements_of_three_rows_are_equally_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(derangement(3, generator).tolist()) for _ in range(2000)]
    assert set(drawn) == {(1, 2, 0), (2, 0, 1)}
    assert abs(drawn.count((1, 2, 0)) / 2000 - 0.5) < 0.05  # over four standard deviations
    assert derangement(1).tolist() == [0]


@pytest.mark.parametrize("queries", [1, 2, 3])
def test_scores_are_their_definitions(queries: int) -> None:
    *query, candidates = random_reps(queries + 1, 5, 3)
    candidates = candidates[:4]
    mips, cosines = symile_scores(query, candidates), clip_scores(query, candidates)
    assert mips.shape == cosines.shape == (5, 4)
    *query_rows, candidate_rows = rows([*query, candidates])
    for q in range(5):
        for n in range(4):
            product = [math.prod(rep[q][d] for rep in query_rows) * candidate_rows[n][d] for d in range(3)]
            assert mips[q, n].item() == pytest.approx(sum(product), rel=1e-10, abs=1e-12)
            summed = sum(cosine(rep[q], candidate_rows[n]) for rep in query_rows)
            assert cosines[q, n].item() == pytest.approx(summed, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda objective: objective.name)
def test_arguments_stay_as_they_are(objective: Objective) -> None:
    reps, log_scale = random_reps(3, 5, 4), torch.tensor(0.3, dtype=torch.float64)
    before = [rep.clone() for rep in reps]
    objective.loss(reps, log_scale, None, None)
    objective.scores(reps[1:], reps[0])
    assert all(torch.equal(rep, old) for rep, old in zip(reps, before, strict=True))
    assert log_scale.item() == pytest.approx(0.3)


def xor_bits(batch: int, seed: int) -> list[Tensor]:
    """Two fair bits and whether they differ, as signs, (B, 1) each: their product is 1 in every row."""
    bits = torch.randint(2, (2, batch, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, b = 2 * bits - 1
    return [a, b, a * b]


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_reaches_the_total_correlation_of_an_xor(seed: int) -> None:
    """No two of the three say anything of each other, all three together ln 2 nats.

    Each anchor has N / 2 candidates as good as its positive, give or take a standard deviation of
    sqrt(N) / 2, so the bound's is under 1 / sqrt(N) = 0.022: more than 4 of these are below 0.09.
    """
    batch = 2048
    generator = torch.Generator().manual_seed(seed)
    loss = symile_loss(xor_bits(batch, seed), torch.tensor(math.log(20.0)), generator=generator).item()
    assert abs(total_correlation_bound(loss, batch) - math.log(2)) < 0.09
    pairwise = clip_loss(xor_bits(batch, seed), torch.tensor(0.0)).item()
    assert math.log(batch) - pairwise < 0.09  # no pair says anything


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.integers(0, 2**32))
def test_the_bound_holds_for_any_scale(log_scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = symile_loss(xor_bits(1024, seed), torch.tensor(log_scale), generator=generator).item()
    assert total_correlation_bound(loss, 1024) < math.log(2) + 0.15  # five standard deviations


def test_the_bound_of_independent_bits_is_not_above_zero() -> None:
    a, b, _ = xor_bits(2048, 0)
    c, _, _ = xor_bits(2048, 1)
    for log_scale in (-2.0, 0.0, 2.0):
        loss = symile_loss([a, b, c], torch.tensor(log_scale), generator=torch.Generator().manual_seed(0)).item()
        assert total_correlation_bound(loss, 2048) < 0.1


@pytest.mark.parametrize("loss", [symile_loss, clip_loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([(4, 3)], "^1 modality given"),
        ([(4, 3), (5, 3)], r"\(B, D\).*\[\(4, 3\), \(5, 3\)\]"),
        ([(4, 3), (4, 3), (4, 2)], r"\(4, 2\)"),
        ([(4,), (4,)], r"\[\(4,\), \(4,\)\]"),
        ([(1, 4, 3), (1, 4, 3)], r"\(1, 4, 3\)"),
    ],
)
def test_wrong_shapes_are_named(loss: Callable[..., Tensor], shapes: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loss([torch.zeros(shape) for shape in shapes], torch.tensor(0.0))


def test_objectives_by_name() -> None:
    assert get_objective("symile").bounds_total_correlation
    assert not get_objective("clip").bounds_total_correlation
    with pytest.raises(UsageError, match=r"^--objective magic: unknown; known: symile, clip$"):
        get_objective("magic")
