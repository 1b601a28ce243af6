"""The model that a recipe describes, for a dataset: its towers, its tokeniser, and the weights these begin with."""

from __future__ import annotations

import torch

from symile_m3.features import Dataset, Features
from symile_m3.model import Model
from symile_m3.objectives import Objective
from symile_m3.recipe import TrainConfig
from symile_m3.seeds import philox_key
from symile_m3.towers.audio import AudioHead
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import Tokeniser
from symile_m3.towers.tokens import TextTokeniser
from symile_m3.towers.tower import open_backbone, open_tokeniser
from symile_m3.towers.weights import find_weights


def pretrained_weights(config: TrainConfig) -> dict[str, str]:
    """Modality -> fingerprint of its tower's weights, for those that come from a file or the Hub."""
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    return {spec.modality: find_weights(spec).fingerprint() for spec in specs if spec.pretrained}


def new_tokeniser(dataset: Dataset, config: TrainConfig) -> TextTokeniser:
    """The tokeniser of the text tower; that of the words and n-grams knows the dataset's lexicon."""
    if config.model.text_tower.pretrained:
        tokeniser: TextTokeniser = open_tokeniser(config.model.text_tower)
        return tokeniser
    return _word_tokeniser(dataset, config)


def _word_tokeniser(dataset: Dataset, config: TrainConfig) -> Tokeniser:
    return Tokeniser(
        (name for row in dataset.plan.lexicon.names for name in row),
        buckets=config.model.text_buckets,
        share_ngrams=config.model.text_ngrams,
    )


def new_model(dataset: Dataset, features: Features, objective: Objective, config: TrainConfig) -> Model:
    """A model with initial weights drawn by the recipe's seed, the same for every objective.

    Raises:
        SymileM3Error: the weights of a pretrained tower are not to be had, or do not fit.
    """
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(config.seed, "init") % 2**63)
        found = {spec.modality: (open_backbone(spec), spec.trained) for spec in specs}
        return Model(
            config.model,
            objective,
            image_features=features.image_NVF.shape[2],
            audio_features=features.clip_NF.shape[1] if features.clip_mask_NT is None else None,
            text_rows=0 if found["text"][0] is not None else _word_tokeniser(dataset, config).rows,
            backbones={modality: tower for modality, tower in found.items() if tower[0] is not None},
        )


def standardise(model: Model, dataset: Dataset, features: Features) -> None:
    """Fit the heads' standardisation to the training media."""
    if isinstance(model.image, ImageHead):
        model.image.standardise_by(features.image_NVF[dataset.images.of_split("train"), 0].float())
    if isinstance(model.audio, AudioHead):
        model.audio.standardise_by(features.clip_NF[dataset.clips.of_split("train")].float())
