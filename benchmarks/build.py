"""Building at scale: rows of a plan, writing of shards, and the engines.

    python benchmarks/build.py                   every part
    python benchmarks/build.py plan writing      some of them: plan, writing, engines
    python benchmarks/build.py --table           the table of what has been measured

Figures go to benchmarks/results/build/<part>.json with the hardware and the date; the table is
benchmarks/results/build.md. What is compared runs in one process, alternating. `engines` needs the extra `ray`.
To take no more than two cores: `taskset -c 0,1 python benchmarks/build.py`. Needs about two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import hardware

from symile_m3.build import build
from symile_m3.engines import Engine, LocalEngine, WorkConfig, settle
from symile_m3.languages import SETS
from symile_m3.lexicon import Lexicon
from symile_m3.media import Medium, Recipe
from symile_m3.mediastore import MediaStore
from symile_m3.plan import SPLITS, Plan, PlanConfig, load_plan
from symile_m3.shardjob import Media, ShardJob, build_shard
from symile_m3.shards import DatasetLayout, ShardInfo, shard_name

RESULTS = Path(__file__).parent / "results"
TARGETS = {"rows_per_s": 1e6, "shard_ms": 50.0, "memory_mb": 200.0, "writing": 0.8}
ROUNDS = 15


def large_plan(samples: int = 10_000_000, classes: int = 250) -> Plan:
    """A plan of ten languages and as many media as the default build has."""
    languages = SETS[10]
    keys = tuple(f"class-{i:04d}" for i in range(classes))

    def media(groups: tuple[str, ...], counts: tuple[int, int, int]) -> tuple[Medium, ...]:
        return tuple(
            Medium(
                id=f"{group}-{split}-{i}",
                recipe=Recipe(name=f"{group}-{split}-{i}", group=group, split=split, source="none", licence="none"),
            )
            for group in groups
            for split, count in zip(SPLITS, counts, strict=True)
            for i in range(count)
        )

    return Plan(
        config=PlanConfig(languages=languages, words=10, classes=classes, train=samples, val=1000, test=1000),
        lexicon=Lexicon(
            languages=languages,
            class_keys=keys,
            categories=("thing",) * classes,
            names=tuple(tuple(f"{key} {language}" for language in languages) for key in keys),
        ),
        images=media(keys, (5, 1, 1)),
        clips=media(languages, (480, 40, 60)),
    )


def memory_mb() -> dict[str, float]:
    """Resident memory now and at its highest, of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: round(int(values[key].split()[0]) / 1e3, 1) for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}


def random_shards(count: int = 300) -> dict[str, Any]:
    """Rows of random shards, in a process that has done nothing else: the milliseconds each took, and memory."""
    plan = large_plan()
    shards = np.random.default_rng(0).integers(0, plan.shard_count("train"), count)
    before = memory_mb()
    times_ms = []
    for shard in shards:
        began = time.perf_counter()
        plan.rows("train", *plan.shard_range("train", int(shard)))
        times_ms.append(1e3 * (time.perf_counter() - began))
    return {"times_ms": times_ms, "before_mb": before["now"], "peak_mb": memory_mb()["peak"]}


def measure_plan() -> dict[str, Any]:
    """Rows a second on one core; then time and memory of random shards in a fresh process."""
    plan = large_plan()
    seconds: dict[int, list[float]] = {1_000: [], 100_000: []}
    plan.rows("train", 0, 10)
    for _ in range(ROUNDS):
        for size, times in seconds.items():
            began = time.process_time()  # of one core, whatever else the machine is at
            for start in range(0, 100_000, size):
                plan.rows("train", 5_000_000 + start, 5_000_000 + start + size)
            times.append(time.process_time() - began)
    code = "import json, build; print(json.dumps(build.random_shards()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    fresh = json.loads(done.stdout)
    return {
        "plan": "10,000,000 samples, 10 languages, 10 words a text, 1,000 samples a shard",
        "rows_per_s": {str(size): 1e5 / statistics.median(times) for size, times in seconds.items()},
        "shard_ms": {
            "median": statistics.median(fresh["times_ms"]),
            "slowest": max(fresh["times_ms"]),  # the first also groups the media
            "of": len(fresh["times_ms"]),
        },
        "memory_mb": {"process_before": fresh["before_mb"], "process_peak": fresh["peak_mb"]},
    }


