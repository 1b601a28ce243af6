"""Building a dataset: sources to media, media to a plan, the plan to shards; resumable at any moment.

Everything is written whole or not at all, and what exists is not made again: the packs of media, the
plan, and each shard with its marker. So the same command, run again, goes on where it was stopped, and the
bytes are the same whatever was interrupted and however many workers there were.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from symile_m3.card import CROISSANT, write_card
from symile_m3.errors import PlanError, ShardError, UsageError
from symile_m3.images import drawable_classes, open_image_pool
from symile_m3.lexicon import Lexicon, open_lexicon
from symile_m3.mediastore import MediaStore, check_media, distinct_media, make_media
from symile_m3.parallel import available_cpus, run_parallel
from symile_m3.plan import SPLITS, Plan, PlanConfig, Rows, load_plan, save_plan
from symile_m3.progress import NoProgress, Progress
from symile_m3.shards import (
    DatasetIndex,
    DatasetLayout,
    RawSample,
    ShardInfo,
    shard_name,
    sweep,
    write_shard,
    write_text,
)
from symile_m3.speech import open_clip_pool


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build left on disk.

    Attributes:
        plan: of the dataset.
        index: its shards.
        built: shards written by this run; the others were there.
    """

    plan: Plan
    index: DatasetIndex
    built: int


def choose_lexicon(config: PlanConfig, progress: Progress) -> Lexicon:
    """The classes of a dataset: those with images and unique names in its languages, then drawn by its seed.

    Raises:
        UsageError: fewer are usable than asked for.
    """
    lexicon = open_lexicon(config.names).select_languages(config.languages)
    lexicon, clashes = lexicon.without_clashes()
    for clash in clashes:
        progress.say(f"dropped for its name: {clash}")
    full, some = drawable_classes(config.images, lexicon.class_keys)
    return lexicon.select_classes(full if config.classes <= len(full) else some).draw_classes(
        config.classes, config.seed
    )


def usable_classes(config_languages: tuple[str, ...], names: str, images: str) -> int:
    """How many classes `--classes all` means."""
    lexicon, _ = open_lexicon(names).select_languages(config_languages).without_clashes()
    return len(drawable_classes(images, lexicon.class_keys)[1])


def _forbidden(lexicon: Lexicon) -> dict[str, frozenset[str]]:
    return {
        language: frozenset(row[column] for row in lexicon.names) for column, language in enumerate(lexicon.languages)
    }


def describe(plan: Plan, rows: Rows, n: int) -> dict[str, Any]:
    """The json member of sample `n` of `rows`: the same keys in every sample, no nulls."""
    lexicon = plan.lexicon
    class_id, language_id = int(rows.class_ids[n]), int(rows.language_ids[n])
    image, clip = plan.images[rows.image_rows[n]], plan.clips[rows.clip_rows[n]]
    words = [
        (int(word_class), int(word_language))
        for word_class, word_language in zip(rows.word_class_ids[n], rows.word_language_ids[n], strict=True)
    ]
    label = lexicon.languages.index("en") if "en" in lexicon.languages else 0
    return {
        "class_id": class_id,
        "class_key": lexicon.class_keys[class_id],
        "class_name": lexicon.names[class_id][label],
        "lang": lexicon.languages[language_id],
        "words": [lexicon.names[word_class][word_language] for word_class, word_language in words],
        "word_langs": [lexicon.languages[word_language] for _, word_language in words],
        "word_class_ids": [word_class for word_class, _ in words],
        "target": int(rows.targets[n]),
        "image_id": image.id,
        "image_source": image.recipe.source,
        "image_licence": image.recipe.licence,
        "image_attributes": dict(sorted(image.recipe.attributes.items())),
        "clip_id": clip.id,
        "clip_source": clip.recipe.source,
        "clip_licence": clip.recipe.licence,
        "clip_attributes": dict(sorted(clip.recipe.attributes.items())),
    }


@lru_cache(maxsize=1)
def _cached_plan(path: Path, fingerprint: str) -> Plan:
    plan = load_plan(path)
    if plan.fingerprint != fingerprint:
        raise PlanError(f"{path}: replaced while its dataset was being built; run the same build again")
    return plan


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stores:
    images: MediaStore
    clips: MediaStore


