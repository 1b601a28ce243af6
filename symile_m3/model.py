"""The model: three towers that map to one space, a learned scale, and what stands for a missing modality.

Suffixes: B batch, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symile_m3.objectives import Objective
from symile_m3.towers.audio import AudioHead, ScratchAudioTower
from symile_m3.towers.image import ImageHead
from symile_m3.towers.spec import TowerSpec, parse_tower
from symile_m3.towers.text import TextTower, TokenisedTexts
from symile_m3.towers.tokens import Tokens
from symile_m3.towers.tower import BackboneTower, text_head

MODALITIES = ("image", "audio", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What shapes the model.

    Attributes:
        text: spec of the text tower; see `symile_m3.towers.spec`.
        dim: D of the representations.
        image_hidden, image_dropout, image_noise: of the image head; with `image_hidden` 0 it is one linear map.
        audio_hidden: width of the audio head's narrow middle; with 0 it is one linear map.
        audio_noise: deviation of the noise on the standardised audio features while training.
        text_buckets: rows that character n-grams are hashed to.
        text_ngrams: whether known words share n-grams, beside a row of their own; unknown ones always have.
        standardise: whether the heads take frozen features with mean 0 and deviation 1 over the training media.
        symile_log_scale: logarithm of Symile's scale at the beginning.
        log_scale_offset: added to the logarithm of the objective's scale at the beginning, whichever objective it is.
    """

    text: str = "ngram"
    dim: int = 2048
    image_hidden: int = 512
    image_dropout: float = 0.3
    image_noise: float = 0.3
    audio_hidden: int = 32
    audio_noise: float = 0.7
    text_buckets: int = 512
    text_ngrams: bool = False
    standardise: bool = True
    symile_log_scale: float = -4.0
    log_scale_offset: float = 0.0

    def __post_init__(self) -> None:
        parse_tower("text", self.text)
        for name, least in (("dim", 1), ("image_hidden", 0), ("audio_hidden", 0), ("text_buckets", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not -20 <= self.symile_log_scale <= 0:
            raise ValueError("symile_log_scale must be from -20 to 0")
        if not -20 <= self.log_scale_offset <= 20:
            raise ValueError("log_scale_offset must be from -20 to 20")
        if not 0 <= self.image_dropout < 1 or min(self.image_noise, self.audio_noise) < 0:
            raise ValueError("dropout must be in [0, 1), noise not negative")

    @property
    def text_tower(self) -> TowerSpec:
        """The spec of the text tower, taken apart."""
        return parse_tower("text", self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the towers take for B samples; a modality not asked for may be None.

    Attributes:
        image_BF: image features, or (B, 3, H, W) pixels for a backbone that is trained.
        audio: (B, F) audio features, or (B, M, T) log-mels for a net that is trained.
        audio_mask_BT: valid frames of the log-mels.
        text: tokenised texts.
        missing: modality -> (B,) True where the sample lacks it.
    """

    image_BF: Tensor | None = None
    audio: Tensor | None = None
    audio_mask_BT: Tensor | None = None
    text: TokenisedTexts | Tokens | None = None
    missing: Mapping[str, Tensor] | None = None


class Model(nn.Module):
    """Towers for image, audio and text.

    Args:
        config: sizes and regularisation.
        objective: decides where the learned scale starts and ends.
        image_features, audio_features: F of the frozen features; `audio_features` None trains the audio
            net itself, from log-mels.
        text_rows: rows of the text table, as the tokeniser counts them; of no account with a pretrained text tower.
        backbones: modality -> a backbone that is part of the model, with its `width`, and whether it is trained.
    """

    def __init__(
        self,
        config: ModelConfig,
        objective: Objective,
        *,
        image_features: int,
        audio_features: int | None,
        text_rows: int,
        backbones: Mapping[str, tuple[Any, bool]] | None = None,
    ) -> None:
        super().__init__()
        backbones = backbones or {}

        def tower(modality: str, head: nn.Module) -> BackboneTower:
            backbone, trained = backbones[modality]
            return BackboneTower(backbone, head, trained=trained)

        def image_head(width: int) -> ImageHead:
            noise = 0.0 if "image" in backbones else config.image_noise  # meant for standardised features
            return ImageHead(width, config.image_hidden, config.dim, dropout=config.image_dropout, noise=noise)

        self.image: ImageHead | BackboneTower
        self.audio: AudioHead | ScratchAudioTower | BackboneTower
        self.text: TextTower | BackboneTower
        if "image" in backbones:
            self.image = tower("image", image_head(backbones["image"][0].width))
        else:
            self.image = image_head(image_features)
        if "audio" in backbones:
            width = backbones["audio"][0].width
            self.audio = tower("audio", AudioHead(width, config.audio_hidden, config.dim, noise=0.0))
        elif audio_features is None:
            self.audio = ScratchAudioTower(config.audio_hidden, config.dim)
        else:
            self.audio = AudioHead(audio_features, config.audio_hidden, config.dim, noise=config.audio_noise)
        if "text" in backbones:
            self.text = tower("text", text_head(backbones["text"][0].width, config.dim))
        else:
            self.text = TextTower(text_rows, config.dim)
        log_scale = config.symile_log_scale if objective.name == "symile" else objective.init_log_scale
        self.log_scale = nn.Parameter(torch.tensor(log_scale + config.log_scale_offset))
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
                if inputs.audio_mask_BT is not None
                else self.audio(inputs.audio)
            )
        else:
            assert inputs.text is not None
            if self.own_missing_text and inputs.missing is not None and "text" in inputs.missing:
                own_BD: Tensor = self.text(inputs.text, inputs.missing["text"])
                return own_BD
            rep_BD = self.text(inputs.text)
        if inputs.missing is not None and modality in inputs.missing:
            mask_B1 = inputs.missing[modality][:, None]
            rep_BD = torch.where(mask_B1, self.missing_embedding(modality), rep_BD)
        result: Tensor = rep_BD
        return result

    @property
    def own_missing_text(self) -> bool:
        """Whether the text tower has a token of its own for a missing text, in place of the learned embedding."""
        return isinstance(self.text, BackboneTower) and hasattr(self.text.backbone, "missing_id")

    def trained_nets(self) -> list[nn.Module]:
        """The backbones that the objective trains, which want a rate of their own."""
        scratch = [self.audio.net] if isinstance(self.audio, ScratchAudioTower) else []
        towers = (self.image, self.audio, self.text)
        return [*scratch, *(tower.backbone for tower in towers if isinstance(tower, BackboneTower) and tower.trained)]

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
