"""A built dataset, opened: its plan, its shards, and the distinct media that its samples use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symile_m3.errors import DamagedSampleError, NotBuiltError
from symile_m3.plan import SPLITS, Plan, load_plan
from symile_m3.progress import Progress
from symile_m3.remote_plan import load_remote_plan
from symile_m3.shards import DatasetLayout, DatasetReader, ShardCache, decode_json, open_layout, shard_name
from symile_m3.used_media import Media, MediaCount, media_of_plan

_AHEAD = 1024
_MEDIA = ("jpg", "flac")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A built dataset, opened: its plan, a reader a split, and its distinct media."""

    plan: Plan
    layout: DatasetLayout
    readers: dict[str, DatasetReader]
    images: Media
    clips: Media

    def candidates(self, split: str) -> Tensor:
        """Rows of the images that queries of a split are answered from: all that the plan has for the split.

        Not only those its samples happen to use: how many images of a class are among those would tell how
        often the class is asked for. (An image that no sample of any split uses is not in the shards.)
        """
        return torch.tensor(
            [
                self.images.row_of[image.id]
                for image in self.plan.images
                if image.id in self.images.row_of
                and (self.plan.config.split_by == "sample" or image.recipe.split == split)
            ]
        )


class _WholeReader(DatasetReader):
    """A reader that refuses samples known to be damaged, whichever of their members is asked for."""

    def __init__(self, root: Path | ShardCache, split: str) -> None:
        super().__init__(root, split)
        self.damaged: dict[int, DamagedSampleError] = {}

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        if i in self.damaged:
            raise self.damaged[i].with_traceback(None)
        return super().read(i, fields)


def open_dataset(data: Path | str, on_bad_sample: str = "stop", progress: Progress | None = None) -> Dataset:
    """Open a built dataset, in a directory or at a URL, and list the media that its samples use.

    They are told by the plan, and no shard is read, unless the list of shards is not the one that the plan asks
    for, or `on_bad_sample` is "skip": then all members of all samples are read ahead, so that a sample is
    either whole or left out everywhere.

    Raises:
        NotBuiltError: there is none, or its build has not finished.
        ShardError: a shard is missing or damaged.
        DamagedSampleError: a sample that is read here is, and `on_bad_sample` is "stop".
    """
    cache, layout = open_layout(data)
    plan = load_plan(layout.plan) if cache is None else load_remote_plan(cache)
    if not layout.index.exists():
        raise NotBuiltError(f"the build in {data} has not finished: run the same `symile-m3 build` again to go on")
    readers = {split: _WholeReader(cache or layout.root, split) for split in SPLITS}
    if on_bad_sample != "skip" and _as_planned(plan, readers):
        images, clips = media_of_plan(plan)
    else:
        images, clips = _media_of_samples(plan, readers, on_bad_sample, progress)
    return Dataset(plan=plan, layout=layout, readers=dict(readers), images=images, clips=clips)


def _as_planned(plan: Plan, readers: Mapping[str, DatasetReader]) -> bool:
    """Whether the shards, by what the index says of them, are those of the plan."""
    return all(
        reader.fingerprint == plan.fingerprint
        and [(shard.name, shard.nsamples) for shard in reader.shards]
        == [
            (shard_name(split, i, plan.shard_count(split)), len(range(*plan.shard_range(split, i))))
            for i in range(plan.shard_count(split))
        ]
        for split, reader in readers.items()
    )


def _media_of_samples(
    plan: Plan, readers: Mapping[str, _WholeReader], on_bad_sample: str, progress: Progress | None
) -> tuple[Media, Media]:
    """The media by a look at every sample; with "skip", damaged ones are noted in their readers."""
    images, clips = MediaCount(), MediaCount()
    bad = 0
    language_ids = {language: i for i, language in enumerate(plan.lexicon.languages)}
    for split, reader in readers.items():
        for i in range(len(reader)):
            if i % _AHEAD == 0:
                reader.prefetch(range(i, min(i + 8 * _AHEAD, len(reader))))
            try:
                members = reader.read(i, ("json", *(_MEDIA if on_bad_sample == "skip" else ())))
                record = _record(reader, i, members["json"])
            except DamagedSampleError as error:
                if on_bad_sample != "skip":
                    raise
                reader.damaged[i] = error
                bad += 1
                continue
            images.meet(record["image_id"], int(record["class_id"]), split, i)
            clips.meet(record["clip_id"], language_ids[record["lang"]], split, i)
    if bad and progress:
        progress.say(f"{bad} damaged samples are skipped")
    return images.media(), clips.media()


def _record(reader: DatasetReader, i: int, data: bytes) -> dict[str, Any]:
    try:
        record: dict[str, Any] = decode_json(data)
        record["class_id"], record["lang"], record["image_id"], record["clip_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), f"json: {error}") from error
    return record
