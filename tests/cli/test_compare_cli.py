"""`symile-m3 compare` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script import error_of, symile_m3
from user_shards import write_user_shards

SMALL = [
    *("--set", "image_views=2", "--set", "audio_steps=4", "--set", "dim=16", "--set", "image_hidden=16"),
    *("--set", "text_buckets=16", "--set", "batch_size=16", "--set", "evaluations=2", "--steps", "4", "--seeds", "1"),
]
OURS = ["--langs", "2", "--set", "classes=8", "--set", "train=64", "--set", "val=16", "--set", "test=16"]


def test_builds_what_is_missing_and_writes_table_plot_and_figures(tmp_path: Path) -> None:
    words = ["compare", *OURS, "--set", "clips=24,6,6", *SMALL, "--out", "out", "--jobs", "2"]
    result = symile_m3(*words, "--json", "x.json", "--markdown", "x.md", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    assert "Training: 8/8 steps" in result.stderr
    assert "Test top-1" in result.stdout
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    report = json.loads((tmp_path / "x.json").read_text())
    [point] = report["points"]
    assert point["dataset"]["languages"] == 2
    assert point["bounds"]["text_only"] == 0.5
    assert list(point["results"]) == ["symile", "clip"]
    symile = point["results"]["symile"]
    assert f"| symile | {symile['top1']:.3f} |" in (tmp_path / "x.md").read_text()

    for run in (tmp_path / "out").glob("runs/*/symile-*/*/symile"):  # a failure is one line, behind the table
        (run / "summary.json").unlink()
        (run / "config.json").write_text("{}")
    result = symile_m3(*words, "--json", "y.json", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert result.returncode == 1
    assert "1 failed: symile, langs2" in error_of(result)
    assert "run the same command again" in error_of(result)
    report = json.loads((tmp_path / "y.json").read_text())
    assert list(report["points"][0]["results"]) == ["clip"]
    assert [failure["run"] for failure in report["failed"]] == [
        "symile, langs2-classes8-train64-val16-test16-clips24-6-6, seed 0"
    ]


def test_compares_on_declared_modalities(tmp_path: Path) -> None:
    root = write_user_shards(tmp_path / "data")
    small = ("--set", "dim=8", "--set", "evaluations=1", "--steps", "2", "--seeds", "1", "--jobs", "2")
    words = ("compare", "--modalities", "my.toml", "--retrieve", "xray", *small, "--out", "out", "--json", "x.json")
    result = symile_m3(*words, cwd=root, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    assert "Retrieval on the test samples" in result.stdout
    assert (root / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    report = json.loads((root / "x.json").read_text())
    assert [point["name"] for point in report["points"]] == ["xray from ecg, note, age"]
    assert list(report["points"][0]["results"]) == ["symile", "clip"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--langs", "7"), ("--langs 7",)),
        (("--langs", "2", "--data", "x"), ("--langs and --data",)),
        (("--objective", "cats"), ("--objective cats", "known:")),
        (("--over", "cats=1,2"), ("--over cats: no such setting",)),
        (("--over", "dim"), ("KEY=",)),
        (("--over", "dim=big"), ("--over dim=big",)),
        (("--set", "seed=3"), ("--seeds",)),
        (("--set", "classes=few"), ("classes=few", "whole number")),
        (("--tune-on", "none"), ("--tune-on none", "largest or each")),
        (("--jobs", "0"), ("--jobs",)),
        (("--preset", "none"), ("--preset none",)),
        (("--modalities", "no.toml"), ("no.toml: No such file",)),
        (("--modalities", "no.toml", "--langs", "2"), ("--langs: only for datasets of triples",)),
        (("--modalities", "no.toml", "--over", "dim=1,2"), ("--over: only for datasets of triples",)),
        (("--retrieve", "xray"), ("--retrieve: only for declared modalities",)),
        (("--preset", "clinical"), ("--preset clinical: name the directory of the arrays with --data",)),
        (("--plot", "no/such/plot.png"), ("--plot", "no/such")),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_arguments_are_one_line(words: tuple[str, ...], says: tuple[str, ...], tmp_path: Path) -> None:
    result = symile_m3("compare", *words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    message = error_of(result)
    assert [part for part in says if part not in message] == []
    assert list(tmp_path.iterdir()) == []
