"""Web services that are interrupted, that often fail, and that go down: what is asked for, how fast, and what is left.

    python benchmarks/web.py

Builds with `--speech gtts` and translates with Google's client, both the real clients, against the server on 127.0.0.1
that the tests use. The table is printed and written to benchmarks/results/web.md. Needs about six minutes.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _machine import hardware

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests" / "web"
sys.path.insert(0, str(TESTS))

from google_server import GoogleServer, google_server  # noqa: E402

RESULTS = HERE / "results"
LANGUAGES, CLIPS = ("el", "en"), (480, 60, 60)
MEDIA = len(LANGUAGES) * sum(CLIPS)
NAMES = 600
RATE, WORKERS = 100, 4


@dataclass(kw_only=True)
class Bench:
    """One server and one cache.

    Attributes:
        google: the server.
        home: directory of the cache and the dataset.
    """

    google: GoogleServer
    home: Path

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(TESTS)]),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "WEB_TEST_URL": self.google.url,
            "SYMILE_M3_WEB_RATE": str(RATE),
            **changes,
        }
        return subprocess.Popen(
            [sys.executable, str(TESTS / "web_build.py"), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, *arguments: str, **changes: str) -> tuple[int, list[str], float]:
        """The exit status, the lines that are errors, and the seconds since the last good answer."""
        process = self.start(*arguments, **changes)
        _, errors = process.communicate()
        ended = time.monotonic()
        good = max((asked.at for asked in self.google.asked if not asked.fault), default=ended)
        return process.returncode, [line for line in errors.splitlines() if "error:" in line], ended - good

    def kill_at(self, requests: int, *arguments: str) -> None:
        """Kill a command and all its processes, by force, when so many requests have come."""
        process = self.start(*arguments)
        while len(self.google.asked) < requests and process.poll() is None:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def build(self) -> list[str]:
        return [
            *("build", "--langs", ",".join(LANGUAGES), "--words", "2", "--classes", "8"),
            *("--train", "64", "--val", "16", "--test", "16", "--clips", ",".join(map(str, CLIPS))),
            *("--speech", "gtts", "--data", str(self.home / "data"), "--workers", str(WORKERS)),
            *("--json", str(self.home / "figures.json")),
        ]

    def media(self) -> int:
        """The clips of the finished dataset."""
        return int(json.loads((self.home / "figures.json").read_text())["clips"])

    def repeated(self) -> int:
        """Questions that were answered more than once."""
        return sum(count > 1 for count in self.google.answered().values())


def interrupted_build(bench: Bench) -> str:
    for requests in (200, 500, 900):
        bench.kill_at(requests, *bench.build())
    status, _, _ = bench.finish(*bench.build())
    return (
        f"killed by force 3 times, {WORKERS} workers: exit {status}, {bench.media():,} of {MEDIA:,} clips, "
        f"{len(bench.google.asked):,} requests, {bench.repeated()} of them a second time "
        "(under way when they were killed)"
    )


def interrupted_translation(bench: Bench) -> str:
    for requests in (100, 300):
        bench.kill_at(requests, "translate", "el", str(NAMES))
    status, _, _ = bench.finish("translate", "el", str(NAMES))
    return (
        f"killed by force twice: exit {status}, {len(bench.google.answered())} of {NAMES} names, "
        f"{len(bench.google.asked)} requests, {bench.repeated()} of them a second time"
    )


def often_failing(bench: Bench) -> str:
    chance = random.Random(0)
    faults = ("429 Retry-After: 1", "500", "hang")
    bench.google.fault = lambda number, question: chance.choice(faults) if chance.random() < 0.05 else ""
    began = time.monotonic()
    status, _, _ = bench.finish(*bench.build(), SYMILE_M3_WEB_TIMEOUT="3")
    failed = sum(bool(asked.fault) for asked in bench.google.asked)
    return (
        f"exit {status}, {bench.media():,} of {MEDIA:,} clips in {time.monotonic() - began:.0f} s, "
        f"{len(bench.google.asked):,} requests of which {failed} failed, {bench.repeated()} answered twice, "
        f"{bench.google.most_in_a_second()} requests in the fullest second (limit {RATE})"
    )


def down(bench: Bench, fault: str, wait_s: float = 0.0) -> str:
    bench.google.fault = lambda number, question: fault if number > 300 else ""
    status, errors, seconds = bench.finish(*bench.build())
    kept = len(bench.google.answered())
    tried = len(bench.google.asked) - 300
    bench.google.fault = lambda number, question: ""
    time.sleep(wait_s)
    again, _, _ = bench.finish(*bench.build())
    return (
        f"stopped after {seconds:.0f} s and {tried} requests, exit {status}, {len(errors)} line; "
        f"run again: exit {again}, {bench.media():,} of {MEDIA:,} clips, {kept} of them kept, "
        f"{bench.repeated()} asked for twice"
    )


def main() -> None:
    rows = []
    parts = (
        ("build interrupted", interrupted_build),
        ("translation interrupted", interrupted_translation),
        ("5% of 429, 500 and hangs", often_failing),
        ("down: 503", lambda bench: down(bench, "503")),
        ("down: hangs", lambda bench: down(bench, "hang")),
        ("down: connections end", lambda bench: down(bench, "drop")),
        ("down: 429, wait for a minute", lambda bench: down(bench, "429 Retry-After: 60", wait_s=60)),
    )
    for title, measure in parts:
        with tempfile.TemporaryDirectory() as home, google_server() as google:
            rows.append(f"| {title} | {measure(Bench(google=google, home=Path(home)))} |")
            print(rows[-1], flush=True)
    text = "\n".join(
        [
            "| what | figures |",
            "|---|---|",
            *rows,
            "",
            f"Measured on {hardware()}, {datetime.date.today().isoformat()}: at most {RATE} requests a second, the row "
            "of 5% with a timeout of 3 s, all else by default.",
        ]
    )
    RESULTS.joinpath("web.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
