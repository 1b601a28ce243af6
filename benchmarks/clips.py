"""Recordings to clips: 2,000 MP3s of two languages, over two processes, beside a plain loop.

    python benchmarks/clips.py            measure, and write the table
    python benchmarks/clips.py --table    the table of what has been measured

The recordings are made here: 4 to 8 s of noise that swells as speech does, 48 kHz mono MP3, as in Common Voice. The
loop does `soundfile.read`, `soxr.resample` and `soundfile.write` of each: no trimming, no level, no cut. Figures go
to benchmarks/results/clips.json with the hardware and the date; the table is benchmarks/results/clips.md. What is
compared runs in one process, alternating. To take no more than two cores: `taskset -c 0,1 python benchmarks/clips.py`.
Needs about five minutes, most of them to make the recordings.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from cProfile import Profile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from _machine import hardware, status_bytes

from symile_m3.build import build
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.plan import PlanConfig
from symile_m3.progress import NoProgress, Task
from symile_m3.speech import open_clip_pool
from symile_m3.speech.recordings import RecordingsPool

RESULTS = Path(__file__).parent / "results"
LANGUAGES = ("el", "en")
CLIPS = (800, 100, 100)  # a language: 2,000 in all
ROUNDS = 5
PART = 400  # clips of a round
SECONDS = 10.0
RATE_HZ = 48_000
ROWS = 1_000_000  # of the table of Common Voice

STAGES = {
    ("soundfile.py", "read"): "decoding MP3",
    ("__init__.py", "resample"): "resampling",
    ("clip.py", "_encode"): "encoding FLAC",
    ("cut.py", "_levels"): "finding what is heard, and the place to cut",
}
"""File and function -> what the time in it, and in what it calls, goes into."""


def make_recordings(root: Path) -> None:
    """As many MP3s as are taken, in DIR/LANG."""
    for number, code in enumerate(LANGUAGES):
        (root / code).mkdir()
        for i in range(sum(CLIPS)):
            rng = np.random.default_rng([number, i])
            times_s = np.arange(int(rng.uniform(4, 8) * RATE_HZ)) / RATE_HZ
            swell = 0.1 * (1 + np.sin(2 * np.pi * 4 * times_s))
            walk = np.cumsum(rng.standard_normal(len(times_s) + 20))
            wave = walk[20:] - walk[:-20]  # most of it low, as in speech
            soundfile.write(root / code / f"{i:04d}.mp3", swell * wave / np.abs(wave).max(), RATE_HZ, format="MP3")


def plain(path: Path) -> bytes:
    """A clip as a plain loop makes it."""
    samples, rate_hz = soundfile.read(path, dtype="float32")
    buffer = io.BytesIO()
    soundfile.write(buffer, soxr.resample(samples, rate_hz, 16_000), 16_000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def compare(pool: RecordingsPool, recipes: list[Recipe]) -> dict[str, Any]:
    """Clips a second of one core, ours and the loop's, alternating over the same recordings."""
    seconds: dict[str, list[float]] = {"ours": [], "loop": []}
    for round_ in range(ROUNDS):
        part = recipes[round_ * PART : (round_ + 1) * PART]
        for name in ("ours", "loop") if round_ % 2 else ("loop", "ours"):
            began = time.process_time()
            for recipe in part:
                if name == "ours":
                    pool.make(recipe)
                else:
                    plain(pool.root / recipe.attributes["file"])
            seconds[name].append(time.process_time() - began)
    pairs = zip(seconds["loop"], seconds["ours"], strict=True)
    return {
        "clips_per_s_core": {name: PART / statistics.median(times) for name, times in seconds.items()},
        "ratio": statistics.median(loop_s / ours_s for loop_s, ours_s in pairs),
    }


def profile(pool: RecordingsPool, recipes: list[Recipe]) -> dict[str, float]:
    """Shares of the time of making clips, by what it goes into."""
    profiler = Profile(time.process_time)
    profiler.runcall(lambda: [pool.make(recipe) for recipe in recipes])
    stats: Any = pstats.Stats(profiler)
    shares = dict.fromkeys(STAGES.values(), 0.0)
    for (file, _, function), (_, _, _, cumulative_s, _) in stats.stats.items():
        stage = STAGES.get((Path(file).name, function))
        if stage is not None:
            shares[stage] += cumulative_s / stats.total_tt
    return {**shares, "all else": 1 - sum(shares.values())}


