"""Building a dataset: sources to media, media to a plan, the plan to shards; resumable at any moment.

Everything is written whole or not at all, and what exists is not made again: the packs of media, the
plan, and each shard with its marker. So the same command, run again, goes on where it was stopped, and the
bytes are the same whatever was interrupted and however many workers there were.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from symile_m3.card import CROISSANT, write_card
from symile_m3.engines import Engine, WorkConfig, open_engine, settle
from symile_m3.errors import BuildError, PlanError, ShardError, UsageError
from symile_m3.images import drawable_classes, open_image_pool
from symile_m3.lexicon import Lexicon, open_lexicon
from symile_m3.mediastore import check_media, distinct_media, make_media
from symile_m3.plan import SPLITS, Plan, PlanConfig, load_plan, save_plan
from symile_m3.progress import NoProgress, Progress
from symile_m3.shardjob import Media, ShardJob, describe, finished_shards
from symile_m3.shards import DatasetIndex, DatasetLayout, shard_name, sweep
from symile_m3.speech import open_clip_pool

__all__ = ["BuildResult", "build", "choose_lexicon", "describe", "usable_classes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What a build left on disk.

    Attributes:
        plan: of the dataset.
        index: the shards that are made.
        built: shards written by this run; the others were there.
        missing: names of the shards that other ranks have still to make; none in a build without ranks.
    """

    plan: Plan
    index: DatasetIndex
    built: int
    missing: tuple[str, ...] = ()


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
def _at_work(layout: DatasetLayout, work: WorkConfig) -> Iterator[None]:
    """Hold the dataset's lock, which the system releases when the process ends, however it ends.

    A build alone holds it alone. Ranks hold it together, and each a lock of its own besides.
    """
    with contextlib.ExitStack() as held:
        if work.world > 1:
            held.enter_context(_locked(layout, _lock(layout), shared=True))
            own = layout.meta / f"lock-{work.rank}-of-{work.world}"
            held.enter_context(_locked(layout, own))
        else:
            held.enter_context(_locked(layout, _lock(layout)))
        yield


@contextlib.contextmanager
def _locked(layout: DatasetLayout, path: Path, *, shared: bool = False) -> Iterator[None]:
    import fcntl

    try:
        layout.meta.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")  # read and write: network file systems want the one or the other
    except OSError as error:
        raise PlanError(
            f"{layout.root}: cannot be written ({error.strerror}); name another directory with --data"
        ) from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise PlanError(
                    f"{path}: the file system refuses locks ({error.strerror}); name a directory on another"
                ) from error
            raise PlanError(f"{layout.root}: another build is at work there; wait for it to end") from error
        yield


