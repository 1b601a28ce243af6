"""Dtypes, autocast and compilation; and that an argument which makes no sense is named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor

from symile_m3.objectives import clip_loss, draw_shuffles, symile_loss

NAMES = ["n", "n:2", "faces", "n2", "clip"]
HALVES = [torch.bfloat16, torch.float16]
BUDGETS = [1, 4096, 2**28]  # bytes: all is computed again for the gradients, some, nothing

short = {"ids": lambda value: str(value).removeprefix("torch.")}


def loss_named(name: str) -> Callable[..., Tensor]:
    return clip_loss if name == "clip" else partial(symile_loss, negatives=name)


def library_loss(name: str, reps: Sequence[Tensor], scale: Tensor | float, memory_budget: int = 2**28) -> Tensor:
    if name == "clip":
        return clip_loss(reps, scale, memory_budget=memory_budget)
    generator = torch.Generator().manual_seed(8)
    return symile_loss(reps, scale, negatives=name, generator=generator, memory_budget=memory_budget)


def random_reps(dtype: torch.dtype = torch.float32, modalities: int = 3, rows: int = 12, dim: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(rows, dim, generator=generator).to(dtype).requires_grad_() for _ in range(modalities)]


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", HALVES, **short)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_before_anything_else(name: str, dtype: torch.dtype) -> None:
    halves = random_reps(dtype)
    wide = [rep.detach().float().requires_grad_() for rep in halves]
    loss, expected = library_loss(name, halves, 0.5), library_loss(name, wide, 0.5)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    gradients = torch.autograd.grad(loss, halves)
    assert [gradient.dtype for gradient in gradients] == [dtype] * 3
    assert_equal(gradients, [gradient.to(dtype) for gradient in torch.autograd.grad(expected, wide)])


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_stays(name: str) -> None:
    reps = random_reps(torch.float64)
    loss = library_loss(name, reps, torch.tensor(0.3))  # a float32 scale does not narrow it
    assert loss.dtype == torch.float64
    assert [gradient.dtype for gradient in torch.autograd.grad(loss, reps)] == [torch.float64] * 3
    narrow = library_loss(name, [rep.detach().float() for rep in reps], 0.3).item()
    assert loss.item() != narrow
    assert loss.item() == pytest.approx(narrow, rel=1e-5)


@pytest.mark.parametrize(
    ("dtypes", "widest"),
    [
        ((torch.bfloat16, torch.float16, torch.bfloat16), torch.float32),
        ((torch.float16, torch.float32, torch.bfloat16), torch.float32),
        ((torch.float32, torch.bfloat16, torch.float64), torch.float64),
    ],
    ids=["halves", "float32", "float64"],
)
@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes_are_widened_to_the_widest(
    name: str, dtypes: tuple[torch.dtype, ...], widest: torch.dtype
) -> None:
    mixed = [rep.detach().to(dtype).requires_grad_() for rep, dtype in zip(random_reps(), dtypes, strict=True)]
    wide = [rep.detach().to(widest).requires_grad_() for rep in mixed]
    loss, expected = library_loss(name, mixed, 0.5), library_loss(name, wide, 0.5)
    assert loss.dtype == widest
    assert torch.equal(loss, expected)
    rounded = [gradient.to(dtype) for gradient, dtype in zip(torch.autograd.grad(expected, wide), dtypes, strict=True)]
    assert_equal(torch.autograd.grad(loss, mixed), rounded)


@pytest.mark.parametrize("name", NAMES)
def test_the_dtype_of_the_scale_does_not_matter(name: str) -> None:
    reps = random_reps()
    expected = library_loss(name, reps, 0.5)
    for dtype in (*HALVES, torch.float32, torch.float64):
        scale = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        loss = library_loss(name, reps, scale)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)
        (gradient,) = torch.autograd.grad(loss, [scale])
        assert gradient.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_products_beyond_half_precision_are_finite(name: str) -> None:
    halves = [(200 * rep.detach()).half().requires_grad_() for rep in random_reps()]
    product = halves[0] * halves[1] * halves[2]
    assert not bool(product.isfinite().all())
    scale = torch.tensor(1e-6, requires_grad=True)
    loss = library_loss(name, halves, scale)
    assert math.isfinite(loss.item())
    expected = library_loss(name, [rep.detach().double() for rep in halves], 1e-6)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, [*halves, scale]))


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], **short)
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str, dtype: torch.dtype, memory_budget: int, inside: bool) -> None:
    reps = random_reps(dtype)
    scale = torch.tensor(0.5, requires_grad=True)
    expected = library_loss(name, reps, scale, memory_budget)
    gradients = torch.autograd.grad(expected, [*reps, scale])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = library_loss(name, reps, scale, memory_budget)
        assert (reps[0] @ reps[1].T).dtype == (torch.float64 if dtype == torch.float64 else torch.bfloat16)
        if inside:
            assert_equal(torch.autograd.grad(loss, [*reps, scale], retain_graph=True), gradients)
    assert torch.equal(loss, expected)
    if not inside:
        assert_equal(torch.autograd.grad(loss, [*reps, scale]), gradients)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("n", False),
        ("faces", True),
        pytest.param("n", True, marks=pytest.mark.slow),
        pytest.param("n:2", False, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_loss_is_the_eager_one(name: str, masked: bool) -> None:
    reps, scale = random_reps(), torch.tensor(0.5, requires_grad=True)
    ids = torch.arange(12) % 5 if masked else None
    observed = [torch.arange(12) % 4 != m for m in range(3)] if masked else None

    def loss(reps: list[Tensor], scale: Tensor, shuffles: Tensor) -> Tensor:
        return symile_loss(reps, scale, negatives=name, shuffles=shuffles, mask_same=ids, observed=observed)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for seed in (8, 9):  # other shuffles are no other graph
        shuffles = draw_shuffles(name, 3, 12, torch.Generator().manual_seed(seed))
        found, expected = compiled(reps, scale, shuffles), loss(reps, scale, shuffles)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(found, [*reps, scale]),
            torch.autograd.grad(expected, [*reps, scale]),
            rtol=1e-5,
            atol=1e-7,
        )


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "name", ["n:2", pytest.param("n", marks=pytest.mark.slow), pytest.param("faces", marks=pytest.mark.slow)]
)
def test_a_compiled_loss_draws_shuffles_of_its_own(name: str) -> None:
    """From the global generator, anew in each step. Three rows have two cycles, so all that it can give are known."""
    reps, scale = random_reps(rows=3), torch.tensor(0.5, requires_grad=True)

    def loss(reps: list[Tensor], scale: Tensor, shuffles: Tensor | None = None) -> Tensor:
        return symile_loss(reps, scale, negatives=name, shuffles=shuffles)

    cycles = [[1, 2, 0], [2, 0, 1]]
    possible = [
        loss(reps, scale, torch.tensor(shuffles)) for shuffles in product(cycles, repeat=len(draw_shuffles(name, 3, 3)))
    ]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    drawn = [compiled(reps, scale) for _ in range(12)]
    assert len({round(value.item(), 4) for value in drawn}) > 1
    for value in drawn:
        expected = min(possible, key=lambda other: abs(other.item() - value.item()))
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad(value, [*reps, scale]),
            torch.autograd.grad(expected, [*reps, scale], retain_graph=True),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_a_scale_that_is_not_finite_is_an_error(name: str, value: float) -> None:
    for scale in (value, torch.tensor(value), torch.tensor([value], dtype=torch.float16), torch.tensor(value).double()):
        with pytest.raises(ValueError, match=f"^scale {value}: a finite number is needed$"):
            loss_named(name)(random_reps(), scale)


@pytest.mark.parametrize("shape", [(2,), (0,), (3, 1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_scale_is_one_number(name: str, shape: tuple[int, ...]) -> None:
    says = f"the scale is one number, not a tensor of shape {shape}"
    with pytest.raises(ValueError, match=re.escape(says)):
        loss_named(name)(random_reps(), torch.ones(shape))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([], "0 modality given"),
        ([(4, 3)], "1 modality given"),
        ([(4, 3), (5, 3)], "[(4, 3), (5, 3)]"),
        ([(4, 3), (4, 3), (4, 2)], "[(4, 3), (4, 3), (4, 2)]"),
        ([(4, 3), (1, 3), (4, 3)], "(1, 3)"),
        ([(4, 3), (4, 3, 1)], "(4, 3, 1)"),
        ([(4,), (4,)], "[(4,), (4,)]"),
        ([(), ()], "[(), ()]"),
        ([(1, 4, 3), (1, 4, 3)], "[(1, 4, 3), (1, 4, 3)]"),
        ([(0, 3), (0, 3), (0, 3)], "(0, 3) are empty"),
        ([(4, 0), (4, 0)], "(4, 0) are empty"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_named(name: str, shapes: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        loss_named(name)([torch.zeros(shape) for shape in shapes], 1.0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], **short)
@pytest.mark.parametrize("name", NAMES)
def test_reps_are_floating_point(name: str, dtype: torch.dtype) -> None:
    reps = [torch.ones(4, 3), torch.ones(4, 3, dtype=dtype), torch.ones(4, 3)]
    with pytest.raises(ValueError, match=f"floating point, not .*'{dtype}'"):
        loss_named(name)(reps, 1.0)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([], "0 masks of what is observed for 3 modalities"),
        ([(12,), (12,)], "2 masks of what is observed for 3 modalities"),
        ([(12,)] * 4, "4 masks of what is observed for 3 modalities"),
        ([(12,), (12,), (11,)], "observed must have one entry for each of the 12 samples, not shape (11,)"),
        ([(12, 1), (12,), (12,)], "observed must have one entry for each of the 12 samples, not shape (12, 1)"),
        ([(12,), (), (12,)], "observed must have one entry for each of the 12 samples, not shape ()"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_masks_of_what_is_observed_are_one_a_modality(name: str, shapes: list[tuple[int, ...]], says: str) -> None:
    masks = [torch.ones(shape, dtype=torch.bool) for shape in shapes]
    with pytest.raises(ValueError, match=re.escape(says)):
        loss_named(name)(random_reps(), 1.0, observed=masks)


@pytest.mark.parametrize("shape", [(11,), (12, 1), (), (3, 12)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_one_a_sample(name: str, shape: tuple[int, ...]) -> None:
    says = f"mask_same must have one entry for each of the 12 samples, not shape {shape}"
    with pytest.raises(ValueError, match=re.escape(says)):
        loss_named(name)(random_reps(), 1.0, mask_same=torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64], **short)
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_integers(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"mask_same must hold integers, not {dtype}"):
        loss_named(name)(random_reps(), 1.0, mask_same=torch.zeros(12, dtype=dtype))
