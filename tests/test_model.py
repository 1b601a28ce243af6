"""The model over any towers."""

from __future__ import annotations

import math

import pytest
import torch
from random_model import DIM, random_model

from symile_m3.errors import UsageError
from symile_m3.model import Inputs, Model
from symile_m3.objectives import get_objective, symile_loss
from symile_m3.towers.audio import AudioHead
from symile_m3.towers.head import Head
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import Tokeniser


def four_towers() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {name: torch.nn.Linear(width, DIM) for name, width in (("a", 2), ("b", 3), ("c", 4), ("d", 5))}


def test_any_number_of_modalities_is_encoded_in_the_order_of_the_towers() -> None:
    model = Model(four_towers(), "symile", dim=DIM)
    inputs = Inputs(given={name: (torch.randn(6, width),) for name, width in (("d", 5), ("c", 4), ("b", 3), ("a", 2))})
    reps = model(inputs)
    assert model.modalities == ("a", "b", "c", "d")
    assert len(inputs) == 6
    for name, rep in zip(model.modalities, reps, strict=True):
        assert torch.equal(rep, model.towers[name](*inputs.given[name]))
    symile_loss(reps, model.log_scale.exp()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["symile", "clip"])
def test_the_scale_begins_and_ends_where_the_objective_says(name: str) -> None:
    objective = get_objective(name)
    model = Model(four_towers(), name, dim=DIM)
    assert model.log_scale.item() == pytest.approx(objective.init_log_scale)
    with torch.no_grad():
        model.log_scale.fill_(50.0)
    model.clamp_scale()
    assert model.log_scale.item() == pytest.approx(objective.max_log_scale)
    assert Model(four_towers(), name, dim=DIM, log_scale=-1.5).log_scale.item() == pytest.approx(-1.5)
    assert math.isfinite(objective.max_log_scale)


def test_one_tower_is_refused() -> None:
    with pytest.raises(ValueError, match="1 towers: contrast needs at least two modalities"):
        Model({"a": torch.nn.Linear(2, DIM)}, "symile", dim=DIM)


def test_an_objective_for_another_number_of_towers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^objective triangle: it is for 3 modalities, and these are 4; symile, clip"):
        Model(four_towers(), "triangle", dim=DIM)
    three = dict(list(four_towers().items())[:3])
    assert Model(three, "triangle", dim=DIM).modalities == ("a", "b", "c")


def test_what_no_tower_has_learned_to_miss_is_refused() -> None:
    model = Model(four_towers(), "symile", dim=DIM)
    inputs = Inputs(given={"a": (torch.randn(3, 2),)}, missing={"a": torch.tensor([True, False, False])})
    with pytest.raises(ValueError, match="a: this model was not trained with missing ones, so nothing stands for them"):
        model.encode("a", inputs)


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_missing_samples_are_all_the_same_and_the_others_as_they_were(modality: str) -> None:
    model = random_model("symile", 5).train()
    texts = Tokeniser(["a", "b", "c"], buckets=2)(["a_b", "b", "c", "a", "b_c", "a_c"])
    given = {"image": (torch.randn(6, 6),), "audio": (torch.randn(6, 4),), "text": (texts,)}
    mask = torch.tensor([True, False, True, False, False, True])
    model.eval()
    with torch.no_grad():
        whole = model.encode(modality, Inputs(given=given))
        partly = model.encode(modality, Inputs(given=given, missing={modality: mask}))
    assert torch.equal(whole[~mask], partly[~mask])
    assert torch.allclose(partly[mask], partly[0].expand(3, -1), atol=1e-6)
    assert not torch.allclose(partly[mask], whole[mask], atol=1e-2)


@pytest.mark.parametrize(
    "head",
    [AudioHead(6, 4, 16, noise=0.5, indicator=2), ImageHead(6, 12, 16, dropout=0.0, noise=0.5, indicator=2)],
    ids=lambda head: type(head).__name__,
)
def test_what_stands_for_a_missing_medium_has_no_noise(head: Head) -> None:
    head.stand_in(torch.arange(6.0))
    seen: list[torch.Tensor] = []
    head.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    mask = torch.tensor([True, False, True])
    head.train()(torch.full((3, 6), torch.nan).masked_fill(~mask[:, None], 1.0), mask)
    assert torch.equal(seen[0][0], seen[0][2])
    assert torch.equal(seen[0][0], torch.cat([torch.arange(6.0), head.indicator[1]]))
    assert torch.equal(seen[0][1, 6:], head.indicator[0])
    assert not torch.equal(seen[0][1, :6], torch.ones(6))
