"""Towers for modalities of any kind: ResNets, small convolutional nets, a multilayer perceptron; trained from scratch.

Each is a net that gives features (B, F), then one linear map and LayerNorm to (B, D). Suffixes: B batch, C channels,
H W T sides, F features, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup


class NetTower(nn.Module):
    """A net, one linear map, and LayerNorm; a missing sample has a learned vector in place of the map's result.

    The net sees observed samples only, so that what is missing leaves no trace in a batch norm; where fewer than two
    are observed it sees all, as batch norms need two, and what comes of it is not used. Where processes share a batch
    and its norms (`symile_m3.towers.sharednorm`), all of them count.

    Args:
        net: gives features (B, F).
        features: F.
        dim: D.
        learns_missing: whether a missing sample has a vector of its own.
    """

    def __init__(self, net: nn.Module, features: int, dim: int, *, learns_missing: bool = False) -> None:
        super().__init__()
        self.net = net
        self.linear = nn.Linear(features, dim)
        self.norm = nn.LayerNorm(dim)
        self.learns_missing = learns_missing
        self.group: ProcessGroup | None = None
        if learns_missing:
            self.missing_D = nn.Parameter(torch.randn(dim))

    def forward(self, *inputs: Tensor, missing: Tensor | None = None) -> Tensor:
        """(B, D) representations.

        Args:
            inputs: of the net, B rows each.
            missing: (B,) True where the sample lacks the modality.
        """
        if missing is None:
            rep_BD: Tensor = self.norm(self.linear(self.net(*inputs)))
            return rep_BD
        observed = (~missing).nonzero()[:, 0]
        if self._count(observed) < 2:
            observed = torch.arange(len(missing), device=missing.device)
        mapped = self.linear(self.net(*(part[observed] for part in inputs)))
        # What is observed is put in its rows, and the learned vector wherever something is missing.
        mapped_BD = mapped.new_zeros(len(missing), mapped.shape[1]).index_copy(0, observed, mapped)
        rep_BD = self.norm(torch.where(missing[:, None], self.missing_D.to(mapped.dtype), mapped_BD))
        return rep_BD

    def _count(self, observed: Tensor) -> int:
        """How many rows are observed, in training over all processes that share the norms."""
        if self.group is None or not self.training:
            return len(observed)
        count = torch.tensor(len(observed), device=observed.device)
        dist.all_reduce(count, group=self.group)
        return int(count)


def resnet(name: str, channels: int) -> tuple[nn.Module, int]:
    """torchvision's resnet18 or resnet50 without its last layer, for images of so many channels, and its features."""
    from torchvision import models  # type: ignore[import-untyped]

    net = {"resnet18": models.resnet18, "resnet50": models.resnet50}[name](weights=None)
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    features = int(net.fc.in_features)
    net.fc = nn.Identity()
    return net, features


class SignalPlane(nn.Module):
    """A signal of several leads, (B, T, C), as an image of one channel, (B, 1, T, C), for the net behind it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, signal: Tensor) -> Tensor:
        """Features (B, F) of a signal (B, T, C), or (B, 1, T, C) as it is."""
        features_BF: Tensor = self.net(signal if signal.ndim == 4 else signal[:, None])
        return features_BF


def small_image_net(shape: Sequence[int], width: int = 32) -> tuple[nn.Module, int]:
    """Three strided convolutions over (B, C, H, W) with batch norms, then 4 x 4 means, and its features.

    The first convolution takes a large image in patches, so that the maps behind it have some 40 to 60 pixels a side.
    """
    channels, height, side = shape
    patch = 2 ** math.floor(math.log2(max(1, max(height, side) / 32)))
    widths = [channels, width, 2 * width, 4 * width]
    layers: list[nn.Module] = []
    for i in range(3):
        kernel, stride, padding = (patch, patch, 0) if i == 0 and patch > 2 else (3, 2, 1)
        layers += [
            nn.Conv2d(widths[i], widths[i + 1], kernel, stride, padding, bias=False),
            nn.BatchNorm2d(widths[i + 1]),
            nn.GELU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten()), 4 * width * 16


class SmallSignalNet(nn.Module):
    """Three strided convolutions along the time of a signal (B, T, C) or (B, 1, T, C), then 16 means and maxima."""

    def __init__(self, channels: int, times: int, width: int = 64) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i in range(3):
            stride = 8 if i == 0 and times >= 1000 else 4 if times >= 256 else 2
            layers += [
                nn.Conv1d(widths[i], widths[i + 1], 2 * stride + 1, stride, stride, bias=False),
                nn.BatchNorm1d(widths[i + 1]),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.means, self.maxima = nn.AdaptiveAvgPool1d(16), nn.AdaptiveMaxPool1d(16)
        self.features = 2 * 16 * widths[-1]

    def forward(self, signal: Tensor) -> Tensor:
        """(B, F) features."""
        signal_BCT = (signal[:, 0] if signal.ndim == 4 else signal).transpose(1, 2)
        x_BCT = self.layers(signal_BCT)
        return torch.cat([self.means(x_BCT).flatten(1), self.maxima(x_BCT).flatten(1)], dim=1)


def perceptron(inputs: int, hidden: Sequence[int]) -> tuple[nn.Module, int]:
    """Linear maps with GELU behind each, of anything flattened to (B, inputs), and its features.

    With (256, 1024) it is what the authors of Symile use for laboratory values, but for the last map.
    """
    widths = [inputs, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers), widths[-1]
