"""The losses and their gradients against what their definitions say, term by term."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import pytest
import torch
from naive_losses import Reference, naive_loss, with_gradients
from torch import Tensor

from symile_m3.objectives import clip_loss, draw_shuffles, mip, symile_loss

NAMES = ["n", "n:3", "faces", "n2", "clip"]
# Modalities, rows, dimensions.
SHAPES = [(2, 1, 3), (2, 2, 1), (2, 6, 4), (3, 1, 2), (3, 2, 3), (3, 5, 4), (3, 4, 1), (4, 2, 2), (4, 4, 3), (5, 3, 2)]
DTYPES = [torch.float64, torch.float32]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
ABSOLUTE = {torch.float64: 1e-12, torch.float32: 1e-6}  # where the definition gives zero
IDS = {
    "some": [-3, 5, -3, 0, 5, -3],
    "equal": [-7] * 6,
    "distinct": [4, -1, 0, 9, -5, 2],
}
SCALE = 0.75
BUDGETS = [1, 64, 1500, 4096, 2**28]  # bytes

short = {"ids": lambda value: str(value).removeprefix("torch.")}


def random_reps(modalities: int, rows: int, dim: int, seed: int = 0) -> list[Tensor]:
    """Exact in float32, so that one reference serves both dtypes."""
    generator = torch.Generator().manual_seed(seed + 100 * modalities + 10 * rows + dim)
    return [torch.randn(rows, dim, generator=generator).double() for _ in range(modalities)]


def some_observed(modalities: int, rows: int) -> list[Tensor]:
    """Nothing of the second modality, and parts of the others."""
    masks = [torch.tensor([(row + modality) % 3 != 1 for row in range(rows)]) for modality in range(modalities)]
    masks[1][:] = False
    return masks


def shuffles_of(name: str, modalities: int, rows: int) -> Tensor:
    return draw_shuffles("n2" if name == "clip" else name, modalities, rows, torch.Generator().manual_seed(8))


def library_loss(
    name: str,
    reps: Sequence[Tensor],
    scale: Tensor | float,
    observed: Sequence[Tensor] | None = None,
    ids: Tensor | None = None,
    memory_budget: int = 2**28,
) -> Tensor:
    if name == "clip":
        return clip_loss(reps, scale, observed=observed, mask_same=ids, memory_budget=memory_budget)
    return symile_loss(
        reps,
        scale,
        negatives=name,
        observed=observed,
        mask_same=ids,
        shuffles=shuffles_of(name, len(reps), len(reps[0])),
        memory_budget=memory_budget,
    )


def definition(
    name: str,
    reps: Sequence[Tensor],
    scale: float,
    observed: Sequence[Tensor] | None = None,
    ids: Tensor | None = None,
) -> Reference:
    shuffles = shuffles_of(name, len(reps), len(reps[0])).tolist()
    masks = None if observed is None else [mask.tolist() for mask in observed]
    same = None if ids is None else ids.tolist()
    return with_gradients(lambda rows, factor: naive_loss(name, rows, factor, shuffles, masks, same), reps, scale)


@cache
def definition_of_shape(name: str, shape: tuple[int, int, int], masked: bool, ids: str | None) -> Reference:
    modalities, rows, _ = shape
    same = None if ids is None else torch.tensor(IDS[ids][:rows])
    observed = some_observed(modalities, rows) if masked else None
    return definition(name, random_reps(*shape), SCALE, observed, same)


def computed(
    loss: Callable[[list[Tensor], Tensor], Tensor], reps: Sequence[Tensor], scale: float, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor], Tensor]:
    leaves = [rep.to(dtype).requires_grad_() for rep in map(torch.clone, reps)]
    factor = torch.tensor(scale, dtype=dtype, requires_grad=True)
    value = loss(leaves, factor)
    *gradients, factor_gradient = torch.autograd.grad(value, [*leaves, factor])
    return value.detach(), gradients, factor_gradient


def assert_agree(
    found: tuple[Tensor, Sequence[Tensor], Tensor], expected: Reference, tolerance: float, absolute: float
) -> None:
    """Loss and gradients, each within the tolerance of its norm, or absolutely where that is zero."""
    loss, gradients, scale_gradient = found
    pairs = {"loss": (loss, torch.tensor(expected[0], dtype=torch.float64))}
    pairs |= {
        f"gradient of modality {modality}": pair
        for modality, pair in enumerate(zip(gradients, expected[1], strict=True))
    }
    pairs["gradient of the scale"] = (scale_gradient, torch.tensor(expected[2], dtype=torch.float64))
    for what, (value, wanted) in pairs.items():
        assert value.shape == wanted.shape, what
        error, norm = (value.double() - wanted).norm().item(), wanted.norm().item()
        assert error < (absolute if norm < 1e-12 else tolerance * norm), f"{what}: {value} is not {wanted}"


@pytest.mark.parametrize("ids", [None, *IDS])
@pytest.mark.parametrize("masked", [False, True], ids=["complete", "masked"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_and_its_gradients_are_their_definition(
    name: str, shape: tuple[int, int, int], masked: bool, ids: str | None
) -> None:
    modalities, rows, _ = shape
    same = None if ids is None else torch.tensor(IDS[ids][:rows])
    observed = some_observed(modalities, rows) if masked else None
    expected = definition_of_shape(name, shape, masked, ids)
    for dtype in DTYPES:
        found = computed(
            lambda reps, scale: library_loss(name, reps, scale, observed, same), random_reps(*shape), SCALE, dtype
        )
        assert found[0].dtype == dtype
        assert found[0].shape == ()
        assert_agree(found, expected, TOLERANCE[dtype], ABSOLUTE[dtype])


def test_the_losses_of_two_rows_by_hand() -> None:
    """Three modalities of one dimension: a = 1, 2; b = 1, -1; c = 3, 1. Positives 1*1*3 = 3 and 2*-1*1 = -2."""
    reps = [torch.tensor(values, dtype=torch.float64)[:, None] for values in ([1, 2], [1, -1], [3, 1])]

    def entropy(positive: float, *negatives: float) -> float:
        return math.log(math.exp(positive) + sum(math.exp(negative) for negative in negatives)) - positive

    # Anchors a, b and c, first and second row: the first other modality is varied, the second follows to the anchor's.
    n = [entropy(3, -3), entropy(-2, 2), entropy(3, 6), entropy(-2, -1), entropy(3, 6), entropy(-2, -1)]
    faces = [
        entropy(3, -3, 1, -3),  # a1: b2 c1, b1 c2, and b2 c1 as in n
        entropy(-2, 2, -6, 2),  # a2: b1 c2, b2 c1, b1 c2
        entropy(3, 6, 1, 6),  # b1: a2 c1, a1 c2, a2 c1
        entropy(-2, -1, -6, -1),  # b2: a1 c2, a2 c1, a1 c2
        entropy(3, 6, -3, 6),  # c1: a2 b1, a1 b2, a2 b1
        entropy(-2, -1, 2, -1),  # c2: a1 b2, a2 b1, a1 b2
    ]
    n2 = [
        entropy(3, -3, 1, -1),  # a1: b2 c1, b1 c2, b2 c2
        entropy(-2, 2, -6, 6),  # a2: b1 c2, b2 c1, b1 c1
        entropy(3, 6, 1, 2),  # b1: a2 c1, a1 c2, a2 c2
        entropy(-2, -1, -6, -3),  # b2: a1 c2, a2 c1, a1 c1
        entropy(3, 6, -3, -6),  # c1: a2 b1, a1 b2, a2 b2
        entropy(-2, -1, 2, 1),  # c2: a1 b2, a2 b1, a1 b1
    ]
    for name, losses in {"n": n, "faces": faces, "n2": n2}.items():
        assert symile_loss(reps, 1.0, negatives=name).item() == pytest.approx(sum(losses) / 6, rel=1e-12), name
    # Cosines of numbers are their signs: a++, b+-, c++. Pairs ab, ba, ac, ca, bc, cb.
    ab = [entropy(1, -1), entropy(-1, 1)]
    ba = [entropy(1, 1), entropy(-1, -1)]
    equal = 2 * [math.log(2)]
    clip = sum([*ab, *ba, *equal, *equal, *ba, *ab]) / 12
    assert clip_loss(reps, 1.0).item() == pytest.approx(clip, rel=1e-12)


def test_mip_sums_the_products_and_broadcasts() -> None:
    a, b, c = (torch.tensor(values) for values in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    assert mip([a, b, c]).item() == 1 * 3 * 5 + 2 * 4 * 6
    grid = mip([torch.arange(8.0).reshape(4, 1, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])])
    assert grid.tolist() == [[0, 1, 1], [2, 3, 5], [4, 5, 9], [6, 7, 13]]


@pytest.mark.parametrize("memory_budget", [1, 2**28])
@pytest.mark.parametrize("masked", [False, True], ids=["complete", "masked"])
@pytest.mark.parametrize("shape", [(2, 3, 2), (3, 3, 2), (4, 3, 1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(
    name: str, shape: tuple[int, int, int], masked: bool, memory_budget: int
) -> None:
    reps = [rep.requires_grad_() for rep in random_reps(*shape)]
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    observed = [torch.tensor([True, False, True]) for _ in reps] if masked else None
    ids = torch.tensor([5, -2, 5]) if masked else None

    def loss(scale: Tensor, *reps: Tensor) -> Tensor:
        return library_loss(name, reps, scale, observed, ids, memory_budget)

    assert torch.autograd.gradcheck(loss, (scale, *reps))


@pytest.mark.parametrize("name", NAMES)
def test_masks_that_leave_nothing_out_change_nothing(name: str) -> None:
    reps = random_reps(3, 5, 4)
    loss = library_loss(name, reps, SCALE)
    everything = [torch.ones(5, dtype=torch.bool)] * 3
    torch.testing.assert_close(library_loss(name, reps, SCALE, observed=everything), loss, rtol=1e-14, atol=0)
    torch.testing.assert_close(library_loss(name, reps, SCALE, ids=torch.arange(5)), loss, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_observed_is_no_loss_and_no_gradient(name: str) -> None:
    nothing = [torch.zeros(4, dtype=torch.bool)] * 3
    loss, gradients, scale_gradient = computed(
        lambda reps, scale: library_loss(name, reps, scale, nothing), random_reps(3, 4, 2), SCALE, torch.float64
    )
    assert [loss.item(), scale_gradient.item(), *(rep.abs().max().item() for rep in gradients)] == [0] * 5


@pytest.mark.parametrize("name", NAMES)
def test_ids_may_be_the_least_and_the_greatest_integers(name: str) -> None:
    limits = torch.iinfo(torch.int64)
    ids = torch.tensor([limits.max, limits.min, limits.max, 0, limits.min])
    reps = random_reps(3, 5, 4)
    found = computed(lambda reps, scale: library_loss(name, reps, scale, ids=ids), reps, SCALE, torch.float64)
    assert_agree(found, definition(name, reps, SCALE, ids=ids), 1e-10, 1e-12)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.uint8, torch.bool], **short)
@pytest.mark.parametrize("name", NAMES)
def test_ids_may_be_of_any_integer_dtype(name: str, dtype: torch.dtype) -> None:
    reps, ids = random_reps(3, 5, 4), torch.tensor([1, 0, 1, 1, 0])
    assert torch.equal(
        library_loss(name, reps, SCALE, ids=ids.to(dtype)),
        library_loss(name, reps, SCALE, ids=ids),
    )


@pytest.mark.parametrize("scale", [0.0, -1.25])
@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 4, 3), (4, 3, 2)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_scale_may_be_zero_or_negative(name: str, shape: tuple[int, int, int], scale: float) -> None:
    reps = random_reps(*shape)
    found = computed(lambda reps, scale: library_loss(name, reps, scale), reps, scale, torch.float64)
    assert_agree(found, definition(name, reps, scale), 1e-10, 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_may_be_a_number_or_a_tensor_of_one(name: str) -> None:
    reps = random_reps(3, 5, 4)
    loss = library_loss(name, reps, torch.tensor(SCALE, dtype=torch.float64))
    assert torch.equal(library_loss(name, reps, SCALE), loss)
    scale = torch.full((1, 1), SCALE, requires_grad=True)  # float32
    assert torch.equal(library_loss(name, reps, scale), loss)
    library_loss(name, reps, scale).backward()
    assert scale.grad is not None
    _, _, expected = definition_of_shape(name, (3, 5, 4), False, None)
    assert scale.grad.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ids", [None, "some"])
@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 5, 4), (4, 4, 3), (5, 3, 2)], ids=str)
@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_memory_budget_changes_neither_loss_nor_gradients(
    name: str, memory_budget: int, shape: tuple[int, int, int], ids: str | None
) -> None:
    same = None if ids is None else torch.tensor(IDS[ids][: shape[1]])
    for masked in (False, True):
        observed = some_observed(*shape[:2]) if masked else None
        found = computed(
            lambda reps, scale, observed=observed: library_loss(name, reps, scale, observed, same, memory_budget),
            random_reps(*shape),
            SCALE,
            torch.float64,
        )
        assert_agree(found, definition_of_shape(name, shape, masked, ids), 1e-10, 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_budgets_that_keep_all_part_or_none_of_a_larger_batch_agree(name: str) -> None:
    reps, ids = random_reps(3, 23, 5), torch.arange(23) % 7

    def found(memory_budget: int) -> tuple[Tensor, list[Tensor], Tensor]:
        return computed(
            lambda reps, scale: library_loss(name, reps, scale, ids=ids, memory_budget=memory_budget),
            reps,
            SCALE,
            torch.float64,
        )

    loss, gradients, scale_gradient = found(2**28)
    expected = loss.item(), gradients, scale_gradient.item()
    for memory_budget in (1, 3000, 20_000, 60_000, 150_000):  # the cube has 97 kB, a block of rows 4 kB
        assert_agree(found(memory_budget), expected, 1e-12, 1e-14)


@pytest.mark.parametrize(
    ("name", "cells"), [("n", 3 * 23**2), ("n:3", 9 * 23**2), ("faces", 6 * 23**2), ("n2", 23**3), ("clip", 3 * 23**2)]
)
def test_no_more_is_kept_for_the_gradients_than_the_memory_budget(name: str, cells: int) -> None:
    def saved_bytes(memory_budget: int) -> int:
        saved: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.numel() * tensor.element_size())
            return tensor

        reps = [rep.requires_grad_() for rep in random_reps(3, 23, 5)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            library_loss(name, reps, SCALE, memory_budget=memory_budget)
        return sum(saved)

    arguments = saved_bytes(1)
    kept = {budget: saved_bytes(budget) - arguments for budget in (500, 20_000, 60_000, 150_000, 2**28)}
    assert all(0 <= size <= budget for budget, size in kept.items())
    assert kept[2**28] == 8 * cells
    assert any(0 < size < 8 * cells for size in kept.values())


def far_apart(modalities: int, rows: int, dim: int, span: float) -> tuple[list[Tensor], float]:
    """Reps of which all MIPs are integers, and a scale that is a power of two such that logits lie so far apart."""
    generator = torch.Generator().manual_seed(modalities + rows)
    reps = [torch.randint(-4, 5, (rows, dim), generator=generator).double() for _ in range(modalities)]
    logits = [
        sum(math.prod(rep[row][d].item() for rep, row in zip(reps, combination, strict=True)) for d in range(dim))
        for combination in product(range(rows), repeat=modalities)
    ]
    return reps, 2.0 ** math.ceil(math.log2(span / (max(logits) - min(logits))))


@pytest.mark.parametrize("span", [60, 300, 600, 3000])
@pytest.mark.parametrize("ids", [None, "some", "equal"])
@pytest.mark.parametrize("dtype", DTYPES, **short)
@pytest.mark.parametrize("shape", [(2, 5, 3), (3, 4, 3), (4, 3, 2)], ids=str)
@pytest.mark.parametrize("name", ["n", "faces", "n2"])
def test_logits_may_lie_far_apart(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, ids: str | None, span: float
) -> None:
    """Exponentials of float32 overflow from 89 on, those of float64 from 710 on.

    The logits are exact in both; their log-sum-exps, up to 6000, round to a 1e-7th of that in float32.
    """
    reps, scale = far_apart(*shape, span)
    same = None if ids is None else torch.tensor(IDS[ids][: shape[1]])
    tolerance = max(TOLERANCE[dtype], 2 * torch.finfo(dtype).eps * span)
    for budget in (1, 2**28):
        found = computed(
            lambda reps, scale, budget=budget: library_loss(name, reps, scale, ids=same, memory_budget=budget),
            reps,
            scale,
            dtype,
        )
        assert_agree(found, far_apart_definition(name, shape, ids, span), tolerance, tolerance)


@pytest.mark.parametrize("dtype", DTYPES, **short)
@pytest.mark.parametrize("memory_budget", [1, 2**28])
@pytest.mark.parametrize("name", ["n", "faces", "n2"])
def test_gradients_of_a_loss_that_is_scaled_up_do_not_overflow(
    name: str, memory_budget: int, dtype: torch.dtype
) -> None:
    """As a gradient scaler does; here with logits nearly as far apart as an exponential reaches."""
    reps = [torch.tensor([[1.0, 0.0], [0.0, 0.25]], dtype=torch.float64) for _ in range(3)]
    scale, factor = 0.875 * math.log(torch.finfo(dtype).max), 2.0**30
    found = computed(
        lambda reps, scale: factor * library_loss(name, reps, scale, memory_budget=memory_budget), reps, scale, dtype
    )
    loss, gradients, scale_gradient = definition(name, reps, scale)
    expected = factor * loss, [factor * gradient for gradient in gradients], factor * scale_gradient
    assert_agree(found, expected, 100 * TOLERANCE[dtype], 0)


@cache
def far_apart_definition(name: str, shape: tuple[int, int, int], ids: str | None, span: float) -> Reference:
    reps, scale = far_apart(*shape, span)
    return definition(name, reps, scale, ids=None if ids is None else torch.tensor(IDS[ids][: shape[1]]))


@pytest.mark.parametrize("dtype", DTYPES, **short)
@pytest.mark.parametrize("distance", [60.0, 500.0, 5000.0])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_may_be_far_above_the_rest(name: str, distance: float, dtype: torch.dtype) -> None:
    """Row 0 of the first modality goes with row 1 of the others, which is of the same id, and not with its own."""
    reps = random_reps(3, 5, 3)
    if name == "clip":
        reps[1][1] = reps[2][1] = reps[0][0]
        scale = distance
    else:
        for rep in reps:
            rep[:, 0] = 0
        reps[0][0, 0], reps[1][1, 0], reps[2][:2, 0] = distance, 1, 1
        scale = 1.0
    ids = torch.tensor([-1, -1, 2, 3, 4])
    found = computed(lambda reps, scale: library_loss(name, reps, scale, ids=ids), reps, scale, dtype)
    tolerance = max(TOLERANCE[dtype], 2 * torch.finfo(dtype).eps * distance)
    assert_agree(found, definition(name, reps, scale, ids=ids), tolerance, tolerance)


@pytest.mark.parametrize("dtype", DTYPES, **short)
@pytest.mark.parametrize("name", NAMES)
def test_the_scale_may_be_in_the_thousands(name: str, dtype: torch.dtype) -> None:
    found = computed(lambda reps, scale: library_loss(name, reps, scale), random_reps(3, 5, 4), 3000.0, dtype)
    tolerance = max(TOLERANCE[dtype], 20 * torch.finfo(dtype).eps * 3000)  # logits are rounded at their size
    assert_agree(found, definition(name, random_reps(3, 5, 4), 3000.0), tolerance, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_reps_need_not_be_contiguous(name: str) -> None:
    _, rows, dim = shape = (3, 5, 4)
    reps = random_reps(*shape)
    transposed = reps[0].T.contiguous().T
    every_other = torch.zeros(2 * rows, 2 * dim, dtype=torch.float64)[::2, 1::2]
    every_other.copy_(reps[1])
    views = [transposed, every_other, reps[2]]
    assert [view.is_contiguous() for view in views] == [False, False, True]
    leaves = [view.requires_grad_() for view in views]
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    for memory_budget in (1, 2**28):
        loss = library_loss(name, leaves, scale, memory_budget=memory_budget)
        *gradients, scale_gradient = torch.autograd.grad(loss, [*leaves, scale])
        expected = definition_of_shape(name, shape, False, None)
        assert_agree((loss.detach(), gradients, scale_gradient), expected, 1e-10, 1e-12)


@pytest.mark.parametrize("modality", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_a_modality_may_be_one_embedding_for_all_rows(name: str, modality: int) -> None:
    """An expanded tensor, whose rows share their memory."""
    reps = random_reps(3, 5, 4)
    embedding = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64, requires_grad=True)
    reps[modality] = embedding.expand(5, 4)
    loss = library_loss(name, reps, SCALE)
    (gradient,) = torch.autograd.grad(loss, [embedding])
    expected, gradients, _ = definition(name, [rep.detach() for rep in reps], SCALE)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(gradient, gradients[modality].sum(dim=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_tensor_may_be_two_modalities(name: str) -> None:
    a, b = random_reps(2, 5, 4)
    expected, gradients, _ = definition(name, [a, b, a], SCALE)
    a.requires_grad_()
    loss = library_loss(name, [a, b, a], SCALE)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert a.grad is not None
    torch.testing.assert_close(a.grad, gradients[0] + gradients[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory_budget", [1, 2**28])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_stay_as_they_are(name: str, memory_budget: int) -> None:
    reps = [rep.requires_grad_() for rep in random_reps(3, 5, 4)]
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    observed, ids = some_observed(3, 5), torch.tensor(IDS["some"][:5])
    arguments = [*reps, scale, *observed, ids]
    before = [argument.detach().clone() for argument in arguments]
    library_loss(name, reps, scale, observed, ids, memory_budget).backward()
    assert all(torch.equal(argument, old) for argument, old in zip(arguments, before, strict=True))


@pytest.mark.parametrize("memory_budget", BUDGETS)
@pytest.mark.parametrize("name", NAMES)
def test_going_backward_twice_gives_the_same_gradients(name: str, memory_budget: int) -> None:
    leaves = [rep.requires_grad_() for rep in random_reps(3, 5, 4)]
    loss = library_loss(name, leaves, SCALE, memory_budget=memory_budget)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("memory_budget", [1, 2**28])
@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_are_refused_and_not_wrong(name: str, memory_budget: int) -> None:
    leaves = [rep.requires_grad_() for rep in random_reps(3, 5, 4)]
    loss = library_loss(name, leaves, SCALE, memory_budget=memory_budget)
    with pytest.raises(RuntimeError, match="twice"):  # noqa: PT012, either may say so
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaves)


@pytest.mark.parametrize("factor", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_what_the_loss_is_part_of(name: str, factor: float) -> None:
    found = computed(
        lambda reps, scale: factor * library_loss(name, reps, scale), random_reps(3, 5, 4), SCALE, torch.float64
    )
    loss, gradients, scale_gradient = definition_of_shape(name, (3, 5, 4), False, None)
    expected = factor * loss, [factor * gradient for gradient in gradients], factor * scale_gradient
    assert_agree(found, expected, 1e-10, 1e-12)


@pytest.mark.parametrize("frozen", range(3))
@pytest.mark.parametrize("memory_budget", [1, 2**28])
@pytest.mark.parametrize("name", NAMES)
def test_a_modality_may_be_frozen(name: str, memory_budget: int, frozen: int) -> None:
    reps = random_reps(3, 5, 4)
    for modality, rep in enumerate(reps):
        rep.requires_grad_(modality != frozen)
    loss = library_loss(name, reps, SCALE, memory_budget=memory_budget)
    loss.backward()
    _, gradients, _ = definition_of_shape(name, (3, 5, 4), False, None)
    for modality, (rep, expected) in enumerate(zip(reps, gradients, strict=True)):
        if modality == frozen:
            assert rep.grad is None
        else:
            assert rep.grad is not None
            torch.testing.assert_close(rep.grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_scale_may_need_a_gradient(name: str) -> None:
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    library_loss(name, random_reps(3, 5, 4), scale).backward()
    assert scale.grad is not None
    _, _, expected = definition_of_shape(name, (3, 5, 4), False, None)
    assert scale.grad.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_needs_no_graph(name: str) -> None:
    reps = random_reps(3, 5, 4)
    expected, *_ = definition_of_shape(name, (3, 5, 4), False, None)
    assert not library_loss(name, reps, SCALE).requires_grad
    with torch.inference_mode():
        assert library_loss(name, reps, SCALE).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("negatives", ["n", "n:3", "faces", "n2"])
@pytest.mark.parametrize("ids", [None, "some"])
def test_with_two_unit_modalities_every_symile_is_clip(negatives: str, ids: str | None) -> None:
    same = None if ids is None else torch.tensor(IDS[ids])
    observed = [torch.tensor([True] * 4 + [False] * 2), torch.tensor([False, True] * 3)]
    units = [rep / rep.norm(dim=1, keepdim=True) for rep in random_reps(2, 6, 4)]
    symile = symile_loss(units, 3.0, negatives=negatives, observed=observed, mask_same=same)
    clip = clip_loss([7.0 * units[0], 0.1 * units[1]], 3.0, observed=observed, mask_same=same)
    torch.testing.assert_close(symile, clip, rtol=1e-13, atol=0)


def test_with_two_modalities_symile_is_infonce_of_the_products() -> None:
    a, b = random_reps(2, 6, 3)
    labels = torch.arange(6)
    both = [torch.nn.functional.cross_entropy(logits, labels) for logits in (a @ b.T, b @ a.T)]
    torch.testing.assert_close(symile_loss([a, b], 1.0), torch.stack(both).mean())


@pytest.mark.parametrize("name", NAMES)
def test_alike_rows_give_the_logarithm_of_the_number_of_candidates(name: str) -> None:
    reps = [torch.full((4, 2), 1.5, dtype=torch.float64)] * 3
    negatives = {"n": 3, "n:3": 9, "faces": 9, "n2": 15, "clip": 3}[name]
    assert library_loss(name, reps, SCALE).item() == pytest.approx(math.log(negatives + 1), rel=1e-12)
