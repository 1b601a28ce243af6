"""The objectives that Symile is compared with, and their gradients, against what their definitions say."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from naive_losses import Rep
from rival_cases import NAMES, SIGMOIDS, cases, definition, head_of, library_loss, random_reps
from torch import Tensor

from symile_m3.objectives import (
    clip_loss,
    confu_loss,
    gated_loss,
    gated_scores,
    gram_loss,
    sigmoid_loss,
    soft_loss,
    symile_loss,
    symile_scores,
    triangle_loss,
)
from symile_m3.objectives.confu import new_fusions
from symile_m3.objectives.gram import volumes
from symile_m3.objectives.triangle import areas

Gradients = tuple[float, list[Tensor], float, dict[str, Tensor]]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # small volumes are differences of numbers near 1
ABSOLUTE = {torch.float64: 1e-12, torch.float32: 1e-5}  # where the definition gives zero
SCALE = 0.75
IDS = [-3, 5, -3, 0]
BUDGETS = [1, 3000, 2**28]

short = {"ids": lambda value: str(value).removeprefix("torch.")}
every_case = pytest.mark.parametrize(("name", "shape"), cases(), ids=str)


def some_observed(modalities: int, rows: int) -> list[Tensor]:
    """Nothing of the second modality, and parts of the others."""
    masks = [torch.tensor([(row + modality) % 3 != 1 for row in range(rows)]) for modality in range(modalities)]
    masks[1][:] = False
    return masks


def options_of(shape: tuple[int, int, int], variant: str) -> dict[str, object]:
    modalities, rows, _ = shape
    return {
        "observed": some_observed(modalities, rows) if variant in ("observed", "both") else None,
        "ids": torch.tensor(IDS[:rows]) if variant in ("ids", "both") else None,
    }


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@cache
def expected(name: str, shape: tuple[int, int, int], variant: str) -> Gradients:
    reps: list[Rep] = [
        [[torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in row] for row in rep.tolist()]
        for rep in random_reps(*shape)
    ]
    factor = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    head = {key: value.requires_grad_() for key, value in head_of(name, shape[0], shape[2]).items()}
    value = definition(name, reps, factor, head, **options_of(shape, variant))  # type: ignore[arg-type]
    numbers = [x for rep in reps for row in rep for x in row]
    if not value.requires_grad:  # nothing is observed
        value = value + 0 * factor
    found = torch.autograd.grad(value, [factor, *head.values(), *numbers], allow_unused=True, materialize_grads=True)
    gradients = torch.stack(found[1 + len(head) :]).view(shape)
    return value.item(), list(gradients), found[0].item(), dict(zip(head, found[1 : 1 + len(head)], strict=True))


def computed(
    name: str, shape: tuple[int, int, int], variant: str, dtype: torch.dtype, memory_budget: int
) -> tuple[Tensor, list[Tensor], Tensor, dict[str, Tensor]]:
    reps = [rep.to(dtype).requires_grad_() for rep in random_reps(*shape)]
    factor = torch.tensor(SCALE, dtype=dtype, requires_grad=True)
    head = {key: value.to(dtype).requires_grad_() for key, value in head_of(name, shape[0], shape[2]).items()}
    loss = library_loss(name, reps, factor, head, memory_budget=memory_budget, **options_of(shape, variant))  # type: ignore[arg-type]
    found = torch.autograd.grad(loss, [*reps, factor, *head.values()], allow_unused=True, materialize_grads=True)
    return (
        loss.detach(),
        list(found[: len(reps)]),
        found[len(reps)],
        dict(zip(head, found[len(reps) + 1 :], strict=True)),
    )


@pytest.mark.parametrize("variant", ["complete", "observed", "ids", "both"])
@every_case
def test_a_loss_and_its_gradients_are_their_definition(name: str, shape: tuple[int, int, int], variant: str) -> None:
    loss, rep_gradients, scale_gradient, head_gradients = expected(name, shape, variant)
    for dtype, memory_budget in [(torch.float64, budget) for budget in BUDGETS] + [(torch.float32, 2**28)]:
        found = computed(name, shape, variant, dtype, memory_budget)
        assert found[0].shape == ()
        assert found[0].dtype == dtype
        pairs = {"loss": (found[0], _number(loss)), "scale": (found[2], _number(scale_gradient))}
        pairs |= {f"modality {m}": pair for m, pair in enumerate(zip(found[1], rep_gradients, strict=True))}
        pairs |= {key: (found[3][key], gradient) for key, gradient in head_gradients.items()}
        assert list(found[3]) == list(head_gradients)
        for what, (value, wanted) in pairs.items():
            error, norm = (value.double() - wanted).norm().item(), wanted.norm().item()
            limit = max(ABSOLUTE[dtype], TOLERANCE[dtype] * norm)
            assert error < limit, f"{what}, {dtype}, {memory_budget} bytes: {value} is not {wanted}"


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    reps = [rep.requires_grad_() for rep in random_reps(3, 3, 4)]
    head = {key: value.requires_grad_() for key, value in head_of(name, 3, 4).items()}
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)

    def loss(scale: Tensor, *tensors: Tensor) -> Tensor:
        return library_loss(name, tensors[:3], scale, dict(zip(head, tensors[3:], strict=True)))

    assert torch.autograd.gradcheck(loss, (scale, *reps, *head.values()))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_observed_is_no_loss_and_no_gradient(name: str) -> None:
    reps = [rep.requires_grad_() for rep in random_reps(3, 4, 3)]
    loss = library_loss(name, reps, SCALE, observed=[torch.zeros(4, dtype=torch.bool)] * 3)
    gradients = torch.autograd.grad(loss, reps)
    assert [loss.item(), *(gradient.abs().max().item() for gradient in gradients)] == [0] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], **short)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_and_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    halves = [rep.to(dtype).requires_grad_() for rep in random_reps(3, 12, 16)]
    wide = [rep.detach().float().requires_grad_() for rep in halves]
    head = {key: value.float() for key, value in head_of(name, 3, 16).items()}
    loss = library_loss(name, wide, 0.5, head)
    gradients = [gradient.to(dtype) for gradient in torch.autograd.grad(loss, wide)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = library_loss(name, halves, 0.5, head)
        inside = torch.autograd.grad(found, halves)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss)
    assert all(torch.equal(one, other) for one, other in zip(inside, gradients, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_logits_may_lie_far_apart(name: str) -> None:
    reps = [rep.float().requires_grad_() for rep in random_reps(3, 6, 4)]
    scale = torch.tensor(3000.0, requires_grad=True)
    loss = library_loss(name, reps, scale)
    assert math.isfinite(loss.item())
    assert loss.item() == pytest.approx(library_loss(name, [rep.double() for rep in reps], 3000.0).item(), rel=1e-4)
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, [*reps, scale]))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_make_no_sense_are_named(name: str) -> None:
    reps = random_reps(3, 4, 3)
    with pytest.raises(ValueError, match=r"at least two|modalities"):
        library_loss(name, reps[:1], 1.0, head_of(name, 3, 3))
    with pytest.raises(ValueError, match=r"^representations must all be"):
        library_loss(name, [*reps[:2], reps[2][:3]], 1.0, head_of(name, 3, 3))
    with pytest.raises(ValueError, match=r"^scale nan: a finite number is needed"):
        library_loss(name, reps, math.nan)
    with pytest.raises(ValueError, match=r"^2 masks of what is observed"):
        library_loss(name, reps, 1.0, observed=[torch.ones(4, dtype=torch.bool)] * 2)
    with pytest.raises(ValueError, match=r"^mask_same must hold integers"):
        library_loss(name, reps, 1.0, ids=torch.zeros(4))


@pytest.mark.parametrize("name", ["gram", "triangle"])
def test_the_gradient_is_finite_where_all_vectors_are_the_same(name: str) -> None:
    for reps in ([torch.ones(4, 8)] * 3, [torch.randn(4, 8, generator=torch.Generator().manual_seed(1))] * 3):
        leaves = [rep.clone().requires_grad_() for rep in reps]
        loss = library_loss(name, leaves, 10.0)
        assert math.isfinite(loss.item())
        assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, leaves))


def test_volumes_and_areas_by_hand() -> None:
    x, y, z = (axis[None] for axis in 5 * torch.eye(3))
    assert volumes([x, y], z).item() == pytest.approx(1)
    assert volumes([x, y], x + y).item() == pytest.approx(0, abs=1e-3)
    assert volumes([x], x + y).item() == pytest.approx(math.sqrt(0.5))
    assert volumes([x, x + y, z], y + z).item() == pytest.approx(0, abs=1e-3)
    assert areas([x, y], z).item() == pytest.approx(math.sqrt(3) / 2)
    assert areas([x, -x], y).item() == pytest.approx(1)
    assert areas([x, x], y).item() == pytest.approx(0, abs=1e-3)


def test_a_volume_is_never_negative_but_by_rounding_and_grows_with_its_square() -> None:
    angles = torch.linspace(0, 0.01, 200, dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = volumes([torch.tensor([[1.0, 0.0]], dtype=torch.float64)], rows)[0]
    assert bool((found.diff() > 0).all())
    torch.testing.assert_close(found[angles > 1e-3], angles.sin()[angles > 1e-3])
    assert found[0].item() == pytest.approx(5e-4)


def test_a_gate_without_strength_is_symile() -> None:
    *query, candidates = random_reps(3, 6, 4)
    head = head_of("gated", 3, 4) | {"strength": torch.tensor(-math.inf)}
    scores = gated_scores(query, candidates, head=head, retrieved=2, given=[0, 1])
    torch.testing.assert_close(scores, symile_scores(query, candidates), rtol=1e-12, atol=1e-12)


def test_a_closed_gate_leaves_nothing_of_a_modality() -> None:
    a, b, candidates = random_reps(3, 6, 4)
    head = head_of("gated", 3, 4) | {"strength": torch.tensor(math.inf), "null_M": torch.full((3,), 1e9)}
    found = gated_scores([a, b], candidates, head=head, retrieved=2, given=[0, 1])
    lengths = (a.norm(dim=1) * b.norm(dim=1))[:, None]
    neutral = torch.nn.functional.normalize(head["neutral_MD"], dim=1)
    torch.testing.assert_close(found, lengths * ((neutral[0] * neutral[1]) @ candidates.T)[None])


def test_with_two_unit_modalities_a_sigmoid_is_that_of_siglip() -> None:
    a, b = (torch.nn.functional.normalize(rep, dim=1) for rep in random_reps(2, 5, 4))
    logits = 10 * a @ b.T - 2
    signs = 2 * torch.eye(5) - 1
    siglip = -torch.nn.functional.logsigmoid(signs * logits).sum() / 5
    for negatives in SIGMOIDS.values():
        found = sigmoid_loss([a, b], 10.0, head={"bias": torch.tensor(-2.0)}, negatives=negatives)
        torch.testing.assert_close(found, siglip)


def test_soft_targets_of_distinct_labels_are_nearly_one_right_answer() -> None:
    reps = random_reps(3, 6, 4)
    hard = soft_loss(reps, SCALE)
    assert soft_loss(reps, SCALE, labels=[torch.arange(6)] * 3).item() == pytest.approx(hard.item(), rel=1e-2)
    two = random_reps(2, 6, 4)
    assert soft_loss(two, SCALE).item() == pytest.approx(symile_loss(two, SCALE).item(), rel=1e-12)


def test_soft_targets_are_one_kind_and_one_a_modality() -> None:
    reps = random_reps(3, 4, 3)
    with pytest.raises(ValueError, match=r"^labels and similarities: give one of them$"):
        soft_loss(reps, 1.0, labels=[torch.arange(4)] * 3, similarity=[torch.eye(4)] * 3)
    with pytest.raises(ValueError, match=r"^2 labels for 3 modalities"):
        soft_loss(reps, 1.0, labels=[torch.arange(4)] * 2)
    with pytest.raises(ValueError, match=r"^similarity of shape \(4, 3\): \(4, 4\) is needed"):
        soft_loss(reps, 1.0, similarity=[torch.ones(4, 3)] * 3)


def test_a_triangle_has_three_corners() -> None:
    with pytest.raises(ValueError, match=r"^2 modalities: a triangle has three corners"):
        triangle_loss(random_reps(2, 4, 3), 1.0)


@pytest.mark.parametrize("loss", [gated_loss, confu_loss])
def test_a_head_of_other_modalities_is_an_error(loss: object) -> None:
    name = "gated" if loss is gated_loss else "confu"
    with pytest.raises(ValueError, match=r"of 3 modalities and 3 dimensions for 2 and 3$"):
        loss(random_reps(2, 4, 3), 1.0, head=head_of(name, 3, 3))  # type: ignore[operator]


def test_the_sigmoid_loss_has_no_n2() -> None:
    with pytest.raises(ValueError, match=r"^negatives 'n2': the sigmoid loss takes n, n:k and faces$"):
        sigmoid_loss(random_reps(3, 4, 3), 1.0, head={"bias": torch.tensor(0.0)}, negatives="n2")


def test_two_modalities_of_gram_are_clip_of_the_sines() -> None:
    """The order of volumes of two vectors is that of the squares of their cosines."""
    a, b = random_reps(2, 5, 4)
    cosines = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    logits = -3.0 * (1 - cosines**2).sqrt()
    right = torch.arange(5)
    entropies = [torch.nn.functional.cross_entropy(matrix, right) for matrix in (logits, logits.T)]
    assert gram_loss([a, b], 3.0).item() == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-9)
    assert gram_loss([a, b], 3.0).item() != pytest.approx(clip_loss([a, b], 3.0).item(), rel=1e-3)


def test_a_fusion_whose_hidden_units_are_all_off_has_a_slope_that_is_bounded() -> None:
    reps = [torch.rand(4, 3, requires_grad=True) for _ in range(3)]
    head = new_fusions(3, 3)
    with torch.no_grad():
        head["into_MHI"].copy_(-head["into_MHI"].abs())  # off for all that is positive, and the fusion is zero
    confu_loss(reps, 20.0, head=head).backward()
    gradients = [rep.grad for rep in reps] + [parameter.grad for parameter in head.values()]
    for gradient in gradients:
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e5
