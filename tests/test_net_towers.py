"""Towers for modalities of any kind: their shapes, and what stands for a missing sample."""

from __future__ import annotations

import pytest
import torch

from symile_m3.modalities.declaration import ModalityConfig
from symile_m3.modalities.towers import new_tower
from symile_m3.towers.nets import NetTower, SignalPlane, resnet, small_image_net

SHAPES = {
    "resnet18": (4, 32, 32),
    "resnet50": (1, 32, 32),
    "resnet18-1d": (64, 3),
    "conv-image": (2, 40, 24),
    "conv-signal": (100, 3),
    "mlp": (5, 2),
}


def tower_of(name: str, *, learns_missing: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ModalityConfig(name="x", member=("x.npy",), tower=name, shape=SHAPES[name], hidden=(8,))
    return new_tower(config, 16, learns_missing=learns_missing)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_missing_leaves_no_trace_in_what_is_observed(name: str) -> None:
    tower = tower_of(name).train()
    inputs = torch.randn(5, *SHAPES[name])
    missing = torch.tensor([False, True, False, False, True])
    first = tower(inputs, missing=missing)
    torch.manual_seed(1)
    inputs[missing] = 1e6
    second = tower(inputs, missing=missing)
    assert first.shape == (5, 16)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first[1], first[4])
    torch.testing.assert_close(first[1], tower.norm(tower.missing_D))
    alone = tower(inputs[~missing], missing=torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(alone, second[~missing])


@pytest.mark.parametrize("observed", [0, 1])
def test_a_batch_with_hardly_anything_observed_trains_every_weight(observed: int) -> None:
    tower = tower_of("conv-image").train()
    missing = torch.arange(4) >= observed
    tower(torch.randn(4, *SHAPES["conv-image"]), missing=missing).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in tower.parameters())


def test_a_signal_is_an_image_of_one_channel_with_or_without_its_leading_one() -> None:
    net, features = resnet("resnet18", 1)
    tower = NetTower(SignalPlane(net), features, 8).eval()
    signal = torch.randn(2, 64, 12)
    torch.testing.assert_close(tower(signal), tower(signal[:, None]))
    torch.testing.assert_close(tower.net(signal), net(signal[:, None]))


@pytest.mark.parametrize(("side", "stride"), [(8, 2), (32, 2), (64, 2), (160, 4), (320, 8), (512, 16)])
def test_large_images_are_taken_in_patches(side: int, stride: int) -> None:
    net, features = small_image_net((3, side, side))
    assert net[0].stride == (stride, stride)  # type: ignore[index]
    assert net.eval()(torch.randn(1, 3, side, side)).shape == (1, features)


def test_frozen_images_have_no_weights_of_their_own() -> None:
    config = ModalityConfig(name="photo", member=("jpg",), tower="frozen:efficientnet-lite0", shape=(3, 64, 64))
    tower = new_tower(config, 8, learns_missing=False)
    assert {name for name, _ in tower.named_parameters()} == {
        "linear.weight",
        "linear.bias",
        "norm.weight",
        "norm.bias",
    }
    rep = tower(torch.rand(3, 3, 64, 64))
    rep.sum().backward()
    assert rep.shape == (3, 8)
