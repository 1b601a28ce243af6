"""What is in a dataset: counts, sizes, durations, sources, licences, and the exact values of its process.

It comes from the plan, the list of shards, and the headers of the clips; no image is read and no clip is
decoded. In a very large split a part of the shards, and of the clips, stands for the whole; the figures
then say how many samples and clips they are from. Suffixes: N samples, C clips.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from symile_m3.card import planned_media, source_counts
from symile_m3.errors import DamagedSampleError, NotBuiltError, PlanError
from symile_m3.exact import ExactValues
from symile_m3.plan import SPLITS, Plan, load_plan
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader

MAX_SAMPLES = 1_000_000
"""Samples a split whose rows are drawn from the plan, in some seconds; more are counted in part."""
MAX_CLIPS = 10_000
"""Clips a split whose headers are read, in some seconds; of more, evenly spread ones stand for the rest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitCounts:
    """How often each class, language, image and clip occurs in the samples of a split.

    Attributes:
        samples: of the split.
        counted: samples that the counts are from; fewer than `samples` in a very large split.
        by_class, by_language: samples of each, in the order of the lexicon.
        by_image, by_clip: samples of each, in the order of the plan.
        clip_sample: (C,) a sample in which each clip occurs; -1 where it occurs in none.
    """

    samples: int
    counted: int
    by_class: NDArray[np.int64]
    by_language: NDArray[np.int64]
    by_image: NDArray[np.int64]
    by_clip: NDArray[np.int64]
    clip_sample: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechInfo:
    """How long the clips of a split last.

    Attributes:
        clips: distinct clips in the samples counted.
        measured: clips whose header was read; the figures are from these, scaled where they are a part.
        total_hours: of all samples, each with its clip.
        distinct_hours: of the distinct clips.
        min_s, median_s, max_s: of the distinct clips measured.
    """

    clips: int
    measured: int
    total_hours: float
    distinct_hours: float
    min_s: float
    median_s: float
    max_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """One split.

    Attributes:
        samples, shards, bytes: as the list of shards has them.
        counted: samples that the following are counted over.
        by_language: samples of each spoken language.
        classes: classes that occur, and in how many samples the rarest and the most frequent one of all do.
        images, clips: distinct ones that occur, and how many the plan has for the split.
        speech: durations.
    """

    samples: int
    shards: int
    bytes: int
    counted: int
    by_language: dict[str, int]
    classes: dict[str, int]
    images: dict[str, int]
    clips: dict[str, int]
    speech: SpeechInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What is in a dataset.

    Attributes:
        data: its directory.
        languages: their codes.
        words: words a text.
        classes: how many there are.
        split_by, text, seed: as in `PlanConfig`.
        image_source, speech_source, name_source: the specs it was built with.
        fingerprint: of its plan.
        splits: by name.
        sources: the kind of medium, its source, its licence, and how many distinct ones of them there are.
        exact: what the process is worth.
    """

    data: str
    languages: tuple[str, ...]
    words: int
    classes: int
    split_by: str
    text: str
    seed: int
    image_source: str
    speech_source: str
    name_source: str
    fingerprint: str
    splits: dict[str, SplitInfo]
    sources: tuple[dict[str, Any], ...]
    exact: ExactValues

    def to_json(self) -> dict[str, Any]:
        """As `info --json` writes it."""
        return asdict(self)


def load_dataset(data: Path) -> tuple[Plan, DatasetIndex]:
    """The plan and the list of shards of a dataset that is complete.

    Raises:
        NotBuiltError: there is no dataset, or its build has not ended.
        PlanError: the two are not of one dataset, or the plan is damaged.
        ShardError: the list of shards is damaged.
    """
    layout = DatasetLayout(data)
    plan = load_plan(layout.plan)
    if not layout.index.exists():
        raise NotBuiltError(f"the build in {data} has not ended: run the same `symile-m3 build` again")
    index = DatasetIndex.load(layout.index)
    if index.fingerprint != plan.fingerprint:
        raise PlanError(f"{layout.index}: lists the shards of another plan; run the same `symile-m3 build` again")
    return plan, index


def describe_dataset(data: Path, *, max_samples: int = MAX_SAMPLES, max_clips: int = MAX_CLIPS) -> DatasetInfo:
    """What is in the dataset in the directory `data`.

    Args:
        max_samples: a split with more is counted in part; see `count_split`.
        max_clips: of a split with more distinct clips, so many have their durations read.

    Raises:
        NotBuiltError: there is no dataset, or its build has not ended.
        PlanError: its plan is damaged.
        ShardError: its list of shards is damaged, or a shard is missing.
        DamagedSampleError: a clip has no readable header.
    """
    plan, index = load_dataset(data)
    config = plan.config
    return DatasetInfo(
        data=str(data),
        languages=plan.lexicon.languages,
        words=config.words,
        classes=len(plan.lexicon),
        split_by=config.split_by,
        text=config.text,
        seed=config.seed,
        image_source=config.images,
        speech_source=config.speech,
        name_source=config.names,
        fingerprint=plan.fingerprint,
        splits={split: _split_info(data, plan, index, split, max_samples, max_clips) for split in SPLITS},
        sources=tuple(
            dict(zip(("media", "source", "licence", "count"), row, strict=True)) for row in source_counts(plan)
        ),
        exact=ExactValues.of_plan(plan),
    )


def count_split(plan: Plan, split: str, *, max_samples: int = MAX_SAMPLES) -> SplitCounts:
    """Count what the samples of a split are made of; from the plan alone.

    Args:
        max_samples: of a split with more, shards evenly spread over it with about as many are counted.
    """
    samples, shards = plan.config.sizes[split], plan.shard_count(split)
    chosen = min(shards, max(1, max_samples // plan.config.shard_samples)) if samples > max_samples else shards
    by_class, by_language, by_image, by_clip = (
        np.zeros(n, np.int64)
        for n in (len(plan.lexicon), len(plan.lexicon.languages), len(plan.images), len(plan.clips))
    )
    clip_sample = np.full(len(plan.clips), -1, np.int64)
    counted = 0
    for i in np.arange(chosen) * shards // chosen:
        start, stop = plan.shard_range(split, int(i))
        rows = plan.rows(split, start, stop)
        for counts, values in (
            (by_class, rows.class_ids),
            (by_language, rows.language_ids),
            (by_image, rows.image_rows),
            (by_clip, rows.clip_rows),
        ):
            counts += np.bincount(values, minlength=len(counts))
        clip_sample[rows.clip_rows] = np.arange(start, stop)
        counted += stop - start
    return SplitCounts(
        samples=samples,
        counted=counted,
        by_class=by_class,
        by_language=by_language,
        by_image=by_image,
        by_clip=by_clip,
        clip_sample=clip_sample,
    )


def _split_info(data: Path, plan: Plan, index: DatasetIndex, split: str, max_samples: int, max_clips: int) -> SplitInfo:
    shards = index.of_split(split)
    counts = count_split(plan, split, max_samples=max_samples)
    return SplitInfo(
        samples=sum(shard.nsamples for shard in shards),
        shards=len(shards),
        bytes=sum(shard.filesize for shard in shards),
        counted=counts.counted,
        by_language=dict(zip(plan.lexicon.languages, counts.by_language.tolist(), strict=True)),
        classes={
            "used": int(np.count_nonzero(counts.by_class)),
            "rarest": int(counts.by_class.min()),
            "most_frequent": int(counts.by_class.max()),
        },
        images={
            "used": int(np.count_nonzero(counts.by_image)),
            "planned": planned_media(plan, plan.images, split),
        },
        clips={
            "used": int(np.count_nonzero(counts.by_clip)),
            "planned": planned_media(plan, plan.clips, split),
        },
        speech=_speech_info(DatasetReader(data, split, check=False), counts, max_clips),
    )


def _speech_info(reader: DatasetReader, counts: SplitCounts, max_clips: int) -> SpeechInfo:
    used = np.flatnonzero(counts.by_clip)
    measured = used
    if len(used) > max_clips:
        measured = used[np.arange(max_clips) * len(used) // max_clips]
    measured = measured[np.argsort(counts.clip_sample[measured])]  # shard by shard
    seconds = np.array([_duration_s(reader, i) for i in counts.clip_sample[measured].tolist()])
    times = counts.by_clip[measured]
    return SpeechInfo(
        clips=len(used),
        measured=len(measured),
        total_hours=float(seconds @ times / times.sum()) * counts.samples / 3600,
        distinct_hours=float(seconds.mean()) * len(used) / 3600,
        min_s=float(seconds.min()),
        median_s=float(np.median(seconds)),
        max_s=float(seconds.max()),
    )


def _duration_s(reader: DatasetReader, i: int) -> float:
    """How long the clip of a sample lasts, as its header says."""
    flac = reader.read(i, ("flac",))["flac"]
    try:
        found = soundfile.info(io.BytesIO(flac))
    except (RuntimeError, TypeError) as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), f"flac: no sound that can be read: {error}") from error
    return float(found.frames / found.samplerate)
