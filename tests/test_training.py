"""Training: the same numbers every time, whatever interrupts it, and the same samples for every objective."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from random_model import standin
from torch import Tensor

from symile_m3 import checkpoints, runlog, triples
from symile_m3 import run as running
from symile_m3.assembly import fit_heads, new_model, new_tokeniser
from symile_m3.batches import Batch, open_loader, training_inputs
from symile_m3.checkpoints import BEST, about_weights, load_weights
from symile_m3.errors import DamagedSampleError, ShardError, TrainingError, UsageError
from symile_m3.features import Dataset, FeatureConfig, Features, load_features, open_dataset
from symile_m3.model import MODALITIES, Inputs, Model, ModelConfig
from symile_m3.objectives import OBJECTIVES, get_objective, total_correlation_bound
from symile_m3.processes import open_place
from symile_m3.progress import NoProgress
from symile_m3.recipe import TrainConfig, learning_rate
from symile_m3.shards import DatasetReader, ShardReader, missing_mask
from symile_m3.train import new_run, train

SMALL = TrainConfig(
    features=FeatureConfig(image_views=2, audio_steps=4),
    model=ModelConfig(dim=16, image_hidden=16, text_buckets=16),
    steps=12,
    batch_size=16,
    evaluations=3,
)
TIMINGS = ("samples_per_s", "seconds")


@pytest.fixture(scope="module")
def data(featured_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dataset, with its features."""
    return shutil.copytree(featured_dataset, tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    return load_features(dataset, SMALL.features, NoProgress())


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of both objectives."""
    runs = tmp_path_factory.mktemp("undisturbed")
    train(data, runs, config=SMALL)
    return runs


class Stop(NoProgress):
    """Presses Ctrl-C when a task has done so many units; keeps what is said."""

    def __init__(self, label: str = "", at: int = -1) -> None:
        self.label, self.at = label, at
        self.said: list[str] = []
        self.totals: dict[str, tuple[int, int]] = {}

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        outer = self

        class Counting:
            units = done

            def advance(self, count: int = 1, note: str = "") -> None:
                self.units += count
                if label == outer.label and self.units == outer.at and count:
                    raise KeyboardInterrupt

        task = Counting()
        yield task
        self.totals[label] = (done, task.units)

    def say(self, line: str) -> None:
        self.said.append(line)


def saved(run: Path) -> dict[str, Any]:
    """What a run goes on from, as anyone can read it."""
    state: dict[str, Any] = torch.load(run / "last.state", weights_only=True)
    return state | {"model": safetensors.torch.load_file(run / "last.safetensors")}


def metrics(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def same_tensors(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tensors(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same_tensors(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def same_runs(a: Path, b: Path) -> None:
    """Everything of two finished runs is the same but the time they took."""
    for name in ("best.safetensors", "last.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    states = [saved(run) for run in (a, b)]
    for state in states:
        del state["seconds"]
        for record in state["metrics"]:
            del record["samples_per_s"], record["seconds"]
    for part in states[0]:
        assert same_tensors(states[0][part], states[1][part]), part
    assert metrics(a) == metrics(b)
    first, second = (json.loads((run / "summary.json").read_text()) for run in (a, b))
    for name in ("objective", "steps", "best_step", "best_top1"):
        assert first[name] == second[name]


# ---- what a run leaves


@pytest.mark.parametrize("name", ["symile", "clip"])
def test_a_run_leaves_its_files(name: str, undisturbed: Path) -> None:
    run = undisturbed / name
    assert sorted(path.name for path in run.iterdir()) == [
        *("audio_net.safetensors", "best.safetensors", "config.json", "curves.png", "last.safetensors", "last.state"),
        *("metrics.csv", "metrics.jsonl", "model.json", "run.json", "standins.safetensors", "summary.json"),
        "vocabulary.json",
    ]
    found = metrics(run)
    assert [record["step"] for record in found] == [4, 8, 12]
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table] == [record["loss"] for record in found]
    assert all(0 <= record["val_top1"] <= 1 for record in found)
    if name == "symile":
        assert all(record["bound_nats"] == total_correlation_bound(record["loss"], 16) for record in found)
    else:
        assert "bound_nats" not in found[0]
    summary = json.loads((run / "summary.json").read_text())
    best = max(record["val_top1"] for record in found)
    assert summary["best_top1"] == best
    assert summary["best_step"] == next(record["step"] for record in found if record["val_top1"] == best)
    assert about_weights(run / "best.safetensors") == {"objective": name, "step": summary["best_step"]}
    config = json.loads((run / "config.json").read_text())
    assert config == json.loads(json.dumps({"fingerprint": config["fingerprint"], **asdict(SMALL)}))


def test_the_same_seed_gives_the_same_bits(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)  # the global state has no say
    torch.rand(7)
    train(data, tmp_path, config=SMALL)
    for name in ("symile", "clip"):
        same_runs(undisturbed / name, tmp_path / name)
    train(data, tmp_path / "other", objectives=["symile"], config=replace(SMALL, seed=1))
    assert metrics(tmp_path / "other" / "symile") != metrics(undisturbed / "symile")


def test_a_finished_run_is_kept(data: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.*")}
    progress = Stop()
    summaries = train(data, undisturbed, config=SMALL, progress=progress)
    assert [summary.objective for summary in summaries] == ["symile", "clip"]
    assert progress.said == [f"{name}: already trained in {undisturbed / name}" for name in ("symile", "clip")]
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.*")} == before


# ---- interruption


@pytest.mark.parametrize("at", [1, 4, 5, 11, 12])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    at: int, data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, objectives=["symile"], config=SMALL, progress=Stop("symile", at))
    assert saved(tmp_path / "symile")["step"] == at
    assert not (tmp_path / "symile" / "summary.json").exists()
    progress = Stop()
    train(data, tmp_path, objectives=["symile"], config=SMALL, progress=progress)
    assert progress.totals["symile"] == (at, 12)
    same_runs(undisturbed / "symile", tmp_path / "symile")


def test_an_interruption_of_every_step(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    for at in range(1, 13):
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path, objectives=["clip"], config=SMALL, progress=Stop("clip", at))
    train(data, tmp_path, objectives=["clip"], config=SMALL)
    same_runs(undisturbed / "clip", tmp_path / "clip")


def interrupt_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, how: Callable[[], None]) -> None:
    """Interrupt a call of a function, before it does its work."""
    original = getattr(owner, name)
    calls = 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            how()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)


def press() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (triples, "training_inputs", 6),  # a batch is taken and nothing done with it
        (triples, "retrieve", 2),  # within an evaluation
        (triples, "retrieve", 3),  # within the last one
        (running, "save_weights", 1),  # the best weights
        (checkpoints, "save_weights", 2),  # the last ones
        (checkpoints, "write_bytes", 4),  # between weights and state
        (Path, "replace", 9),  # between state and the name of its weights
        (runlog, "write_text", 2),  # the metrics, between two files of a save
    ],
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
def test_an_interruption_anywhere(
    owner: Any, name: str, call: int, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_once(patch, owner, name, call, press)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path, objectives=["symile"], config=SMALL)
    train(data, tmp_path, objectives=["symile"], config=SMALL)
    same_runs(undisturbed / "symile", tmp_path / "symile")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_an_update_waits_for_its_end(
    number: signal.Signals, data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that have moved on without their step being counted would be moved twice."""

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, handler)
    try:
        with monkeypatch.context() as patch:
            interrupt_once(patch, Model, "clamp_scale", 6, lambda: os.kill(os.getpid(), number))
            with pytest.raises(KeyboardInterrupt):
                train(data, tmp_path, objectives=["symile"], config=SMALL)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert saved(tmp_path / "symile")["step"] == 6
    train(data, tmp_path, objectives=["symile"], config=SMALL)
    same_runs(undisturbed / "symile", tmp_path / "symile")


