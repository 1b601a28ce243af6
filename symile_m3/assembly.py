"""The model that a recipe describes, for a dataset: its towers, its tokeniser, and the weights these begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from symile_m3.checkpoints import load_weights
from symile_m3.errors import TrainingError
from symile_m3.features import Dataset, Features
from symile_m3.model import Model
from symile_m3.objectives import Objective
from symile_m3.recipe import TrainConfig
from symile_m3.seeds import philox_key
from symile_m3.towers.audio import AudioHead, ScratchAudioTower
from symile_m3.towers.head import Head, linear_head
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import TextTower, Tokeniser
from symile_m3.towers.tokens import TextTokeniser
from symile_m3.towers.tower import BackboneTower, open_backbone, open_tokeniser
from symile_m3.towers.weights import find_weights


def pretrained_weights(config: TrainConfig) -> dict[str, str]:
    """Modality -> fingerprint of its tower's weights, for those that come from a file or the Hub."""
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    return {spec.modality: find_weights(spec).fingerprint() for spec in specs if spec.pretrained}


def new_tokeniser(dataset: Dataset, config: TrainConfig) -> TextTokeniser:
    """The tokeniser of the text tower; that of the words and n-grams knows the dataset's lexicon."""
    return tokeniser_of(words_of(dataset), config)


def words_of(dataset: Dataset) -> tuple[str, ...]:
    """The words of a dataset's lexicon, each once, in the order of the rows of the text table."""
    return tuple(dict.fromkeys(name for row in dataset.plan.lexicon.names for name in row))


def tokeniser_of(words: Iterable[str], config: TrainConfig) -> TextTokeniser:
    """The tokeniser of the text tower, for these words where it has a vocabulary of its own."""
    if config.model.text_tower.pretrained:
        tokeniser: TextTokeniser = open_tokeniser(config.model.text_tower)
        return tokeniser
    return _word_tokeniser(words, config)


def _word_tokeniser(words: Iterable[str], config: TrainConfig) -> Tokeniser:
    return Tokeniser(
        words,
        buckets=config.model.text_buckets,
        share_ngrams=config.model.text_ngrams,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """What the towers of a recipe take from a dataset.

    Attributes:
        image_features: F of the image features; of no account for a backbone that is trained.
        audio_features: F of the clip features; None where the tower takes log-mels.
        words: of the text table, where the text tower has one.
    """

    image_features: int
    audio_features: int | None
    words: Sequence[str]

    @classmethod
    def of(cls, dataset: Dataset, features: Features) -> Shapes:
        """Those of a dataset and its features."""
        return cls(
            image_features=features.image_NVF.shape[2],
            audio_features=features.clip_NF.shape[1] if features.clip_mask_NT is None else None,
            words=words_of(dataset),
        )


def new_model(dataset: Dataset, features: Features, objective: Objective, config: TrainConfig) -> Model:
    """A model with initial weights drawn by the recipe's seed, the same for every objective.

    Raises:
        SymileM3Error: the weights of a pretrained tower are not to be had, or do not fit.
    """
    return model_of(Shapes.of(dataset, features), objective, config)


def model_of(shapes: Shapes, objective: Objective, config: TrainConfig) -> Model:
    """The same without the dataset.

    Raises:
        SymileM3Error: the weights of a pretrained tower are not to be had, or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(config.seed, "init") % 2**63)
        return Model(
            new_towers(shapes, config),
            objective,
            dim=config.model.dim,
            log_scale=(config.model.symile_log_scale if objective.products else objective.init_log_scale)
            + config.model.log_scale_offset,
        )


def load_best(model: Model, path: Path) -> None:
    """Give a model the weights in a file.

    Raises:
        TrainingError: it is damaged, or of other towers.
    """
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise TrainingError(
            f"{path} is of other towers than {path.parent}/config.json says; train again with --overwrite"
        ) from error


def new_towers(shapes: Shapes, config: TrainConfig) -> dict[str, nn.Module]:
    """The towers of a recipe, with weights drawn by torch's generator; they learn what stands for a missing modality
    where training hides it.

    Raises:
        SymileM3Error: the weights of a pretrained tower are not to be had, or do not fit.
    """
    model = config.model
    indicators = {modality: model.indicator if p else 0 for modality, p in config.missing.items()}

    def image_head(width: int, noise: float) -> ImageHead:
        return ImageHead(
            width,
            model.image_hidden,
            model.dim,
            dropout=model.image_dropout,
            noise=noise,
            indicator=indicators["image"],
        )

    def audio_head(width: int, noise: float) -> AudioHead:
        return AudioHead(width, model.audio_hidden, model.dim, noise=noise, indicator=indicators["audio"])

    image, audio, text = config.features.image_tower, config.features.audio_tower, model.text_tower
    backbones = {spec.modality: open_backbone(spec) for spec in (image, audio, text)}
    towers: dict[str, nn.Module] = {}
    # Noise is meant for standardised features, so none where the backbone is trained.
    if backbones["image"] is not None:
        net = backbones["image"]
        towers["image"] = BackboneTower(net, image_head(net.width, 0.0), trained=image.trained)
    else:
        towers["image"] = image_head(shapes.image_features, model.image_noise)
    if backbones["audio"] is not None:
        net = backbones["audio"]
        towers["audio"] = BackboneTower(net, audio_head(net.width, 0.0), trained=audio.trained)
    elif shapes.audio_features is None:
        towers["audio"] = ScratchAudioTower(model.audio_hidden, model.dim, indicator=indicators["audio"])
    else:
        towers["audio"] = audio_head(shapes.audio_features, model.audio_noise)
    if backbones["text"] is not None:
        net = backbones["text"]
        # A text tower that has a token of its own for a missing text needs no other sign.
        own = text.trained and hasattr(net, "missing_id")
        head = linear_head(net.width, model.dim, indicator=0 if own else indicators["text"])
        towers["text"] = BackboneTower(net, head, trained=text.trained)
    else:
        rows = _word_tokeniser(shapes.words, config).rows
        towers["text"] = TextTower(rows, model.dim, learns_missing=bool(indicators["text"]))
    return towers


def fit_heads(model: Model, dataset: Dataset, features: Features, *, standardise: bool) -> None:
    """Give the heads on frozen features mean and deviation of the training media; the mean stands for missing ones."""
    for modality, media, found in (
        ("image", dataset.images, features.image_NVF),
        ("audio", dataset.clips, features.clip_NF),
    ):
        head = model.towers[modality]
        if isinstance(head, Head):
            parts = torch.split(media.of_split("train"), 4096)
            mean_F, std_F = _moments(found[part, 0] if modality == "image" else found[part] for part in parts)
            if standardise:
                head.standardise_by(mean_F, std_F)
            head.stand_in(mean_F)


def _moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """(F,) mean and deviation over all rows of (N, F) parts."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        rows_NF = part.double()
        count, total, squares = count + len(rows_NF), total + rows_NF.sum(0), squares + rows_NF.square().sum(0)
    mean_F = total / count
    variance_F = (squares - count * mean_F.square()).clamp_min(0) / max(1, count - 1)
    return mean_F.float(), variance_F.sqrt().float()
