"""The towers that a declaration names."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import TOWERS, DeclaredConfig, ModalityConfig
from symile_m3.model import Model
from symile_m3.objectives import Objective
from symile_m3.seeds import philox_key
from symile_m3.towers.nets import (
    NetTower,
    SignalPlane,
    SmallSignalNet,
    perceptron,
    resnet,
    small_image_net,
)
from symile_m3.towers.text import TextTower


def new_model(config: DeclaredConfig, objective: Objective) -> Model:
    """A model with initial weights drawn by the recipe's seed, the same for every objective.

    Raises:
        UsageError: a factory is not to be had, or makes no tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(config.seed, "init") % 2**63)
        towers = {
            modality.name: new_tower(modality, config.dim, learns_missing=modality.name in config.learned)
            for modality in config.modalities
        }
        scale = config.symile_log_scale if objective.products else objective.init_log_scale
        return Model(towers, objective, dim=config.dim, log_scale=scale + config.log_scale_offset)


def check_factories(config: DeclaredConfig) -> None:
    """Make sure, before anything is written, that the towers of the user can be made.

    Raises:
        UsageError: a factory is not to be had, or makes no tower.
    """
    for modality in config.modalities:
        if modality.tower not in TOWERS:
            new_tower(modality, config.dim, learns_missing=modality.name in config.learned)


def new_tower(config: ModalityConfig, dim: int, *, learns_missing: bool) -> nn.Module:
    """The tower of a modality.

    Raises:
        UsageError: its factory is not to be had, or makes no tower.
    """
    if config.tower not in TOWERS:
        return _from_factory(config, dim, learns_missing)
    if config.tower == "embedding-bag":
        return TextTower(config.buckets, dim, learns_missing=learns_missing)
    net, features = _net(config)
    return NetTower(net, features, dim, learns_missing=learns_missing)


def _net(config: ModalityConfig) -> tuple[nn.Module, int]:
    shape = config.shape or (3, 224, 224)
    if config.tower in ("resnet18", "resnet50"):
        return resnet(config.tower, shape[0])
    if config.tower == "resnet18-1d":
        net, features = resnet("resnet18", 1)
        return SignalPlane(net), features
    if config.tower == "conv-image":
        return small_image_net(shape)
    if config.tower == "conv-signal":
        signal = SmallSignalNet(shape[-1], shape[-2])
        return signal, signal.features
    if config.tower == "conv-audio":
        from symile_m3.towers.audio import ConvNet

        audio = ConvNet()
        return audio, audio.features
    if config.tower == "mlp":
        return perceptron(math.prod(config.shape), config.hidden)
    frozen = FrozenImages()
    return frozen, frozen.features


class FrozenImages(nn.Module):
    """The image backbone that comes with the package, run on every batch; its weights are no part of the model's."""

    def __init__(self) -> None:
        super().__init__()
        from symile_m3.towers.image import open_image_backbone

        self._backbone: Any = open_image_backbone("efficientnet-lite0")
        self.features = 1280

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, F) of images in [-1, 1]."""
        features_BF: Tensor = self._backbone.features(pixels_B3HW.cpu())
        return features_BF.clone().to(pixels_B3HW.device)


def _from_factory(config: ModalityConfig, dim: int, learns_missing: bool) -> nn.Module:
    """What `package.module:name` makes, called with the modality, D, and whether samples may lack it."""
    module_name, _, name = config.tower.partition(":")
    where = f"[modalities.{config.name}] tower {config.tower}"
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)  # a command does not look there by itself
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{where}: no module {error.name}; it must be importable from here") from error
    except AttributeError as error:
        raise UsageError(f"{where}: the module has no {name}") from error
    finally:
        if added:
            sys.path.remove(here)
    tower = factory(config, dim=dim, learns_missing=learns_missing)
    if not isinstance(tower, nn.Module):
        raise UsageError(f"{where}: made {type(tower).__name__}, not a torch.nn.Module")
    return tower
