"""Comparisons: equal trials, no look at the test samples, resumed, the same at any number of jobs, failures named."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import wait_until_gone
from rich.console import Console

from symile_m3.cli.output import PLAIN_WIDTH
from symile_m3.cli.tables import figures
from symile_m3.comparison import JobConfig, Over, Question, TuneConfig, compare
from symile_m3.comparison.figures import time_to
from symile_m3.comparison.jobs import _start, run_jobs
from symile_m3.comparison.plot import draw_comparison, is_wide
from symile_m3.comparison.question import recipe_for, recipe_key
from symile_m3.comparison.tables import markdown, tables
from symile_m3.comparison.tuning import RATE_FACTORS, SCALE_OFFSETS, TrialPoint, trial_points
from symile_m3.comparison.worker import Job, _wanting
from symile_m3.errors import SymileM3Error, TrainingError, UsageError
from symile_m3.features import FeatureConfig
from symile_m3.model import ModelConfig
from symile_m3.portable import BESIDE, MODEL, is_portable
from symile_m3.progress import NoProgress
from symile_m3.recipe import TrainConfig

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=8,
    batch_size=16,
    evaluations=2,
)
BOTH = ("symile", "clip")


@pytest.fixture(scope="module")
def data(featured_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dataset, with its features."""
    return shutil.copytree(featured_dataset, tmp_path_factory.mktemp("compared") / "tiny")


def question(data: Path, /, **changes: Any) -> Question:
    return Question(**{"objectives": BOTH, "seeds": 2, "recipe": SMALL, "data": (data,), "bootstrap": 50, **changes})


def untimed(report: dict[str, Any]) -> list[Any]:
    """The points of a report without what differs from run to run and from place to place."""
    points = json.loads(json.dumps(report["points"]))
    for point in points:
        for result in point["results"].values():
            for key in ("runs", "seconds_a_step", "samples_per_s", "reach"):
                del result[key]
            for curve in result["curves"]:
                del curve["seconds"]
    return list(points)


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compare")
    asked = question(data, tune=TuneConfig(trials=2, steps=4))
    return out, compare(asked, out, work=JobConfig(jobs=2))


def test_every_objective_has_its_seeds_and_interval(compared: tuple[Path, dict[str, Any]]) -> None:
    _, report = compared
    [point] = report["points"]
    assert list(point["results"]) == list(BOTH)
    assert report["failed"] == []
    for result in point["results"].values():
        assert [run["seed"] for run in result["runs"]] == [0, 1]
        assert result["ci95"][0] <= result["top1"] <= result["ci95"][1]
        assert result["passes_text_only"] == (result["ci95"][0] > point["bounds"]["text_only"])
        seconds = [curve["seconds"] for curve in result["curves"]]
        assert all(0 < first < second for first, second in seconds)
    assert list(point["differences"]) == ["symile - clip"]


def test_every_objective_has_the_same_trials_and_its_choice_is_used(compared: tuple[Path, dict[str, Any]]) -> None:
    out, report = compared
    [tuned] = report["tuning"].values()
    tried = {
        name: [(trial["rate_factor"], trial["log_scale_offset"]) for trial in tuned[name]["trials"]] for name in BOTH
    }
    assert tried["symile"] == tried["clip"]
    assert len(tried["symile"]) == 2
    assert tried["symile"][0] == (1.0, 0.0)
    assert {tuned[name]["steps"] for name in BOTH} == {4}
    trials = [json.loads(path.read_text()) for path in out.glob("trials/*/*/*/config.json")]
    assert len(trials) == 4
    finals = [json.loads(path.read_text()) for path in out.glob("runs/*/*/*/*/config.json")]
    assert {trial["seed"] for trial in trials} & {final["seed"] for final in finals} == set()
    for name in BOTH:
        scores = [trial["val_top1"] for trial in tuned[name]["trials"]]
        best = tuned[name]["trials"][scores.index(max(scores))]
        result = report["points"][0]["results"][name]
        assert result["lr"] == SMALL.lr * best["rate_factor"]
        assert result["image_lr"] == SMALL.image_lr * best["rate_factor"]
        assert result["log_scale_offset"] == best["log_scale_offset"]
    trial_files = {path.name for path in out.glob("trials/*/*/*/*")}
    assert not {name for name in trial_files if name.endswith(".safetensors")} | trial_files & {MODEL, *BESIDE}
    kept = {path.name for path in out.glob("runs/*/*/*/*/*.safetensors")}
    assert kept - set(BESIDE) == {"best.safetensors"}
    assert all(is_portable(path.parent) for path in out.glob("runs/*/*/*/*/best.safetensors"))


