"""Which distinct images and clips the samples of a dataset use, and in which sample each can be read.

A plan tells without a look at any shard: its rows are drawn, many at a time, until every medium has been met,
which for a few thousand media is some tens of thousands of samples, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.card import planned_media
from symile_m3.media import Medium
from symile_m3.plan import SPLITS, Plan

_ROWS = 1 << 16  # drawn at a time: about 20 MB


@dataclass(frozen=True, kw_only=True)
class Media:
    """The distinct media of one kind that the samples of a dataset use.

    Attributes:
        row_of: id -> row.
        group_ids: (N,) class ids of images, language ids of clips.
        splits: the splits each medium occurs in, by row.
        first: where each medium can be read: a split and a sample number.
    """

    row_of: dict[str, int]
    group_ids: Tensor
    splits: tuple[frozenset[str], ...]
    first: tuple[tuple[str, int], ...]

    def of_split(self, split: str) -> Tensor:
        """Rows of the media that occur in a split."""
        return torch.tensor([row for row, splits in enumerate(self.splits) if split in splits], dtype=torch.long)


class MediaCount:
    """Media of one kind as they are met, sample by sample.

    Attributes:
        found: id -> its group, where it was met first, and the splits it was met in.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, tuple[str, int], frozenset[str]]] = {}

    def meet(self, media_id: str, group_id: int, split: str, sample: int) -> None:
        """A medium occurs in a sample; the samples come in order."""
        before = self.found.get(media_id)
        if before is None:
            self.found[media_id] = (group_id, (split, sample), frozenset({split}))
        elif split not in before[2]:
            self.found[media_id] = (*before[:2], before[2] | {split})

    def media(self) -> Media:
        """What has been met, sorted by id."""
        ids = sorted(self.found)
        return Media(
            row_of={media_id: row for row, media_id in enumerate(ids)},
            group_ids=torch.tensor([self.found[media_id][0] for media_id in ids]),
            splits=tuple(self.found[media_id][2] for media_id in ids),
            first=tuple(self.found[media_id][1] for media_id in ids),
        )


def media_of_plan(plan: Plan) -> tuple[Media, Media]:
    """The images and the clips that the samples of a plan use; no shard is read.

    They are those that a scan of all samples finds, each with the same first sample.
    """
    images, clips = MediaCount(), MediaCount()
    class_ids = {key: i for i, key in enumerate(plan.lexicon.class_keys)}
    language_ids = {language: i for i, language in enumerate(plan.lexicon.languages)}
    for split in SPLITS:
        image_firsts, clip_firsts = _first_samples(plan, split)
        _meet(images, plan.images, image_firsts, class_ids, split)
        _meet(clips, plan.clips, clip_firsts, language_ids, split)
    return images.media(), clips.media()


def _meet(
    count: MediaCount, media: Sequence[Medium], firsts: NDArray[np.int64], group_ids: Mapping[str, int], split: str
) -> None:
    for row in np.flatnonzero(firsts >= 0).tolist():
        count.meet(media[row].id, group_ids[media[row].recipe.group], split, int(firsts[row]))


def _first_samples(plan: Plan, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By row of the plan's images and clips: the first sample of the split with it, -1 where there is none."""
    kinds = [(np.full(len(media), -1, np.int64), planned_media(plan, media, split)) for media in _both(plan)]
    size = plan.config.sizes[split]
    for start in range(0, size, _ROWS):
        rows = plan.rows(split, start, min(start + _ROWS, size))
        for (firsts, _), used in zip(kinds, (rows.image_rows, rows.clip_rows), strict=True):
            met, at = np.unique(used, return_index=True)
            new = firsts[met] < 0
            firsts[met[new]] = start + at[new]
        if all(np.count_nonzero(firsts >= 0) == possible for firsts, possible in kinds):
            break
    return kinds[0][0], kinds[1][0]


def _both(plan: Plan) -> Iterable[Sequence[Medium]]:
    return plan.images, plan.clips
