"""From the samples of the shards to what the towers take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symile_m3.errors import TrainingError
from symile_m3.features import Dataset, Features
from symile_m3.model import Inputs
from symile_m3.plan import Plan
from symile_m3.recipe import MissingP, missing_probabilities
from symile_m3.redraw import redraw_texts
from symile_m3.shards import Loader, LoaderConfig, Sample, missing_mask
from symile_m3.towers.text import TokenisedTexts
from symile_m3.towers.tokens import TextTokeniser, Tokens
from symile_m3.wordbags import word_numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B samples, their media by row of the feature tables.

    Attributes:
        keys: of the samples.
        class_ids, language_ids: (B,).
        image_rows, clip_rows: (B,).
        texts: tokenised.
        missing: modality -> (B,) True where missing; empty for complete samples.
        words: (B, W) see `symile_m3.wordbags`; of hidden texts none. None where not asked for.
    """

    keys: tuple[str, ...]
    class_ids: Tensor
    language_ids: Tensor
    image_rows: Tensor
    clip_rows: Tensor
    texts: TokenisedTexts | Tokens
    missing: dict[str, Tensor]
    words: Tensor | None = None


def labels_of(batch: Batch) -> list[Tensor]:
    """(B,) labels of image, audio and text: the class, the language, and both."""
    both = (batch.class_ids << 32) + batch.language_ids
    return [batch.class_ids, batch.language_ids, both]


@dataclass(frozen=True, kw_only=True)
class Collate:
    """The loader's transform: samples to a `Batch`.

    Attributes:
        plan: of the dataset.
        image_row_of, clip_row_of: medium id -> row.
        tokeniser: of the text tower.
        seed: of redrawn texts and of what is missing.
        redraw: draw the distractors anew each epoch.
        missing_p: probability that a modality of a sample is missing, the same in every epoch; or one a modality.
        words: whether batches have the words of their texts.
    """

    plan: Plan
    image_row_of: dict[str, int]
    clip_row_of: dict[str, int]
    tokeniser: TextTokeniser
    seed: int
    redraw: bool
    missing_p: MissingP
    words: bool = False

    def __call__(self, samples: list[Sample], epoch: int) -> Batch:
        records = [sample.fields["json"] for sample in samples]
        keys = tuple(sample.key for sample in samples)
        language_of = {language: i for i, language in enumerate(self.plan.lexicon.languages)}
        numbers = []
        for key, record in zip(keys, records, strict=True):
            try:
                numbers.append(
                    (
                        int(record["class_id"]),
                        language_of[record["lang"]],
                        self.image_row_of[record["image_id"]],
                        self.clip_row_of[record["clip_id"]],
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise TrainingError(
                    f"sample {key}: its json does not fit the plan ({error}); see `symile-m3 verify`"
                ) from error
        class_ids, language_ids, image_rows, clip_rows = np.array(numbers, dtype=np.int64).reshape(-1, 4).T.copy()
        texts = (
            redraw_texts(self.plan, keys, class_ids, language_ids, seed=self.seed, epoch=epoch)
            if self.redraw
            else ["_".join(record["words"]) for record in records]
        )
        missing = {
            modality: torch.from_numpy(missing_mask(keys, modality, p, self.seed))
            for modality, p in missing_probabilities(self.missing_p).items()
            if p
        }
        words = None
        if self.words:
            hidden = missing["text"].tolist() if "text" in missing else [False] * len(keys)
            words = word_numbers([[] if gone else text.split("_") for text, gone in zip(texts, hidden, strict=True)])
        return Batch(
            keys=keys,
            class_ids=torch.from_numpy(class_ids),
            language_ids=torch.from_numpy(language_ids),
            image_rows=torch.from_numpy(image_rows),
            clip_rows=torch.from_numpy(clip_rows),
            texts=self.tokeniser(texts),
            missing=missing,
            words=words,
        )


def open_loader(
    dataset: Dataset,
    split: str,
    *,
    tokeniser: TextTokeniser,
    batch_size: int,
    seed: int,
    training: bool = False,
    redraw: bool = False,
    missing_p: MissingP = 0.0,
    words: bool = False,
    on_bad_sample: str = "stop",
    rank: int = 0,
    world: int = 1,
) -> Loader[Batch]:
    """Batches of a split straight from its shards: shuffled and full for training, all in order otherwise.

    `batch_size` samples are those of one of `world` processes.
    """
    config = LoaderConfig(
        batch_size=batch_size,
        rank=rank,
        world=world,
        seed=seed,
        fields=("json",),
        shuffle=training,
        drop_last=training,
        on_bad_sample="skip" if on_bad_sample == "skip" else "stop",
    )
    collate = Collate(
        plan=dataset.plan,
        image_row_of=dataset.images.row_of,
        clip_row_of=dataset.clips.row_of,
        tokeniser=tokeniser,
        seed=seed,
        redraw=redraw,
        missing_p=missing_p,
        words=words,
    )
    return Loader(dataset.readers[split], config, transform=collate)


def training_inputs(
    batch: Batch, features: Features, generator: torch.Generator, *, rank: int = 0, world: int = 1
) -> Inputs:
    """The towers' inputs for a training batch: a random view of each image.

    Views are drawn for the batches of all `world` processes, so that each draws what one alone would have drawn.
    """
    rows = len(batch.keys)
    drawn = torch.randint(features.image_NVF.shape[1], (world * rows,), generator=generator)
    views = drawn[rank * rows : (rank + 1) * rows]
    return Inputs(
        given={
            "image": features.image_inputs(batch.image_rows, views),
            "audio": features.clip_inputs(batch.clip_rows),
            "text": (batch.texts,),
        },
        missing=batch.missing or None,
    )
