"""What the trained heads on frozen features share: standardisation, noise while training, layers.

Suffixes: N media, B batch, F features, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Standardised features, Gaussian noise while training, then layers that end in LayerNorm.

    Args:
        features: F.
        layers: (B, F) -> (B, D).
        noise: deviation of the noise, in deviations of the features.
    """

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, features: int, layers: nn.Sequential, *, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("std_F", torch.ones(features))
        self.layers = layers

    def standardise_by(self, features_NF: Tensor) -> None:
        """Take mean and deviation of each feature from the training set's."""
        self.mean_F.copy_(features_NF.mean(dim=0))
        self.std_F.copy_(features_NF.std(dim=0).clamp_min(1e-5))

    def forward(self, features_BF: Tensor) -> Tensor:
        """(B, F) -> (B, D)."""
        x_BF = (features_BF - self.mean_F) / self.std_F
        if self.training and self.noise:
            x_BF = x_BF + self.noise * torch.randn_like(x_BF)
        rep_BD: Tensor = self.layers(x_BF)
        return rep_BD
