"""Recordings to clips: 2,000 MP3s of two languages, over two processes, beside a plain loop.

    python benchmarks/clips.py            measure, and write the table
    python benchmarks/clips.py --table    the table of what has been measured

The recordings are made here: 4 to 8 s of noise that swells as speech does, 48 kHz mono MP3, as in Common Voice. The loop
does `soundfile.read`, `soxr.resample` and `soundfile.write` of each: no trimming, no level, no cut. Figures go to
benchmarks/results/clips.json with the hardware and the date; the table is benchmarks/results/clips.md. What is compared
runs in one process, alternating. To take no more than two cores: `taskset -c 0,1 python benchmarks/clips.py`. Needs
about two minutes.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import pstats
import statistics
import tempfile
import time
from cProfile import Profile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from _machine import cores, hardware

from symile_m3.build import build
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.plan import PlanConfig
from symile_m3.progress import NoProgress
from symile_m3.speech import open_clip_pool
from symile_m3.speech.common_voice import CommonVoicePool
from symile_m3.speech.recordings import RecordingsPool

RESULTS = Path(__file__).parent / "results"
LANGUAGES = ("el", "en")
CLIPS = (800, 100, 100)  # a language: 2,000 in all
ROUNDS = 5
PART = 400  # clips of a round
RATE_HZ = 48_000
ROWS = 1_000_000  # of the table of Common Voice

WORK = {
    "read": "decoding MP3",
    "_cprocess": "resampling",
    "write": "encoding FLAC",
}
"""Function -> what it does; all else is Python and numpy."""


def make_recordings(root: Path) -> None:
    """As many MP3s as are taken, in DIR/LANG."""
    for number, code in enumerate(LANGUAGES):
        (root / code).mkdir()
        for i in range(sum(CLIPS)):
            rng = np.random.default_rng([number, i])
            times_s = np.arange(int(rng.uniform(4, 8) * RATE_HZ)) / RATE_HZ
            swell = 0.1 * (1 + np.sin(2 * np.pi * 4 * times_s))
            wave = np.cumsum(rng.standard_normal(len(times_s)))  # most of it low, as in speech
            wave -= np.convolve(wave, np.ones(500) / 500, mode="same")
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
    """Shares of the time of making clips, by what the time goes into."""
    profiler = Profile(time.process_time)
    profiler.runcall(lambda: [pool.make(recipe) for recipe in recipes])
    stats: Any = pstats.Stats(profiler)
    total = stats.total_tt
    shares = dict.fromkeys(WORK.values(), 0.0)
    for (file, _, function), (_, _, own_s, cumulative_s, _) in stats.stats.items():
        if Path(file).name == "soundfile.py" and function == "read":
            shares["decoding MP3"] += cumulative_s / total
        elif Path(file).name == "soundfile.py" and function == "write" and "io" not in file:
            shares["encoding FLAC"] = max(shares["encoding FLAC"], cumulative_s / total)
        elif "resample" in function and "soxr" in f"{file}{function}":
            shares["resampling"] = max(shares["resampling"], cumulative_s / total)
        elif "SoundFile.__init__" in function or (Path(file).name == "soundfile.py" and function == "_open"):
            shares["opening files"] = shares.get("opening files", 0.0) + cumulative_s / total
    shares["numpy and Python"] = 1 - sum(shares.values())
    return shares


class Clocked(NoProgress):
    """Notes when the making of clips begins and ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def task(self, label: str, total: int, unit: str, done: int = 0) -> Any:
        return self._clock(label)

    def _clock(self, label: str) -> Any:
        import contextlib

        @contextlib.contextmanager
        def clock() -> Iterator[Any]:
            began = time.perf_counter()
            with NoProgress().task(label, 0, "") as task:
                yield task
            self.seconds[label] = time.perf_counter() - began

        return clock()


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
    """Choosing among the rows of a large table: seconds, and the memory it takes in a process of its own."""
    import subprocess
    import sys

    folder = root / "en"
    (folder / "clips").mkdir(parents=True)
    rng = np.random.default_rng(0)
    speakers = np.minimum(rng.zipf(1.3, ROWS), 60_000)
    with (folder / "validated.tsv").open("w", encoding="utf-8") as file:
        file.write("client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\n")
        for i, speaker in enumerate(speakers.tolist()):
            file.write(f"{speaker:0128x}\tcommon_voice_en_{i}.mp3\t{i:064x}\tSentence {i} of \"many, ")
            file.write("and none of them is short enough to be left out of this\t\t2\t0\ttwenties\t\n")
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 16_000)
    soundfile.write(root / "one.mp3", wave, 16_000, format="MP3")
    code = (
        "import json, resource, sys, time; sys.path.insert(0, '.'); import clips\n"
        f"print(json.dumps(clips.choose_from_table({str(root)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    size = (folder / "validated.tsv").stat().st_size
    return {"rows": ROWS, "megabytes": size / 1e6, **json.loads(done.stdout)}


def choose_from_table(root: str) -> dict[str, float]:
    """Choose from a table whose clips are all links to one file, made when they are first asked for."""
    import resource

    pool = open_clip_pool(f"common-voice:{root}", SpeechOptions())
    assert isinstance(pool, CommonVoicePool)
    clips = Path(root) / "en" / "clips"
    for number in range(ROWS) if not any(clips.iterdir()) else ():
        (clips / f"common_voice_en_{number}.mp3").hardlink_to(Path(root) / "one.mp3")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    recipes = pool.recipes(["en"])
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "peak_mb": peak / 1e3,
        "before_mb": before / 1e3,
        "clips": len(recipes),
        "speakers": len({recipe.attributes["voice"] for recipe in recipes}),
    }
