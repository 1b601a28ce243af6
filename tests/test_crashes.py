"""Builds killed at random moments: what was finished is never made again, and in the end nothing tells of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_groups import wait_until_gone

from symile_m3.build import build
from symile_m3.plan import PlanConfig

HERE = Path(__file__).parent
SHARDS = 48
CONFIG = PlanConfig(  # as in crashing_build.py
    languages=("el", "en"),
    words=2,
    classes=6,
    train=240,
    val=24,
    test=24,
    clips=(24, 4, 4),
    shard_samples=6,
)


def start(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "crashing_build.py"), str(root), "2"]
    return subprocess.Popen(command, start_new_session=True)


def finished(root: Path) -> dict[str, tuple[int, int, int]]:
    """What is marked as made, and by which file: a file made again has another inode and time."""
    there = {}
    for marker in sorted((root / ".symile" / "done").glob("*.json")):
        name = json.loads(marker.read_text())["shard"]["name"]
        for path in (marker, root / "data" / name):
            status = path.stat()
            there[path.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return there


def content(root: Path) -> dict[str, bytes]:
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    index = json.loads(files.pop(".symile/index.json"))
    return {**files, "index": json.dumps({**index, "name": ""}).encode()}


def kill_and_go_on(folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    began = time.monotonic()
    whole = start(folder / "whole")
    assert whole.wait(timeout=240) == 0
    seconds = time.monotonic() - began
    undisturbed = content(folder / "whole")
    root, killed, progressed = folder / "killed", 0, set()
    while True:
        before = finished(root)
        process = start(root)
        delay_s = draw.uniform(0.1, 0.9) * seconds
        try:
            status = process.wait(timeout=delay_s if killed < kills else 120)
        except subprocess.TimeoutExpired:
            group = draw.random() < 0.5  # the whole machine, or the main process alone
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            status = process.wait()
            killed += 1
        wait_until_gone(process.pid)
        after = finished(root)
        assert {name: after.get(name) for name in before} == before  # nothing finished is made again
        assert len(list((root / "data").glob("*.tar"))) - len(after) // 2 <= 2  # but what two workers were at
        progressed.add(len(after) // 2)
        if status == -signal.SIGKILL:
            continue
        assert status == 0
        assert len(after) == 2 * SHARDS
        assert content(root) == undisturbed
        if killed >= kills:
            break
        shutil.rmtree(root)
    assert len(progressed) > 1


@pytest.mark.slow  # `test_build.py` kills at chosen moments
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 20, seed=2)


def test_a_shard_that_kills_its_worker_stops_no_other(tmp_path: Path) -> None:
    root = tmp_path / "data"
    command = [sys.executable, str(HERE / "crashing_build.py"), str(root), "2"]
    done = subprocess.run([*command, "5"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("symile_m3.errors.BuildError: 1 of 48 shards could not be made: train-00005-of-00040.tar")
    assert "a worker process died" in last
    before = finished(root)
    assert len(before) == 2 * (SHARDS - 1)
    assert build(root, CONFIG, workers=1).built == 1
    after = finished(root)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * SHARDS
