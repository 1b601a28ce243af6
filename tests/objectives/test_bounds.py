"""What the loss says of total correlation, on cases where that is known."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symile_m3.objectives import (
    bounds_total_correlation,
    clip_loss,
    draw_shuffles,
    symile_loss,
    total_correlation_bound,
)


def xor_bits(batch: int, seed: int) -> list[Tensor]:
    """Two fair bits and whether they differ, as signs, (B, 1) each: their product is 1 in every row."""
    bits = torch.randint(2, (2, batch, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a, b = 2 * bits - 1
    return [a, b, a * b]


def one_hot(values: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(values, classes).double()


def gaussians(batch: int, covariance: Tensor, seed: int) -> list[Tensor]:
    """Three normal variables as representations whose MIP is their log density ratio, up to a constant.

    The ratio of the joint density to the product of the marginals is exp of a quadratic form, with one term for
    each of the three squares and the three pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
    x, y, z = (noise @ torch.linalg.cholesky(covariance).T).unbind(dim=1)
    form = -0.5 * (torch.linalg.inv(covariance) - torch.diag(1 / covariance.diagonal()))
    one = torch.ones_like(x)
    return [
        torch.stack([form[0, 0] * x * x, one, one, 2 * form[0, 1] * x, 2 * form[0, 2] * x, one], dim=1),
        torch.stack([one, form[1, 1] * y * y, one, y, one, 2 * form[1, 2] * y], dim=1),
        torch.stack([one, one, form[2, 2] * z * z, one, z, z], dim=1),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_reaches_the_total_correlation_of_an_xor(seed: int) -> None:
    """No two of the three say anything of each other, all three together ln 2 nats.

    Each anchor has N / 2 candidates as good as its positive, give or take a standard deviation of
    sqrt(N) / 2, so the bound's is under 1 / sqrt(N) = 0.022: more than 4 of these are below 0.09.
    """
    batch = 2048
    generator = torch.Generator().manual_seed(seed)
    loss = symile_loss(xor_bits(batch, seed), 20.0, generator=generator).item()
    assert abs(total_correlation_bound(loss, batch) - math.log(2)) < 0.09
    pairwise = clip_loss(xor_bits(batch, seed), 1.0).item()
    assert math.log(batch) - pairwise < 0.09  # no pair says anything


@pytest.mark.parametrize("log_scale", [-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
def test_the_expected_bound_of_three_samples_is_below_the_total_correlation_exactly(log_scale: float) -> None:
    """The expectation over all 64 batches of an XOR and all shuffles, without sampling."""
    losses = []
    for values in product((-1.0, 1.0), repeat=6):
        a, b = torch.tensor(values, dtype=torch.float64).view(2, 3, 1)
        for succession in ((1, 2, 0), (2, 0, 1)):  # every anchor's shuffle has the same distribution
            shuffles = torch.tensor([succession] * 3)
            losses.append(symile_loss([a, b, a * b], math.exp(log_scale), shuffles=shuffles).item())
    assert total_correlation_bound(sum(losses) / len(losses), 3) <= math.log(2)
    assert max(losses) > min(losses)


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.8])
def test_the_bound_of_gaussians_is_close_below_their_total_correlation(correlation: float) -> None:
    covariance = torch.full((3, 3), correlation, dtype=torch.float64).fill_diagonal_(1.0)
    exact = -0.5 * torch.linalg.det(covariance).log().item()
    bounds = []
    for seed in range(8):
        reps = gaussians(2048, covariance, seed)
        loss = symile_loss(reps, 1.0, generator=torch.Generator().manual_seed(seed)).item()
        bounds.append(total_correlation_bound(loss, 2048))
    mean = sum(bounds) / len(bounds)
    error = (sum((bound - mean) ** 2 for bound in bounds) / (len(bounds) * (len(bounds) - 1))) ** 0.5
    assert error < 0.02
    assert exact - 0.1 < mean < exact + 4 * error


def test_a_wrong_critic_gives_a_lower_bound() -> None:
    covariance = torch.full((3, 3), 0.6, dtype=torch.float64).fill_diagonal_(1.0)
    bounds = []
    for scale in (1.0, 0.3, 2.0):
        loss = symile_loss(gaussians(1024, covariance, 0), scale, generator=torch.Generator().manual_seed(0)).item()
        bounds.append(total_correlation_bound(loss, 1024))
    assert bounds[0] > max(bounds[1:]) + 0.05


@pytest.mark.parametrize("modalities", [4, 5])
def test_the_bound_reaches_the_total_correlation_of_a_parity(modalities: int) -> None:
    """M bits of which any M - 1 are independent and all together have ln 2 nats."""
    batch = 2048
    bits = 2 * torch.randint(2, (modalities - 1, batch, 1), generator=torch.Generator().manual_seed(0)).double() - 1
    loss = symile_loss([*bits, bits.prod(dim=0)], 20.0, generator=torch.Generator().manual_seed(0)).item()
    assert abs(total_correlation_bound(loss, batch, modalities=modalities) - math.log(2)) < 0.09


def test_with_two_modalities_every_kind_of_negatives_bounds_the_mutual_information() -> None:
    values = torch.randint(8, (1024,), generator=torch.Generator().manual_seed(0))
    reps = [one_hot(values, 8), one_hot(values, 8)]
    for negatives in ("n", "n:3", "faces", "n2"):
        loss = symile_loss(reps, 20.0, negatives=negatives).item()
        bound = total_correlation_bound(loss, 1024, modalities=2, negatives=negatives)
        assert abs(bound - math.log(8)) < 0.05


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.integers(0, 2**32))
def test_the_bound_holds_for_any_scale(log_scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = symile_loss(xor_bits(1024, seed), math.exp(log_scale), generator=generator).item()
    assert total_correlation_bound(loss, 1024) < math.log(2) + 0.15  # five standard deviations


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_the_bound_of_independent_bits_is_not_above_zero(scale: float) -> None:
    a, b, _ = xor_bits(2048, 0)
    c, _, _ = xor_bits(2048, 1)
    loss = symile_loss([a, b, c], scale, generator=torch.Generator().manual_seed(0)).item()
    assert total_correlation_bound(loss, 2048) < 0.1


def test_with_many_shuffles_the_logarithm_of_their_number_would_exceed_the_total_correlation() -> None:
    """x = y of 1,024 values and z nothing: ln 1,024 nats, of which 512 rows and 16 shuffles would make more."""
    values, batch, shuffles = 1024, 512, 16
    x = one_hot(torch.randint(values, (batch,), generator=torch.Generator().manual_seed(0)), values)
    reps = [x, x, torch.ones_like(x)]
    generator = torch.Generator().manual_seed(0)
    drawn = draw_shuffles(f"n:{shuffles}", 3, batch, generator)
    # Modality by modality: the mean over the anchors hides it, since an anchor z is told nothing by x and y.
    loss = _anchor_loss(reps, drawn, shuffles)
    assert math.log(shuffles * (batch - 1) + 1) - loss > math.log(values) + 0.3
    assert math.log(batch - 1) - loss < math.log(values)


def _anchor_loss(reps: list[Tensor], drawn: Tensor, shuffles: int) -> float:
    nothing = torch.zeros(len(reps[0]), dtype=torch.bool)
    observed = [~nothing, nothing, nothing]
    return 3 * symile_loss(reps, 50.0, negatives=f"n:{shuffles}", shuffles=drawn, observed=observed).item()


@pytest.mark.parametrize("negatives", ["n:2", "faces", "n2"])
def test_negatives_without_a_bound_say_so(negatives: str) -> None:
    assert not bounds_total_correlation(negatives)
    assert bounds_total_correlation("n")
    with pytest.raises(ValueError, match=rf"^negatives '{negatives}' of 3 modalities give no bound"):
        total_correlation_bound(1.0, 64, negatives=negatives)


def test_the_weaker_bound_that_holds_for_all_negatives() -> None:
    """They include those of `n`, and more candidates only raise the loss."""
    reps = xor_bits(256, 3)
    bound = total_correlation_bound(symile_loss(reps, 20.0, generator=torch.Generator().manual_seed(0)).item(), 256)
    for negatives in ("n:2", "faces", "n2"):
        loss = symile_loss(reps, 20.0, negatives=negatives, generator=torch.Generator().manual_seed(0)).item()
        assert math.log(255) - loss < bound + 0.02


@pytest.mark.parametrize(("batch", "modalities"), [(2, 3), (5, 1), (0, 2)])
def test_a_batch_smaller_than_the_modalities_gives_none(batch: int, modalities: int) -> None:
    with pytest.raises(ValueError, match=f"^{modalities} modalities and {batch} rows"):
        total_correlation_bound(1.0, batch, modalities=modalities)
