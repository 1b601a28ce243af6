"""Training: each objective with the same data order, budget and seed, resumable at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from symile_m3.assembly import fit_heads, new_model, new_tokeniser, pretrained_weights
from symile_m3.checkpoints import STATE
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.features import Dataset, Features, feature_key, load_features, open_dataset
from symile_m3.gather import make_portable
from symile_m3.model import Model
from symile_m3.objectives import Objective, get_objective
from symile_m3.processes import Place, is_out_of_memory, open_place
from symile_m3.progress import NoProgress, Progress
from symile_m3.recipe import LoopConfig, RunOptions, TrainConfig
from symile_m3.run import Run
from symile_m3.rundir import RunSummary, check_run, held, note_session, read_summary
from symile_m3.runlog import check_logs
from symile_m3.triples import TripleTask

__all__ = ["RunSummary", "check_shares", "new_run", "train"]


def train(
    data: Path | str,
    runs: Path,
    *,
    objectives: Sequence[str] = ("symile", "clip"),
    config: TrainConfig | None = None,
    options: RunOptions | None = None,
    overwrite: bool = False,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
) -> list[RunSummary]:
    """Train each objective on the dataset in `data`, a directory or URL, or go on with what was interrupted.

    A run is `runs/<objective>/` with config.json, run.json, last.safetensors, last.state, best.safetensors,
    metrics.jsonl, metrics.csv, curves.png and, once finished, summary.json and what `symile_m3.load` needs. Under
    `torchrun` each process calls this, and takes its share of every batch.

    Raises:
        UsageError: an objective or its negatives make no sense, or the batch is larger than the dataset.
        NotBuiltError: there is no dataset, or no run to resume.
        MissingDependencyError: a log needs a package that is not installed.
        TrainingError: a run of another recipe or dataset is there, the loss is no longer finite, or memory runs out.
        DamagedSampleError: a sample is damaged and `on_bad_sample` is "stop".
    """
    progress = progress or NoProgress()
    config = config or TrainConfig()
    options = options or RunOptions()
    chosen = choose_objectives(objectives, config)
    check_soft_targets(config, chosen)
    check_logs(options.logs)
    place = open_place(config.precision)
    if not place.first:
        progress = NoProgress()
    dataset = open_dataset(data, on_bad_sample, progress)
    samples = len(dataset.readers["train"])
    if config.epochs:
        config = config.in_steps(samples)
    if config.batch_size > samples:
        raise UsageError(f"--batch-size {config.batch_size}: the dataset has {samples} training samples; lower it")
    check_shares(config, options, place)

    features: Features | None = None

    def prepare() -> tuple[str, Callable[[Objective, Path], Run]]:
        nonlocal features
        if place.world > 1:  # the others find what the first has made
            place.by_first(lambda: (load_features(dataset, config.features, progress), None)[1])
        loaded = features = load_features(dataset, config.features, progress)

        def make(objective: Objective, directory: Path) -> Run:
            return new_run(
                dataset, loaded, objective, config, directory, place, options=options, on_bad_sample=on_bad_sample
            )

        return feature_key(dataset, config.features), make

    def finish(objective: Objective, directory: Path) -> None:
        if options.portable:
            make_portable(
                directory, dataset, objective, config, progress, features=features, on_bad_sample=on_bad_sample
            )

    return carry_out(
        runs,
        chosen,
        config,
        place,
        fingerprint=dataset.plan.fingerprint,
        weights=lambda: pretrained_weights(config),
        data=data,
        options=options,
        overwrite=overwrite,
        progress=progress,
        dim=config.model.dim,
        prepare=prepare,
        finish=finish,
    )


def choose_objectives(names: Sequence[str], config: LoopConfig) -> list[Objective]:
    """The objectives of these names, each once, for the modalities and negatives of a recipe.

    Raises:
        UsageError: one is unknown, or not for so many modalities, or none takes the negatives.
    """
    chosen = [get_objective(name, config.negatives) for name in dict.fromkeys(names)]
    for objective in chosen:
        objective.check_modalities(len(config.modality_names))
    if config.negatives != TrainConfig().negatives and not any(objective.takes_negatives for objective in chosen):
        said = " and ".join(objective.name for objective in chosen)
        raise UsageError(f"negatives {config.negatives}: symile and sigmoid take them, not {said}; leave them out")
    return chosen


def carry_out(
    runs: Path,
    chosen: Sequence[Objective],
    config: LoopConfig,
    place: Place,
    *,
    fingerprint: str,
    weights: Callable[[], Mapping[str, str]],
    data: Path | str,
    options: RunOptions,
    overwrite: bool,
    progress: Progress,
    dim: int,
    prepare: Callable[[], tuple[str, Callable[[Objective, Path], Run]]],
    finish: Callable[[Objective, Path], None] = lambda objective, directory: None,
) -> list[RunSummary]:
    """Train each objective in a directory of its own, or go on with what was interrupted; what is done stays.

    Args:
        fingerprint, weights: what the runs are of, beside the recipe; see `check_run`.
        data: where it lies, for the notes of the run.
        dim: D.
        prepare: what has to be done before any run: gives a fingerprint of what it made, and what makes a new run.
        finish: what the first process does with each finished run, of now or of before.

    Raises:
        NotBuiltError: there is no run to resume.
        TrainingError: a run of another recipe or dataset is there, the loss is no longer finite, or memory runs out.
    """

    def find() -> dict[str, RunSummary | None]:
        """What the runs came to, and None for those that wait."""
        found: dict[str, RunSummary | None] = {}
        if options.resume and not any((runs / objective.name / STATE).exists() for objective in chosen):
            raise NotBuiltError(f"--resume: no run in {runs} to go on with; leave --resume out to begin one")
        begin_with = weights()
        for objective in chosen:
            directory = runs / objective.name
            if check_run(directory, fingerprint, config, begin_with, overwrite=overwrite):
                progress.say(f"{directory} held a run of another recipe that had saved nothing yet; begun anew")
            finished = (directory / "summary.json").exists()
            if finished:
                finish(objective, directory)
            else:
                holding.enter_context(held(directory))
            found[objective.name] = read_summary(directory) if finished else None
        return found

    with contextlib.ExitStack() as holding:
        summaries = place.by_first(find)
        for name, summary in summaries.items():
            if summary is not None:
                progress.say(f"{name}: already trained in {runs / name}")
        if None in summaries.values():
            key, make = prepare()
            for objective in chosen:
                if summaries[objective.name] is None:
                    directory = runs / objective.name
                    with _limits_named(objective.name, config, options, place, dim=dim) as models:
                        run = make(objective, directory)
                        models.append(run.model)
                        _check_norms(run.model, options)
                        step = run.restore()
                        if place.first:
                            run.id = note_session(directory, data, key, place, options, step)
                        summaries[objective.name] = run.train(progress)
                        models.clear()
                        del run  # what finishes it opens the best weights again
                    place.by_first(partial(finish, objective, directory))
    return [summary for summary in summaries.values() if summary is not None]


def check_soft_targets(config: LoopConfig, chosen: Sequence[Objective]) -> None:
    """Make sure that one of the objectives has a use for other soft targets than the usual ones.

    Raises:
        UsageError: none has.
    """
    if config.soft_targets != "labels" and not any(objective.wants_labels for objective in chosen):
        names = " and ".join(objective.name for objective in chosen)
        raise UsageError(f"soft_targets {config.soft_targets}: soft takes them, not {names}; leave them out")


def check_shares(config: TrainConfig, options: RunOptions, place: Place) -> None:
    """Make sure that batches can be shared out and cut as asked.

    Raises:
        UsageError: they cannot.
    """
    if config.batch_size % place.world:
        raise UsageError(f"--batch-size {config.batch_size}: give a multiple of the {place.world} processes")
    if config.features.audio == "conv:scratch" and (place.world > 1 or options.micro_batch):
        raise UsageError(
            "audio=conv:scratch normalises over the batch, as long as its longest clip: train it in one process, and "
            "without --micro-batch"
        )


def _check_norms(model: Model, options: RunOptions) -> None:
    """Make sure that no part of a batch is normalised apart from the rest; processes share their norms.

    Raises:
        UsageError: it would be.
    """
    modality = _normalising(model) if options.micro_batch else ""
    if modality:
        raise UsageError(
            f"{modality}: a tower that is trained and normalises over the batch: train it without --micro-batch"
        )


def _normalising(model: Model) -> str:
    """The first modality whose tower normalises over the batch while it is trained; empty where none does."""
    model.train()  # what is frozen stays in evaluation mode, and normalises by what it has learned
    for modality, tower in model.towers.items():
        if any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.training for part in tower.modules()):
            return modality
    return ""


@contextlib.contextmanager
def _limits_named(
    name: str, config: LoopConfig, options: RunOptions, place: Place, *, dim: int
) -> Iterator[list[Model]]:
    """Say of memory that runs out what to lower, and of towers that cannot be compiled that they need not be.

    Yields:
        A list that takes the model once it is made: it decides whether a batch can be cut.

    Raises:
        TrainingError: either is the case.
    """
    models: list[Model] = []
    try:
        yield models
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(f"{name}: torch.compile failed ({reason}); leave --compile out") from error
        if not is_out_of_memory(error):
            raise
        rows = min(options.micro_batch or config.batch_size, config.batch_size // place.world)
        if not models:
            raise TrainingError(
                f"{name}: out of memory for a model of D {dim}; lower --set dim, and train again with --overwrite"
            ) from error
        lower = (
            f"give --micro-batch {rows // 2}, which computes the same loss in parts, and run the command again, "
            f"or lower --set dim (now {dim}), and train again with --overwrite"
            if rows > 1 and not _normalising(models[0])
            else f"lower --batch-size (now {config.batch_size}) or --set dim (now {dim}), "
            "and train again with --overwrite"
        )
        raise TrainingError(f"{name}: out of memory with {rows} samples at a time and D {dim}; {lower}") from error


def new_run(
    dataset: Dataset,
    features: Features,
    objective: Objective,
    config: TrainConfig,
    directory: Path,
    place: Place,
    *,
    options: RunOptions | None = None,
    on_bad_sample: str = "stop",
) -> Run:
    """A run with a new model; `Run.restore` goes on with what is in the directory."""
    model = new_model(dataset, features, objective, config)
    fit_heads(model, dataset, features, standardise=config.model.standardise)
    tokeniser = new_tokeniser(dataset, config)
    return Run(
        TripleTask(dataset, features, config, tokeniser, on_bad_sample=on_bad_sample),
        objective,
        config,
        model,
        directory,
        place,
        options=options or RunOptions(),
        on_bad_sample=on_bad_sample,
    )
