"""`symile-m3 build` through its console script, on tiny datasets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from script import SCRIPT, TINY, environment, error_of, symile_m3


def tars(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "data").iterdir())}


def written(root: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    result = symile_m3(
        "build",
        *TINY,
        "--data",
        "m3",
        "--workers",
        "2",
        "--json",
        "build.json",
        cwd=root,
        PYTHONWARNINGS="error",
    )
    assert result.returncode == 0, result.stderr
    (root / "stdout.txt").write_text(result.stdout, encoding="utf-8")
    (root / "stderr.txt").write_text(result.stderr, encoding="utf-8")
    return root


def test_says_what_came_out_and_what_is_next(built: Path) -> None:
    stdout = (built / "stdout.txt").read_text(encoding="utf-8")
    assert "train 24, val 8, test 8" in stdout
    assert "1/2 = 0.5" in stdout
    assert "1/6 = 0.1667" in stdout
    assert stdout.splitlines()[-1] == "Next: symile-m3 train --data m3"
    assert sorted(tars(built / "m3")) == [
        "test-00000-of-00001.tar",
        "train-00000-of-00001.tar",
        "val-00000-of-00001.tar",
    ]


def test_progress_is_plain_lines_on_standard_error(built: Path) -> None:
    stderr = (built / "stderr.txt").read_text(encoding="utf-8")
    assert "Writing shards: 40/40 samples (100%), " in stderr
    assert " samples/s, in " in stderr
    assert "\x1b" not in stderr


def test_figures(built: Path) -> None:
    figures = json.loads((built / "build.json").read_text(encoding="utf-8"))
    assert figures["samples"] == {"train": 24, "val": 8, "test": 8}
    assert (figures["classes"], figures["languages"], figures["words"]) == (6, ["el", "en"], 2)
    assert figures["bounds"] == {"text_only": 0.5, "audio_only": pytest.approx(1 / 6)}
    assert figures["clips"] == 48
    assert figures["bytes"] == sum(len(data) for data in tars(built / "m3").values())
    assert figures["shards_built"] == figures["shards"] == 3


def test_again_there_is_nothing_to_do(built: Path) -> None:
    before = written(built / "m3")
    result = symile_m3("build", *TINY, "--data", "m3", "--json", "-", cwd=built)
    assert result.returncode == 0
    assert "nothing to do" in result.stderr
    assert json.loads(result.stdout)["shards_built"] == 0
    assert written(built / "m3") == before


def test_shards_are_as_long_as_asked_for(tmp_path: Path) -> None:
    words = ("build", *TINY, "--data", "m3", "--workers", "1", "--shard-samples")
    result = symile_m3(*words, "10", "--json", "-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["shards"] == 5
    index = json.loads((tmp_path / "m3" / ".symile" / "index.json").read_text())
    assert [shard["nsamples"] for shard in index["shardlist"]] == [10, 10, 4, 8, 8]
    again = symile_m3(*words, "11", cwd=tmp_path)
    assert again.returncode == 1
    assert "shard_samples 10 (asked: 11)" in error_of(again)


def test_another_plan_is_refused_and_named(built: Path) -> None:
    before = tars(built / "m3")
    result = symile_m3("build", *TINY, "--classes", "7", "--seed", "3", "--data", "m3", cwd=built)
    assert result.returncode == 1
    message = error_of(result)
    assert "classes 6 (asked: 7)" in message
    assert "seed 0 (asked: 3)" in message
    assert "--overwrite" in message
    assert tars(built / "m3") == before


def test_overwrite_builds_in_its_place(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "m3", tmp_path / "m3")
    result = symile_m3("build", *TINY, "--seed", "2", "--overwrite", "--data", tmp_path / "m3")
    assert result.returncode == 0, result.stderr
    assert tars(tmp_path / "m3").keys() == tars(built / "m3").keys()
    assert tars(tmp_path / "m3") != tars(built / "m3")
    plan = json.loads((tmp_path / "m3" / ".symile" / "plan.json").read_text(encoding="utf-8"))
    assert plan["config"]["seed"] == 2


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal; for SIGTERM Python has none."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("number", "status", "importing"),
    [(signal.SIGINT, 130, True), (signal.SIGINT, 130, False), (signal.SIGTERM, 143, False)],
    ids=["ctrl-c while importing", "ctrl-c at work", "sigterm at work"],
)
def test_interrupted_it_goes_on(
    built: Path, tmp_path: Path, number: signal.Signals, status: int, importing: bool
) -> None:
    words = [str(SCRIPT), "build", *TINY, "--data", str(tmp_path / "m3"), "--workers", "2"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    if importing:  # as soon as it is in charge
        while not catches(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.001)
    else:  # workers are at work once their first packs are there
        while not list(tmp_path.glob("m3/.symile/pool/images-*.tar")) and time.monotonic() < deadline:
            time.sleep(0.005)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == status, stderr
    assert stderr.splitlines()[-1] == "interrupted; run the same command again to go on"
    assert "Traceback" not in stderr
    result = symile_m3(*words[1:])
    assert result.returncode == 0, result.stderr
    assert tars(tmp_path / "m3") == tars(built / "m3")


def test_jobs_of_an_array_share_a_build(built: Path, tmp_path: Path) -> None:
    words = ["build", *TINY, "--data", "m3", "--workers", "1", "--world", "2", "--json", "build.json"]
    first = symile_m3(*words, "--rank", "1", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "2 shards of other ranks are still missing" in " ".join(first.stdout.split())
    figures = json.loads((tmp_path / "build.json").read_text(encoding="utf-8"))
    assert (figures["shards_built"], figures["shards_missing"]) == (1, 2)
    again = symile_m3(*words, "--rank", "1", cwd=tmp_path)
    assert "the shards of this rank are there: nothing to do" in again.stderr
    last = symile_m3(*words, "--rank", "0", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert last.stdout.splitlines()[-1] == "Next: symile-m3 train --data m3"
    assert tars(tmp_path / "m3") == tars(built / "m3")


def test_a_job_beyond_the_shards_has_nothing_to_do(tmp_path: Path) -> None:
    words = ["build", *TINY, "--data", "m3", "--world", "9", "--rank", "3", "--json", "build.json"]
    idle = symile_m3(*words, cwd=tmp_path)
    assert (idle.returncode, idle.stdout) == (0, "Nothing to do: there are fewer shards than ranks.\n"), idle.stderr
    assert idle.stderr == "rank 3 of 9 has no shard to make: there are 3\n"
    figures = json.loads((tmp_path / "build.json").read_text(encoding="utf-8"))
    assert (figures.keys(), figures["shards_built"]) == ({"data", "shards_built", "seconds"}, 0)
    assert not (tmp_path / "m3").exists()


def test_ways_to_work_that_are_none(tmp_path: Path) -> None:
    for words in (("--rank", "2"), ("--engine", "slurm"), ("--rank", "1", "--world", "2", "--overwrite")):
        result = symile_m3("build", *TINY, "--data", tmp_path / "m3", *words)
        assert result.returncode == 2
        assert words[0] in error_of(result)
    assert not (tmp_path / "m3").exists()


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = symile_m3("build", *TINY, "--data", tmp_path / "m3", "--engine", "ray", RAY_ADDRESS="127.0.0.1:1")
    assert result.returncode == 1
    assert "the cluster at RAY_ADDRESS=127.0.0.1:1 cannot be reached" in error_of(result)
