"""Is a dataset what it says it is? Its bytes, its samples against its plan, and leaks between splits.

Whatever is wrong becomes a line that names the shard and the sample; nothing here stops at the first fault.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from symile_m3.audit_facts import SHOWN, Facts, FirstPlaces, Lines, SampleTable
from symile_m3.audit_shard import FoundShard, check_remote_shard, check_shard
from symile_m3.errors import NotBuiltError, PlanError, ShardError
from symile_m3.parallel import available_cpus, run_parallel
from symile_m3.plan import SPLITS, Plan, load_plan
from symile_m3.probes import run_probes
from symile_m3.progress import NoProgress, Progress
from symile_m3.remote_plan import load_remote_plan
from symile_m3.shards import (
    CacheConfig,
    DatasetIndex,
    DatasetLayout,
    ShardCache,
    ShardInfo,
    local_path,
    shard_name,
)

__all__ = ["SHOWN", "Audit", "verify"]

T = TypeVar("T")

_PARALLEL_BYTES = 100_000_000  # a smaller dataset is checked before worker processes have started


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What `verify` found.

    Attributes:
        problems: one line each: the first `SHOWN`, and how many more; none for a sound dataset.
        checks: what was checked, and what was found.
        probes: what was predicted from what -> accuracy, and where the process has them, the exact best
            accuracy (`exact`) and the most that chance would let it seem (`limit`).
    """

    problems: tuple[str, ...]
    checks: tuple[tuple[str, str], ...]
    probes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    data: Path | str, *, probes: bool = True, progress: Progress | None = None, workers: int | None = None
) -> Audit:
    """Check a dataset: its shards, its samples against its plan, its splits, and what texts and clips say.

    A remote dataset is fetched anew, whatever the cache holds of it, into a temporary directory, which with
    `probes` takes as much room as the dataset.

    Args:
        data: directory or URL of the dataset.
        probes: whether to train the probes of `symile_m3.probes` too.
        workers: processes; by default one a CPU.

    Raises:
        NotBuiltError: there is no dataset, or its build has not ended.
        ShardError: a URL is refused or cannot be reached.
    """
    progress = progress or NoProgress()
    local = local_path(data)
    if local is not None:
        return _verify(None, DatasetLayout(local), probes, progress, workers)
    with tempfile.TemporaryDirectory(prefix="symile-m3-verify-") as scratch:
        config = CacheConfig(directory=Path(scratch))
        if probes:
            config = replace(config, max_bytes=sys.maxsize)
        cache = ShardCache(str(data), config)
        return _verify(cache, cache.layout, probes, progress, workers)


def _verify(
    cache: ShardCache | None, layout: DatasetLayout, probes: bool, progress: Progress, workers: int | None
) -> Audit:
    problems = Lines()
    checks: list[tuple[str, str]] = []
    plan = _or_problem(problems, lambda: load_plan(layout.plan) if cache is None else load_remote_plan(cache))
    if plan is not None and not layout.index.exists():
        raise NotBuiltError(f"the build in {layout.root} has not ended: run the same `symile-m3 build` again")
    index = _or_problem(problems, lambda: DatasetIndex.load(layout.index))
    if index is None:
        return _audit(problems, checks)
    problems.extend(_index_problems(layout, plan, index, cache is None))
    checks.append(("plan", "unreadable" if plan is None else f"fingerprint {plan.fingerprint}"))

    firsts = {kind: FirstPlaces() for kind in ("image", "clip", "sentence", "voice")}
    tables = {split: SampleTable(plan, index.of_split(split)) for split in ("train", "test") if plan and probes}
    check = (
        partial(check_shard, layout, plan is not None, probes)
        if cache is None
        else partial(check_remote_shard, cache, plan is not None, probes)
    )
    found = _check_shards(check, index, firsts, tables, progress, workers)
    total, size = sum(info.nsamples for info in index.shards), sum(info.filesize for info in index.shards)
    damaged = sum(one.problems.count > 0 for one in found)
    for one in found:
        problems.merge(one.problems)
    checks.append(("shards", f"{len(found)}, {size:,} bytes, {damaged or 'none'} of them damaged or altered"))
    checks.append(("samples", f"{sum(one.facts.read for one in found):,} of {total:,} read"))
    if plan is None:
        return _audit(problems, checks)

    _check_lexicon(plan, problems, checks)
    _check_coverage(plan, problems, checks)
    _check_splits(plan, firsts, index, problems, checks)
    values: Mapping[str, Mapping[str, float]] = {}
    if probes:
        train, test = (tables.pop(split).samples() for split in ("train", "test"))
        values, lines = run_probes(layout, plan, train, test, progress)
        problems.extend(lines)
    return _audit(problems, checks, values)


