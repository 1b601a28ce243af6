"""What trained heads share: standardisation, noise while training, layers, and what stands for a missing medium.

Suffixes: N media, B batch, F features, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Standardised features, Gaussian noise while training, then layers that end in LayerNorm.

    A head that is to learn what stands for a missing medium takes the mean features of the training set in its place,
    and a learned embedding of "observed" or "missing" joined to the features (Saporta et al. 2024, section 5.2). Behind
    a backbone that is part of the model there is no such mean, as its features move: zeros take its place, and what
    is learned is all in the embedding.

    Args:
        features: F.
        layers: (B, F + indicator) -> (B, D).
        noise: deviation of the noise, in deviations of the features.
        indicator: dimensions of that embedding; 0 for a head that learns nothing of the kind.
    """

    mean_F: Tensor
    std_F: Tensor
    standin_F: Tensor

    def __init__(self, features: int, layers: nn.Module, *, noise: float = 0.0, indicator: int = 0) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("std_F", torch.ones(features))
        self.layers = layers
        self.learns_missing = indicator > 0
        if indicator:
            self.register_buffer("standin_F", torch.zeros(features))
            self.indicator = nn.Parameter(torch.randn(2, indicator))

    def standardise_by(self, mean_F: Tensor, std_F: Tensor) -> None:
        """Take mean and deviation of each feature from the training set's."""
        self.mean_F.copy_(mean_F)
        self.std_F.copy_(std_F.clamp_min(1e-5))

    def stand_in(self, mean_F: Tensor) -> None:
        """Take the mean features of the training set, for what is missing."""
        if self.learns_missing:
            self.standin_F.copy_(mean_F)

    def forward(self, features_BF: Tensor, missing: Tensor | None = None) -> Tensor:
        """(B, F) -> (B, D).

        Args:
            missing: (B,) True where the features are of nothing; only for a head that learns what stands for it.
        """
        if missing is not None:
            features_BF = torch.where(missing[:, None], self.standin_F.to(features_BF), features_BF)
        x_BF = (features_BF - self.mean_F) / self.std_F
        if self.training and self.noise:
            noise_BF = self.noise * torch.randn_like(x_BF)
            x_BF = x_BF + (noise_BF if missing is None else noise_BF.masked_fill(missing[:, None], 0))
        if self.learns_missing:
            which_B = missing.long() if missing is not None else torch.zeros_like(x_BF[:, 0], dtype=torch.long)
            x_BF = torch.cat([x_BF, self.indicator[which_B].to(x_BF.dtype)], dim=1)
        rep_BD: Tensor = self.layers(x_BF)
        return rep_BD


def linear_head(features: int, dim: int, *, indicator: int = 0) -> Head:
    """Linear, LayerNorm, as in the paper."""
    layers = nn.Sequential(nn.Linear(features + indicator, dim), nn.LayerNorm(dim))
    return Head(features, layers, indicator=indicator)
