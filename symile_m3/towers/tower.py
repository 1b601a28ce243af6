"""A tower whose pretrained backbone is part of the model: trained, or frozen and run on every batch.

What is frozen and needs to run only once for every image and clip is no part of the model; see
`symile_m3.features`. Suffixes: B batch, F features, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from symile_m3.towers.spec import TowerSpec


class BackboneTower(nn.Module):
    """A backbone, then a head: media or texts to representations (B, D).

    Args:
        backbone: gives features (B, F).
        head: (B, F) -> (B, D).
        trained: whether the objective trains the backbone, as far as it lets itself be trained.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, trained: bool) -> None:
        super().__init__()
        self.backbone = backbone if trained else backbone.requires_grad_(False)
        self.head = head
        self.trained = trained
        self.own_missing = trained and hasattr(backbone, "missing_id")  # a frozen one would not learn it
        self.learns_missing = self.own_missing or bool(getattr(head, "learns_missing", False))
        self.train(self.training)

    @property
    def trained_net(self) -> nn.Module | None:
        """What wants a rate of its own."""
        return self.backbone if self.trained else None

    def train(self, mode: bool = True) -> BackboneTower:
        """Training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.train(mode and self.trained)
        return self

    def forward(self, *inputs: Any, missing: Tensor | None = None) -> Tensor:
        """(B, D); the arguments are those of the backbone.

        Args:
            missing: (B,) True where the sample lacks the modality; the backbone's own token stands for it, or what the
                head has learned.
        """
        own = {"missing_B": missing} if self.own_missing and missing is not None else {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            features_BF = self.backbone(*inputs, **own)
        rep_BD: Tensor = self.head(features_BF) if own or missing is None else self.head(features_BF, missing)
        return rep_BD


def open_backbone(spec: TowerSpec) -> Any:
    """The backbone that is part of the model, with `width` features; None where there is none.

    Raises:
        SymileM3Error: its weights are not to be had, or do not fit.
    """
    if spec.kind == "clip" and spec.modality == "text":
        from symile_m3.towers.clip import ClipText

        return ClipText(spec)
    if spec.kind == "xlmr":
        from symile_m3.towers.xlmr import XlmrText

        return XlmrText(spec)
    if spec.kind == "clip" and spec.trained:
        from symile_m3.towers.clip import TrainedClipVision

        return TrainedClipVision(spec)
    if spec.kind == "whisper" and spec.trained:
        from symile_m3.towers.whisper import TrainedWhisper

        return TrainedWhisper(spec)
    return None


def open_tokeniser(spec: TowerSpec) -> Any:
    """The tokeniser of a pretrained text tower."""
    if spec.kind == "clip":
        from symile_m3.towers.clip import clip_tokeniser

        return clip_tokeniser(spec)
    from symile_m3.towers.xlmr import xlmr_tokeniser

    return xlmr_tokeniser(spec)
