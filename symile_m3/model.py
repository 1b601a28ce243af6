"""The model: a tower for each modality, all of which map to one space, and a learned scale.

Suffixes: B batch, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symile_m3.objectives import Objective, get_objective
from symile_m3.objectives.scores import Scores
from symile_m3.towers.spec import TowerSpec, parse_tower

MODALITIES = ("image", "audio", "text")
"""Of a triple, in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """What shapes the towers of a triple.

    Attributes:
        text: spec of the text tower; see `symile_m3.towers.spec`.
        dim: D of the representations.
        image_hidden, image_dropout, image_noise: of the image head; with `image_hidden` 0 it is one linear map.
        audio_hidden: width of the audio head's narrow middle; with 0 it is one linear map.
        audio_noise: deviation of the noise on the standardised audio features while training.
        text_buckets: rows that character n-grams are hashed to.
        text_ngrams: whether known words share n-grams, beside a row of their own; unknown ones always have.
        standardise: whether the heads take frozen features with mean 0 and deviation 1 over the training media.
        symile_log_scale: logarithm of the scale at the beginning, of every objective that scales Symile's product:
            symile, sigmoid, gated and soft. Named for the first of them, and kept so for the runs that have it.
        indicator: numbers that say whether an image or a clip is missing, joined to the features that its head takes;
            learned by a model that is trained with missing ones.
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
    indicator: int = 16
    log_scale_offset: float = 0.0

    def __post_init__(self) -> None:
        parse_tower("text", self.text)
        least = {"dim": 1, "image_hidden": 0, "audio_hidden": 0, "text_buckets": 1, "indicator": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise ValueError(f"{name} must be at least {number}, not {getattr(self, name)}")
        if not -20 <= self.symile_log_scale <= 0:
            raise ValueError("symile_log_scale must be from -20 to 0")
        if not -20 <= self.log_scale_offset <= 20:
            raise ValueError("log_scale_offset must be from -20 to 20")
        noises = (self.image_noise, self.audio_noise)
        if not 0 <= self.image_dropout < 1 or not all(0 <= noise < math.inf for noise in noises):
            raise ValueError("dropout must be in [0, 1), noise not negative and finite")

    @property
    def text_tower(self) -> TowerSpec:
        """The spec of the text tower, taken apart."""
        return parse_tower("text", self.text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the towers take for B samples.

    Attributes:
        given: modality -> the arguments of its tower, B rows each. Of a triple: (features (B, F),) or (pixels
            (B, 3, H, W),) of the image, (features (B, F),) or (log-mels (B, M, T), valid frames (B, T)) of the
            audio, and (tokenised texts,) of the text. A modality that is not asked for may be left out.
        missing: modality -> (B,) True where the sample lacks it.
    """

    given: Mapping[str, tuple[Any, ...]]
    missing: Mapping[str, Tensor] | None = None

    def __len__(self) -> int:
        """B."""
        return len(next(iter(self.given.values()))[0])


class Model(nn.Module):
    """A tower for each modality, any number of them from two on.

    A tower takes the arguments that `Inputs.given` has for it and returns representations (B, D), best LayerNormed. One
    that knows what stands for a missing sample says so by an attribute `learns_missing` that is True and takes the mask
    (B,) of what is missing as the keyword `missing`.

    Args:
        towers: modality -> tower.
        objective: decides where the learned scale starts and ends, and what else is learned; its name will do.
        dim: D.
        log_scale: logarithm of the scale at the beginning, in place of the objective's.

    Raises:
        ValueError: there are fewer than two towers.
        UsageError: the objective is unknown, or not for so many.
    """

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        objective: Objective | str,
        *,
        dim: int,
        log_scale: float | None = None,
    ) -> None:
        super().__init__()
        if len(towers) < 2:
            raise ValueError(f"{len(towers)} towers: contrast needs at least two modalities")
        if isinstance(objective, str):
            objective = get_objective(objective)
        objective.check_modalities(len(towers))
        self.towers = nn.ModuleDict(towers)
        self.log_scale = nn.Parameter(torch.tensor(objective.init_log_scale if log_scale is None else log_scale))
        self.max_log_scale = objective.max_log_scale
        self.head = objective.head(len(towers), dim) if objective.head else nn.ParameterDict()
        self.dim = dim

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the order of the representations."""
        return tuple(self.towers)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.log_scale.device

    def scores(self, objective: Objective, retrieved: str, given: Sequence[str], *, terms: bool = False) -> Scores:
        """The objective's scores under what the model has learned, for one modality retrieved from others.

        With `terms` they are of queries as `Objective.term` makes them, or of means of such.
        """
        index = self.modalities.index
        numbers = [index(name) for name in given]
        return objective.scores_with(self.head, retrieved=index(retrieved), given=numbers, terms=terms)

    def encode(self, modality: str, inputs: Inputs) -> Tensor:
        """(B, D) representations of one modality.

        Raises:
            ValueError: something is missing, and the tower has not learned what stands for it.
        """
        tower, given = self.towers[modality], inputs.given[modality]
        rep_BD: Tensor
        if inputs.missing is None or modality not in inputs.missing:
            rep_BD = tower(*given)
        elif learns_missing(tower):
            rep_BD = tower(*given, missing=inputs.missing[modality])
        else:
            raise ValueError(f"{modality}: this model was not trained with missing ones, so nothing stands for them")
        return rep_BD

    def trained_nets(self) -> list[nn.Module]:
        """The backbones that the objective trains, which want a rate of their own."""
        nets = (getattr(tower, "trained_net", None) for tower in self.towers.values())
        return [net for net in nets if isinstance(net, nn.Module)]

    def forward(self, inputs: Inputs) -> list[Tensor]:
        """(B, D) representations of each modality."""
        return [self.encode(modality, inputs) for modality in self.towers]

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the learned scale within the objective's bound."""
        self.log_scale.clamp_(-math.inf, self.max_log_scale)


def learns_missing(tower: nn.Module) -> bool:
    """Whether a tower has learned what stands for a missing sample."""
    return bool(getattr(tower, "learns_missing", False))
