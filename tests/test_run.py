"""What may happen to a run: killed, out of memory, no longer finite, no longer better; and what it writes down."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from starved_training import CONFIG as STARVED
from starved_training import starved
from torchrun import torchrun

from symile_m3.assembly import fit_heads
from symile_m3.errors import MissingDependencyError, NotBuiltError, TrainingError, UsageError
from symile_m3.features import Dataset, FeatureConfig, Features, load_features, open_dataset
from symile_m3.model import MODALITIES, ModelConfig
from symile_m3.objectives import get_objective
from symile_m3.processes import open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import RunOptions, TrainConfig, parse_missing_p
from symile_m3.run import Run
from symile_m3.runlog import check_logs
from symile_m3.train import check_shares, new_run, train

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=12,
    batch_size=16,
    evaluations=3,
)
WORDS = [
    *("--set", "image_views=2", "--set", "audio_steps=4", "--set", "dim=16", "--set", "image_hidden=16"),
    *("--set", "text_buckets=16", "--batch-size", "16", "--log-to", "csv"),
]
QUIET = ["--set", "image_noise=0", "--set", "image_dropout=0", "--set", "audio_noise=0"]


@pytest.fixture(scope="module")
def data(featured_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dataset, with its features."""
    return shutil.copytree(featured_dataset, tmp_path_factory.mktemp("run") / "data")


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    return load_features(dataset, SMALL.features, NoProgress())


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "symile_m3.cli", "train", *map(str, words)]


