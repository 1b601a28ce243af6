"""`train`, `eval` and `verify` through the console script, on the tiny dataset."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from script import SCRIPT, console_script, environment, error_of, symile_m3

# Enough to go through every part; far too little to learn.
SMALL = ("--batch-size", "16", "--set", "dim=32", "--set", "image_views=1", "--set", "audio_steps=10")
SHORT = ("--steps", "6", *SMALL)


@pytest.fixture(scope="module")
def trained(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the dataset, and the runs on it."""
    root = tmp_path_factory.mktemp("trained")
    data, runs = shutil.copytree(tiny_dataset, root / "data"), root / "runs"
    result = symile_m3("train", *SHORT, "--data", data, "--runs", runs, "--json", root / "train.json", timeout=300)
    assert result.returncode == 0, result.stderr
    assert "Next: symile-m3 eval" in result.stdout
    return data, runs


def test_train_leaves_two_runs(trained: tuple[Path, Path]) -> None:
    _, runs = trained
    figures = json.loads((runs.parent / "train.json").read_text(encoding="utf-8"))
    assert list(figures["results"]) == ["symile", "clip"]
    assert [result["steps"] for result in figures["results"].values()] == [6, 6]
    for name in ("symile", "clip"):
        assert (runs / name / "metrics.jsonl").stat().st_size > 0
        assert (runs / name / "metrics.csv").stat().st_size > 0
        assert (runs / name / "curves.png").stat().st_size > 0


def test_train_again_keeps_what_is_there(trained: tuple[Path, Path]) -> None:
    data, runs = trained
    before = {path: path.read_bytes() for path in runs.rglob("metrics.*")}
    result = symile_m3("train", *SHORT, "--data", data, "--runs", runs, timeout=300)
    assert result.returncode == 0, result.stderr
    assert {path: path.read_bytes() for path in runs.rglob("metrics.*")} == before


def test_eval_prints_the_table_and_writes_the_figures(trained: tuple[Path, Path]) -> None:
    data, runs = trained
    words = ("eval", "--data", data, "--runs", runs, "--missing-p", "0.5", "--bootstrap", "100")
    figures_at = runs.parent / "eval.json"
    result = symile_m3(*words, "--json", figures_at, timeout=300)
    assert result.returncode == 0, result.stderr
    for part in ("Symile", "CLIP", "text alone", "exact, 1/2", "exact, 1/8", "Greek", "text only", "nothing"):
        assert part in result.stdout
    figures = json.loads(figures_at.read_text(encoding="utf-8"))
    assert figures["dataset"]["languages"] == figures["dataset"]["words"] == 2
    assert figures["dataset"]["classes"] == 8
    assert figures["bounds"]["text_only"] == 0.5
    assert figures["bounds"]["audio_only"] == 0.125
    assert {"image_ceiling", "language_ceiling"} <= set(figures["bounds"])
    for name in ("symile", "clip"):
        outcome = figures["results"][name]
        assert {"top1", "ci95", "top5", "by_language", "n"} <= set(outcome)
        assert outcome["n"] == 16
        assert outcome["ci95"][0] <= outcome["top1"] <= outcome["ci95"][1]
        assert {"overall", "both", "audio_only", "text_only", "none"} <= set(figures["missing"][name])
    assert figures["missing"]["p"] == 0.5
    piped = console_script(*words, "--json", "-", timeout=300)
    assert json.loads(piped.stdout) == figures


def test_eval_draws_a_curve_and_shows_what_is_asked_for(trained: tuple[Path, Path]) -> None:
    data, runs = trained
    figures_at, plot = runs.parent / "more.json", runs.parent / "curve.png"
    options = ("--missing-p", "0,0.25,0.5", "--directions", "--gap", "--bound", "--by-class", "--bootstrap", "50")
    words = ("eval", "--data", data, "--runs", runs, *options)
    result = symile_m3(*words, "--json", figures_at, "--plot", plot, timeout=300)
    assert result.returncode == 0, result.stderr
    for part in ("Top-1 over p", "Audio clip among", "Modality gap", "nats", "Top-1 by class", f"Plot: {plot}"):
        assert part in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    figures = json.loads(figures_at.read_text(encoding="utf-8"))
    assert [record["p"] for record in figures["missing_curve"]] == [0, 0.25, 0.5]
    assert figures["plot"] == str(plot)
    refused = symile_m3("eval", "--data", data, "--runs", runs, "--plot", plot, timeout=300)
    assert refused.returncode == 2
    assert "--missing-p" in error_of(refused)


def test_verify_is_content(tiny_dataset: Path) -> None:
    result = console_script("verify", "--data", tiny_dataset, "--no-probes", "--json", "-", timeout=300)
    assert result.returncode == 0, result.stderr + result.stdout
    figures = json.loads(result.stdout)
    assert figures["ok"] is True
    assert figures["problems"] == []
    assert figures["checks"]


def test_verify_names_what_was_altered(tiny_dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_dataset, tmp_path / "data")
    tar = next((data / "data").glob("test-*.tar"))
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 0x40
    tar.write_bytes(content)
    result = symile_m3("verify", "--data", data, "--no-probes", timeout=300)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert any(line.startswith("problem: ") and tar.name in line for line in result.stdout.splitlines())


@pytest.mark.parametrize("words", [("train",), ("verify",), ("eval",)], ids=lambda words: words[0])
def test_without_a_dataset_build_comes_first(words: tuple[str, ...], tmp_path: Path) -> None:
    result = symile_m3(*words, cwd=tmp_path)
    assert result.returncode == 1
    assert "symile-m3 build" in error_of(result)
    assert "data/m3" in error_of(result)


def test_without_a_run_train_comes_first(tiny_dataset: Path, tmp_path: Path) -> None:
    result = symile_m3("eval", "--data", tiny_dataset, "--runs", tmp_path / "none")
    assert result.returncode == 1
    assert "symile-m3 train" in error_of(result)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--objective", "magic"), "magic"),
        (("--preset", "magic"), "--preset magic"),
        (("--set", "magic=1"), "magic"),
        (("--set", "dim"), "dim"),
        (("--set", "dim=wide"), "wide"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_settings_exit_2(words: tuple[str, ...], says: str, tiny_dataset: Path, tmp_path: Path) -> None:
    result = symile_m3("train", *words, "--data", tiny_dataset, "--runs", tmp_path / "runs")
    assert result.returncode == 2, result.stderr
    assert says in error_of(result)
    assert not (tmp_path / "runs").exists()


def test_interrupted_training_goes_on(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = trained
    runs = tmp_path / "runs"
    words = ["train", "--objective", "symile", "--steps", "200", *SMALL]
    process = subprocess.Popen(
        [SCRIPT, *words, "--data", data, "--runs", runs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (runs / "symile" / "last.state").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "interrupted; run the same command again to go on"
    assert "Traceback" not in stderr
    result = symile_m3(*words, "--data", data, "--runs", runs, "--json", "-", timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["results"]["symile"]["steps"] == 200
