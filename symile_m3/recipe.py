"""The recipe of a training run: every setting, the presets, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from symile_m3.errors import UsageError
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.objectives import Negatives

SCHEDULES = ("one-cycle", "constant")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training recipe; saved with every run.

    Attributes:
        features, model: see `FeatureConfig` and `ModelConfig`.
        steps: optimiser steps; 0 takes `epochs` instead.
        epochs: passes over the training samples, where `steps` is 0.
        batch_size: samples a step.
        lr: peak rate of the linear maps, the text table and the scale (a one-cycle schedule, cosine).
        image_lr, image_weight_decay: the same for the image head, which overfits first.
        net_lr: the same for an audio net trained from scratch, and for pretrained backbones that are trained.
        weight_decay: of all else but the scale.
        schedule: one-cycle, or constant as in the paper, which has no warm-up.
        warmup: share of the steps in which the rate rises.
        beta2: AdamW's second, the first being 0.9.
        negatives: Symile's: n, n:k, faces or n2 (see `symile_m3.objectives.negatives`).
        missing_p: probability that a modality of a training sample is missing.
        redraw: draw the distractors anew each epoch.
        seed: of order, initial weights, dropout, negatives, texts and missingness.
        evaluations: times the validation retrieval is measured, and the run saved.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 1200
    epochs: float = 0.0
    batch_size: int = 512
    lr: float = 3e-2
    image_lr: float = 3e-3
    image_weight_decay: float = 0.1
    net_lr: float = 3e-3
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    warmup: float = 0.1
    beta2: float = 0.98
    negatives: str = "n"
    missing_p: float = 0.0
    redraw: bool = True
    seed: int = 0
    evaluations: int = 10

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{item.name} {value}: a finite number")
        if self.steps < 0 or self.epochs < 0 or (self.steps == 0) == (self.epochs == 0):
            raise UsageError(f"{self.steps} steps and {self.epochs:g} epochs: give one of them, at least 1")
        if self.batch_size < 2:
            raise UsageError(f"--batch-size {self.batch_size}: contrast needs at least two samples")
        if not 0 <= self.missing_p < 1:
            raise UsageError(f"--missing-p {self.missing_p}: a probability from 0 to less than 1")
        if min(self.lr, self.image_lr, self.net_lr) <= 0 or not 0 < self.warmup < 1:
            raise UsageError("learning rates must be positive and warmup between 0 and 1")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule {self.schedule}: give {' or '.join(SCHEDULES)}")
        if not 0 < self.beta2 < 1:
            raise UsageError(f"beta2 {self.beta2}: between 0 and 1")
        if min(self.weight_decay, self.image_weight_decay) < 0:
            raise UsageError("weight decay must not be negative")
        try:
            Negatives.parse(self.negatives)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.seed < 0 or self.evaluations < 1:
            raise UsageError("the seed must not be negative and evaluations at least 1")

    def with_settings(self, settings: Sequence[str]) -> TrainConfig:
        """This recipe with some settings replaced, each given as `KEY=VALUE`.

        Raises:
            UsageError: an unknown key, or a value of another type than the setting's.
        """
        config = self
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise UsageError(f"--set {setting}: give KEY=VALUE")
            for owner in (None, "features", "model"):
                part: Any = getattr(config, owner) if owner else config
                if key in {item.name for item in fields(part)} - {"features", "model"}:
                    break
            else:
                raise UsageError(f"--set {key}: no such setting; known: {', '.join(_settings(config))}")
            try:
                changed = replace(part, **{key: _parse(value, getattr(part, key))})
            except ValueError as error:
                raise UsageError(f"--set {setting}: {error}") from error
            config = replace(config, **{owner: changed}) if owner else changed
        return config


def _settings(config: TrainConfig) -> list[str]:
    parts: tuple[Any, ...] = (config, config.features, config.model)
    return [item.name for part in parts for item in fields(part) if item.name not in ("features", "model")]


def _parse(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("give true or false")
        return text.lower() == "true"
    return type(like)(text)


# The published recipe for Symile-M3 (Saporta et al. 2024, and its code): frozen Whisper and CLIP, XLM-R's embeddings
# and first layer trained, one linear map and LayerNorm a tower on features as they are, AdamW with PyTorch's own betas
# and weight decay, a constant rate, texts as they are stored. The rate is the one figure that neither the code nor its
# documentation gives: 1e-4 is ours.
PAPER = TrainConfig(
    features=FeatureConfig(image="clip:ViT-L-14@openai", audio="whisper:openai/whisper-large-v3", image_views=1),
    model=ModelConfig(
        text="xlmr:xlm-roberta-large",
        dim=8192,
        image_hidden=0,
        image_dropout=0.0,
        image_noise=0.0,
        audio_hidden=0,
        audio_noise=0.0,
        standardise=False,
        symile_log_scale=-6.0,
    ),
    steps=0,
    epochs=24.0,
    batch_size=256,
    lr=1e-4,
    image_lr=1e-4,
    net_lr=1e-4,
    weight_decay=0.01,
    image_weight_decay=0.01,
    schedule="constant",
    beta2=0.999,
    negatives="n",
    redraw=False,
    evaluations=24,
)

PRESETS = {
    "default": TrainConfig(),
    "quickstart": TrainConfig(
        steps=500, features=FeatureConfig(image_views=2, audio_steps=500), model=ModelConfig(dim=1024)
    ),
    "paper": PAPER,
}


def learning_rate(step: int, steps: int, warmup: float, schedule: str = "one-cycle") -> float:
    """The rate as a share of its peak; one-cycle: cosine up from 1/25, then cosine down to 1/10,000."""
    if schedule == "constant":
        return 1.0
    rise = max(1.0, warmup * steps)
    if step < rise:
        low, high, at = 1 / 25, 1.0, step / rise
    else:
        low, high, at = 1e-4, 1.0, 1 - (step - rise) / max(1.0, steps - rise)
    return low + (high - low) * (1 - math.cos(math.pi * at)) / 2