def steps(run: Path) -> list[dict[str, str]]:
    with (run / "steps.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def losses(run: Path) -> list[float]:
    return [float(row["loss"]) for row in steps(run)]


# ---- killed


def test_a_run_killed_at_any_step_goes_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    words = [*WORDS, "--data", data, "--objective", "symile", "--steps", "150", "--set", "evaluations=15"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command(*words, "--runs", tmp_path / "killed"), **silent)
    run, other = (tmp_path / name / "symile" for name in ("killed", "whole"))
    deadline = time.monotonic() + 240
    while not ((run / "steps.csv").exists() and len(steps(run)) >= 37) and time.monotonic() < deadline:
        assert killed.poll() is None
        time.sleep(0.001 if run.exists() else 0.02)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert 37 <= len(steps(run)) < 150
    last = subprocess.run(
        command(*words, "--runs", tmp_path / "killed", "--resume"), capture_output=True, text=True, timeout=240
    )
    assert last.returncode == 0, last.stderr
    config = replace(SMALL, steps=150, evaluations=15)
    train(data, tmp_path / "whole", objectives=["symile"], config=config, options=RunOptions(logs=("csv",)))
    sessions = json.loads((run / "run.json").read_text())["sessions"]
    assert [session["step"] >= 30 for session in sessions] == [False, True]
    assert steps(run) == steps(other)
    assert len(losses(run)) == 150
    for name in ("last.safetensors", "best.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes()


def test_resume_asks_for_a_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match=r"^--resume: no run in .* to go on with"):
        train(data, tmp_path, config=SMALL, options=RunOptions(resume=True))
    assert list(tmp_path.iterdir()) == []
    train(data, tmp_path, objectives=["symile"], config=SMALL)
    summaries = train(data, tmp_path, config=SMALL, options=RunOptions(resume=True))  # one has not been begun
    assert [summary.steps for summary in summaries] == [12, 12]
    with pytest.raises(TrainingError, match=r"another recipe: lr 0\.03 \(asked: 0\.01\)"):
        train(data, tmp_path, config=replace(SMALL, lr=0.01), options=RunOptions(resume=True))


# ---- begun and left


def test_a_run_that_saved_nothing_makes_room_for_another_recipe(data: Path, tmp_path: Path) -> None:
    """Killed at its first steps, it has a config and steps but no weights."""
    process = subprocess.Popen(
        command(*WORDS, "--data", data, "--runs", tmp_path, "--objective", "symile", "--steps", "100000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = tmp_path / "symile"
    deadline = time.monotonic() + 240
    while not (run / "steps.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    with pytest.raises(TrainingError, match="another process trains a run of another recipe"):
        train(data, tmp_path, objectives=["symile"], config=SMALL)
    process.kill()
    process.wait()
    assert not list(run.glob("*.safetensors"))
    said: list[str] = []

    class Saying(NoProgress):
        def say(self, line: str) -> None:
            said.append(line)

    [summary] = train(data, tmp_path, objectives=["symile"], config=SMALL, progress=Saying())
    assert summary.steps == 12
    assert said == [f"{run} held a run of another recipe that had saved nothing yet; begun anew"]
    assert json.loads((run / "config.json").read_text())["steps"] == 12
    assert not (run / "steps.csv").exists()
    config = (run / "config.json").read_text()
    (run / "config.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"config\.json: unreadable \(no table of settings\)"):
        train(data, tmp_path, objectives=["symile"], config=SMALL)
    (run / "config.json").write_text(config)
    for name in ("best.safetensors", "last.safetensors", "last.state"):  # with a summary or weights it stays
        (run / name).unlink()
    with pytest.raises(TrainingError, match=r"another recipe: lr 0\.03 \(asked: 0\.01\)"):
        train(data, tmp_path, objectives=["symile"], config=replace(SMALL, lr=0.01))


def test_ctrl_c_before_the_first_step_saves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: Run, batch: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_take_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path, objectives=["clip"], config=SMALL)
    assert not (tmp_path / "clip" / "last.state").exists()
    [summary] = train(data, tmp_path, objectives=["clip"], config=replace(SMALL, lr=0.01))
    assert summary.steps == 12


# ---- several processes


SHARED = {
    "symile": (RunOptions(logs=("csv",)), 0.0),
    "clip": (RunOptions(logs=("csv",), micro_batch=3), 0.3),
    "soft": (RunOptions(logs=("csv",), micro_batch=3), 0.3),
}
TARGETS = {"soft": "texts"}


@pytest.fixture(scope="module")
def shared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes."""
    runs = tmp_path_factory.mktemp("shared")

    def words_for(name: str) -> list[str | Path]:
        options, missing_p = SHARED[name]
        parts = ["--micro-batch", str(options.micro_batch)] if options.micro_batch else []
        words = ["--data", data, "--runs", runs, "--objective", name, "--steps", "20", "--set", "evaluations=2"]
        words += ["--set", f"soft_targets={TARGETS.get(name, 'labels')}"]
        return ["train", *words, *WORDS, *QUIET, *parts, "--missing-p", str(missing_p)]

    done = torchrun(2, *map(words_for, SHARED))
    assert done.returncode == 0, done.stderr
    return runs


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_give_the_losses_of_one(name: str, data: Path, shared: Path, tmp_path: Path) -> None:
    """Also with their shares in parts of three rows, and with missing modalities."""
    _, missing_p = SHARED[name]
    quiet = replace(SMALL.model, image_noise=0.0, image_dropout=0.0, audio_noise=0.0)
    targets = TARGETS.get(name, "labels")
    config = replace(SMALL, steps=20, evaluations=2, missing_p=missing_p, model=quiet, soft_targets=targets)
    train(data, tmp_path, objectives=[name], config=config, options=RunOptions(logs=("csv",)))
    alone, run = tmp_path / name, shared / name
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)
    assert len(losses(run)) == 20
    weights, expected = (safetensors.torch.load_file(path / "last.safetensors") for path in (run, alone))
    assert all(torch.allclose(weights[key], expected[key], atol=1e-3) for key in expected)
    assert json.loads((run / "run.json").read_text())["sessions"][0]["processes"] == 2


def test_a_batch_is_shared_out_evenly() -> None:
    place = replace(open_place(), world=2)
    check_shares(SMALL, RunOptions(), place)
    with pytest.raises(UsageError, match=r"^--batch-size 15: give a multiple of the 2 processes$"):
        check_shares(replace(SMALL, batch_size=15), RunOptions(), place)


def test_a_tower_that_normalises_over_the_batch_is_not_cut(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, features=replace(SMALL.features, audio="conv:scratch"))
    with pytest.raises(UsageError, match="conv:scratch normalises over the batch"):
        train(data, tmp_path, config=config, options=RunOptions(micro_batch=4))
    place = replace(open_place(), world=2)
    with pytest.raises(UsageError, match=r"in one process, and without --micro-batch$"):
        check_shares(config, RunOptions(), place)


# ---- memory, numbers


def test_memory_that_runs_out_is_one_line_with_what_to_lower(data: Path, tmp_path: Path) -> None:
    assert starved(data, tmp_path) == (
        "symile: out of memory with 64 samples at a time and D 32768; give --micro-batch 32, "
        "which computes the same loss in parts, and run the command again, "
        "or lower --set dim (now 32768), and train again with --overwrite\n"
    )
    (summary,) = train(data, tmp_path, objectives=["symile"], config=STARVED, options=RunOptions(micro_batch=32))
    assert summary.steps == 3


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(
    dataset: Dataset, features: Features, tmp_path: Path
) -> None:
    config = replace(SMALL, evaluations=12)
    run = new_run(dataset, features, get_objective("symile"), config, tmp_path, open_place())
    batches = [batch.image_rows.tolist() for batch in run.loader]
    row = next(row for row in batches[2] if row not in batches[0] + batches[1])
    damaged = features.image_NVF.clone()
    damaged[row] = torch.inf
    run = new_run(
        dataset, replace(features, image_NVF=damaged), get_objective("symile"), config, tmp_path, open_place()
    )
    fit_heads(run.model, dataset, features, standardise=True)
    with pytest.raises(
        TrainingError, match=r"^symile: the loss is nan at step 3; .*last\.safetensors holds .* step 2; "
    ):
        run.train(NoProgress())
    assert torch.load(tmp_path / "last.state", weights_only=True)["step"] == 2
    for name in ("last.safetensors", "best.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in safetensors.torch.load_file(tmp_path / name).values())


def test_weights_that_a_step_has_spoilt_are_not_saved(dataset: Dataset, features: Features, tmp_path: Path) -> None:
    run = new_run(dataset, features, get_objective("clip"), replace(SMALL, evaluations=12), tmp_path, open_place())
    run.train(NoProgress())
    kept = (tmp_path / "last.safetensors").read_bytes()
    with torch.no_grad():
        run.model.towers["text"].table[0, 0] = torch.nan
    for save in (lambda: run._evaluate(1.0, 1.0), run._save):
        run.losses = [1.0]
        with pytest.raises(TrainingError, match=r"clip: the loss is nan at step 13; .*weights of step 12"):
            save()
    assert (tmp_path / "last.safetensors").read_bytes() == kept


@pytest.mark.parametrize("norm", [0.05, 1e6])
def test_gradients_are_clipped(norm: float, data: Path, tmp_path: Path) -> None:
    options = RunOptions(logs=("csv",))
    train(data, tmp_path / "free", objectives=["clip"], config=SMALL, options=options)
    train(data, tmp_path / "cut", objectives=["clip"], config=replace(SMALL, clip_norm=norm), options=options)
    free, cut = (tmp_path / name / "clip" for name in ("free", "cut"))
    assert all(row["grad_norm"] == "" for row in steps(free))
    assert all(float(row["grad_norm"]) > 0.05 for row in steps(cut))
    assert (losses(free) == losses(cut)) == (norm > 1)


def test_bfloat16_trains_to_nearly_the_same_loss(data: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ("32", "bf16"):
        config = replace(SMALL, precision=precision)
        train(data, tmp_path / precision, objectives=["symile"], config=config, options=RunOptions(logs=("csv",)))
        found[precision] = losses(tmp_path / precision / "symile")
        weights = safetensors.torch.load_file(tmp_path / precision / "symile" / "last.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert found["bf16"] != found["32"]
    assert found["bf16"] == pytest.approx(found["32"], rel=0.05)


@pytest.mark.slow
def test_towers_that_cannot_be_compiled_are_one_line(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(*WORDS, "--data", data, "--runs", tmp_path / "runs", "--steps", "2", "--compile"),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert re.search(r"error: symile: torch\.compile failed \(.*\); leave --compile out$", line)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [0, 6])
def test_compiled_towers_give_the_same_losses(micro_batch: int, data: Path, tmp_path: Path) -> None:
    quiet = replace(SMALL.model, image_noise=0.0, image_dropout=0.0, audio_noise=0.0)
    options = RunOptions(logs=("csv",), micro_batch=micro_batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, on its own code
        for compiled in (False, True):
            train(
                data,
                tmp_path / str(compiled),
                objectives=["symile"],
                config=replace(SMALL, model=quiet),
                options=replace(options, compile=compiled),
            )
    assert losses(tmp_path / "True" / "symile") == pytest.approx(losses(tmp_path / "False" / "symile"), abs=1e-3)


# ---- the end


def test_a_run_that_gets_no_better_ends_early(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, steps=40, evaluations=40, patience=2)
    (summary,) = train(data, tmp_path, objectives=["symile"], config=config)
    assert summary.steps == summary.best_step + 2 < 40
    (tmp_path / "symile" / "summary.json").unlink()  # as if killed before it was written
    (again,) = train(data, tmp_path, objectives=["symile"], config=config)
    assert (again.steps, again.best_step, again.best_top1) == (summary.steps, summary.best_step, summary.best_top1)


# ---- missing modalities


def test_each_modality_may_be_missing_as_often_as_it_likes(data: Path, tmp_path: Path) -> None:
    config = SMALL.with_settings(["missing_p=audio=.5,text=.25"])
    assert config.missing_p == {"image": 0.0, "audio": 0.5, "text": 0.25}
    train(data, tmp_path, config=config)
    for name in ("symile", "clip"):
        run = tmp_path / name
        assert json.loads((run / "config.json").read_text())["missing_p"] == config.missing_p
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert all(0 <= record["val_top1_missing"] <= 1 for record in records)
        assert any(record["val_top1_missing"] != record["val_top1"] for record in records)
        assert "val_top1_missing" in (run / "metrics.csv").read_text().splitlines()[0]
    train(data, tmp_path, config=config)  # the same run
    with pytest.raises(TrainingError, match=r"missing_p \{.*\} \(asked: 0\.5\)"):
        train(data, tmp_path, config=replace(config, missing_p=0.5))


def test_missing_probabilities_are_parsed() -> None:
    assert parse_missing_p(".5") == 0.5
    assert replace(SMALL, missing_p=dict.fromkeys(MODALITIES, 0.5)) == replace(SMALL, missing_p=0.5)
    assert not replace(SMALL, missing_p={"image": 0.0}).missing_p
    for text, reason in (("audio=", "''"), ("audio=.1,audio=.2", "twice"), ("half", "'half'")):
        with pytest.raises(ValueError, match=reason):
            parse_missing_p(text)
    for given, says in (({"smell": 0.1}, "^--missing-p smell: no modality"), ({"text": 1.0}, "^--missing-p 1: a prob")):
        with pytest.raises(UsageError, match=says):
            replace(SMALL, missing_p=given)


# ---- what is written down


def test_a_run_says_what_is_needed_to_repeat_it(dataset: Dataset, data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, objectives=["clip"], config=SMALL, options=RunOptions(micro_batch=4))
    record = json.loads((tmp_path / "clip" / "run.json").read_text())
    (session,) = record["sessions"]
    assert session["versions"].keys() >= {"symile-m3", "python", "torch", "numpy", "lightning-fabric"}
    assert session["versions"]["torch"] == importlib.metadata.version("torch")
    assert (session["data"], session["processes"], session["step"]) == (str(data), 1, 0)
    assert session["options"]["micro_batch"] == 4
    assert session["command"][1:] == sys.argv[1:]
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["fingerprint"] == dataset.plan.fingerprint
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert session["git"] is None if git.returncode else session["git"]["commit"] == git.stdout.strip()


def test_each_step_is_logged_wherever_asked(data: Path, tmp_path: Path) -> None:
    words = [*WORDS, "--log-to", "tensorboard", "--log-to", "wandb", "--objective", "clip", "--steps", "6"]
    done = subprocess.run(
        command(*words, "--data", data, "--runs", tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "clip"
    table = steps(run)
    assert [int(row["step"]) for row in table] == [1, 2, 3, 4, 5, 6]
    script = (
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "found = EventAccumulator(sys.argv[1]); found.Reload()\n"
        "tags = found.Tags()['scalars']\n"
        "print(json.dumps({name: [[event.step, event.value] for event in found.Scalars(name)] for name in tags}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(run / "tensorboard")], capture_output=True, text=True, check=True
    )
    scalars: dict[str, list[Any]] = json.loads(shown.stdout)
    assert [step for step, _ in scalars["val_top1"]] == list(range(1, 7))
    by_step = dict(scalars["loss"])
    assert by_step == pytest.approx({int(row["step"]): float(row["loss"]) for row in table}, rel=1e-5)
    (offline,) = (run / "wandb").glob("offline-run-*")
    run_id = json.loads((run / "run.json").read_text())["id"]
    assert (offline / f"run-{run_id}.wandb").stat().st_size > 1000


def test_a_log_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^--log-to paper: unknown; known: csv, tensorboard, wandb$"):
        RunOptions(logs=("paper",))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MissingDependencyError, match=r'^--log-to wandb: .* pip install "symile-m3\[wandb\]"$'):
        check_logs(["csv", "wandb"])