@contextlib.contextmanager
def prepared(train: int) -> Iterator[tuple[Plan, Media, DatasetLayout]]:
    """A plan of `train` samples whose media are made and whose shards are not, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="symile-m3-build-") as folder:
        config = PlanConfig(
            languages=SETS[10], words=10, classes=100, train=train, val=10, test=10, clips=(120, 10, 20)
        )
        # The last of many ranks has no shard of its own but the last, and leaves the media and the plan.
        world = sum(-(-size // config.shard_samples) for size in config.sizes.values())
        build(Path(folder), config, work=WorkConfig(rank=world - 1, world=world))
        layout = DatasetLayout(Path(folder))
        media = Media(
            images=MediaStore(sorted(layout.pool.glob("images-*.tar")), "jpg"),
            clips=MediaStore(sorted(layout.pool.glob("clips-*.tar")), "flac"),
        )
        yield load_plan(layout.plan), media, layout


def measure_writing() -> dict[str, Any]:
    """Shards from prepared pools in one process, against `tarfile` writing the same bytes from memory."""
    with prepared(2_000) as (plan, media, layout):
        tar = layout.shard(shard_name("train", 0, plan.shard_count("train")))
        info = build_shard(plan, "train", 0, media, layout)
        with tarfile.open(tar) as archive:
            members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
        copy = tar.with_name("copy.tar")

        def ours() -> None:
            build_shard(plan, "train", 0, media, layout)

        def theirs() -> None:
            with tarfile.open(copy, "w", format=tarfile.USTAR_FORMAT) as archive:
                for name, data in members:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))

        def synced() -> None:
            theirs()
            with copy.open("rb") as file:
                os.fsync(file.fileno())

        contenders: dict[str, Callable[[], None]] = {"ours": ours, "tarfile": theirs, "tarfile_and_fsync": synced}
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        cpu: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, run in contenders.items():
                for path in (tar, copy):
                    path.unlink(missing_ok=True)
                began, cpu_began = time.perf_counter(), time.process_time()
                run()
                seconds[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - cpu_began)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    pairs = zip(seconds["tarfile"], seconds["ours"], strict=True)
    return {
        "shard": {"samples": info.nsamples, "bytes": info.filesize},
        "samples_per_s": {name: info.nsamples / value for name, value in median.items()},
        "mb_per_s": {name: info.filesize / 1e6 / value for name, value in median.items()},
        "ratio": statistics.median(theirs_s / ours_s for theirs_s, ours_s in pairs),
        "ratio_cpu": statistics.median(cpu["tarfile"]) / statistics.median(cpu["ours"]),
        "ratio_to_fsynced": median["tarfile_and_fsync"] / median["ours"],
    }


def measure_engines() -> dict[str, Any]:
    """The same 20 shards by two processes: of this machine, and of a Ray cluster on it."""
    from symile_m3.ray_engine import open_ray

    with prepared(20_000) as (plan, media, layout):
        job = ShardJob(layout=layout, fingerprint=plan.fingerprint, media=media)
        shards = [("train", i) for i in range(plan.shard_count("train"))]

        def run(engine: Engine) -> tuple[float, list[ShardInfo | None]]:
            began = time.perf_counter()
            found = {outcome.task: outcome.result for outcome in settle(engine, job, shards)}
            return time.perf_counter() - began, [found[shard] for shard in shards]

        began = time.perf_counter()
        with open_ray(2) as ray:
            start_s = time.perf_counter() - began
            seconds: dict[str, list[float]] = {"local": [], "ray": []}
            infos = []
            for _ in range(4):
                for name, engine in (("local", LocalEngine(2)), ("ray", ray)):
                    taken, made = run(engine)
                    seconds[name].append(taken)
                    infos.append(made)
    # Local workers start anew each time, those of Ray with the first.
    samples = plan.config.train
    return {
        "workers": 2,
        "shards": len(shards),
        "samples_per_s": {name: samples / statistics.median(times[1:]) for name, times in seconds.items()},
        "ray_start_s": start_s,
        "ray_first_s": seconds["ray"][0],
        "same_bytes": all(made == infos[0] and None not in made for made in infos),
    }


PARTS = {"plan": measure_plan, "writing": measure_writing, "engines": measure_engines}


def table() -> str:
    """Everything measured as a Markdown table."""
    records = {
        part: json.loads((RESULTS / "build" / f"{part}.json").read_text(encoding="utf-8"))
        for part in PARTS
        if (RESULTS / "build" / f"{part}.json").exists()
    }
    rows = ["| figure | measured | at least |", "|---|---|---|"]
    if "plan" in records:
        plan = records["plan"]
        rates, times, memory = plan["rows_per_s"], plan["shard_ms"], plan["memory_mb"]
        rows += [
            f"| plan rows/s, one core, shard by shard | **{rates['1000'] / 1e6:.2f} million** | 1 million |",
            f"| plan rows/s, one core, 100,000 at a time | {rates['100000'] / 1e6:.2f} million | 1 million |",
            f"| rows of a shard, {times['of']} random ones of 10,000 | median {times['median']:.2f} ms, "
            f"**slowest {times['slowest']:.1f} ms** | under 50 ms |",
            f"| memory of that process at its highest | **{memory['process_peak']:.0f} MB**, "
            f"of which {memory['process_before']:.0f} MB before the first shard | under 200 MB |",
        ]
    if "writing" in records:
        writing = records["writing"]
        rate, size = writing["samples_per_s"], writing["mb_per_s"]
        rows += [
            f"| writing shards from prepared pools, one core | {rate['ours']:,.0f} samples/s, "
            f"{size['ours']:.0f} MB/s | |",
            f"| a loop of `tarfile` writes of the same bytes | {rate['tarfile']:,.0f} samples/s, "
            f"{size['tarfile']:.0f} MB/s | |",
            f"| ours, with checksums, index, marker and fsync, over `tarfile` | **{writing['ratio']:.2f}** | 0.8 |",
            f"| the same in processor time | {writing['ratio_cpu']:.2f} | 0.8 |",
            f"| ours over `tarfile` and one fsync | {writing['ratio_to_fsynced']:.2f} | |",
        ]
    if "engines" in records:
        engines = records["engines"]
        rate = engines["samples_per_s"]
        rows += [
            f"| two workers, `--engine local` | {rate['local']:,.0f} samples/s | |",
            f"| two workers, `--engine ray`, after {engines['ray_start_s']:.1f} s to start the cluster | "
            f"{rate['ray']:,.0f} samples/s | |",
            f"| the same bytes from both | {'yes' if engines['same_bytes'] else 'NO'} | yes |",
        ]
    where = sorted({f"{record['hardware']}, {record['date']}" for record in records.values()})
    return "\n".join([*rows, "", *(f"Measured on {place}." for place in where)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to measure; by default all")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    (RESULTS / "build").mkdir(parents=True, exist_ok=True)
    for part in [] if arguments.table else arguments.parts or list(PARTS):
        record = {**PARTS[part](), "hardware": hardware(), "date": datetime.date.today().isoformat()}
        (RESULTS / "build" / f"{part}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = table()
    (RESULTS / "build.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
