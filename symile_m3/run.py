"""A run: one objective being trained, step by step, resumable at any of them."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from symile_m3.accumulation import Towers, add_gradients, moved, part_of, parts_of
from symile_m3.checkpoints import BEST, LAST, load_last, save_last, save_weights
from symile_m3.errors import TrainingError
from symile_m3.model import Inputs, Model
from symile_m3.objectives import Objective, total_correlation_bound
from symile_m3.processes import Place
from symile_m3.progress import Progress
from symile_m3.recipe import LoopConfig, RunOptions, learning_rate
from symile_m3.rundir import RunSummary
from symile_m3.runlog import open_logs, write_metrics
from symile_m3.seeds import philox_key
from symile_m3.shards import Loader, write_text
from symile_m3.towers.sharednorm import share_norms
from symile_m3.wordbags import text_similarity

_SAVE_EVERY_S = 600.0  # beside the saves at evaluations


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


class Task(Protocol):
    """What a run trains on and is validated by."""

    def to(self, device: torch.device) -> None:
        """Validate on a device."""
        ...

    def loader(self, *, rank: int, world: int) -> Loader[Any]:
        """Shuffled training batches, of each this process's share; a batch has the `keys` of its samples."""
        ...

    def inputs(self, batch: Any, generator: torch.Generator, *, rank: int, world: int) -> Inputs:
        """What the towers take for a batch."""
        ...

    def labels(self, batch: Any) -> Sequence[Tensor]:
        """(B,) integers for each modality: samples with the same are alike in it. For objectives that want labels."""
        ...

    def words(self, batch: Any) -> Tensor:
        """(B, W) the words of the samples' texts, as `symile_m3.wordbags` numbers them; for `soft_targets` texts."""
        ...

    def groups(self, model: Model) -> list[dict[str, Any]]:
        """Groups of parameters, each with `params`, its `peak` learning rate and `weight_decay`."""
        ...

    def validate(self, model: Model, objective: Objective) -> dict[str, float]:
        """Figures of the validation samples, with `val_top1`, by which the best weights are chosen."""
        ...