class Clocked(NoProgress):
    """Notes when the making of clips begins and ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        began = time.perf_counter()
        with super().task(label, total, unit, done) as task:
            yield task
        self.seconds[label] = time.perf_counter() - began


def measure_build(root: Path, data: Path) -> dict[str, float]:
    """A build with these recordings: seconds for the clips, and in all."""
    config = PlanConfig(
        languages=LANGUAGES,
        words=2,
        classes=10,
        speech=f"recordings:{root}",
        clips=CLIPS,
        train=2_000,
        val=200,
        test=200,
    )
    progress = Clocked()
    began = time.perf_counter()
    build(data, config, workers=2, progress=progress)
    return {"clips_s": progress.seconds["Making clips"], "all_s": time.perf_counter() - began}


def measure_table(root: Path) -> dict[str, float]:
    """Choosing among the rows of a large table, in a process of its own: seconds and memory."""
    root.mkdir()
    table = root / "validated.tsv"
    speakers = np.minimum(np.random.default_rng(0).zipf(1.3, ROWS), 60_000)
    with table.open("w", encoding="utf-8") as file:
        file.write("client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\n")
        for i, speaker in enumerate(speakers.tolist()):
            file.write(f"{speaker:0128x}\tcommon_voice_en_{i}.mp3\t{i:064x}\tSentence {i} of many, none of which is ")
            file.write('so "short that it would not be found in the table\t\t2\t0\ttwenties\t\n')
    code = f"import json, clips; print(json.dumps(clips.choose_rows({str(table)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    return {"rows": ROWS, "megabytes": table.stat().st_size / 1e6, **json.loads(done.stdout)}


def choose_rows(table: str) -> dict[str, float]:
    """All that is done with a table of Common Voice; the clips themselves are not looked at."""
    from symile_m3.speech.common_voice import client_numbers, read_rows
    from symile_m3.speech.recorded import wanted
    from symile_m3.speech.speakers import in_turn

    before_mb = status_bytes("VmRSS") / 1e6
    began = time.perf_counter()
    who, _ = client_numbers([Path(table)])
    order = in_turn(who, 0, "common-voice", "en")
    recordings = read_rows([Path(table)], order[: wanted(SpeechOptions())], ".")
    return {
        "seconds": time.perf_counter() - began,
        "before_mb": before_mb,
        "peak_mb": status_bytes("VmHWM") / 1e6,
        "rows_taken": len(recordings),
        "speakers": len({recording.speaker for recording in recordings}),
    }


def measure() -> dict[str, Any]:
    """Everything."""
    with tempfile.TemporaryDirectory(prefix="symile-m3-clips-") as folder:
        root = Path(folder) / "voices"
        root.mkdir()
        make_recordings(root)
        pool = open_clip_pool(f"recordings:{root}", SpeechOptions(clips=CLIPS, seconds=SECONDS))
        assert isinstance(pool, RecordingsPool)
        began = time.perf_counter()
        recipes = pool.recipes(LANGUAGES)
        return {
            "recordings": f"{len(recipes):,} MP3s of 4 to 8 s, 48 kHz mono, cut to {SECONDS:g} s at most",
            "listing_s": time.perf_counter() - began,
            **compare(pool, recipes),
            "profile": profile(pool, recipes[:PART]),
            "build": measure_build(root, Path(folder) / "data"),
            "table": measure_table(Path(folder) / "cv"),
            "hardware": hardware(),
            "date": datetime.date.today().isoformat(),
        }


def table(record: dict[str, Any]) -> str:
    """What was measured, as a Markdown table."""
    rate, built, rows = record["clips_per_s_core"], record["build"], record["table"]
    clips = sum(CLIPS) * len(LANGUAGES)
    lines = [
        "| figure | measured |",
        "|---|---|",
        f"| clips a second and core: decode, trim, cut, resample, level, encode | **{rate['ours']:.0f}** |",
        f"| the same of a loop of `soundfile.read`, `soxr.resample`, `soundfile.write` | {rate['loop']:.0f} |",
        f"| ours over the loop | **{record['ratio']:.2f}** |",
        *(f"| time of a clip: {stage} | {share:.0%} |" for stage, share in record["profile"].items()),
        f"| headers of {clips:,} recordings | {record['listing_s']:.1f} s |",
        f"| {clips:,} clips of a build with two processes | {built['clips_s']:.1f} s, "
        f"{clips / built['clips_s']:.0f} clips/s |",
        f"| the whole build, with 2,400 samples | {built['all_s']:.1f} s |",
        f"| choosing {rows['rows_taken']:,} rows by {rows['speakers']:,} speakers from a validated.tsv of "
        f"{rows['rows']:,} rows ({rows['megabytes']:.0f} MB) | {rows['seconds']:.1f} s |",
        f"| memory of that process at its highest | {rows['peak_mb']:.0f} MB, of which {rows['before_mb']:.0f} MB "
        "before |",
        "",
        f"{record['recordings']}. Measured on {record['hardware']}, {record['date']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    path = RESULTS / "clips.json"
    if not parser.parse_args().table:
        path.write_text(json.dumps(measure(), indent=2) + "\n", encoding="utf-8")
    text = table(json.loads(path.read_text(encoding="utf-8")))
    (RESULTS / "clips.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
