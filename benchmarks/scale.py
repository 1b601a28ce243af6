"""What grows with the number of samples, shards and media: the figures that docs/SCALE.md computes with.

    python benchmarks/scale.py                   every part, on a small dataset that is built for it
    python benchmarks/scale.py --data data/m3    on a dataset that is there; it is only read
    python benchmarks/scale.py orders plans      some of them: orders, shards, plans, samples

The table is printed and, with all parts, written to benchmarks/results/scale.md. Every row is measured in a process of
its own, whose memory is its own. Needs about three minutes, 4 GB of memory, and 1 GB of disk.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from _machine import hardware, status_bytes

from symile_m3.plan import SPLITS, Plan, load_plan, save_plan
from symile_m3.shards import DatasetIndex, DatasetLayout, DatasetReader, ShardInfo, epoch_order, shard_name

RESULTS = Path(__file__).parent / "results"
SHARD_SAMPLES = 1000
SHARD_BYTES = 55_000_000
REPEATS = 300


class Cost:
    """Seconds and memory of what is done in the block: held at its end, and at its highest, above the beginning."""

    def __enter__(self) -> Cost:
        self._held_bytes = status_bytes("VmRSS")
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._now_bytes, self._peak_bytes = status_bytes("VmRSS"), status_bytes("VmHWM")

    def __str__(self) -> str:
        held, peak = (f"{(b - self._held_bytes) / 1e6:,.0f} MB" for b in (self._now_bytes, self._peak_bytes))
        return f"{self.seconds:,.2f} s, {held} held, {peak} at the highest"


def large(plan: Plan, shards: int) -> tuple[Plan, list[ShardInfo]]:
    """A plan with so many training shards, and what would be known of them."""
    plan = replace(plan, config=replace(plan.config, train=shards * SHARD_SAMPLES), _groups={})
    names = [(split, shard_name(split, i, plan.shard_count(split))) for split in SPLITS for i in _numbers(plan, split)]
    return plan, [
        ShardInfo(name=name, split=split, nsamples=SHARD_SAMPLES, filesize=SHARD_BYTES, sha256="0" * 64)
        for split, name in names
    ]


def _numbers(plan: Plan, split: str) -> range:
    return range(plan.shard_count(split))


def order(data: Path, samples: int) -> str:
    """The order of one epoch."""
    sizes = [SHARD_SAMPLES] * (samples // SHARD_SAMPLES)
    epoch_order(sizes[:100], 0, 0)
    with Cost() as cost:
        kept = epoch_order(sizes, 0, 0)
    assert len(kept) == samples
    return str(cost)


def reader(data: Path, shards: int) -> str:
    """A reader of so many shards: tars without content, of the right size, and a real index."""
    plan, infos = large(load_plan(DatasetLayout(data).plan), shards)
    with tempfile.TemporaryDirectory(prefix="symile-m3-scale-") as folder:
        layout = DatasetLayout(Path(folder))
        layout.data.mkdir()
        DatasetIndex(name="large", fingerprint=plan.fingerprint, shards=infos).save(layout.index)
        for info in infos:
            with layout.shard(info.name).open("wb") as file:
                file.truncate(info.filesize)
        with Cost() as cost:
            kept = DatasetReader(layout.root, "train")
        size, sent = layout.index.stat().st_size, len(pickle.dumps(kept))
    return f"{cost}; index.json {size / 1e6:.1f} MB, {sent / 1e6:.1f} MB to each worker"


def markers(data: Path, shards: int) -> str:
    """What a build begins with: look which shards are made, by their names, and by their markers."""
    from symile_m3.shardjob import finished_shard, listed_shards

    plan, infos = large(load_plan(DatasetLayout(data).plan), shards)
    with tempfile.TemporaryDirectory(prefix="symile-m3-scale-") as folder:
        layout = DatasetLayout(Path(folder))
        for directory in (layout.data, layout.done):
            directory.mkdir(parents=True)
        for info in (replace(info, filesize=0) for info in infos):
            layout.shard(info.name).touch()
            layout.sidecar(info.name).touch()
            text = json.dumps({"fingerprint": plan.fingerprint, "shard": asdict(info)})
            layout.marker(info.name).write_text(text, encoding="utf-8")
        with Cost() as listing:
            listed = listed_shards(layout, plan)
        with Cost() as reading:
            found = [finished_shard(layout, plan, shard) for shard in listed]
    assert len([info for info in found if info]) == len(infos)
    return f"by name {listing.seconds:.2f} s, by marker {reading.seconds:.2f} s"


def card(data: Path, shards: int) -> str:
    """The card and croissant.json, written by the one who makes the last shard."""
    from symile_m3.card import CROISSANT, write_card

    plan, infos = large(load_plan(DatasetLayout(data).plan), shards)
    with tempfile.TemporaryDirectory(prefix="symile-m3-scale-") as folder:
        layout = DatasetLayout(Path(folder))
        with Cost() as cost:
            write_card(layout, plan, DatasetIndex(name="large", fingerprint=plan.fingerprint, shards=infos))
        size = (layout.root / CROISSANT).stat().st_size
    return f"{cost}; croissant.json {size / 1e6:.1f} MB"


def counts(data: Path, samples: int) -> str:
    """What `info` counts in a split, from the plan."""
    from symile_m3.info import count_split

    plan, _ = large(load_plan(DatasetLayout(data).plan), samples // SHARD_SAMPLES)
    with Cost() as cost:
        counted = count_split(plan, "train").counted
    return f"{cost}; {counted:,} counted"


def plan_media(data: Path, media: int) -> str:
    """A plan with so many media, read from disk: in every process of a build or of `verify`."""
    with tempfile.TemporaryDirectory(prefix="symile-m3-scale-") as folder:
        path = Path(folder) / "plan.json"
        code = "import sys, scale; scale.write_plan(*map(scale.Path, sys.argv[1:3]), int(sys.argv[3]))"
        command = [sys.executable, "-c", code, str(data), str(path), str(media)]
        subprocess.run(command, cwd=Path(__file__).parent, check=True)
        with Cost() as cost:
            kept = load_plan(path)
        assert len(kept.images) + len(kept.clips) == media
        return f"{cost}; plan.json {path.stat().st_size / 1e6:,.1f} MB"


def write_plan(data: Path, path: Path, media: int) -> None:
    """The plan of a dataset with its clips repeated, under other names, until it has so many media."""
    plan = load_plan(DatasetLayout(data).plan)
    clips = tuple(
        replace(medium, id=f"{i:016x}", recipe=replace(medium.recipe, name=f"{medium.recipe.name}-{i}"))
        for i in range(media - len(plan.images))
        for medium in (plan.clips[i % len(plan.clips)],)
    )
    save_plan(replace(plan, clips=clips, _groups={}), path)


def opening(data: Path, times: int) -> str:
    """What `train` and `eval` begin with: the plan, the list of shards, and the media in use."""
    from symile_m3.features import open_dataset

    seconds = []
    for _ in range(times):
        with Cost() as cost:
            open_dataset(data)
        seconds.append(f"{cost.seconds:.2f}")
    return f"{', '.join(seconds)} s"


def placing(data: Path, samples: int) -> str:
    """Which media the samples of a plan use, and where each can be read."""
    from symile_m3.used_media import media_of_plan

    plan, _ = large(load_plan(DatasetLayout(data).plan), samples // SHARD_SAMPLES)
    with Cost() as cost:
        images, clips = media_of_plan(plan)
    last = max(i for media in (images, clips) for split, i in media.first if split == "train")
    return f"{cost}; they lie in the first {last // SHARD_SAMPLES + 1} training shards"


def verifying(data: Path, probes: int) -> str:
    """`verify` in one process, up to the probes: its speed, and the memory that it keeps by media and by sample.

    Each shard is taken in so many times over that what is kept of samples outgrows what is kept of media.
    """
    from symile_m3.audit_facts import FirstPlaces, SampleTable
    from symile_m3.audit_shard import FoundShard, check_shard

    layout = DatasetLayout(data)
    shards = DatasetIndex.load(layout.index).shards
    plan = load_plan(layout.plan)
    check_shard(layout, True, bool(probes), shards[0])  # reads the plan
    with Cost() as cost:
        # as they come from the processes of a pool
        results = [pickle.dumps(check_shard(layout, True, bool(probes), info)) for info in shards]
    samples, size = sum(info.nsamples for info in shards), sum(info.filesize for info in shards)
    firsts = {kind: FirstPlaces() for kind in ("image", "clip", "sentence", "voice")}
    kept: list[object] = []
    held_bytes = [status_bytes("VmRSS")]
    for times in (1, REPEATS):
        for _ in range(times):
            tables = {split: SampleTable(plan, [i for i in shards if i.split == split]) for split in ("train", "test")}
            for number, result in enumerate(results):
                one: FoundShard = pickle.loads(result)
                for kind, values in one.facts.firsts.items():
                    firsts[kind].add(one.split, number, values)
                if one.facts.samples is not None:
                    tables[one.split].add(one.name, one.facts.samples)
                kept.append(replace(one, facts=type(one.facts)()))
            kept.append(tables)
        held_bytes.append(status_bytes("VmRSS"))
    media, by_sample = (b - a for a, b in itertools.pairwise(held_bytes))
    return (
        f"{samples / cost.seconds:,.0f} samples/s, {1e9 * cost.seconds / size:.1f} s/GB; "
        f"{media / 1e6:,.1f} MB, and {by_sample / (REPEATS * samples):,.1f} bytes a sample"
    )


def sizes(data: Path, _: int) -> str:
    """Bytes a sample in the tars and in the sidecars."""
    layout = DatasetLayout(data)
    shards = DatasetIndex.load(layout.index).shards
    samples = sum(info.nsamples for info in shards)
    tars = sum(info.filesize for info in shards) / samples
    return f"{tars:,.0f} bytes, sidecars {sum(layout.sidecar(i.name).stat().st_size for i in shards) / samples:.0f}"


Measure = Callable[[Path, int], str]
ROWS: dict[str, tuple[tuple[str, Measure, int], ...]] = {
    "orders": (
        ("order of an epoch, 10 million samples", order, 10**7),
        ("order of an epoch, 100 million samples", order, 10**8),
    ),
    "shards": (
        ("a reader of 10,000 shards", reader, 10_000),
        ("a reader of 100,000 shards", reader, 100_000),
        ("which of 10,000 shards are made", markers, 10_000),
        ("which of 100,000 shards are made", markers, 100_000),
        ("cards of 10,000 shards", card, 10_000),
        ("cards of 100,000 shards", card, 100_000),
    ),
    "plans": (
        ("a plan of 100,000 media", plan_media, 100_000),
        ("a plan of 1,000,000 media", plan_media, 1_000_000),
        ("`info`: counting a split of 100 million", counts, 10**8),
    ),
    "samples": (
        ("a sample in its tar", sizes, 1),
        ("`train` and `eval` opening a dataset, twice", opening, 2),
        ("`verify --no-probes`, one process", verifying, 0),
        ("`verify`, what the probes need included", verifying, 1),
        ("media in use, of 10 million samples", placing, 10**7),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*ROWS, []], help="which to measure; by default all")
    parser.add_argument("--data", type=Path, help="a dataset; by default one is built")
    arguments = parser.parse_args()
    lines = ["| what | measured |", "|---|---|"]
    with tempfile.TemporaryDirectory(prefix="symile-m3-scale-") as folder:
        data = arguments.data or Path(folder) / "m3"
        if arguments.data is None:
            build = ["build", "--train", "4000", "--val", "500", "--test", "500", "--data", str(data)]
            subprocess.run([sys.executable, "-m", "symile_m3.cli", *build], check=True)
        for part in arguments.parts or ROWS:
            for i, (name, _, _) in enumerate(ROWS[part]):
                code = (
                    "import sys, scale; name, measure, size = scale.ROWS[sys.argv[1]][int(sys.argv[2])]; "
                    "print(measure(scale.Path(sys.argv[3]), size))"
                )
                command = [sys.executable, "-c", code, part, str(i), str(data.resolve())]
                done = subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True)
                lines.append(f"| {name} | {done.stdout.strip()} |")
                print(lines[-1], flush=True)
    text = "\n".join([*lines, "", f"Measured on {hardware()}, {datetime.date.today().isoformat()}."]) + "\n"
    if not arguments.parts:
        (RESULTS / "scale.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
