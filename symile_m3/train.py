"""Training: each objective with the same data order, budget and seed, resumable at any step."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from symile_m3.batches import Batch, open_loader, training_inputs
from symile_m3.checkpoints import load_tensors, save_tensors
from symile_m3.errors import TrainingError, UsageError
from symile_m3.features import Dataset, Features, load_features, open_dataset
from symile_m3.model import MODALITIES, Model
from symile_m3.objectives import Objective, get_objective, total_correlation_bound
from symile_m3.progress import NoProgress, Progress
from symile_m3.recipe import TrainConfig, learning_rate
from symile_m3.retrieval import Retrieval, retrieve
from symile_m3.seeds import philox_key
from symile_m3.shards import Loader, write_text
from symile_m3.towers.audio import AudioHead
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import Tokeniser
from symile_m3.towers.tokens import TextTokeniser
from symile_m3.towers.tower import open_backbone, open_tokeniser
from symile_m3.towers.weights import find_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a finished run came to.

    Attributes:
        objective: its name.
        directory: where its files are.
        steps: taken.
        best_step, best_top1: the best validation retrieval, and when.
        seconds: of training, features excluded.
    """

    objective: str
    directory: str
    steps: int
    best_step: int
    best_top1: float
    seconds: float


def train(
    data: Path | str,
    runs: Path,
    *,
    objectives: Sequence[str] = ("symile", "clip"),
    config: TrainConfig | None = None,
    overwrite: bool = False,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
) -> list[RunSummary]:
    """Train each objective on the dataset in `data`, a directory or URL, or go on with what was interrupted.

    A run is `runs/<objective>/` with config.json, last.pt, best.pt, metrics.jsonl, metrics.csv, curves.png
    and, once finished, summary.json.

    Raises:
        NotBuiltError: there is no dataset.
        TrainingError: a run of another recipe or dataset is there, or the loss is no longer finite.
        DamagedSampleError: a sample is damaged and `on_bad_sample` is "stop".
    """
    progress = progress or NoProgress()
    config = config or TrainConfig()
    chosen = [get_objective(name, config.negatives) for name in dict.fromkeys(objectives)]
    dataset = open_dataset(data, on_bad_sample, progress)
    if config.epochs:
        steps_per_epoch = len(dataset.readers["train"]) // config.batch_size
        config = replace(config, steps=max(1, round(config.epochs * steps_per_epoch)), epochs=0.0)
    if config.batch_size > len(dataset.readers["train"]):
        raise UsageError(
            f"--batch-size {config.batch_size}: the dataset has {len(dataset.readers['train'])} training samples"
        )
    waiting = []
    summaries = {}
    for objective in chosen:
        directory = runs / objective.name
        _check_run(directory, dataset, config, overwrite)
        if (directory / "summary.json").exists():
            summaries[objective.name] = _read_summary(directory / "summary.json")
            progress.say(f"{objective.name}: already trained in {directory}")
        else:
            waiting.append((objective, directory))
    if waiting:
        features = load_features(dataset, config.features, progress)
        for objective, directory in waiting:
            run = Run(dataset, features, objective, config, directory, on_bad_sample)
            summaries[objective.name] = run.train(progress)
    return [summaries[objective.name] for objective in chosen]


