"""Objectives compared on declared modalities: equal trials, one budget, every retrieval, and nothing done twice."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from user_shards import write_user_shards

from symile_m3.comparison import DeclaredQuestion, JobConfig, TuneConfig, compare_declared
from symile_m3.comparison.plot import draw_comparison
from symile_m3.comparison.tables import markdown, tables
from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import read_declaration
from symile_m3.modalities.evaluation import evaluate_declared


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("comparison") / "data")


def asked(root: Path, **changes: Any) -> DeclaredQuestion:
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, steps=6, dim=8, evaluations=2)
    given: dict[str, Any] = {
        "name": "my",
        "declaration": replace(declaration, config=config),
        "objectives": ("symile", "clip"),
        "seeds": 2,
        "retrieve": ("xray", "note=xray,age"),
        "tune": TuneConfig(trials=2, steps=2),
        "bootstrap": 20,
    }
    return DeclaredQuestion(**{**given, **changes})


@pytest.fixture(scope="module")
def compared(root: Path) -> dict[str, Any]:
    return compare_declared(asked(root), root / "out", work=JobConfig(jobs=2))


def test_every_objective_has_its_seeds_trials_and_retrievals(root: Path, compared: dict[str, Any]) -> None:
    assert compared["failed"] == []
    assert [point["name"] for point in compared["points"]] == ["xray from ecg, note, age", "note from xray, age"]
    (folder,) = compared["tuning"]
    assert re.fullmatch(r"my-[0-9a-f]{8}", folder)
    for name in ("symile", "clip"):
        assert len(compared["tuning"][folder][name]["trials"]) == 2
        point = compared["points"][0]
        result = point["results"][name]
        assert len(result["runs"]) == len(result["curves"]) == 2
        assert result["ci95"][0] <= result["top1"] <= result["ci95"][1]
        chosen = compared["tuning"][folder][name]["chosen"]
        assert result["lr"] == pytest.approx(0.003 * chosen["rate_factor"])
        assert result["log_scale_offset"] == pytest.approx(chosen["log_scale_offset"])
        for run in result["runs"]:
            config = json.loads((Path(run) / "config.json").read_text())
            assert (config["lr"], config["dim"]) == (result["lr"], 8)
    assert set(compared["points"][0]["differences"]) == {"symile - clip"}
    directories = [Path(run).parent for run in compared["points"][0]["results"]["clip"]["runs"]]
    report = evaluate_declared(directories, retrieve=["xray"], bootstrap=20)
    assert report["questions"][0]["results"]["clip"]["top1"] == compared["points"][0]["results"]["clip"]["top1"]


def test_what_is_finished_is_not_done_again(root: Path, compared: dict[str, Any]) -> None:
    runs = sorted((root / "out").glob("runs/*/*/*/*/summary.json"))
    assert len(runs) == 4
    before = [path.stat().st_mtime_ns for path in runs]
    again = compare_declared(asked(root), root / "out", work=JobConfig(jobs=2))
    assert again == compared
    assert [path.stat().st_mtime_ns for path in runs] == before


def test_tables_and_plot(compared: dict[str, Any], tmp_path: Path) -> None:
    titles = [rows.title for rows in tables(compared)]
    assert titles[0] == "Retrieval on the test samples"
    assert "Tuning on the validation samples" in titles
    assert [title for title in titles if title.startswith("Cost, with 2 runs at a time of 1 thread each (my)")]
    text = markdown(compared)
    result = compared["points"][1]["results"]["symile"]
    assert f"| note from xray, age | symile | {result['top1']:.3f} |" in text
    assert "1/w" not in text
    assert "image lr" not in text
    draw_comparison(tmp_path / "plot.png", compared)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": ("symile", "triangle")}, "objective triangle: it is for 3 modalities, and these are 4"),
        ({"objectives": ("symile", "symile")}, "--objective: give at least one, each once"),
        ({"objectives": ("cats",)}, "--objective cats: unknown"),
        ({"seeds": 0}, "--seeds 0: at least one"),
        ({"retrieve": ("ct",)}, "--retrieve ct: no modality 'ct'; known: xray"),
        ({"reach": 2.0}, "--reach 2: an accuracy between 0 and 1"),
    ],
)
def test_questions_that_make_no_sense_are_refused(root: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        asked(root, **changes)


def test_a_run_that_fails_is_named_and_the_rest_goes_on(root: Path, compared: dict[str, Any], tmp_path: Path) -> None:
    out = shutil.copytree(root / "out", tmp_path / "out")
    for run in out.glob("runs/*/symile-*/*/symile"):
        (run / "summary.json").unlink()
        (run / "config.json").write_text("{}")
    report = compare_declared(asked(root), out, work=JobConfig(jobs=2))
    assert [failure["run"] for failure in report["failed"]] == ["symile, my, seed 0", "symile, my, seed 1"]
    assert [list(point["results"]) for point in report["points"]] == [["clip"], ["clip"]]
    before, after = (of["points"][0]["results"]["clip"] for of in (compared, report))
    assert (after["top1"], after["ci95"]) == (before["top1"], before["ci95"])