def build(
    root: Path,
    config: PlanConfig,
    *,
    workers: int | None = None,
    work: WorkConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build the dataset of `config` under `root`, or finish an interrupted build of it.

    With `work.world` above 1 this process makes the share of `work.rank` alone. It also makes whatever
    images and clips are not there yet, its own part of them first, so no rank ever waits for another, and
    none has to run at the same time. The rank that finds all shards made writes the card and the index; so
    does a build without ranks, of all that is still missing.

    Args:
        workers: processes, in place of those of `work`.
        work: how the build is worked off; by default one process a CPU of this machine.
        overwrite: remove a dataset that is there first.

    Raises:
        UsageError: the configuration cannot be met, such as more classes than there are.
        PlanError: the directory holds something else, or cannot be written.
        SourceError: an image or clip cannot be made.
        BuildError: shards could not be made; all others have been.
    """
    progress = progress or NoProgress()
    work = work or WorkConfig()
    work = replace(work, workers=workers or work.workers)
    layout = DatasetLayout(root)
    if overwrite and work.world > 1:
        raise UsageError("--overwrite with --rank would remove what other ranks make; remove the directory beforehand")
    _check_directory(layout)
    if overwrite or not layout.plan.exists():
        # What cannot be built leaves the directory as it is.
        open_clip_pool(config.speech, clips=config.clips, seed=config.seed)
        choose_lexicon(config, NoProgress())
    with _at_work(layout, work):
        if overwrite:
            _clear(layout)
        plan = _plan_there(layout, config)
        if work.world == 1:
            _sweep(layout)
        finished = finished_shards(layout, plan) if plan else {}
        shards = [(split, i) for split in SPLITS for i in range(_shards(config, split))]
        jobs = [shard for shard in shards[work.rank :: work.world] if shard not in finished]
        if jobs:
            with open_engine(work) as engine:
                plan, media = _plan_and_media(layout, config, plan, engine, work, progress)
                _write_shards(layout, plan, media, jobs, engine, work, progress)
            finished = finished_shards(layout, plan)
        if plan is None:
            raise PlanError(f"rank {work.rank} of {work.world} has no shard to make: there are {len(shards)}")
        index = DatasetIndex(
            name=root.resolve().name,
            fingerprint=plan.fingerprint,
            shards=[finished[shard] for shard in shards if shard in finished],
        )
        missing = tuple(shard_name(*shard, plan.shard_count(shard[0])) for shard in shards if shard not in finished)
        if not missing and (jobs or not _complete(layout, index)):
            _complete_dataset(layout, plan, index)
    return BuildResult(plan=plan, index=index, built=len(jobs), missing=missing)


def _write_shards(
    layout: DatasetLayout,
    plan: Plan,
    media: Media,
    jobs: list[tuple[str, int]],
    engine: Engine,
    work: WorkConfig,
    progress: Progress,
) -> None:
    """Make these shards, whatever becomes of some of them.

    Raises:
        BuildError: some could not be made.
    """
    sizes = {shard: len(range(*plan.shard_range(*shard))) for shard in jobs}
    # A rank shows its own share; a build alone shows the dataset, with what was there.
    there = sum(plan.config.sizes.values()) - sum(sizes.values()) if work.world == 1 else 0
    failed: dict[str, str] = {}
    made = 0
    with progress.task("Writing shards", there + sum(sizes.values()), "samples", done=there) as task:
        job = ShardJob(layout=layout, fingerprint=plan.fingerprint, media=media)
        outcomes = settle(
            engine,
            job,
            jobs,
            retries=work.retries,
            wait_s=work.retry_wait_s,
            say=lambda line: progress.say(f"Shards: {line}"),
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.error is None:
                    made += 1
                    task.advance(sizes[outcome.task])
                else:
                    split, i = outcome.task
                    failed[shard_name(split, i, plan.shard_count(split))] = str(outcome.error)
                    last = outcome.error
    if failed:
        names = ", ".join(sorted(failed)[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        untried = len(jobs) - made - len(failed)
        rest = f"; {untried} more were not tried after that" if untried else ""
        raise BuildError(
            f"{len(failed)} of {len(jobs)} shards could not be made: {names} ({next(iter(failed.values()))}){rest}; "
            "run the same command again: it makes only what is missing"
        ) from last


def _complete_dataset(layout: DatasetLayout, plan: Plan, index: DatasetIndex) -> None:
    """Write what is written last, and remove what only a build needs. Two ranks at once do no harm."""
    write_card(layout, plan, index)
    index.save(layout.index)  # last: it says that the dataset is complete
    shutil.rmtree(layout.pool, ignore_errors=True)
    for lock in layout.meta.glob("lock-*"):
        lock.unlink(missing_ok=True)
    _sweep(layout)


def _sweep(layout: DatasetLayout) -> None:
    for directory in (layout.root, layout.data, layout.meta, layout.done, layout.pool, layout.pool / ".symile"):
        sweep(directory)


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
    engine: Engine,
    work: WorkConfig,
    progress: Progress,
) -> tuple[Plan, Media]:
    """The plan, made if it is not there, and the media it is made of."""
    lexicon = plan.lexicon if plan else choose_lexicon(config, progress)
    image_pool = open_image_pool(config.images, seed=config.seed)
    clip_pool = open_clip_pool(config.speech, clips=config.clips, seed=config.seed, forbidden=_forbidden(lexicon))
    share = (work.rank, work.world)
    image_recipes, images = make_media(
        image_pool, "images", lexicon.class_keys, layout.pool, engine=engine, share=share, progress=progress
    )
    clip_recipes, clips = make_media(
        clip_pool, "clips", lexicon.languages, layout.pool, engine=engine, share=share, progress=progress
    )
    if plan is None:
        distinct_images, image_notes = distinct_media(image_recipes, images, "images")
        distinct_clips, clip_notes = distinct_media(clip_recipes, clips, "clips")
        for note in image_notes + clip_notes:
            progress.say(note)
        plan = Plan(config=config, lexicon=lexicon, images=distinct_images, clips=distinct_clips)
        there = _plan_there(layout, config)  # another rank's
        if there is not None and there.fingerprint != plan.fingerprint:
            raise PlanError(
                f"{layout.plan}: another rank has made another plan of the same configuration (another version of "
                "symile-m3 or of a source on its machine?); remove the directory and build with one version"
            )
        save_plan(plan, layout.plan)
    else:
        check_media(plan.images, images)
        check_media(plan.clips, clips)
    return plan, Media(images=images, clips=clips)
