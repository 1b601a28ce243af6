"""Users of the `symile` package change one import: same arguments, same loss, same gradients."""

from __future__ import annotations

import subprocess
import sys

import pytest
import symile
import torch
from torch import Tensor

import symile_m3
from symile_m3 import MIPSimilarity, Symile
from symile_m3.objectives import symile_loss


def random_reps(modalities: int, rows: int, dim: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    reps = [torch.randn(rows, dim, generator=generator) for _ in range(modalities)]
    return [torch.nn.functional.layer_norm(rep, (dim,)).requires_grad_() for rep in reps]


def loss_and_gradients(loss: object, reps: list[Tensor], scale: Tensor) -> list[Tensor]:
    value = loss(reps, scale)  # type: ignore[operator]
    return [value.detach(), *torch.autograd.grad(value, [*reps, scale])]


@pytest.mark.parametrize(("modalities", "rows", "dim"), [(3, 2, 8), (3, 16, 32), (3, 64, 128), (4, 7, 16), (5, 4, 8)])
@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_all_combinations_give_the_loss_and_gradients_of_the_package(
    modalities: int, rows: int, dim: int, scale: float
) -> None:
    reps, logit_scale = random_reps(modalities, rows, dim), torch.tensor(scale, requires_grad=True)
    ours = loss_and_gradients(Symile(negative_sampling="n_squared"), reps, logit_scale)
    theirs = loss_and_gradients(symile.Symile(negative_sampling="n_squared"), reps, logit_scale)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() <= 1e-5 * other.norm() + 1e-7


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_shuffled_negatives_have_the_loss_of_the_package_on_average(modalities: int) -> None:
    """Its shuffles now and then rebuild a positive, one candidate in 64 at most."""
    reps, scale = random_reps(modalities, 64, 16), torch.tensor(0.1)
    torch.manual_seed(0)
    ours = torch.stack([Symile()(reps, scale) for _ in range(100)])
    theirs = torch.stack([symile.Symile()(reps, scale) for _ in range(100)])
    assert abs(ours.mean() - theirs.mean()) < 0.02 * theirs.mean()


@pytest.mark.parametrize("queries", [1, 5])
def test_similarities_are_those_of_the_package(queries: int) -> None:
    a, b, candidates = (rep.detach() for rep in random_reps(3, 5, 8))
    expected = symile.MIPSimilarity()(candidates, [a[:queries], b[:queries]])
    torch.testing.assert_close(MIPSimilarity()(candidates, [a[:queries], b[:queries]]), expected)


def test_one_query_may_be_given_as_a_vector() -> None:
    a, b, candidates = (rep.detach() for rep in random_reps(3, 5, 8))
    expected = symile.MIPSimilarity()(candidates, [a[0], b[0]])
    assert expected.shape == (1, 5)
    torch.testing.assert_close(MIPSimilarity()(candidates, [a[0], b[0]]), expected)


def test_the_scale_may_be_a_number() -> None:
    reps = random_reps(3, 6, 4)
    assert torch.equal(Symile("n2")(reps, 0.5), Symile("n_squared")(reps, torch.tensor(0.5)))


def test_the_module_is_the_function() -> None:
    reps, ids = random_reps(3, 8, 4), torch.arange(8) % 3
    observed = [torch.arange(8) != modality for modality in range(3)]
    for negatives in ("n", "n:2", "faces", "n2"):
        module = Symile(negatives, memory_budget=1000)
        given = {"mask_same": ids, "observed": observed}
        mine = module(reps, 0.5, generator=torch.Generator().manual_seed(1), **given)
        expected = symile_loss(
            reps, 0.5, negatives=negatives, generator=torch.Generator().manual_seed(1), memory_budget=1000, **given
        )
        assert torch.equal(mine, expected)


def test_unknown_negatives_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^negatives 'n_cubed': unknown; known: n, n:k"):
        Symile(negative_sampling="n_cubed")


def test_modules_show_what_they_are_and_have_no_parameters() -> None:
    assert repr(Symile("faces")) == "Symile(negative_sampling='faces')"
    assert not list(Symile().parameters())


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'symile_m3' has no attribute 'Simile'"):
        symile_m3.Simile  # noqa: B018


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, symile_m3; assert 'torch' not in sys.modules; symile_m3.Symile; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