def build_shard(layout: DatasetLayout, fingerprint: str, stores: _Stores, job: tuple[str, int]) -> ShardInfo:
    """Write shard `i` of a split from the plan on disk and the media; needs nothing of any other shard."""
    split, i = job
    plan = _cached_plan(layout.plan, fingerprint)
    start, stop = plan.shard_range(split, i)
    rows = plan.rows(split, start, stop)

    def samples() -> Iterator[RawSample]:
        for n in range(stop - start):
            record = describe(plan, rows, n)
            yield RawSample(
                f"{split}-{start + n:08d}",
                {
                    "jpg": stores.images.read(plan.images[rows.image_rows[n]].recipe.name),
                    "flac": stores.clips.read(plan.clips[rows.clip_rows[n]].recipe.name),
                    "txt": "_".join(record["words"]).encode(),
                    "json": json.dumps(record, ensure_ascii=False, sort_keys=True).encode(),
                },
            )

    name = shard_name(split, i, plan.shard_count(split))
    info = write_shard(layout.shard(name), samples())
    write_text(layout.marker(name), json.dumps({"fingerprint": plan.fingerprint, "shard": asdict(info)}))
    return info


def _finished(layout: DatasetLayout, plan: Plan) -> dict[tuple[str, int], ShardInfo]:
    """The shards that are complete: a marker of this plan, and a tar and sidecar of the right size."""
    finished = {}
    for split in SPLITS:
        for i in range(plan.shard_count(split)):
            name = shard_name(split, i, plan.shard_count(split))
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                marker = json.loads(layout.marker(name).read_text(encoding="utf-8"))
                info = ShardInfo(**marker["shard"])
                if (
                    marker["fingerprint"] == plan.fingerprint
                    and layout.shard(name).stat().st_size == info.filesize
                    and layout.sidecar(name).exists()
                ):
                    finished[split, i] = info
    return finished


