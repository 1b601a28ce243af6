"""The questions that a test asks: its samples as queries in every direction, and all candidates they are answered from.

An image is retrieved from audio and text, a clip from image and text, a text from image and audio. The candidates are
all images and all clips of the split, and the texts of all its samples. Suffixes: Q queries, N candidates, D
dimensions, W words a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.batches import Batch, open_loader
from symile_m3.exact import RETRIEVED
from symile_m3.features import Dataset, Features
from symile_m3.model import Inputs, Model
from symile_m3.ranking import Answers, Representations
from symile_m3.repstore import Gathered, store
from symile_m3.towers.tokens import TextTokeniser

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The questions under one model.

    Attributes:
        queries: modality -> Q rows, the representations of the samples.
        candidates: modality -> N rows.
    """

    queries: dict[str, Representations]
    candidates: dict[str, Representations]


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The samples of a split, and the distinct media they are answered from.

    Attributes:
        dataset, features: what it is about.
        batches: the samples in order; their texts are tokenised.
        class_ids, language_ids: (Q,) of the samples.
        keys: of the samples.
        image_rows_N, clip_rows_N: rows in the tables of features of the candidates.
        image_of_Q, clip_of_Q: (Q,) which candidate is the sample's own.
        answers: modality -> which of its candidates are right.
    """

    dataset: Dataset
    features: Features
    batches: tuple[Batch, ...]
    class_ids: Tensor
    language_ids: Tensor
    keys: tuple[str, ...]
    image_rows_N: Tensor
    clip_rows_N: Tensor
    image_of_Q: Tensor
    clip_of_Q: Tensor
    answers: dict[str, Answers]

    @classmethod
    def of_split(
        cls, dataset: Dataset, features: Features, split: str, tokeniser: TextTokeniser, on_bad_sample: str = "stop"
    ) -> Questions:
        """The questions of a split, read from its shards in order.

        Raises:
            DamagedSampleError: a sample is damaged and `on_bad_sample` is "stop".
        """
        batches = tuple(
            open_loader(dataset, split, tokeniser=tokeniser, batch_size=_BATCH, seed=0, on_bad_sample=on_bad_sample)
        )
        class_ids = torch.cat([batch.class_ids for batch in batches])
        language_ids = torch.cat([batch.language_ids for batch in batches])
        keys = tuple(key for batch in batches for key in batch.keys)
        image_rows_N, clip_rows_N = dataset.candidates(split), clip_candidates(dataset, split)
        languages = len(dataset.plan.lexicon.languages)
        return cls(
            dataset=dataset,
            features=features,
            batches=batches,
            class_ids=class_ids,
            language_ids=language_ids,
            keys=keys,
            image_rows_N=image_rows_N,
            clip_rows_N=clip_rows_N,
            image_of_Q=_places(torch.cat([batch.image_rows for batch in batches]), image_rows_N),
            clip_of_Q=_places(torch.cat([batch.clip_rows for batch in batches]), clip_rows_N),
            answers={
                "image": Answers(wanted_Q=class_ids, labels_NW=dataset.images.group_ids[image_rows_N][:, None]),
                "audio": Answers(wanted_Q=language_ids, labels_NW=dataset.clips.group_ids[clip_rows_N][:, None]),
                "text": Answers(
                    wanted_Q=class_ids * languages + language_ids, labels_NW=_words(dataset, split, keys, languages)
                ),
            },
        )

    def __len__(self) -> int:
        return len(self.keys)

    def image_inputs(self) -> Iterator[Inputs]:
        """The candidate images as they are, without augmented views, some at a time."""
        for rows in torch.split(self.image_rows_N, _BATCH):
            yield Inputs(given={"image": self.features.image_inputs(rows)})

    def clip_inputs(self) -> Iterator[Inputs]:
        """The candidate clips, some at a time."""
        for rows in torch.split(self.clip_rows_N, _BATCH):
            yield Inputs(given={"audio": self.features.clip_inputs(rows)})

    def text_inputs(self) -> Iterator[Inputs]:
        """The texts of all samples, which are the candidates too, some at a time."""
        for batch in self.batches:
            yield Inputs(given={"text": (batch.texts,)})

    @torch.inference_mode()
    def encode(self, model: Model) -> Encoded:
        """Every distinct image, clip and text under a model, once; float32, given out on the model's device."""
        model.eval()

        def stored(modality: str, parts: Iterator[Inputs], rows: int) -> Representations:
            parts_BD = (model.encode(modality, moved(part, model.device)).float() for part in parts)
            return store(parts_BD, rows)

        images = stored("image", self.image_inputs(), len(self.image_rows_N))
        clips = stored("audio", self.clip_inputs(), len(self.clip_rows_N))
        texts = stored("text", self.text_inputs(), len(self))
        return Encoded(
            queries={
                "image": Gathered(images, self.image_of_Q),
                "audio": Gathered(clips, self.clip_of_Q),
                "text": texts,
            },
            candidates={"image": images, "audio": clips, "text": texts},
        )

    def fitting(self, retrieved: str, given: tuple[str, ...]) -> float | None:
        """How often a random one of the candidates that fit what is given is right, exactly, of these samples.

        For one who reads what is given without error and knows nothing of the rest; near the best accuracy of the
        process, and above it where candidates are few, as the sample's own is among them. None for `overlap` texts,
        where candidates that fit need not be equally likely.
        """
        if self.dataset.plan.config.text != "disjoint":
            return None
        answers = self.answers[retrieved]
        right_Q = answers.counts().double()
        if set(given) == set(RETRIEVED[retrieved]):
            return float((right_Q > 0).double().mean())
        words_QW, languages = self.answers["text"].labels_NW, len(self.dataset.plan.lexicon.languages)
        parts_QW = {"image": words_QW // languages, "audio": words_QW % languages}  # classes, and languages, of words
        if retrieved == "text":
            counts = torch.bincount(parts_QW[given[0]].flatten())  # a disjoint text has each at most once
            fit_Q = counts[self.class_ids if given[0] == "image" else self.language_ids]
        elif given == ("text",):
            labels = parts_QW[retrieved]
            counts = torch.bincount(answers.labels_NW[:, 0], minlength=int(labels.max()) + 1)
            fit_Q = counts[labels].sum(dim=1)
        else:
            fit_Q = torch.full_like(answers.wanted_Q, len(answers.labels_NW))
        return float((right_Q / fit_Q).mean())


def clip_candidates(dataset: Dataset, split: str) -> Tensor:
    """Rows of the clips that queries of a split are answered from: all that the plan has for the split."""
    return torch.tensor(
        [
            dataset.clips.row_of[clip.id]
            for clip in dataset.plan.clips
            if clip.id in dataset.clips.row_of
            and (dataset.plan.config.split_by == "sample" or clip.recipe.split == split)
        ]
    )


def _places(rows_Q: Tensor, candidates_N: Tensor) -> Tensor:
    """Where each row is among the candidates."""
    ordered, order = candidates_N.sort()
    return order[torch.searchsorted(ordered, rows_Q)]


def _words(dataset: Dataset, split: str, keys: tuple[str, ...], languages: int) -> Tensor:
    """(Q, W) the words of each text, as numbers: class * languages + language."""
    numbers = np.array([int(key.rsplit("-", 1)[1]) for key in keys], dtype=np.int64)
    start, stop = (int(numbers.min()), int(numbers.max()) + 1) if len(numbers) else (0, 0)
    rows = dataset.plan.rows(split, start, stop)
    words_NW = rows.word_class_ids * languages + rows.word_language_ids
    return torch.from_numpy(words_NW[numbers - start])