class Run:
    """One objective being trained.

    Args:
        task: what it trains on and is validated by.
        model: with its initial weights.
        directory: where its files go.

    Attributes:
        towers: the model, set up to share gradients.
        step: steps taken.
        spent: seconds in each kind of work, since this process began.
        id: what logs know the run by.
    """

    def __init__(
        self,
        task: Task,
        objective: Objective,
        config: LoopConfig,
        model: Model,
        directory: Path,
        place: Place,
        *,
        options: RunOptions,
        on_bad_sample: str = "stop",
    ) -> None:
        self.task = task
        self.objective = objective
        self.config = config
        self.model = model
        self.directory = directory
        self.place = place
        self.options = options
        self.on_bad_sample = on_bad_sample
        self.loader = task.loader(rank=place.rank, world=place.world)
        if place.group is not None:
            share_norms(self.model, place.group)
        optimizer = torch.optim.AdamW(task.groups(model), betas=(0.9, config.beta2), fused=True)
        towers = Towers(self.model)
        if self.options.compile:
            towers.compile()
        self.towers, self.optimizer = self.place.set_up(towers, optimizer)
        task.to(self.place.device)
        self.id = ""
        self.step = 0
        self.seconds = 0.0
        self.spent: dict[str, float] = {}
        self.best: tuple[float, int] = (-1.0, 0)
        self.metrics: list[dict[str, float]] = []
        self.losses: list[float] = []  # of the steps since the last evaluation
        self.position = self.loader.state_dict()  # behind the batch of the last step; the loader reads ahead
        self.saved_step = 0

    def train(self, progress: Progress) -> RunSummary:
        """Take the remaining steps; saves at every evaluation, every ten minutes, and when interrupted."""
        config = self.config
        every = max(1, config.steps // config.evaluations)
        since, taken, saved = time.perf_counter(), 0, time.perf_counter()
        logs = []
        if self.place.first:
            logs = open_logs(self.options.logs, self.directory, run_id=self.id, config=asdict(config), step=self.step)
        with (
            contextlib.ExitStack() as ending,
            progress.task(self.objective.name, config.steps, "steps", done=self.step) as task,
        ):
            for log in logs:
                ending.callback(log.close)
            batches = iter(self._batches())
            try:
                while True:
                    if self.losses and (self.step % every == 0 or self.step == config.steps):
                        elapsed = time.perf_counter() - since
                        with self._timed("evaluation"):
                            self._evaluate(taken * config.batch_size / elapsed, self.seconds + elapsed)
                        self.seconds += time.perf_counter() - since
                        since, taken = time.perf_counter(), 0
                        for log in logs:
                            log.write(self.step, self.metrics[-1])
                        self._save()
                        saved = time.perf_counter()
                        task.advance(0, self._note(self.metrics[-1]["loss"]))
                    if self.step == config.steps or self._stopped_early():
                        break
                    if time.perf_counter() - saved > _SAVE_EVERY_S:
                        self._save()
                        saved = time.perf_counter()
                    with self._timed("waiting for samples"):
                        batch = next(batches)
                    figures = self._take_step(batch)
                    taken += 1
                    with self._timed("logging"):
                        for log in logs:
                            log.write(self.step, figures)
                        task.advance(1, self._note(self.losses[-1]))
            except KeyboardInterrupt:
                self.seconds += time.perf_counter() - since
                if self.step > self.saved_step:
                    self._save()
                raise
        if self.loader.bad_samples:
            progress.say(f"{self.objective.name}: {self.loader.bad_samples.total()} damaged samples were left out")
        if self.step < config.steps:
            progress.say(
                f"{self.objective.name}: ended at step {self.step}, after {config.patience} evaluations without a "
                "better one"
            )
        summary = RunSummary(
            objective=self.objective.name,
            directory=str(self.directory),
            steps=self.step,
            best_step=self.best[1],
            best_top1=self.best[0],
            seconds=round(self.seconds, 1),
            outside=round(1 - self.spent.get("model", 0.0) / max(sum(self.spent.values()), 1e-9), 4),
        )
        if self.place.first:
            from symile_m3.curves import draw_curves

            draw_curves(
                self.directory / "curves.png", self.objective.name, self.metrics, modalities=len(self.model.modalities)
            )
            write_text(self.directory / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
        return summary

    @property
    def bounds_total_correlation(self) -> bool:
        """Whether ln(candidates) - loss is noted, which on samples not trained on is a lower bound in expectation.

        Not with missing modalities, where the loss averages over fewer anchors.
        """
        enough = self.config.batch_size >= len(self.model.modalities)
        return self.objective.bounds_total_correlation and not self.config.missing_p and enough

    def _below_ceiling(self, loss: float) -> float:
        """ln(candidates) - loss in nats. Of what was trained on it bounds nothing: it may be above what is there."""
        return total_correlation_bound(loss, self.config.batch_size, modalities=len(self.model.modalities))

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        since = time.perf_counter()
        try:
            yield
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + time.perf_counter() - since

    def _batches(self) -> Any:
        while True:
            yield from self.loader

    def _stopped_early(self) -> bool:
        behind = sum(record["step"] > self.best[1] for record in self.metrics)
        return bool(self.config.patience) and behind >= self.config.patience

    def _take_step(self, batch: Any) -> dict[str, float]:
        """One update of the weights.

        Raises:
            TrainingError: the loss is not finite; the weights are those of the step before.
        """
        config, place = self.config, self.place
        random = torch.Generator().manual_seed(philox_key(config.seed, "step", self.step) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate(self.step, config.steps, config.warmup, config.schedule)
        self.model.train()
        with self._timed("preparing samples"):
            rows = len(batch.keys)
            inputs = self.task.inputs(batch, random, rank=place.rank, world=place.world)
            if place.world > 1 and self.on_bad_sample == "skip":
                rows = place.fewest(rows)
                inputs = part_of(inputs, 0, rows)
            parts = [moved(part, place.device) for part in parts_of(inputs, rows, self.options.micro_batch)]
            missing = inputs.missing or {}
            observed = None
            if missing:
                observed = [
                    ~missing[name].to(place.device) if name in missing else torch.ones(rows, dtype=torch.bool)
                    for name in self.model.modalities
                ]
                observed = [mask.to(place.device) for mask in observed]

            alike = self._alike(batch, rows)

        def loss_of(reps_BD: Sequence[Tensor], scale: Tensor, head: Mapping[str, Tensor]) -> Tensor:
            # On a CPU the objective refuses a scale that is not finite; to the user that is a loss that is not.
            if scale.device.type == "cpu" and not math.isfinite(scale.item()):
                raise self._not_finite(scale.item())
            return self.objective.loss(
                reps_BD, scale, observed=observed, generator=random, group=place.group, head=head, **alike
            )

        with self._timed("model"):
            self.optimizer.zero_grad()
            loss = add_gradients(place, self.towers, parts, loss_of, [self._noise_seed(i) for i in range(len(parts))])
            value = loss.item()
            if not math.isfinite(value):
                raise self._not_finite(value)
            figures = {"loss": value, "lr": self.optimizer.param_groups[1]["lr"]}
            if config.clip_norm:
                norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
                figures["grad_norm"] = norm.item()
            with _held_back():
                self.optimizer.step()
                self.model.clamp_scale()
                self.step += 1
                self.losses.append(value)
                self.position = self.loader.state_dict()
        return figures

    def _alike(self, batch: Any, rows: int) -> dict[str, list[Tensor]]:
        """What tells the objective how alike the samples are: labels, or the similarity with those of all processes."""
        device = self.place.device
        if self.config.soft_targets == "labels" or not self.objective.wants_labels:
            return {"labels": [label[:rows].to(device) for label in self.task.labels(batch)]}
        similarity_BN = text_similarity(self.task.words(batch)[:rows].to(device), self.place.group)
        return {"similarity": [similarity_BN] * len(self.model.modalities)}

    def _noise_seed(self, part: int) -> int:
        """The seed of dropout and noise in a part of this process's share of the batch."""
        others = (self.place.rank, part) if self.place.rank or part else ()
        return philox_key(self.config.seed, "dropout", self.step, *others) % 2**63

    def _not_finite(self, value: float) -> TrainingError:
        kept = f"{self.directory / LAST} holds the weights of step {self.saved_step}; " if self.saved_step else ""
        return TrainingError(
            f"{self.objective.name}: the loss is {value} at step {self.step + 1}; {kept}"
            f"lower --set lr (now {self.config.lr}) and train again with --overwrite, or with other --runs"
        )

    def _evaluate(self, samples_per_s: float, seconds: float) -> None:
        """Measure the validation retrieval, keep the best weights, note the metrics; `seconds` since the beginning."""
        self._check_weights()
        loss = sum(self.losses) / len(self.losses)
        record = {"step": self.step, "loss": loss, "log_scale": self.model.log_scale.item()}
        if self.place.first:
            record |= self.task.validate(self.model, self.objective)
        record["samples_per_s"] = samples_per_s
        record["seconds"] = round(seconds, 3)
        if self.bounds_total_correlation:
            record["bound_nats"] = self._below_ceiling(loss)
        record = self.place.fabric.broadcast(record)
        best = max(self.best, (record["val_top1"], self.step), key=lambda found: found[0])
        if best != self.best and self.place.first:
            about = {"objective": self.objective.name, "step": self.step}
            save_weights(self.directory / BEST, self.model.state_dict(), about)
        with _held_back():
            self.best = best
            self.metrics.append(record)
            self.losses = []

    def _note(self, loss: float) -> str:
        """What progress shows: a loss, and what the last evaluation found."""
        parts = [f"loss {loss:.2f}"]
        if self.bounds_total_correlation:
            most = self.config.batch_size - len(self.model.modalities) + 2
            parts.append(f"ln {most:,} - loss {self._below_ceiling(loss):.2f} nats")
        if self.metrics:
            last = self.metrics[-1]
            parts += [f"val top-1 {last['val_top1']:.3f}", f"{last['samples_per_s']:,.0f} samples/s"]
        return "  ".join(parts)

    def _check_weights(self) -> None:
        """Make sure that no checkpoint is written of weights that a step has spoilt.

        Raises:
            TrainingError: some are not finite.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise self._not_finite(math.nan)

    def _save(self) -> None:
        if not self.place.first:
            return
        with self._timed("saving"):
            self._check_weights()
            state = {
                "optimizer": self.optimizer.state_dict(),
                "loader": self.position,
                "step": self.step,
                "seconds": self.seconds,
                "best": list(self.best),
                "metrics": self.metrics,
                "losses": self.losses,
            }
            save_last(self.directory, self.model.state_dict(), state)
            self.saved_step = self.step
            write_metrics(self.directory, self.metrics)

    def restore(self) -> int:
        """Go on from the last save, if there is one; the steps taken by then.

        Raises:
            TrainingError: it is damaged, or of other towers.
        """
        found = load_last(self.directory)
        if found is None:
            return 0
        weights, state = found
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            self.loader.load_state_dict(state["loader"])
            self.position = state["loader"]
            self.step, self.seconds = state["step"], state["seconds"]
            self.best = (state["best"][0], state["best"][1])
            self.metrics, self.losses = state["metrics"], state["losses"]
        except (RuntimeError, ValueError, KeyError) as error:  # of another version: the recipe has been compared
            reason = " ".join(str(error).split())[:160]
            raise TrainingError(
                f"{self.directory / LAST}: this symile-m3 cannot go on from it ({reason}); train again with --overwrite"
            ) from error
        self.saved_step = self.step
        return self.step