def test_an_interruption_before_the_first_step(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    with pytest.raises(KeyboardInterrupt):
        train(copy, tmp_path / "runs", objectives=["symile"], config=SMALL, progress=Stop("Fitting the audio net", 2))
    train(copy, tmp_path / "runs", objectives=["symile"], config=SMALL)
    same_runs(undisturbed / "symile", tmp_path / "runs" / "symile")


# ---- what the objectives share


def test_objectives_see_the_same_samples_and_texts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []
    views: list[Tensor] = []
    original = training_inputs

    def noted(batch: Batch, features: Features, generator: torch.Generator, **share: int) -> Inputs:
        inputs = original(batch, features, generator, **share)
        seen.append(batch)
        views.append(inputs.given["image"][0])
        return inputs

    monkeypatch.setattr(triples, "training_inputs", noted)
    train(data, tmp_path, config=replace(SMALL, missing_p=0.3))
    symile, clip = seen[:12], seen[12:]
    assert len(clip) == 12
    for a, b in zip(symile, clip, strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.texts.row_ids, b.texts.row_ids)
        assert all(torch.equal(a.missing[modality], b.missing[modality]) for modality in MODALITIES)
    assert same_tensors(views[:12], views[12:])
    epochs = [tuple(key for batch in symile[start : start + 4] for key in batch.keys) for start in (0, 4, 8)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)  # each epoch has every sample once, in its own order
    assert len(set(epochs)) == 3


def test_objectives_begin_with_the_same_weights(dataset: Dataset, features: Features) -> None:
    models = [new_model(dataset, features, objective, SMALL) for objective in map(get_objective, OBJECTIVES)]
    own = ("log_scale", "head.")
    states = [{name: value for name, value in m.state_dict().items() if not name.startswith(own)} for m in models]
    assert all(same_tensors(states[0], state) for state in states[1:])
    other = new_model(dataset, features, get_objective("symile"), replace(SMALL, seed=1))
    assert not torch.equal(other.towers["text"].table, models[0].towers["text"].table)


@pytest.mark.parametrize("redraw", [True, False])
def test_texts_are_redrawn_each_epoch_unless_told_otherwise(redraw: bool, dataset: Dataset) -> None:
    tokeniser = new_tokeniser(dataset, SMALL)
    loader = open_loader(dataset, "train", tokeniser=tokeniser, batch_size=64, seed=0, training=True, redraw=redraw)
    texts = []
    for _ in range(2):
        (batch,) = loader
        rows = batch.texts.row_ids.reshape(64, 2).tolist()
        texts.append({key: sorted(words) for key, words in zip(batch.keys, rows, strict=True)})
    stored = {
        dataset.readers["train"].key(i): sorted(
            row
            for word in dataset.readers["train"].read(i, ("txt",))["txt"].decode().split("_")
            for row in tokeniser.rows_of(word)
        )
        for i in range(64)
    }
    if redraw:
        assert sum(texts[0][key] == texts[1][key] for key in stored) < 32  # one in seven by chance
        assert sum(texts[0][key] == stored[key] for key in stored) < 32
    else:
        assert texts[0] == texts[1] == stored


# ---- recipes


def test_another_recipe_is_refused_and_named(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(undisturbed, tmp_path / "runs")
    before = {path: path.read_bytes() for path in runs.rglob("*.*")}
    other = replace(SMALL, lr=0.01, model=replace(SMALL.model, dim=8))
    with pytest.raises(TrainingError, match=r"run of another recipe: .*lr 0\.03 \(asked: 0\.01\)") as caught:
        train(data, runs, objectives=["symile"], config=other)
    assert "model.dim 16 (asked: 8)" in str(caught.value)
    assert "image" not in str(caught.value)  # nothing that is the same
    assert "--overwrite" in str(caught.value)
    assert {path: path.read_bytes() for path in runs.rglob("*.*")} == before
    (summary,) = train(data, runs, objectives=["symile"], config=other, overwrite=True)
    assert summary.steps == 12
    assert load_weights(runs / "symile" / "best.safetensors")["towers.text.norm.weight"].shape == (8,)
    assert (runs / "clip" / BEST).read_bytes() == before[runs / "clip" / BEST]


def test_overwriting_trains_anew(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(undisturbed, tmp_path / "runs")
    progress = Stop()
    train(data, runs, config=SMALL, overwrite=True, progress=progress)
    assert progress.totals["symile"] == (0, 12)
    same_runs(undisturbed / "symile", runs / "symile")


def test_a_run_on_another_dataset_is_refused(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(undisturbed, tmp_path / "runs")
    path = runs / "clip" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"fingerprint": "f" * 32}))
    with pytest.raises(TrainingError, match=f"dataset {'f' * 32}"):
        train(data, runs, objectives=["clip"], config=SMALL)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b"{"), ("config.json", b"[1]"), ("last.state", b"PK\3\4"), ("last.safetensors", b"{}")],
)
def test_a_damaged_run_is_named(name: str, content: bytes, data: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(undisturbed, tmp_path / "runs")
    (runs / "clip" / "summary.json").unlink()
    (runs / "clip" / name).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"clip/{name}: unreadable .*--overwrite"):
        train(data, runs, objectives=["clip"], config=SMALL)


