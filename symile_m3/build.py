"""Building a dataset: sources to media, media to a plan, the plan to shards; resumable at any moment.

Everything is written whole or not at all, and what exists is not made again: the packs of media, the
plan, and each shard with its marker. So the same command, run again, goes on where it was stopped, and the
bytes are the same whatever was interrupted and however many workers there were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from symile_m3.distinct import check_media, distinct_media, media_ids
from symile_m3.engines import Engine, WorkConfig, open_engine, settle
from symile_m3.errors import BuildError, PlanError, SourceError, UsageError
from symile_m3.images import open_image_pool
from symile_m3.lexicon import Lexicon, open_lexicon
from symile_m3.media import ClipPool, ImageOptions, ImagePool, Medium, SpeechOptions, pool_notes
from symile_m3.mediastore import MediaStore, forget_left_out, make_media
from symile_m3.place import Place, Shard
from symile_m3.plan import SPLITS, Plan, PlanConfig
from symile_m3.progress import NoProgress, Progress, TasksOnly
from symile_m3.shardjob import Media, describe
from symile_m3.shards import DatasetIndex, RetryConfig, ShardInfo, shard_name
from symile_m3.speech import open_clip_pool
from symile_m3.speech.recorded import check_clips
from symile_m3.splits import fill_splits
from symile_m3.storeplace import open_place

__all__ = ["BuildResult", "build", "choose_lexicon", "describe", "usable_lexicon"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build left on disk.

    Attributes:
        plan: of the dataset; None for a rank that has no shard to make, since there are fewer than ranks.
        index: the shards that are made; of a rank that does not find all of them made, its own.
        built: shards written by this run; the others were there.
        missing: names of the shards that other ranks have still to make; none in a build without ranks.
    """

    plan: Plan | None
    index: DatasetIndex
    built: int
    missing: tuple[str, ...] = ()


def open_images(config: PlanConfig) -> ImagePool:
    """The images of a dataset.

    Raises:
        UsageError, SourceError: see `open_image_pool`.
    """
    options = ImageOptions(
        seed=config.seed, size_px=config.image_size, crop=config.crop, per_class=config.images_per_class
    )
    return open_image_pool(config.images, options)


def open_clips(config: PlanConfig, forbidden: Mapping[str, frozenset[str]] | None = None) -> ClipPool:
    """The clips of a dataset.

    Raises:
        UsageError, SourceError: see `open_clip_pool`.
    """
    options = SpeechOptions(
        seed=config.seed, clips=config.clips, seconds=config.clip_seconds, forbidden=forbidden or {}
    )
    return open_clip_pool(config.speech, options)


def usable_lexicon(images: ImagePool, config: PlanConfig, progress: Progress) -> Lexicon:
    """The classes that have images and, in the dataset's languages, names that stand for nothing else.

    Raises:
        UsageError, LexiconError, SourceError: see `open_lexicon` and `ImagePool.classes`.
    """
    lexicon = open_lexicon(
        config.names,
        config.languages,
        images,
        corrections=config.corrections,
        drop_unnamed=config.drop_unnamed,
        progress=progress,
    )
    lexicon, clashes = lexicon.without_clashes()
    for clash in clashes:
        progress.say(f"dropped for its name: {clash}")
    counts = images.classes()
    for note in pool_notes(images):
        progress.say(note)
    return lexicon.select_classes([key for key in lexicon.class_keys if key in counts])


def choose_lexicon(config: PlanConfig, progress: Progress, images: ImagePool | None = None) -> Lexicon:
    """The classes of a dataset: those usable, of these the ones with most images where they are enough, drawn by
    its seed.

    Raises:
        UsageError: fewer are usable than asked for.
        LexiconError, SourceError: see `usable_lexicon`.
    """
    images = images or open_images(config)
    lexicon = usable_lexicon(images, config, progress)
    counts = images.classes()
    most = max((counts[key] for key in lexicon.class_keys), default=0)
    full = [key for key in lexicon.class_keys if counts[key] == most]
    if config.classes <= len(full):
        lexicon = lexicon.select_classes(full)
    return lexicon.draw_classes(config.classes, config.seed)


def _forbidden(lexicon: Lexicon) -> dict[str, frozenset[str]]:
    return {
        language: frozenset(row[column] for row in lexicon.names) for column, language in enumerate(lexicon.languages)
    }