def _check_shards(
    check: Callable[[ShardInfo], FoundShard],
    index: DatasetIndex,
    firsts: Mapping[str, FirstPlaces],
    tables: Mapping[str, SampleTable],
    progress: Progress,
    workers: int | None,
) -> list[FoundShard]:
    """What each shard of the index gave, in its order, less its facts: they go to `firsts` and to `tables`."""
    total, size = sum(info.nsamples for info in index.shards), sum(info.filesize for info in index.shards)
    workers = workers or (available_cpus() if size > _PARALLEL_BYTES else 1)
    numbers = {info.name: number for number, info in enumerate(index.shards)}
    found: dict[str, FoundShard] = {}
    with (
        progress.task("Checking shards", total, "samples") as task,
        closing(run_parallel(check, index.shards, workers)) as results,
    ):
        for one in results:
            for kind, values in one.facts.firsts.items():
                firsts[kind].add(one.split, numbers[one.name], values)
            if one.facts.samples is not None:
                tables[one.split].add(one.name, one.facts.samples)
            found[one.name] = replace(one, facts=Facts(read=one.facts.read))
            task.advance(one.samples)
    return [found[info.name] for info in index.shards]


def _audit(
    problems: Lines,
    checks: Sequence[tuple[str, str]],
    probes: Mapping[str, Mapping[str, float]] | None = None,
) -> Audit:
    return Audit(problems=problems.shown(), checks=tuple(checks), probes=probes or {})


def _or_problem(problems: Lines, load: Callable[[], T]) -> T | None:
    try:
        return load()
    except (PlanError, ShardError) as error:
        problems.append(str(error))
        return None


def _index_problems(layout: DatasetLayout, plan: Plan | None, index: DatasetIndex, folder: bool) -> Iterator[str]:
    """Whether the index is that of the plan, and the folder that of the index."""
    listed = {info.name: info for info in index.shards}
    if len(listed) != len(index.shards):
        yield "index.json: a shard is listed twice (delete index.json and run the same build again)"
    if plan is not None:
        if index.fingerprint != plan.fingerprint:
            yield f"index.json: is of the plan {index.fingerprint}, plan.json is {plan.fingerprint}"
        planned = {
            shard_name(split, i, plan.shard_count(split)): plan.shard_range(split, i)
            for split in SPLITS
            for i in range(plan.shard_count(split))
        }
        for name, (start, stop) in planned.items():
            if name not in listed:
                yield f"{name}: planned, but not in index.json"
            elif listed[name].nsamples != stop - start:
                yield f"{name}: {listed[name].nsamples} samples in index.json, {stop - start} are planned"
        for name in sorted(listed.keys() - planned.keys()):
            yield f"{name}: in index.json, but not planned"
    if not folder:  # not every store can list its files
        return
    try:
        there = sorted(path.name for path in layout.data.iterdir())
    except OSError as error:
        yield f"{layout.data}: cannot be read: {error.strerror}"
        return
    for name in there:
        if name not in listed:
            yield f"{name}: is in {layout.data.name}/ but no shard of this dataset (remove it)"


def _check_lexicon(plan: Plan, problems: Lines, checks: list[tuple[str, str]]) -> None:
    clashes = plan.lexicon.clashes()
    problems.extend(f"lexicon: {clash}" for clash in clashes)
    count = len(plan.lexicon) * len(plan.lexicon.languages)
    checks.append(("names", f"{count:,} names, {len(clashes) or 'none'} of them for two classes or languages"))


def _check_coverage(plan: Plan, problems: Lines, checks: list[tuple[str, str]]) -> None:
    """Every class has images and every language clips in every split."""
    for kind, media, groups in (
        ("images", plan.images, plan.lexicon.class_keys),
        ("clips", plan.clips, plan.lexicon.languages),
    ):
        counts = Counter((medium.recipe.group, medium.recipe.split) for medium in media)
        if plan.config.split_by == "media":
            for split in SPLITS:
                without = [group for group in groups if not counts[group, split]]
                if without:
                    problems.append(f"{split}: no {kind} of {', '.join(without[:5])} ({len(without)} in all)")
        checks.append((kind, f"{len(media):,} distinct, of {len(groups)} groups"))


def _check_splits(
    plan: Plan,
    firsts: Mapping[str, FirstPlaces],
    index: DatasetIndex,
    problems: Lines,
    checks: list[tuple[str, str]],
) -> None:
    """No image, clip, sentence or voice of the samples on disk is in two splits."""
    if plan.config.split_by != "media":
        checks.append(("splits", "images and clips recur in all of them, as --split-by sample has it"))
        return
    for kind, places in firsts.items():
        leaks = 0
        for value, *pair in places.leaks():
            first, second = (f"{index.shards[place.shard].name}, sample {place.key}" for place in pair)
            problems.append(f"leak: {kind} {value} is in {first} and in {second}")
            leaks += 1
        checks.append((f"splits by {kind}", f"{len(places):,} distinct, {leaks or 'none'} in two splits"))