def test_a_checkpoint_of_other_towers_is_named(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(undisturbed, tmp_path / "runs")
    (runs / "clip" / "summary.json").unlink()
    weights, state = checkpoints.load_last(runs / "clip")
    weights["towers.text.table"] = weights["towers.text.table"][:-1]
    checkpoints.save_last(runs / "clip", weights, state)
    with pytest.raises(TrainingError, match=r"last\.safetensors: .* cannot go on from it \(.*text\.table.*--overwrite"):
        train(data, runs, objectives=["clip"], config=SMALL)


def test_a_loss_that_is_not_finite_stops_training(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, lr=1e30, image_lr=1e30)
    with pytest.raises(TrainingError, match=r"symile: the loss is \w+ at step \d+; lower --set lr \(now 1e\+30\)"):
        train(data, tmp_path, objectives=["symile"], config=config)
    assert not (tmp_path / "symile" / "summary.json").exists()


@pytest.mark.parametrize("negatives", ["n:2", "faces", "n2"])
def test_negatives_are_a_setting(data: Path, tmp_path: Path, negatives: str) -> None:
    config = SMALL.with_settings([f"negatives={negatives}"])
    train(data, tmp_path, objectives=["symile"], config=config)
    assert json.loads((tmp_path / "symile" / "config.json").read_text())["negatives"] == negatives
    metrics = [json.loads(line) for line in (tmp_path / "symile" / "metrics.jsonl").read_text().splitlines()]
    assert all("bound_nats" not in record for record in metrics)  # none is known for them
    assert metrics[0]["loss"] > math.log(16) + 0.3  # more candidates than the batch has rows
    with pytest.raises(TrainingError, match=rf"negatives {negatives} \(asked: n\)"):
        train(data, tmp_path, objectives=["symile"], config=SMALL)


def test_more_a_batch_than_there_are_samples(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--batch-size 65: the dataset has 64 training samples; lower it$"):
        train(data, tmp_path, config=replace(SMALL, batch_size=65))
    assert list(tmp_path.iterdir()) == []


def test_epochs_are_passes_over_the_samples(data: Path, tmp_path: Path) -> None:
    config = replace(SMALL, steps=0, epochs=1.5)
    (summary,) = train(data, tmp_path, objectives=["clip"], config=config)
    assert summary.steps == 6
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["steps"] == 6


def test_settings_are_parsed_by_their_type() -> None:
    config = TrainConfig().with_settings(
        ["steps=7", "lr=1e-3", "redraw=False", "dim=64", "image_views=1", "audio=conv:scratch", "text_ngrams=true"]
    )
    assert (config.steps, config.lr, config.redraw) == (7, 0.001, False)
    assert config.model == replace(ModelConfig(), dim=64, text_ngrams=True)
    assert config.features == replace(FeatureConfig(), image_views=1, audio="conv:scratch")
    assert TrainConfig().with_settings([]) == TrainConfig()
    both = TrainConfig().with_settings(["features.precision=full", "precision=bf16", "model.dim=8"])
    assert (both.features.precision, both.precision, both.model.dim) == ("full", "bf16", 8)
    assert TrainConfig().with_settings(["steps=5", "steps=6"]).steps == 6


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("dim", "^--set dim: give KEY=VALUE$"),
        ("magic=1", "^--set magic: no such setting; known: steps, .*dim"),
        ("features=1", "^--set features: no such setting"),
        ("features.steps=1", r"^--set features\.steps: no such setting"),
        ("nothing.dim=1", r"^--set nothing\.dim: no such setting"),
        ("features.precision=bf16", r"features\.precision=bf16: give half or full$"),
        ("steps=many", "^--set steps=many: .*many"),
        ("steps=1.5", r"^--set steps=1\.5"),
        ("redraw=1", "^--set redraw=1: give true or false$"),
        ("dim=0", "^--set dim=0: dim must be at least 1, not 0$"),
        ("image_dropout=1", "dropout"),
        ("image=magic", "unknown image tower"),
        ("steps=0", "0 steps and 0 epochs"),
        ("epochs=2", "give one of them"),
        ("batch_size=1", "at least two"),
        ("missing_p=1", "probability"),
        ("missing_p=nan", "missing_p nan"),
        ("lr=nan", "^lr nan: a finite number$"),
        ("lr=inf", "^lr inf: a finite number$"),
        ("lr=-1", r"^lr -1\.0: a rate above 0$"),
        ("image_lr=0", r"^image_lr 0\.0: a rate above 0$"),
        ("net_lr=0", r"^net_lr 0\.0: a rate above 0$"),
        ("weight_decay=-1", r"^weight_decay -1\.0: at least 0$"),
        ("image_weight_decay=-1", r"^image_weight_decay -1\.0: at least 0$"),
        ("warmup=1", r"^warmup 1\.0: between 0 and 1$"),
        ("seed=-1", "^seed -1: at least 0$"),
        ("evaluations=0", "^evaluations 0: at least 1$"),
        ("patience=-1", "^patience -1: at least 0$"),
        ("clip_norm=-1", r"^clip_norm -1\.0: at least 0$"),
        ("negatives=all", "^negatives 'all': unknown; known: n, n:k"),
    ],
)
def test_wrong_settings_are_refused(setting: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainConfig().with_settings([setting])


@pytest.mark.parametrize(("steps", "warmup", "peak"), [(1000, 0.1, 100), (50, 0.02, 1), (40, 0.001, 1), (8, 0.5, 4)])
def test_the_learning_rate_rises_to_its_peak_and_falls(steps: int, warmup: float, peak: int) -> None:
    rates = [learning_rate(step, steps, warmup) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[peak] == pytest.approx(1.0)
    assert rates[steps] == pytest.approx(1e-4)
    assert all(before < after for before, after in pairwise(rates[: peak + 1]))
    assert all(before > after for before, after in pairwise(rates[peak:]))
    if steps == 1000:  # half way up and half way down
        assert rates[50] == pytest.approx((1 + 1 / 25) / 2)
        assert rates[550] == pytest.approx((1 + 1e-4) / 2)


def test_weights_are_decayed_and_rates_set_by_group(dataset: Dataset, features: Features, tmp_path: Path) -> None:
    run = new_run(dataset, features, get_objective("symile"), SMALL, tmp_path, open_place())
    groups = run.optimizer.param_groups
    every = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(every) == sorted(id(parameter) for parameter in run.model.parameters())
    (of_scale,) = [group for group in groups if any(p is run.model.log_scale for p in group["params"])]
    assert of_scale["weight_decay"] == 0
    (of_images,) = [
        group for group in groups if any(p is run.model.towers["image"].layers[1].weight for p in group["params"])
    ]
    assert (of_images["peak"], of_images["weight_decay"]) == (SMALL.image_lr, SMALL.image_weight_decay)


# ---- missing modalities


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_missing_modality_is_what_its_tower_has_learned(modality: str, dataset: Dataset, features: Features) -> None:
    config = replace(SMALL, missing_p=0.5)
    model = new_model(dataset, features, get_objective("symile"), config).eval()
    fit_heads(model, dataset, features, standardise=True)
    tokeniser = new_tokeniser(dataset, config)
    (batch,) = open_loader(dataset, "val", tokeniser=tokeniser, batch_size=16, seed=0)
    mask = torch.arange(16) % 3 == 0
    whole = training_inputs(batch, features, torch.Generator().manual_seed(0))
    partly = replace(whole, missing={modality: mask})
    full, reps = model(whole), model(partly)
    for name, before, after in zip(MODALITIES, full, reps, strict=True):
        if name != modality:
            assert torch.equal(before, after)
            continue
        assert torch.equal(after[~mask], before[~mask])
        expected = standin(model, modality)
        torch.testing.assert_close(after[mask], expected.expand(int(mask.sum()), -1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(expected.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
        torch.testing.assert_close(expected.square().mean(), torch.tensor(1.0), atol=1e-3, rtol=0)
    loss = get_objective("symile").loss(reps, model.log_scale.exp())
    torch.autograd.backward(loss)
    grads = {name: grad_of_missing(model, name) for name in MODALITIES}
    assert [name for name, grad in grads.items() if grad is not None and bool(grad.any())] == [modality]


def grad_of_missing(model: Model, modality: str) -> Tensor | None:
    tower = model.towers[modality]
    if modality == "text":
        return tower.missing_D.grad
    return None if tower.indicator.grad is None else tower.indicator.grad[1]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_the_mean_of_the_training_media_stands_for_a_missing_one(
    modality: str, dataset: Dataset, features: Features
) -> None:
    for standardise in (True, False):
        model = new_model(dataset, features, get_objective("symile"), replace(SMALL, missing_p=0.5))
        fit_heads(model, dataset, features, standardise=standardise)
        media = dataset.images if modality == "image" else dataset.clips
        table = features.image_NVF[:, 0] if modality == "image" else features.clip_NF
        expected = table[media.of_split("train")].double().mean(dim=0).float()
        head = model.towers[modality]
        torch.testing.assert_close(head.standin_F, expected)
        torch.testing.assert_close(head.mean_F, expected if standardise else torch.zeros_like(expected))


def test_what_is_missing_is_the_same_in_every_epoch(dataset: Dataset) -> None:
    loader = open_loader(
        dataset,
        "train",
        tokeniser=new_tokeniser(dataset, SMALL),
        batch_size=16,
        seed=4,
        training=True,
        missing_p=0.4,
    )
    for _ in range(2):
        for batch in loader:
            for modality in MODALITIES:
                assert batch.missing[modality].tolist() == missing_mask(batch.keys, modality, 0.4, 4).tolist()


def test_embeddings_are_trained_with_missingness_only(
    data: Path, dataset: Dataset, features: Features, undisturbed: Path, tmp_path: Path
) -> None:
    train(data, tmp_path, objectives=["symile"], config=replace(SMALL, missing_p=0.5))
    initial = new_model(dataset, features, get_objective("symile"), replace(SMALL, missing_p=0.5)).state_dict()
    for name in ("towers.image.indicator", "towers.audio.indicator", "towers.text.missing_D"):
        assert name not in saved(undisturbed / "symile")["model"]
        assert not torch.equal(saved(tmp_path / "symile")["model"][name], initial[name])
    assert "bound_nats" not in metrics(tmp_path / "symile")[0]  # no bound with fewer anchors


# ---- damage


def test_a_shard_that_is_cut_off_stops_training(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    shard = sorted((copy / "data").glob("train-*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    for on_bad_sample in ("stop", "skip"):
        with pytest.raises(ShardError, match=f"^{shard.name}: is .* cut off"):
            train(copy, tmp_path / "runs", config=SMALL, on_bad_sample=on_bad_sample)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("member", ["json", "jpg", "flac"])
def test_a_damaged_sample_stops_training_or_is_counted(member: str, data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    config = replace(SMALL, features=replace(SMALL.features, image_views=1, audio_steps=1), steps=8)
    clean = open_dataset(copy)
    media = clean.clips if member == "flac" else clean.images
    number = next(i for split, i in media.first if split == "train")  # one that features are made from
    path = copy / "data" / clean.readers["train"].shard(number)
    index = ShardReader(path).index
    key = clean.readers["train"].key(number)
    place = next(i for i in range(len(index)) if index.key(i) == key)
    column = index.members.index(member)
    content = bytearray(path.read_bytes())
    content[int(index.offsets[place, column] + index.sizes[place, column] // 2)] ^= 0x11
    path.write_bytes(content)
    with pytest.raises(DamagedSampleError, match=f"^{path.name}: sample {key}: the bytes of its {member} were"):
        train(copy, tmp_path / "runs", objectives=["clip"], config=config)
    progress = Stop()
    (summary,) = train(
        copy, tmp_path / "runs", objectives=["clip"], config=config, on_bad_sample="skip", progress=progress
    )
    assert summary.steps == 8  # two epochs
    assert progress.said == ["1 damaged samples are skipped", "clip: 2 damaged samples were left out"]
    assert len(DatasetReader(copy, "train")) == 64
