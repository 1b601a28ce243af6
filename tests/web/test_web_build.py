"""The command line with web services: interrupted, with failures, and with the service down."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google_server import GoogleServer

from symile_m3.engines import LocalEngine, settle
from symile_m3.errors import ServiceError, SourceError

COMMAND = [sys.executable, str(Path(__file__).with_name("web_build.py"))]
BUILD = [
    *("build", "--langs", "el,en", "--words", "2", "--classes", "4", "--clips", "24,3,3", "--speech", "gtts"),
    *("--train", "16", "--val", "4", "--test", "4"),
]
CLIPS = 60


def environment(google: GoogleServer, home: Path, **changes: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, str(Path(__file__).parent)]),
        "XDG_CACHE_HOME": str(home / "cache"),
        "WEB_TEST_URL": google.url,
        "SYMILE_M3_WEB_RATE": "100",
        **changes,
    }


def run(google: GoogleServer, home: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(google, home, **changes),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def kill_after(google: GoogleServer, home: Path, requests: int, *arguments: str) -> None:
    """Start a command and kill it and all its processes, by force, when so many requests have come."""
    slowly = environment(google, home, SYMILE_M3_WEB_RATE="30")
    process = subprocess.Popen([*COMMAND, *arguments], env=slowly, start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while len(google.asked) < requests and time.monotonic() < end:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_build_that_was_killed_asks_for_nothing_twice(google: GoogleServer, tmp_path: Path) -> None:
    arguments = [*BUILD, "--data", str(tmp_path / "data"), "--workers", "2"]
    kill_after(google, tmp_path, 25, *arguments)
    before = len(google.asked)
    assert before < CLIPS
    done = run(google, tmp_path, *arguments, "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "figures.json").read_text())["clips"] == CLIPS
    answered = google.answered()
    assert len(answered) == CLIPS
    assert sum(answered.values()) <= CLIPS + 2  # those on their way to two workers when they were killed


def test_a_translation_that_was_killed_asks_for_nothing_twice(google: GoogleServer, tmp_path: Path) -> None:
    kill_after(google, tmp_path, 20, "translate", "el", "60")
    done = run(google, tmp_path, "translate", "el", "60")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 60
    answered = google.answered()
    assert len(answered) == 60
    assert sum(answered.values()) <= 61
    assert google.most_in_a_second() <= 120


def test_a_service_that_often_fails_is_asked_until_all_is_there(google: GoogleServer, tmp_path: Path) -> None:
    chance = random.Random(0)
    faults = ["429 Retry-After: 1", "500", "hang"]
    google.fault = lambda number, question: chance.choice(faults) if chance.random() < 0.05 else ""
    done = run(
        google,
        tmp_path,
        *[*BUILD, "--data", str(tmp_path / "data"), "--workers", "2", "--json", str(tmp_path / "figures.json")],
        SYMILE_M3_WEB_RATE="50",
        SYMILE_M3_WEB_TIMEOUT="3",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "figures.json").read_text())["clips"] == CLIPS
    assert len(google.answered()) == CLIPS
    assert set(google.answered().values()) == {1}
    assert len({asked.fault for asked in google.asked}) > 1
    assert google.most_in_a_second() <= 60


def test_a_service_that_goes_down_stops_the_build_with_one_line_and_the_next_goes_on(
    google: GoogleServer, tmp_path: Path
) -> None:
    arguments = [*BUILD, "--data", str(tmp_path / "data"), "--workers", "2"]
    google.fault = lambda number, question: ("503", "hang")[number % 2] if number > 30 else ""
    began = time.monotonic()
    stopped = run(google, tmp_path, *arguments, SYMILE_M3_WEB_PATIENCE="4", SYMILE_M3_WEB_TIMEOUT="3")
    assert time.monotonic() - began < 30
    assert stopped.returncode == 1
    errors = [line for line in stopped.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("symile-m3: error: Google's text-to-speech (gTTS) has failed for ")
    assert errors[0].endswith("run the same command again later, and it goes on from there")
    assert str(tmp_path / "cache") in errors[0]
    assert "Traceback" not in stopped.stderr
    assert len(google.asked) < 60
    google.fault = lambda number, question: ""
    done = run(google, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert len(google.answered()) == CLIPS
    assert set(google.answered().values()) == {1}
    card = (tmp_path / "data" / "README.md").read_text()
    assert "The program is Google's text-to-speech, asked through gTTS." in card
    assert f"Of the {CLIPS} clips {CLIPS} are synthetic speech" in card


def test_a_variable_that_is_no_number_is_a_usage_error(google: GoogleServer, tmp_path: Path) -> None:
    done = run(google, tmp_path, *BUILD, "--data", str(tmp_path / "data"), SYMILE_M3_WEB_RATE="fast")
    assert done.returncode == 2
    assert done.stderr.strip() == "symile-m3: error: SYMILE_M3_WEB_RATE=fast: give a number above 0, such as 2"


def fail_at_three(task: int) -> int:
    if task == 3:
        raise ServiceError("The service is down")
    if task == 1:
        raise SourceError("another failure")
    return task


@pytest.mark.parametrize("workers", [1, 2])
def test_no_other_task_is_tried_once_a_service_is_given_up(workers: int) -> None:
    outcomes = list(settle(LocalEngine(workers), fail_at_three, list(range(1000)), retries=3))
    assert len(outcomes) < 20
    assert isinstance(outcomes[-1].error, ServiceError)
    assert [outcome.error for outcome in outcomes[:-1]] == [None] * (len(outcomes) - 1)
