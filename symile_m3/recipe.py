"""The recipe of a training run: every setting, the presets, and the schedule of the learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from symile_m3.errors import UsageError
from symile_m3.features import FeatureConfig
from symile_m3.model import MODALITIES, ModelConfig
from symile_m3.objectives import Negatives
from symile_m3.processes import PRECISIONS
from symile_m3.runlog import LOGS

MissingP = float | Mapping[str, float]

SCHEDULES = ("one-cycle", "constant")
SOFT_TARGETS = ("labels", "texts")
ADDED: Mapping[str, Any] = {"soft_targets": "labels"}
"""Settings that recipes of older versions lack, and what those did."""
ADDED_TO_DECLARED: Mapping[str, Any] = {**ADDED, "log_scale_offset": 0.0}
"""The same, of recipes for declared modalities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig(ABC):
    """What the training loop itself needs to know, whatever is trained; saved with every run.

    Attributes:
        steps: optimiser steps; 0 takes `epochs` instead.
        epochs: passes over the training samples, where `steps` is 0.
        batch_size: samples a step.
        lr: peak rate (a one-cycle schedule, cosine).
        weight_decay: of all but the scale.
        schedule: one-cycle, or constant as in the paper, which has no warm-up.
        warmup: share of the steps in which the rate rises.
        beta2: AdamW's second, the first being 0.9.
        negatives: of Symile and sigmoid: n, n:k, faces or n2 (see `symile_m3.objectives.negatives`).
        soft_targets: of soft: what makes samples alike, labels or texts (the words that they share).
        missing_p: probability that a modality of a training sample is missing: one number, or one a modality.
        seed: of order, initial weights, dropout, negatives, texts and missingness.
        evaluations: times the validation retrieval is measured, and the run saved.
        precision: 32, or bf16 for towers that compute in bfloat16 with weights in float32.
        clip_norm: what the norm of all gradients is cut to; 0 leaves them.
        patience: evaluations without a better validation retrieval after which the run ends; 0 never.
    """

    steps: int = 1200
    epochs: float = 0.0
    batch_size: int = 512
    lr: float = 3e-2
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    warmup: float = 0.1
    beta2: float = 0.98
    negatives: str = "n"
    soft_targets: str = "labels"
    missing_p: MissingP = 0.0
    seed: int = 0
    evaluations: int = 10
    precision: str = "32"
    clip_norm: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{item.name} {value}: a finite number")
        if self.steps < 0 or self.epochs < 0 or (self.steps == 0) == (self.epochs == 0):
            raise UsageError(f"{self.steps} steps and {self.epochs:g} epochs: give one of them, at least 1")
        if self.batch_size < 2:
            raise UsageError(f"--batch-size {self.batch_size}: contrast needs at least two samples")
        try:
            missing = missing_probabilities(self.missing_p, self.modality_names)
            object.__setattr__(self, "missing_p", _simplest(missing))
        except ValueError as error:
            raise UsageError(f"--missing-p {error}") from error
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("lr") and value <= 0:
                raise UsageError(f"{item.name} {value}: a rate above 0")
            if item.name.endswith("weight_decay") and value < 0:
                raise UsageError(f"{item.name} {value}: at least 0")
        if not 0 < self.warmup < 1:
            raise UsageError(f"warmup {self.warmup}: between 0 and 1")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule {self.schedule}: give {' or '.join(SCHEDULES)}")
        if not 0 < self.beta2 < 1:
            raise UsageError(f"beta2 {self.beta2}: between 0 and 1")
        try:
            Negatives.parse(self.negatives)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.soft_targets not in SOFT_TARGETS:
            raise UsageError(f"soft_targets {self.soft_targets}: give {' or '.join(SOFT_TARGETS)}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: unknown; known: {', '.join(PRECISIONS)}")
        for name, least in {"seed": 0, "evaluations": 1, "clip_norm": 0, "patience": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)}: at least {least}")

    @property
    @abstractmethod
    def modality_names(self) -> tuple[str, ...]:
        """What is trained on, and may be missing."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The fields that hold settings of their own."""
        return ()

    @property
    def missing(self) -> dict[str, float]:
        """The probability of each modality to be missing in training."""
        return missing_probabilities(self.missing_p, self.modality_names)

    @property
    def mean_missing_p(self) -> float:
        """The mean of these, which is the probability itself where all have the same."""
        if isinstance(self.missing_p, Mapping):
            return sum(self.missing.values()) / len(self.missing)
        return self.missing_p

    def in_steps(self, samples: int) -> Self:
        """This recipe with the steps that its epochs come to on so many training samples."""
        if not self.epochs:
            return self
        return replace(self, steps=max(1, round(self.epochs * (samples // self.batch_size))), epochs=0.0)

    def with_settings(self, settings: Sequence[str], option: str = "--set") -> Self:
        """This recipe with some settings replaced, each given as `KEY=VALUE`, or as `features.KEY=VALUE`.

        Args:
            option: that gave them, for what is said of wrong ones.

        Raises:
            UsageError: an unknown key, or a value of another type than the setting's.
        """
        config = self
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals:
                raise UsageError(f"{option} {setting}: give KEY=VALUE")
            within, _, key = name.rpartition(".")  # features.precision, as the towers have a precision too
            for owner in (None, *config.parts):
                part: Any = getattr(config, owner) if owner else config
                if within in ("", owner) and key in _settings_of(part):
                    break
            else:
                known = [
                    setting
                    for owned in (config, *(getattr(config, o) for o in config.parts))
                    for setting in _settings_of(owned)
                ]
                raise UsageError(f"{option} {name}: no such setting; known: {', '.join(known)}")
            try:
                parsed = parse_missing_p(value) if key == "missing_p" else _parse(value, getattr(part, key))
                changed = replace(part, **{key: parsed})
            except ValueError as error:
                raise UsageError(f"{option} {setting}: {error}") from error
            config = replace(config, **{owner: changed}) if owner else changed
        return config


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """A recipe for training on triples.

    Attributes:
        lr: peak rate of the linear maps, the text table and the scale.
        features, model: see `FeatureConfig` and `ModelConfig`.
        image_lr, image_weight_decay: the same for the image head, which overfits first.
        net_lr: the same for an audio net trained from scratch, for pretrained backbones that are trained, and for
            what an objective learns beside (its bias, gates or fusions).
        redraw: draw the distractors anew each epoch.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    image_lr: float = 3e-3
    image_weight_decay: float = 0.1
    net_lr: float = 3e-3
    redraw: bool = True

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)  # a class with slots is another than the one that super() would look for

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Those of a triple."""
        return MODALITIES

    @property
    def parts(self) -> tuple[str, ...]:
        """Features and model have settings of their own."""
        return ("features", "model")


def naming(config: LoopConfig) -> dict[str, Any]:
    """The settings that name a recipe: all but those of `ADDED` that do what was done before there were any."""
    settings = asdict(config).items()
    return {name: value for name, value in settings if name not in ADDED or value != ADDED[name]}


def _settings_of(part: Any) -> list[str]:
    """What `--set` can change: plain values."""
    plain = bool | int | float | str
    return [
        item.name for item in fields(part) if item.name == "missing_p" or isinstance(getattr(part, item.name), plain)
    ]


def _parse(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("give true or false")
        return text.lower() == "true"
    return type(like)(text)


def missing_probabilities(missing_p: MissingP, modalities: Sequence[str] = MODALITIES) -> dict[str, float]:
    """The probability of each modality to be missing.

    Raises:
        ValueError: an unknown modality, or no probability from 0 to less than 1.
    """
    if isinstance(missing_p, Mapping):
        unknown = sorted(set(missing_p) - set(modalities))
        if unknown:
            raise ValueError(f"{unknown[0]}: no modality; known: {', '.join(modalities)}")
        found = {modality: float(missing_p.get(modality, 0.0)) for modality in modalities}
    else:
        found = dict.fromkeys(modalities, float(missing_p))
    for p in found.values():
        if not 0 <= p < 1:
            raise ValueError(f"{p:g}: a probability from 0 to less than 1")
    return found


def parse_missing_p(text: str) -> MissingP:
    """One number, or MODALITY=P,..., where modalities that are not named are never missing.

    Raises:
        ValueError: neither.
    """
    if "=" not in text:
        return float(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a modality is named twice")
    return {name: float(p) for name, (_, _, p) in zip(names, pairs, strict=True)}


def _simplest(probabilities: Mapping[str, float]) -> MissingP:
    """One number where all modalities have the same."""
    numbers = set(probabilities.values())
    return numbers.pop() if len(numbers) == 1 else dict(probabilities)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a run is carried out, which is no part of its recipe: an interrupted run may go on with other options.

    Attributes:
        micro_batch: samples that a process encodes with a graph at a time; 0 for all of its share of the batch. The
            loss and its gradients are those of the whole batch either way; dropout and noise are other draws.
        compile: whether the towers are compiled.
        logs: where else each step is written to: csv, tensorboard, wandb.
        resume: only go on with a run that is there.
        portable: whether what `symile_m3.load` needs is written beside a finished run.
    """

    micro_batch: int = 0
    compile: bool = False
    logs: tuple[str, ...] = ()
    resume: bool = False
    portable: bool = True

    def __post_init__(self) -> None:
        if self.micro_batch < 0:
            raise UsageError(f"--micro-batch {self.micro_batch}: at least one sample")
        for name in self.logs:
            if name not in LOGS:
                raise UsageError(f"--log-to {name}: unknown; known: {', '.join(LOGS)}")


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
