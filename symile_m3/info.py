"""What is in a dataset: counts, sizes, durations, sources, licences, and the exact values of its process.

It comes from the plan, the list of shards, and the headers of the clips; no image is read and no clip is
decoded. In a very large split a part of the shards, and of the clips, stands for the whole; the figures
then say how many samples and clips they are from. Of a remote dataset no shard is fetched: some clips are asked
for by themselves. Suffixes: N samples, C clips.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
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
from symile_m3.remote_plan import load_remote_plan
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader, ShardCache, local_path
from symile_m3.shards.layout import META

MAX_SAMPLES = 1_000_000
"""Samples a split whose rows are drawn from the plan, in some seconds; more are counted in part."""
MAX_CLIPS = 10_000
"""Clips a split whose headers are read, in some seconds; of more, evenly spread ones stand for the rest."""
MAX_REMOTE_CLIPS = 200
"""The same where each is a request to a server, in some seconds."""
_REMOTE_SHARDS = 8  # whose member offsets are fetched for that, a split
_REQUESTS = 16  # at a time


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
        data: its directory or URL.
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


def open_root(data: Path | str) -> Path | ShardCache:
    """The directory of a dataset; of a remote one, its folder in the cache.

    Raises:
        ShardError: `data` is a URL that is refused, or at which there is no dataset.
    """
    local = local_path(data)
    return ShardCache(str(data)) if local is None else local


def load_dataset(root: Path | ShardCache) -> tuple[Plan, DatasetIndex]:
    """The plan and the list of shards of a dataset that is complete.

    Raises:
        NotBuiltError: there is no dataset, or its build has not ended.
        PlanError: the two are not of one dataset, or the plan is damaged.
        ShardError: the list of shards is damaged, or a server gives no answer.
    """
    if isinstance(root, ShardCache):
        plan, index, place = load_remote_plan(root), root.index, f"{root.storage.root}/{META}/index.json"
    else:
        layout = DatasetLayout(root)
        plan = load_plan(layout.plan)
        if not layout.index.exists():
            raise NotBuiltError(f"the build in {root} has not ended: run the same `symile-m3 build` again")
        index, place = DatasetIndex.load(layout.index), str(layout.index)
    if index.fingerprint != plan.fingerprint:
        raise PlanError(f"{place}: lists the shards of another plan; run the same `symile-m3 build` again")
    return plan, index


def describe_dataset(
    data: Path | str,
    *,
    max_samples: int = MAX_SAMPLES,
    max_clips: int = MAX_CLIPS,
    max_remote_clips: int = MAX_REMOTE_CLIPS,
) -> DatasetInfo:
    """What is in the dataset in a directory or at a URL.

    Args:
        data: its directory or URL.
        max_samples: a split with more is counted in part; see `count_split`.
        max_clips: of a split with more distinct clips, so many have their durations read.
        max_remote_clips: the same of a remote dataset.

    Raises:
        NotBuiltError: there is no dataset, or its build has not ended.
        PlanError: its plan is damaged.
        ShardError: its list of shards is damaged, a shard is missing, or a URL is refused or cannot be reached.
        DamagedSampleError: a clip has no readable header.
    """
    root = open_root(data)
    plan, index = load_dataset(root)
    config = plan.config
    limit = max_clips if isinstance(root, Path) else min(max_clips, max_remote_clips)
    return DatasetInfo(
        data=str(data) if isinstance(root, Path) else root.storage.root,
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
        splits={split: _split_info(root, plan, index, split, max_samples, limit) for split in SPLITS},
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


def _split_info(
    root: Path | ShardCache, plan: Plan, index: DatasetIndex, split: str, max_samples: int, max_clips: int
) -> SplitInfo:
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
        speech=_speech_info(DatasetReader(root, split, check=False, whole=False), counts, max_clips, root),
    )


def _speech_info(reader: DatasetReader, counts: SplitCounts, max_clips: int, root: Path | ShardCache) -> SpeechInfo:
    used = np.flatnonzero(counts.by_clip)
    measured = used if isinstance(root, Path) else _in_few_shards(reader, used, counts, max_clips)
    if len(measured) > max_clips:
        measured = measured[np.arange(max_clips) * len(measured) // max_clips]
    measured = measured[np.argsort(counts.clip_sample[measured])]  # shard by shard
    numbers = counts.clip_sample[measured].tolist()
    if isinstance(root, Path):
        seconds = np.array([_duration_s(reader, i) for i in numbers])
    else:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            seconds = np.array(list(pool.map(lambda i: _duration_s(reader, i), numbers)))
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


def _in_few_shards(
    reader: DatasetReader, used: NDArray[np.int64], counts: SplitCounts, enough: int
) -> NDArray[np.int64]:
    """Those of the clips used that lie in the shards with the most of them: `enough`, or what eight shards have."""
    shard_C = np.searchsorted(np.cumsum(reader.shard_sizes), counts.clip_sample[used], side="right")
    found = np.bincount(shard_C)
    order = np.argsort(-found, kind="stable")
    few = 1 + int(np.searchsorted(np.cumsum(found[order]), enough))
    return used[np.isin(shard_C, order[: min(few, _REMOTE_SHARDS)])]


def _duration_s(reader: DatasetReader, i: int) -> float:
    """How long the clip of a sample lasts, as its header says."""
    flac = reader.read(i, ("flac",))["flac"]
    try:
        found = soundfile.info(io.BytesIO(flac))
    except (RuntimeError, TypeError) as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), f"flac: no sound that can be read: {error}") from error
    return float(found.frames / found.samplerate)
