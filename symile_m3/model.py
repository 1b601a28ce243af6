"""The model: three towers that map to one space, a learned scale, and what stands for a missing modality.

Suffixes: B batch, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symile_m3.objectives import Objective
from symile_m3.towers.audio import AudioHead, ScratchAudioTower
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import TextTower, TokenisedTexts

MODALITIES = ("image", "audio", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What shapes the model.

    Attributes:
        dim: D of the representations.
        image_hidden, image_dropout, image_noise: of the image head.
        audio_hidden: width of the audio head's narrow middle.
        audio_noise: deviation of the noise on the standardised audio features while training.
        text_buckets: rows that character n-grams are hashed to.
        text_ngrams: whether known words share n-grams, beside a row of their own; unknown ones always have.
    """

    dim: int = 2048
    image_hidden: int = 512
    image_dropout: float = 0.3
    image_noise: float = 0.3
    audio_hidden: int = 32
    audio_noise: float = 0.7
    text_buckets: int = 512
    text_ngrams: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "image_hidden", "audio_hidden", "text_buckets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.image_dropout < 1 or min(self.image_noise, self.audio_noise) < 0:
            raise ValueError("dropout must be in [0, 1), noise not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the towers take for B samples; a modality not asked for may be None.

    Attributes:
        image_BF: image features.
        audio: (B, F) audio features, or (B, M, T) log-mels for a net trained from scratch.
        audio_mask_BT: valid frames of the log-mels.
        text: tokenised texts.
        missing: modality -> (B,) True where the sample lacks it.
    """

    image_BF: Tensor | None = None
    audio: Tensor | None = None
    audio_mask_BT: Tensor | None = None
    text: TokenisedTexts | None = None
    missing: Mapping[str, Tensor] | None = None


class Model(nn.Module):
    """Towers for image, audio and text.

    Args:
        config: sizes and regularisation.
        objective: decides where the learned scale starts and ends.
        image_features, audio_features: F of the frozen features; `audio_features` None trains the audio
            net itself, from log-mels.
        text_rows: rows of the text table, as the tokeniser counts them.
    """

    def __init__(
        self,
        config: ModelConfig,
        objective: Objective,
        *,
        image_features: int,
        audio_features: int | None,
        text_rows: int,
    ) -> None:
        super().__init__()
        self.image = ImageHead(
            image_features,
            config.image_hidden,
            config.dim,
            dropout=config.image_dropout,
            noise=config.image_noise,
        )
        self.audio: AudioHead | ScratchAudioTower = (
            ScratchAudioTower(config.audio_hidden, config.dim)
            if audio_features is None
            else AudioHead(audio_features, config.audio_hidden, config.dim, noise=config.audio_noise)
        )
        self.text = TextTower(text_rows, config.dim)
        self.log_scale = nn.Parameter(torch.tensor(objective.init_log_scale))
        self.max_log_scale = objective.max_log_scale
        self.missing = nn.ParameterDict({name: torch.randn(config.dim) for name in MODALITIES})
        self.dim = config.dim

    def encode(self, modality: str, inputs: Inputs) -> Tensor:
        """(B, D) representations of one modality, missing ones replaced by the learned embedding."""
        if modality == "image":
            assert inputs.image_BF is not None
            rep_BD = self.image(inputs.image_BF)
        elif modality == "audio":
            assert inputs.audio is not None
            rep_BD = (
                self.audio(inputs.audio, inputs.audio_mask_BT)
                if isinstance(self.audio, ScratchAudioTower)
                else self.audio(inputs.audio)
            )
        else:
            assert inputs.text is not None
            rep_BD = self.text(inputs.text)
        if inputs.missing is not None and modality in inputs.missing:
            mask_B1 = inputs.missing[modality][:, None]
            rep_BD = torch.where(mask_B1, self.missing_embedding(modality), rep_BD)
        result: Tensor = rep_BD
        return result

    def missing_embedding(self, modality: str) -> Tensor:
        """(D,) what stands for the modality where it is missing, LayerNormed like a representation."""
        return F.layer_norm(self.missing[modality], (self.dim,))

    def forward(self, inputs: Inputs) -> list[Tensor]:
        """(B, D) representations of image, audio and text."""
        return [self.encode(modality, inputs) for modality in MODALITIES]

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the learned scale within the objective's bound."""
        self.log_scale.clamp_(-math.inf, self.max_log_scale)