def build(
    root: Path | str,
    config: PlanConfig,
    *,
    workers: int | None = None,
    work: WorkConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    retry: RetryConfig | None = None,
) -> BuildResult:
    """Build the dataset of `config` under `root`, or finish an interrupted build of it.

    With `work.world` above 1 this process makes the share of `work.rank` alone. It also makes whatever
    images and clips are not there yet, its own part of them first, so no rank ever waits for another, and
    none has to run at the same time. The rank that finds all shards made writes the card and the index; so
    does a build without ranks, of all that is still missing. A rank beyond the number of shards makes nothing.

    A rank looks into the markers of its own shards. Whether the others are made it tells from their names, and
    reads their markers only when all are there.

    Into a store (`root` is a URL) shards are uploaded as they are made; see `symile_m3.storeplace`.

    Args:
        root: the dataset's directory, or a URL that fsspec can write to.
        workers: processes, in place of those of `work`.
        work: how the build is worked off; by default one process a CPU of this machine.
        overwrite: remove a dataset that is there first.
        retry: how failures of a store are tried again.

    Raises:
        UsageError: the configuration cannot be met, such as more classes than there are.
        PlanError: the directory holds something else, or cannot be written.
        ShardError: the URL is refused, or the store cannot be read or written.
        SourceError: an image or clip cannot be made.
        BuildError: shards could not be made; all others have been.
    """
    progress = progress or NoProgress()
    work = work or WorkConfig()
    work = replace(work, workers=workers or work.workers)
    place = open_place(root, retry=retry)
    if overwrite and work.world > 1:
        raise UsageError("--overwrite with --rank would remove what other ranks make; remove the directory beforehand")
    place.check()
    counts = {split: -(-config.sizes[split] // config.shard_samples) for split in SPLITS}
    names = {(split, i): shard_name(split, i, counts[split]) for split in SPLITS for i in range(counts[split])}
    own = list(names)[work.rank :: work.world]
    if not own:
        progress.say(f"rank {work.rank} of {work.world} has no shard to make: there are {len(names)}")
        return BuildResult(plan=None, index=DatasetIndex(name=place.name, fingerprint=""), built=0)
    images: ImagePool | None = None
    if overwrite or not place.has_plan():
        # What cannot be built leaves the directory as it is.
        open_clips(config)
        images = open_images(config)
        choose_lexicon(config, TasksOnly(progress), images)
    with place.at_work(work):
        if overwrite:
            place.clear()
        plan = place.plan(config)
        there = place.listed(plan) if plan else set()
        finished = place.finished(plan, [shard for shard in own if shard in there]) if plan else {}
        jobs = [shard for shard in own if shard not in finished]
        place.begin(work, [names[shard] for shard in jobs])
        if jobs:
            if str(place.layout.root) != place.root:
                progress.say(f"{place.root}: made in {place.layout.root}, and uploaded shard by shard")
            with open_engine(work) as engine:
                _check_engine(engine, place)
                plan, media = _plan_and_media(
                    place, config, plan, images or open_images(config), engine, work, progress
                )
                finished |= _write_shards(place, plan, media, jobs, engine, work, progress)
            there = place.listed(plan)
        assert plan is not None  # without one there were jobs
        lost = [names[shard] for shard in jobs if shard not in there]
        if lost:
            raise BuildError(
                f"{place.root}: {len(lost)} shards were made and cannot be found, such as {lost[0]}; "
                "run the same command again: it makes only what is missing"
            )
        if len(there) == len(names):
            finished |= _others(place, plan, {shard: name for shard, name in names.items() if shard not in finished})
            there = set(finished)
        missing = tuple(name for shard, name in names.items() if shard not in there)
        index = DatasetIndex(
            name=place.name,
            fingerprint=plan.fingerprint,
            shards=[finished[shard] for shard in names if shard in finished],
        )
        if not missing and (jobs or not place.is_complete(index)):
            place.complete(plan, index)
        place.leave(complete=not missing)
    return BuildResult(plan=plan, index=index, built=len(jobs), missing=missing)


def _others(place: Place, plan: Plan, names: Mapping[Shard, str]) -> dict[Shard, ShardInfo]:
    """Shards of other ranks, all of them listed: as the index has them, or else as their markers have them."""
    index = place.index() if names else None
    of_index = {info.name: info for info in index.shards} if index and index.fingerprint == plan.fingerprint else {}
    if of_index.keys() >= set(names.values()):
        return {shard: of_index[name] for shard, name in names.items()}
    return place.finished(plan, names)


def _check_engine(engine: Engine, place: Place) -> None:
    """Raise PlanError where other machines of a cluster do not see the directory that a build works in."""
    blind = engine.blind(place.layout.meta)
    if blind:
        raise PlanError(f"--engine ray: {place.layout.root} is not to be seen on {', '.join(blind)}; {place.advice}")


def _write_shards(
    place: Place,
    plan: Plan,
    media: Media,
    jobs: list[Shard],
    engine: Engine,
    work: WorkConfig,
    progress: Progress,
) -> dict[Shard, ShardInfo]:
    """Make these shards, whatever becomes of some of them.

    Raises:
        BuildError: some could not be made.
    """
    sizes = {shard: len(range(*plan.shard_range(*shard))) for shard in jobs}
    # A rank shows its own share; a build alone shows the dataset, with what was there.
    there = sum(plan.config.sizes.values()) - sum(sizes.values()) if work.world == 1 else 0
    failed: dict[str, str] = {}
    made: dict[Shard, ShardInfo] = {}
    with progress.task("Writing shards", there + sum(sizes.values()), "samples", done=there) as task:
        outcomes = settle(
            engine,
            place.job(plan, media),
            jobs,
            retries=work.retries,
            wait_s=work.retry_wait_s,
            say=lambda line: progress.say(f"Shards: {line}"),
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.result is not None:
                    made[outcome.task] = outcome.result
                    task.advance(sizes[outcome.task])
                else:
                    split, i = outcome.task
                    failed[shard_name(split, i, plan.shard_count(split))] = str(outcome.error)
                    last = outcome.error
    if failed:
        names = ", ".join(sorted(failed)[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        untried = len(jobs) - len(made) - len(failed)
        rest = f"; {untried} more were not tried after that" if untried else ""
        raise BuildError(
            f"{len(failed)} of {len(jobs)} shards could not be made: {names} ({next(iter(failed.values()))}){rest}; "
            "run the same command again: it makes only what is missing"
        ) from last
    return made


@contextlib.contextmanager
def _anew_after(place: Place, kind: str, store: MediaStore, distinct: Sequence[Medium]) -> Iterator[None]:
    """Where the block finds too few media, have those that were of no use made anew by a later build."""
    try:
        yield
    except SourceError:
        repeated = set(store) - {medium.recipe.name for medium in distinct}
        forget_left_out(place.layout.pool, kind, store, repeated)
        raise


def _plan_and_media(
    place: Place,
    config: PlanConfig,
    plan: Plan | None,
    image_pool: ImagePool,
    engine: Engine,
    work: WorkConfig,
    progress: Progress,
) -> tuple[Plan, Media]:
    """The plan, made if it is not there, and the media it is made of."""
    lexicon = plan.lexicon if plan else choose_lexicon(config, progress, image_pool)
    clip_pool = open_clips(config, _forbidden(lexicon))
    make = partial(make_media, directory=place.layout.pool, engine=engine, share=(work.rank, work.world))
    # Clips first: they are few, and a language without enough of them is found before much is made.
    settings = {"source": config.speech, "seed": config.seed, "seconds": config.clip_seconds}
    clip_recipes, clips = make(clip_pool, "clips", lexicon.languages, settings=settings, progress=progress)
    settings = {"source": config.images, "seed": config.seed, "size": config.image_size, "crop": config.crop}
    image_recipes, images = make(image_pool, "images", lexicon.class_keys, settings=settings, progress=progress)
    clip_ids, image_ids = media_ids(clips, engine), media_ids(images, engine)
    if plan is None:
        distinct_clips, clip_notes = distinct_media(clip_recipes, clip_ids, "clips")
        with _anew_after(place, "clips", clips, distinct_clips):
            check_clips(distinct_clips, lexicon.languages, config)
        distinct_images, image_notes = distinct_media(image_recipes, image_ids, "images")
        if config.split_by == "media":
            with _anew_after(place, "images", images, distinct_images):
                distinct_images = fill_splits(distinct_images, lexicon.class_keys, config.seed)
        for note in (*image_notes, *pool_notes(clip_pool), *clip_notes):
            progress.say(note)
        plan = Plan(config=config, lexicon=lexicon, images=distinct_images, clips=distinct_clips)
        there = place.plan(config)  # another rank's
        if there is not None and there.fingerprint != plan.fingerprint:
            raise PlanError(
                f"{place.root}: another rank has made another plan of the same configuration (another version of "
                "symile-m3 or of a source on its machine?); remove the directory and build with one version"
            )
        place.put_plan(plan)
    else:
        check_media(plan.images, image_ids)
        check_media(plan.clips, clip_ids)
    return plan, Media(images=images, clips=clips)
