"""A batch in parts: the gradients of the loss of the whole batch, whatever the parts and the objective."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from symile_m3.accumulation import Given, Towers, add_gradients, part_of, parts_of
from symile_m3.assembly import fit_heads, new_model, new_tokeniser
from symile_m3.batches import open_loader, training_inputs
from symile_m3.features import Dataset, FeatureConfig, Features, load_features, open_dataset
from symile_m3.model import Inputs, Model, ModelConfig
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.processes import Place, open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import TrainConfig

ROWS = 32
NOISY = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16, text_ngrams=True),
)
QUIET = replace(NOISY, model=replace(NOISY.model, image_noise=0.0, image_dropout=0.0, audio_noise=0.0))
Gradients = dict[str, Tensor | None]


@pytest.fixture(scope="module")
def place() -> Place:
    return open_place()


@pytest.fixture(scope="module")
def dataset(featured_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(shutil.copytree(featured_dataset, tmp_path_factory.mktemp("accumulation") / "data"))


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    return load_features(dataset, NOISY.features, NoProgress())


def batch_of(dataset: Dataset, features: Features, missing_p: float) -> Inputs:
    loader = open_loader(
        dataset,
        "train",
        tokeniser=new_tokeniser(dataset, NOISY),
        batch_size=ROWS,
        seed=3,
        training=True,
        missing_p=missing_p,
    )
    inputs = training_inputs(next(iter(loader)), features, torch.Generator().manual_seed(0))
    (image_BF,), (audio_BF,) = inputs.given["image"], inputs.given["audio"]
    return replace(inputs, given={**inputs.given, "image": (image_BF.double(),), "audio": (audio_BF.double(),)})


class Step:
    """The gradients of one batch, cut into parts of some size."""

    def __init__(self, place: Place, dataset: Dataset, features: Features, name: str, negatives: str = "n") -> None:
        self.place, self.dataset, self.features = place, dataset, features
        self.objective = get_objective(name, negatives)

    def model(self, config: TrainConfig) -> tuple[Model, torch.nn.Module]:
        model = new_model(self.dataset, self.features, self.objective, config)
        fit_heads(model, self.dataset, self.features, standardise=True)
        model.double()  # float32 leaves the gradient of the scale, a sum of large numbers of both signs, too few digits
        towers, _ = self.place.set_up(Towers(model), torch.optim.SGD(model.parameters(), lr=0.1))
        return model.train(), towers

    def loss(self, inputs: Inputs, reps: Sequence[Tensor], scale: Tensor, head: Mapping[str, Tensor]) -> Tensor:
        names = ("image", "audio", "text")
        observed = None if inputs.missing is None else [~inputs.missing[name] for name in names]
        labels = [torch.arange(len(reps[0])) % 5] * 3
        random = torch.Generator().manual_seed(1)
        return self.objective.loss(reps, scale, observed=observed, generator=random, head=head, labels=labels)

    def run(self, config: TrainConfig, inputs: Inputs, size: int) -> tuple[Tensor, Gradients]:
        model, towers = self.model(config)
        parts = parts_of(inputs, ROWS, size)
        loss = add_gradients(
            self.place, towers, parts, lambda *computed: self.loss(inputs, *computed), range(len(parts))
        )
        return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same(found: Gradients, expected: Gradients) -> None:
    for name, gradient in expected.items():
        other = found[name]
        if gradient is None:
            assert other is None, name
            continue
        assert other is not None, name
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item(), msg=name)


@pytest.mark.parametrize("size", [1, 5, 16, 31])
@pytest.mark.parametrize("missing_p", [0.0, 0.4])
@pytest.mark.parametrize(("name", "negatives"), [("symile", "n"), ("symile", "n2"), ("clip", "n")])
def test_parts_give_the_gradients_of_the_whole_batch(
    name: str, negatives: str, missing_p: float, size: int, place: Place, dataset: Dataset, features: Features
) -> None:
    step = Step(place, dataset, features, name, negatives)
    inputs = batch_of(dataset, features, missing_p)
    config = replace(QUIET, missing_p=missing_p)
    loss, expected = step.run(config, inputs, 0)
    loss_in_parts, found = step.run(config, inputs, size)
    torch.testing.assert_close(loss_in_parts, loss, rtol=1e-6, atol=0)
    assert_same(found, expected)
    assert ("towers.audio.indicator" in expected) == (missing_p > 0)


@pytest.mark.parametrize("name", OBJECTIVES[2:])
def test_parts_give_the_gradients_of_what_an_objective_learns_too(
    name: str, place: Place, dataset: Dataset, features: Features
) -> None:
    step = Step(place, dataset, features, name)
    inputs = batch_of(dataset, features, 0.4)
    config = replace(QUIET, missing_p=0.4)
    loss, expected = step.run(config, inputs, 0)
    loss_in_parts, found = step.run(config, inputs, 13)
    torch.testing.assert_close(loss_in_parts, loss, rtol=1e-6, atol=0)
    assert_same(found, expected)
    assert any(key.startswith("head.") for key in found) == (step.objective.head is not None)


def test_means_of_the_losses_of_parts_would_be_another_thing(
    place: Place, dataset: Dataset, features: Features
) -> None:
    step = Step(place, dataset, features, "symile")
    inputs = batch_of(dataset, features, 0.0)
    _, expected = step.run(QUIET, inputs, 0)
    model, towers = step.model(QUIET)
    for part in parts_of(inputs, ROWS, 16):
        place.backward(step.loss(part, *towers(Given(part))) / 2)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    with pytest.raises(AssertionError):
        assert_same(found, expected)


@pytest.mark.parametrize("name", ["symile", "clip"])
def test_a_part_has_the_same_dropout_and_noise_both_times(
    name: str, place: Place, dataset: Dataset, features: Features
) -> None:
    """The gradients are those of one graph over all parts, each with its own draws."""
    step = Step(place, dataset, features, name)
    inputs = batch_of(dataset, features, 0.0)
    before = torch.get_rng_state()
    loss, found = step.run(NOISY, inputs, 8)
    assert torch.equal(torch.get_rng_state(), before)
    model, towers = step.model(NOISY)
    outputs = []
    for seed, part in enumerate(parts_of(inputs, ROWS, 8)):
        with place.seeded(seed):
            outputs.append(towers(Given(part)))
    reps = [torch.cat(parts) for parts in zip(*(reps for reps, *_ in outputs), strict=True)]
    whole = step.loss(inputs, reps, *outputs[0][1:])
    place.backward(whole)
    torch.testing.assert_close(loss, whole.detach(), rtol=1e-6, atol=0)
    assert_same(found, {name: parameter.grad for name, parameter in model.named_parameters()})
    _, others = step.run(NOISY, inputs, 16)
    with pytest.raises(AssertionError):
        assert_same(others, found)


def test_parts_have_the_texts_of_their_rows(dataset: Dataset, features: Features) -> None:
    inputs = batch_of(dataset, features, 0.4)
    model = new_model(dataset, features, get_objective("symile"), replace(QUIET, missing_p=0.4)).double().eval()
    whole = model(inputs)
    for size in (1, 7, 32, 40):
        parts = [model(part) for part in parts_of(inputs, ROWS, size)]
        assert len(parts) == -(-ROWS // min(size, ROWS))
        for rep, cut in zip(whole, zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(cut), rep)
    (none,) = part_of(inputs, 3, 3).given["text"]
    assert len(none) == 0