def _read_summary(path: Path) -> RunSummary:
    try:
        return RunSummary(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: unreadable ({error}); delete it and train again") from error


def _check_run(directory: Path, dataset: Dataset, config: TrainConfig, overwrite: bool) -> None:
    """Make sure that what is in the directory, if anything, is a run of this recipe; write its config.

    Raises:
        TrainingError: it is another.
    """
    record = {"fingerprint": dataset.plan.fingerprint, **asdict(config)}
    weights = pretrained_weights(config)
    if weights:
        record["weights"] = weights
    record = json.loads(json.dumps(record))
    path = directory / "config.json"
    if overwrite:
        for name in (
            "config.json",
            "summary.json",
            "last.pt",
            "best.pt",
            "metrics.jsonl",
            "metrics.csv",
            "curves.png",
        ):
            (directory / name).unlink(missing_ok=True)
    if path.exists():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise TrainingError(f"{path}: unreadable ({error}); train again with --overwrite") from error
        differences = [
            f"{name} {found.get(name)} (asked: {record[name]})" for name in record if found.get(name) != record[name]
        ]
        if differences:
            what = "; ".join(differences).replace("fingerprint", "dataset")
            raise TrainingError(
                f"{directory} holds a run of another recipe: {what}. "
                "Name another directory with --runs, or give --overwrite to train in its place"
            )
    else:
        write_text(path, json.dumps(record, indent=2) + "\n")


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread
        yield
        return
    caught: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for caught_number in caught[:1]:
        signal.raise_signal(caught_number)


class Run:
    """One objective being trained."""

    def __init__(
        self,
        dataset: Dataset,
        features: Features,
        objective: Objective,
        config: TrainConfig,
        directory: Path,
        on_bad_sample: str = "stop",
    ) -> None:
        self.dataset = dataset
        self.features = features
        self.objective = objective
        self.config = config
        self.directory = directory
        self.model = new_model(dataset, features, objective, config)
        self.tokeniser = new_tokeniser(dataset, config)
        self.loader: Loader[Batch] = open_loader(
            dataset,
            "train",
            tokeniser=self.tokeniser,
            batch_size=config.batch_size,
            seed=config.seed,
            training=True,
            redraw=config.redraw,
            missing_p=config.missing_p,
            on_bad_sample=on_bad_sample,
        )
        self.validation = Retrieval.of_split(dataset, features, "val", self.tokeniser, on_bad_sample)
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, config.beta2), fused=True)
        self.step = 0
        self.seconds = 0.0
        self.best: tuple[float, int] = (-1.0, 0)
        self.metrics: list[dict[str, float]] = []
        self.losses: list[float] = []  # of the steps since the last evaluation
        self.position = self.loader.state_dict()  # behind the batch of the last step; the loader reads ahead

    def _groups(self) -> list[dict[str, Any]]:
        config, model = self.config, self.model
        net = [parameter for part in model.trained_nets() for parameter in part.parameters() if parameter.requires_grad]
        nets = {id(parameter) for parameter in net}
        image = [parameter for parameter in model.image.parameters() if id(parameter) not in nets]
        own = {id(parameter) for parameter in [*image, *net, model.log_scale]}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in own and parameter.requires_grad]
        return [
            {
                "params": image,
                "peak": config.image_lr,
                "weight_decay": config.image_weight_decay,
            },
            {"params": rest, "peak": config.lr, "weight_decay": config.weight_decay},
            {"params": [model.log_scale], "peak": config.lr, "weight_decay": 0.0},
            *([{"params": net, "peak": config.net_lr, "weight_decay": config.weight_decay}] if net else []),
        ]

    def train(self, progress: Progress) -> RunSummary:
        """Take the remaining steps; saves at every evaluation, and when interrupted."""
        self._restore()
        config = self.config
        every = max(1, config.steps // config.evaluations)
        since, taken = time.perf_counter(), 0
        note = ""
        with progress.task(self.objective.name, config.steps, "steps", done=self.step) as task:
            batches = iter(self._batches())
            try:
                while True:
                    if self.losses and (self.step % every == 0 or self.step == config.steps):
                        elapsed = time.perf_counter() - since
                        note = self._evaluate(taken * config.batch_size / elapsed)
                        self.seconds += elapsed
                        since, taken = time.perf_counter(), 0
                        self._save()
                        task.advance(0, note)
                    if self.step == config.steps:
                        break
                    self._take_step(next(batches))
                    taken += 1
                    note = note or self._note(self.losses[-1], math.nan, 0.0)
                    task.advance(1, note)
            except KeyboardInterrupt:
                self.seconds += time.perf_counter() - since
                self._save()
                raise
        if self.loader.bad_samples:
            progress.say(f"{self.objective.name}: {self.loader.bad_samples.total()} damaged samples were left out")
        summary = RunSummary(
            objective=self.objective.name,
            directory=str(self.directory),
            steps=self.step,
            best_step=self.best[1],
            best_top1=self.best[0],
            seconds=round(self.seconds, 1),
        )
        from symile_m3.curves import draw_curves

        draw_curves(self.directory / "curves.png", self.objective.name, self.metrics)
        write_text(self.directory / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
        return summary

    @property
    def bounds_total_correlation(self) -> bool:
        """Whether ln N - loss is a bound: not with missing modalities, where the loss averages over fewer anchors."""
        return self.objective.bounds_total_correlation and not self.config.missing_p

    def _batches(self) -> Any:
        while True:
            yield from self.loader

    def _take_step(self, batch: Batch) -> None:
        config = self.config
        random = torch.Generator().manual_seed(philox_key(config.seed, "step", self.step) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(self.step, config.steps, config.warmup, config.schedule)
        self.model.train()
        with torch.random.fork_rng(devices=[]):
            # Dropout and noise know no generator; seeding them by the step makes a resumed run the same.
            torch.manual_seed(philox_key(config.seed, "dropout", self.step) % 2**63)
            reps_BD = self.model(training_inputs(batch, self.features, random))
        observed = [~batch.missing[modality] for modality in MODALITIES] if batch.missing else None
        scale = self.model.log_scale.exp()
        # The objective refuses a scale that is not finite; to the user that is a loss that is not.
        usable = math.isfinite(scale.item())
        loss = self.objective.loss(reps_BD, scale, observed=observed, generator=random) if usable else scale
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.objective.name}: the loss is {value} at step {self.step}; lower --set lr (now {config.lr}) "
                "and train again with --overwrite"
            )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        with _held_back():
            self.optimizer.step()
            self.model.clamp_scale()
            self.step += 1
            self.losses.append(value)
            self.position = self.loader.state_dict()

    def _evaluate(self, samples_per_s: float) -> str:
        """Measure the validation retrieval, keep the best weights, note the metrics."""
        top1 = float(retrieve(self.model, self.objective, self.validation, (1,))[1].float().mean())
        loss = sum(self.losses) / len(self.losses)
        record = {
            "step": self.step,
            "loss": loss,
            "log_scale": self.model.log_scale.item(),
            "val_top1": top1,
            "samples_per_s": samples_per_s,
        }
        if self.bounds_total_correlation:
            record["bound_nats"] = total_correlation_bound(loss, self.config.batch_size)
        best = max(self.best, (top1, self.step), key=lambda found: found[0])
        if best != self.best:
            save_tensors(self.directory / "best.pt", {"model": self.model.state_dict(), "step": self.step})
        with _held_back():
            self.best = best
            self.metrics.append(record)
            self.losses = []
        return self._note(loss, top1, samples_per_s)

    def _note(self, loss: float, top1: float, samples_per_s: float) -> str:
        parts = [f"loss {loss:.2f}"]
        if self.bounds_total_correlation:
            parts.append(f"TC >= {total_correlation_bound(loss, self.config.batch_size):.2f} nats")
        if math.isfinite(top1):
            parts += [f"val top-1 {top1:.3f}", f"{samples_per_s:,.0f} samples/s"]
        return "  ".join(parts)

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.position,
            "step": self.step,
            "seconds": self.seconds,
            "best": list(self.best),
            "metrics": self.metrics,
            "losses": self.losses,
        }
        save_tensors(self.directory / "last.pt", state)
        write_text(self.directory / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in self.metrics))
        table = io.StringIO()
        if self.metrics:
            writer = csv.DictWriter(table, fieldnames=list(self.metrics[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.metrics)
            write_text(self.directory / "metrics.csv", table.getvalue())

    def _restore(self) -> None:
        state = load_tensors(self.directory / "last.pt")
        if state is None:
            if self.config.model.standardise:
                standardise(self.model, self.dataset, self.features)
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        self.position = state["loader"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.best = (state["best"][0], state["best"][1])
        self.metrics, self.losses = state["metrics"], state["losses"]


def pretrained_weights(config: TrainConfig) -> dict[str, str]:
    """Modality -> fingerprint of its tower's weights, for those that come from a file or the Hub."""
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    return {spec.modality: find_weights(spec).fingerprint() for spec in specs if spec.pretrained}


def new_tokeniser(dataset: Dataset, config: TrainConfig) -> TextTokeniser:
    """The tokeniser of the text tower; that of the words and n-grams knows the dataset's lexicon."""
    if config.model.text_tower.pretrained:
        tokeniser: TextTokeniser = open_tokeniser(config.model.text_tower)
        return tokeniser
    return _word_tokeniser(dataset, config)


def _word_tokeniser(dataset: Dataset, config: TrainConfig) -> Tokeniser:
    return Tokeniser(
        (name for row in dataset.plan.lexicon.names for name in row),
        buckets=config.model.text_buckets,
        share_ngrams=config.model.text_ngrams,
    )


def new_model(dataset: Dataset, features: Features, objective: Objective, config: TrainConfig) -> Model:
    """A model with initial weights drawn by the recipe's seed, the same for every objective.

    Raises:
        SymileM3Error: the weights of a pretrained tower are not to be had, or do not fit.
    """
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(config.seed, "init") % 2**63)
        found = {spec.modality: (open_backbone(spec), spec.trained) for spec in specs}
        return Model(
            config.model,
            objective,
            image_features=features.image_NVF.shape[2],
            audio_features=features.clip_NF.shape[1] if features.clip_mask_NT is None else None,
            text_rows=0 if found["text"][0] is not None else _word_tokeniser(dataset, config).rows,
            backbones={modality: tower for modality, tower in found.items() if tower[0] is not None},
        )


def standardise(model: Model, dataset: Dataset, features: Features) -> None:
    """Fit the heads' standardisation to the training media."""
    if isinstance(model.image, ImageHead):
        model.image.standardise_by(features.image_NVF[dataset.images.of_split("train"), 0].float())
    if isinstance(model.audio, AudioHead):
        model.audio.standardise_by(features.clip_NF[dataset.clips.of_split("train")].float())