def test_tuning_reads_no_test_sample(data: Path, compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """With zeros in place of the test shards everything but the evaluation at the end is as it was."""
    before, _ = compared
    without = shutil.copytree(data, tmp_path / "tiny")
    for shard in (without / "data").glob("test-*"):
        shard.write_bytes(bytes(shard.stat().st_size))
    asked = question(without, tune=TuneConfig(trials=2, steps=4))
    with pytest.raises(SymileM3Error, match="test-"):
        compare(asked, tmp_path / "out", work=JobConfig(jobs=2))
    found = {path.name: path.read_text() for path in (tmp_path / "out" / "tuning").iterdir()}
    assert found == {path.name: path.read_text() for path in (before / "tuning").iterdir()}
    assert len(list((tmp_path / "out").glob("runs/*/*/*/*/best.safetensors"))) == 4


def test_what_is_finished_is_not_done_again(
    data: Path, compared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = compared
    monkeypatch.setattr("symile_m3.comparison.jobs._start", lambda *_: pytest.fail("a run was made twice"))
    again = compare(question(data, tune=TuneConfig(trials=2, steps=4)), out, work=JobConfig(jobs=1))
    assert again["points"] == report["points"]
    assert again["tuning"] == report["tuning"]


def test_one_job_after_the_other_gives_the_same(
    data: Path, compared: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    _, report = compared
    asked = question(data, tune=TuneConfig(trials=2, steps=4))
    alone = compare(asked, tmp_path, work=JobConfig(jobs=1))
    assert untimed(alone) == untimed(report)


def test_what_fails_is_named_and_the_rest_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not finite, a dataset that is gone, and a process that is killed, before one that is well."""
    good = Job(name="good", data=data, directory=tmp_path / "good", objective="clip", config=SMALL)
    bad = replace(good, name="bad", directory=tmp_path / "bad", config=replace(SMALL, lr=1e38, image_lr=1e38))
    lost = replace(good, name="lost", data=tmp_path / "nowhere", directory=tmp_path / "lost")
    killed = replace(good, name="killed", directory=tmp_path / "killed")
    odd = replace(good, name="odd", directory=tmp_path / "odd", data=3.5)  # type: ignore[arg-type]
    said: list[str] = []

    def start(job: Job, threads: int) -> Any:
        connection, worker = _start(job, threads)
        if job is killed:
            os.kill(worker.process.pid or 0, signal.SIGKILL)
        return connection, worker

    monkeypatch.setattr("symile_m3.comparison.jobs._start", start)

    class Saying(NoProgress):
        def say(self, line: str) -> None:
            said.append(line)

    ended = run_jobs("Training", [bad, lost, killed, odd, good], JobConfig(jobs=1), Saying())
    assert [end.job.name for end in ended] == ["bad", "lost", "killed", "odd", "good"]
    assert "the loss is" in ended[0].error
    assert "nowhere" in ended[1].error
    assert "was killed by signal 9" in ended[2].error
    assert ended[3].error.endswith(f"; {tmp_path / 'odd' / 'error.txt'} has the traceback")
    assert "Traceback" in (tmp_path / "odd" / "error.txt").read_text()
    assert ended[4].summary is not None
    assert [line.partition(":")[0] for line in said] == ["bad", "lost", "killed", "odd"]
    assert [end.killed for end in ended] == [False, False, True, False, False]


def test_tuning_is_not_concluded_from_trials_that_memory_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker of CLIP may take little more memory than it has, and a model of that width takes a GB."""
    wide = replace(SMALL, model=replace(SMALL.model, dim=1 << 20))

    def start(job: Job, threads: int) -> Any:
        starved = job.objective == "clip"
        connection, worker = _start(replace(job, config=replace(wide, steps=2)) if starved else job, threads)
        if starved:
            pid = worker.process.pid or 0
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
            resource.prlimit(pid, resource.RLIMIT_AS, ((size + (200 << 10)) * 1024, resource.RLIM_INFINITY))
        return connection, worker

    monkeypatch.setattr("symile_m3.comparison.jobs._start", start)
    asked = question(data, seeds=1, tune=TuneConfig(trials=1, steps=2), recipe=replace(SMALL, steps=2))
    report = compare(asked, tmp_path, work=JobConfig(jobs=1))
    [failed] = report["failed"]
    assert failed["run"].startswith("tuning of clip on tiny-")
    assert re.fullmatch(
        r"clip, tiny, trial 0: out of memory with 16 samples at a time and D \d+; give fewer --jobs, .*",
        failed["error"],
    )
    [tuned] = report["tuning"].values()
    assert list(tuned) == ["symile"]
    assert list(report["points"][0]["results"]) == ["symile"]
    assert [path.name.split("-")[2] for path in (tmp_path / "tuning").iterdir()] == ["symile"]  # clip's goes on


@pytest.mark.parametrize(
    ("error", "wanting"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_what_the_machine_lacks_is_told_from_what_the_recipe_does(
    data: Path, tmp_path: Path, error: Exception, wanting: bool
) -> None:
    job = Job(name="one", data=data, directory=tmp_path, objective="clip", config=SMALL)
    with pytest.raises(TrainingError) as raised:
        raise TrainingError("clip: no") from error
    assert bool(_wanting(raised.value, job)) == wanting


def test_over_a_setting_gives_a_point_a_value_and_no_run_twice(data: Path, tmp_path: Path) -> None:
    over = Over.parse("negatives=n,faces")
    report = compare(question(data, over=over, seeds=1), tmp_path, work=JobConfig(jobs=2))
    assert [point["value"] for point in report["points"]] == ["n", "faces"]
    runs = [path.parent.parent.parent.name.partition("-")[0] for path in tmp_path.glob("runs/*/*/*/*/summary.json")]
    assert sorted(runs) == ["clip", "symile", "symile"]  # CLIP has one kind of negatives
    text = markdown(report)
    assert "| faces | symile |" in text
    draw_comparison(tmp_path / "plot.png", report)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_comparison import LONG, question
from symile_m3.comparison import JobConfig, compare
if __name__ == "__main__":
    compare(question(Path(sys.argv[1]), recipe=LONG, seeds=1), Path(sys.argv[2]), work=JobConfig(jobs=2))
"""
LONG = replace(SMALL, steps=160, evaluations=16)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_stopped_comparison_goes_on_where_it_was(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED)
    words = [sys.executable, script, data, out, Path(__file__).parent]
    process = subprocess.Popen(list(map(str, words)), start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not (begun := list(out.glob("runs/*/*/*/*/last.state"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode != 0
    wait_until_gone(process.pid)  # no worker outlives it
    assert (b"KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    report = compare(question(data, recipe=LONG, seeds=1), out, work=JobConfig(jobs=2))
    assert report["failed"] == []
    sessions = [json.loads((path.parent / "run.json").read_text())["sessions"] for path in begun]
    assert all(session[1]["step"] > 0 for session in sessions if len(session) > 1)
    assert any(len(session) == 2 for session in sessions)


def test_trials_are_spread_over_the_whole_range() -> None:
    points = trial_points(9, seed=3)
    assert points == trial_points(9, seed=3)
    assert points != trial_points(9, seed=4)
    assert points[0] == TrialPoint()
    for low, high, values in (
        (*RATE_FACTORS, [point.rate_factor for point in points[1:]]),
        (*SCALE_OFFSETS, [point.log_scale_offset for point in points[1:]]),
    ):
        assert all(low <= value <= high for value in values)
    offsets = sorted(point.log_scale_offset for point in points[1:])
    assert all(-2 + i / 2 <= offset <= -1.5 + i / 2 for i, offset in enumerate(offsets))  # one in each eighth


def test_time_to_an_accuracy_is_read_between_evaluations() -> None:
    curve = [
        {"step": 10.0, "seconds": 2.0, "val_top1": 0.2},
        {"step": 20.0, "seconds": 6.0, "val_top1": 0.6},
        {"step": 30.0, "seconds": 8.0, "val_top1": 0.5},
    ]
    assert time_to(curve, 0.5) == pytest.approx((17.5, 5.0))
    assert time_to(curve, 0.1) == pytest.approx((5.0, 1.0))
    assert time_to(curve, 0.7) is None


def test_recipes_are_named_by_what_shapes_the_run() -> None:
    assert recipe_key(SMALL) == recipe_key(replace(SMALL, seed=5))
    assert recipe_key(SMALL) != recipe_key(replace(SMALL, lr=0.01))
    faces = replace(SMALL, negatives="faces")
    assert recipe_for("clip", faces) == SMALL
    assert recipe_for("symile", faces) == faces
    assert is_wide([64, 512])
    assert not is_wide([0, 0.5])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": ("symile", "cats")}, "--objective cats"),
        ({"objectives": ("clip", "clip")}, "twice"),
        ({"seeds": 0}, "--seeds 0"),
        ({"data": (), "langs": ("2", "2")}, "--langs"),
        ({"settings": {"classes": "5"}}, "leave --data out"),
        ({"reach": 1.5}, "--reach 1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_questions_that_make_no_sense_are_refused(data: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        question(data, **changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dim", "--over: give KEY="),
        ("dim=16,16", "a value is given twice"),
        ("seed=1,2", "--seeds"),
        ("cats=1", "^--over cats: no such setting"),
        ("dim=16,big", "^--over dim=big: "),
        ("classes=5,6", "leave --data out"),
        ("negatives=many", "negatives"),
    ],
)
def test_values_that_cannot_vary_are_refused(data: Path, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compare(question(data, over=Over.parse(text)), tmp_path)


def literal(names: tuple[str, ...], values: tuple[str | None, ...], key: str | None = None) -> dict[str, Any]:
    """A report of two objectives on these datasets, of 2, 10, ... languages, at these values."""
    reached = {"runs": 2, "of": 3, "steps": 1000.0, "seconds": 812.5}
    result = {
        **{"top1": 0.7, "ci95": [0.6, 0.8], "runs": [1, 2, 3], "passes_text_only": True, "best_val": 0.7},
        **{"steps": 1200, "seconds_a_step": 0.2123, "samples_per_s": 2500, "lr": 0.00316, "image_lr": 0.00316},
        **{"log_scale_offset": 1.75, "reach": reached},
    }
    points = [
        {
            **{"name": name, "value": value, "dataset": {"languages": 2 + 8 * i}},
            **{"bounds": {"text_only": 0.5}, "results": {"symile": result, "triangle": result}, "differences": {}},
        }
        for i, name in enumerate(names)
        for value in values
    ]
    over = None if key is None else {"key": key, "values": values}
    question = {"reach": 0.5, "over": over, "objectives": ("symile", "triangle")}
    return {"question": question, "work": {"jobs": 4, "threads": 1}, "tuning": {}, "failed": [], "points": points}


@pytest.mark.parametrize(
    ("report", "columns"),
    [
        (literal(("langs2", "langs10"), (None,)), ("data", "objective")),
        (literal(("langs2",), ("64", "128"), "batch_size"), ("batch_size", "objective")),
        (literal(("langs2", "langs10"), ("64", "128"), "batch_size"), ("data", "batch_size", "objective")),
        (literal(("first", "other"), (None,)), ("data", "languages", "objective")),
    ],
)
def test_tables_have_the_columns_it_takes_and_cut_nothing_off(report: dict[str, Any], columns: tuple[str, ...]) -> None:
    found = tables(report)
    assert [rows.title.split()[0] for rows in found] == ["Test", "Cost,", "Time"]
    for rows in found:
        assert rows.header[: rows.names] == columns
        assert len({row[: rows.names] for row in rows.rows}) == len(rows.rows)  # a row is told by its names
        console = Console(width=PLAIN_WIDTH, record=True, file=io.StringIO())
        console.print(figures(rows.title, rows.header, rows.rows, names=rows.names))
        shown = console.export_text()
        assert all(cell in shown.split() for row in rows.rows for cell in row if " " not in cell)


@pytest.mark.parametrize(
    ("named", "rows"),
    [
        (("gated", "symile", "clip"), [("symile - clip", "+0.100"), ("symile - gated", "+0.200")]),
        (("gated", "clip", "gram"), [("gated - clip", "-0.100"), ("gated - gram", "+0.200")]),
        (("clip", "symile"), [("symile - clip", "+0.100")]),
    ],
)
def test_differences_are_shown_to_one_objective(named: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    """In the report they are of all pairs, in an order of its own."""
    report = literal(("langs2",), (None,))
    report["question"]["objectives"] = named
    order = [name for name in ("symile", "clip", "gram", "gated") if name in named]
    point = report["points"][0]
    top1 = {"symile": 0.9, "clip": 0.8, "gram": 0.5, "gated": 0.7}
    point["differences"] = {
        f"{one} - {other}": {"top1": found, "ci95": [found - 0.05, found + 0.01]}
        for i, one in enumerate(order)
        for other in order[i + 1 :]
        for found in [top1[one] - top1[other]]
    }
    [shown] = [found for found in tables(report) if found.title.startswith("Differences")]
    assert [row[:2] for row in shown.rows] == rows
    assert all(float(row[2].split()[0]) < float(row[1]) < float(row[2].split()[2]) for row in shown.rows)
    assert ("of symile to the others (of all pairs in the JSON)" in shown.title) == (
        len(named) > 2 and "symile" in named
    )


def test_values_that_tell_the_dataset_need_no_name_of_it() -> None:
    report = literal(("langs2", "langs10"), (None,), "langs")
    for point, value in zip(report["points"], ("2", "10"), strict=True):
        point["value"] = value
    assert {rows.header[: rows.names] for rows in tables(report)} == {("langs", "objective")}