def _check_directory(layout: DatasetLayout) -> None:
    """Raise PlanError or UsageError if the directory holds anything but a dataset or the start of one."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise UsageError(f"--data {root}: is a file; name a directory")
    if not layout.meta.is_dir() and root.exists() and any(root.iterdir()):
        raise PlanError(f"--data {root}: holds other files and no dataset; name an empty or a new directory")


def _clear(layout: DatasetLayout) -> None:
    """Remove the dataset, but not the lock; its plan last, so that what is left is known for what it is.

    Raises:
        PlanError: the disk does not allow it.
    """
    rest = sorted(path for path in layout.meta.iterdir() if path not in (layout.plan, _lock(layout)))
    try:
        for path in (layout.data, layout.readme, layout.root / CROISSANT, *rest, layout.plan):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(
            f"{layout.root}: the dataset there cannot be removed ({error.strerror}); name another directory with --data"
        ) from error


def _plan_there(layout: DatasetLayout, config: PlanConfig) -> Plan | None:
    """The plan in the directory if it is of this configuration; None where there is none.

    Raises:
        PlanError: it is of another configuration, and which differences.
    """
    if not layout.plan.exists():
        return None
    plan = load_plan(layout.plan)
    differences = config.differences(plan.config)
    if differences:
        raise PlanError(
            f"{layout.root} holds a dataset of another plan: {'; '.join(differences)}. "
            "Name another directory with --data, or give --overwrite to build in its place"
        )
    return plan


def _lock(layout: DatasetLayout) -> Path:
    return layout.meta / "lock"


@contextlib.contextmanager
def _exclusive(layout: DatasetLayout) -> Iterator[None]:
    """Hold the dataset's lock, which the system releases when the process ends, however it ends."""
    import fcntl

    try:
        layout.meta.mkdir(parents=True, exist_ok=True)
        file = _lock(layout).open("w")
    except OSError as error:
        raise PlanError(
            f"{layout.root}: cannot be written ({error.strerror}); name another directory with --data"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlanError(f"{layout.root}: another build is at work there; wait for it to end") from error
        yield


def build(
    root: Path,
    config: PlanConfig,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build the dataset of `config` under `root`, or finish an interrupted build of it.

    Args:
        workers: processes; by default one a CPU.
        overwrite: remove a dataset that is there first.

    Raises:
        UsageError: the configuration cannot be met, such as more classes than there are.
        PlanError: the directory holds something else, or cannot be written.
        SourceError: an image or clip cannot be made.
        ShardError: the disk does not take a file.
    """
    progress = progress or NoProgress()
    workers = workers or available_cpus()
    layout = DatasetLayout(root)
    _check_directory(layout)
    if overwrite or not layout.plan.exists():
        # What cannot be built leaves the directory as it is.
        open_clip_pool(config.speech, clips=config.clips, seed=config.seed)
        choose_lexicon(config, NoProgress())
    with _exclusive(layout):
        if overwrite:
            _clear(layout)
        plan = _plan_there(layout, config)
        for directory in (layout.data, layout.meta, layout.done, layout.pool, layout.pool / ".symile"):
            sweep(directory)
        finished = _finished(layout, plan) if plan else {}
        jobs = [(split, i) for split in SPLITS for i in range(_shards(config, split)) if (split, i) not in finished]
        if jobs:
            plan, stores = _plan_and_media(layout, config, plan, workers, progress)
            total = sum(config.sizes.values())
            done = sum(info.nsamples for info in finished.values())
            with progress.task("Writing shards", total, "samples", done=done) as task:
                make = partial(build_shard, layout, plan.fingerprint, stores)
                with contextlib.closing(run_parallel(make, jobs, workers)) as infos:
                    for info in infos:
                        task.advance(info.nsamples)
            finished = _finished(layout, plan)
        assert plan is not None
        index = DatasetIndex(
            name=root.resolve().name,
            fingerprint=plan.fingerprint,
            shards=[finished[split, i] for split in SPLITS for i in range(plan.shard_count(split))],
        )
        if jobs or not _complete(layout, index):
            write_card(layout, plan, index)
            index.save(layout.index)  # last: it says that the dataset is complete
            shutil.rmtree(layout.pool, ignore_errors=True)
    return BuildResult(plan=plan, index=index, built=len(jobs))


def _complete(layout: DatasetLayout, index: DatasetIndex) -> bool:
    """Whether the files that are written last are there."""
    try:
        there = DatasetIndex.load(layout.index)
    except ShardError:
        return False
    return (there.fingerprint, tuple(there.shards)) == (index.fingerprint, tuple(index.shards)) and all(
        path.exists() for path in (layout.readme, layout.root / CROISSANT)
    )


def _shards(config: PlanConfig, split: str) -> int:
    return -(-config.sizes[split] // config.shard_samples)


def _plan_and_media(
    layout: DatasetLayout,
    config: PlanConfig,
    plan: Plan | None,
    workers: int,
    progress: Progress,
) -> tuple[Plan, _Stores]:
    """The plan, made if it is not there, and the media it is made of."""
    lexicon = plan.lexicon if plan else choose_lexicon(config, progress)
    image_pool = open_image_pool(config.images, seed=config.seed)
    clip_pool = open_clip_pool(config.speech, clips=config.clips, seed=config.seed, forbidden=_forbidden(lexicon))
    image_recipes, images = make_media(
        image_pool, "images", lexicon.class_keys, layout.pool, workers=workers, progress=progress
    )
    clip_recipes, clips = make_media(
        clip_pool, "clips", lexicon.languages, layout.pool, workers=workers, progress=progress
    )
    if plan is None:
        distinct_images, image_notes = distinct_media(image_recipes, images, "images")
        distinct_clips, clip_notes = distinct_media(clip_recipes, clips, "clips")
        for note in image_notes + clip_notes:
            progress.say(note)
        plan = Plan(config=config, lexicon=lexicon, images=distinct_images, clips=distinct_clips)
        save_plan(plan, layout.plan)
    else:
        check_media(plan.images, images)
        check_media(plan.clips, clips)
    return plan, _Stores(images=images, clips=clips)
