"""Evaluation: the table of Symile, CLIP, exact values and measured ceilings, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_m3 import evaluation_report as parts
from symile_m3.accuracies import PATTERNS
from symile_m3.assembly import load_best, new_model, new_tokeniser, pretrained_weights
from symile_m3.ceilings import measure_ceilings
from symile_m3.checkpoints import BEST, check_age
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.exact import ExactValues
from symile_m3.features import Dataset, FeatureConfig, Features, feature_key, load_features, open_dataset
from symile_m3.intervals import Resampling
from symile_m3.measures import Asked, measure
from symile_m3.model import Model
from symile_m3.objectives import OBJECTIVES, Objective, get_objective
from symile_m3.progress import NoProgress, Progress
from symile_m3.questions import Questions
from symile_m3.recipe import TrainConfig
from symile_m3.rows import Row, differing, rows_of, without_twins
from symile_m3.rundir import read_config
from symile_m3.towers.device import device

__all__ = ["PATTERNS", "evaluate"]

Observer = Callable[[Questions, Sequence[parts.Measured]], None]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    objective: Objective
    config: TrainConfig
    model: Model


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A run that is there; `directory` holds its checkpoint."""

    directory: Path
    name: str
    config: TrainConfig


def evaluate(
    data: Path | str,
    runs: Path | Sequence[Path],
    *,
    missing_p: float | Sequence[float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    directions: bool = False,
    by_class: bool = False,
    gap: bool = False,
    bound: bool = False,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Evaluate every run in `runs` on the test split of the dataset in `data`, a directory or URL.

    Models encode and rank on the GPU where there is one, in float32, in blocks of bounded size.

    Args:
        runs: a directory with one subdirectory an objective, or several such directories. Runs that differ in the
            seed alone are taken together; in the training `missing_p`, they give a curve; in any other setting, they
            stand side by side, each recipe named by what differs (see `symile_m3.rows`).
        missing_p: also hide each query modality with this probability and report by what is left; several
            probabilities give a curve.
        bootstrap: resamples for the 95% intervals: of the test images, each with all queries that it answers; of the
            runs where there are several. Of the single classes, which have few images, it is of the queries.
        seed: of the bootstrap and of what is hidden.
        directions: also retrieve every modality from the other two, and from each of them alone.
        by_class: also report the accuracy of each class.
        gap: also measure the modality gap.
        bound: also measure the bound of the total correlation.
        observe: is given the questions and what was measured of each run, once; the runs of the results then also
            tell which image each query retrieved.

    Returns:
        The figures, as `eval --json` writes them: dataset, bounds, intervals, results, and what was asked for beside
        them. Where recipes differ, `recipes` says in what; where features do, `ceilings` has those of each.

    Raises:
        UsageError: an argument is out of range.
        NotBuiltError: there is no dataset, or no finished run.
        TrainingError: a run is of another dataset, or damaged, or two are of one recipe and seed.
    """
    chosen_p = () if missing_p is None else (missing_p,) if isinstance(missing_p, int | float) else tuple(missing_p)
    for p in chosen_p:
        if not 0 <= p < 1:
            raise UsageError(f"--missing-p {p}: a probability from 0 to less than 1")
    if len(set(chosen_p)) < len(chosen_p) or (missing_p is not None and not chosen_p):
        raise UsageError("--missing-p: give one probability or more, each once")
    if bootstrap < 1:
        raise UsageError(f"--bootstrap {bootstrap}: at least one resample")
    progress = progress or NoProgress()
    directories = [runs] if isinstance(runs, Path) else list(runs)
    dataset = open_dataset(data, on_bad_sample, progress)
    rows = rows_of(without_twins(_find_runs(directories, dataset), progress))
    asked = Asked(
        missing=chosen_p,
        directions=directions,
        gap=gap,
        bound=bound,
        retrieved=observe is not None,
        seed=seed,
    )
    measured: list[parts.Measured] = []
    ceilings: dict[FeatureConfig, dict[str, float | None]] = {}
    readers: dict[FeatureConfig, dict[str, float]] = {}
    questions: Questions | None = None
    for config in dict.fromkeys(run.config.features for row in rows for run in row.runs):
        questions = None  # lets go of the features of other recipes
        questions, found = _measure_on(config, rows, dataset, asked, on_bad_sample, progress)
        measured += found
        key = feature_key(dataset, config)
        ceilings[config] = _ceilings(dataset, questions.features, key)
        if directions:
            readers[config] = parts.reader_shares(questions, key)
    assert questions is not None
    order = [run.directory for row in rows for run in row.runs]
    measured.sort(key=lambda run: order.index(run.directory))
    if observe is not None:
        observe(questions, measured)
    how = Resampling(resamples=bootstrap, seed=seed, groups_Q=questions.image_of_Q.numpy())
    main = {
        row.key: [run for run in measured if run.row == row.key and run.config.missing == row.least] for row in rows
    }
    features_of = {row.key: row.runs[0].config.features for row in rows}
    report: dict[str, Any] = {
        "dataset": _describe(dataset),
        "bounds": _bounds(dataset, ceilings[rows[0].runs[0].config.features]),
        "intervals": {"level": 0.95, "resamples": bootstrap, "of": "images with their queries"},
        "results": {name: parts.result(runs_of, questions, by_class, how) for name, runs_of in main.items()},
    }
    if recipes := differing(rows):
        report["recipes"] = recipes
    if len(ceilings) > 1:
        report["ceilings"] = [
            {"rows": [name for name, of in features_of.items() if of == config], **found}
            for config, found in ceilings.items()
        ]
    curve = [parts.with_hidden(main, questions, p, how) for p in chosen_p]
    if len(curve) == 1:
        report["missing"] = curve[0]
    elif curve:
        report["missing_curve"] = curve
    if len(main) > 1:
        report["differences"] = parts.differences(main, how)
    if any(len({run.config.mean_missing_p for run in row.runs}) > 1 for row in rows):
        report["trained_missing_curve"] = parts.trained_curve(measured, how)
    if directions:
        readers_of = {name: readers[config] for name, config in features_of.items()}
        report["directions"] = parts.in_directions(main, questions, readers_of, how)
    if gap:
        report["modality_gap"] = {name: parts.gap_figures(runs_of, how) for name, runs_of in main.items()}
    if bound:
        report["total_correlation"] = parts.total_correlation(main, dataset)
    return report


def _measure_on(
    config: FeatureConfig,
    rows: Sequence[Row[_Found]],
    dataset: Dataset,
    asked: Asked,
    on_bad_sample: str,
    progress: Progress,
) -> tuple[Questions, list[parts.Measured]]:
    """What is measured of the runs on these features, and the questions it is about."""
    features = load_features(dataset, config, progress)
    runs = [(row, run) for row in rows for run in row.runs if run.config.features == config]
    measured: list[parts.Measured] = []
    questions: Questions | None = None
    asked_with = runs[0][1].config.model
    with progress.task("Evaluating", len(runs), "runs") as task:
        for row, run in runs:
            trained = _load_run(run.directory, run.name, run.config, dataset, features)
            tokeniser = new_tokeniser(dataset, run.config)
            if questions is None or run.config.model != asked_with:  # the texts are tokenised as the model has them
                asked_with = run.config.model
                questions = Questions.of_split(dataset, features, "test", tokeniser, on_bad_sample)
            measures = measure(
                trained.model,
                trained.objective,
                questions,
                tokeniser,
                asked if run.config.missing == row.least else Asked(seed=asked.seed),
                learned={name for name, p in run.config.missing.items() if p},
                on_bad_sample=on_bad_sample,
            )
            measured.append(
                parts.Measured(
                    directory=run.directory, name=run.name, row=row.key, config=run.config, measures=measures
                )
            )
            task.advance()
    assert questions is not None
    return questions, measured


def _find_runs(directories: Sequence[Path], dataset: Dataset) -> list[_Found]:
    """The runs of all directories.

    Raises:
        NotBuiltError: a directory holds none.
        TrainingError: one is of another dataset, or damaged.
    """
    found: list[_Found] = []
    for directory in directories:
        for name in OBJECTIVES:
            check_age(directory / name)
        names = [name for name in OBJECTIVES if (directory / name / BEST).exists()]
        if not names:
            raise NotBuiltError(
                f"no trained run in {directory}: run `symile-m3 train` first, or name its directory with --runs"
            )
        for name in names:
            config = _load_config(directory / name, dataset)
            found.append(_Found(directory=directory / name, name=name, config=config))
    return found


def _load_config(directory: Path, dataset: Dataset) -> TrainConfig:
    config, fingerprint, weights = read_config(directory)
    if fingerprint != dataset.plan.fingerprint:
        raise TrainingError(
            f"{directory} was trained on another dataset than {dataset.layout.root}; "
            "name the right one with --data, or train again with --overwrite"
        )
    if weights != pretrained_weights(config):
        raise TrainingError(
            f"{directory} was trained on other weights than {' and '.join(weights)} have now; "
            "put the former back, or train again with --overwrite"
        )
    return config


def _load_run(directory: Path, name: str, config: TrainConfig, dataset: Dataset, features: Features) -> _Trained:
    objective = get_objective(name, config.negatives)
    model = new_model(dataset, features, objective, config)
    load_best(model, directory / BEST)
    return _Trained(objective=objective, config=config, model=model.to(device()).eval())


def _describe(dataset: Dataset) -> dict[str, Any]:
    config = dataset.plan.config
    return {
        "languages": len(config.languages),
        "words": config.words,
        "classes": len(dataset.plan.lexicon),
        "split_by": config.split_by,
        "text": config.text,
        "test_images": len(dataset.candidates("test")),
        "fingerprint": dataset.plan.fingerprint,
    }


def _ceilings(dataset: Dataset, features: Features, key: str) -> dict[str, float | None]:
    ceilings = measure_ceilings(dataset, features, key)
    return {"image_ceiling": ceilings.image, "language_ceiling": ceilings.language}


def _bounds(dataset: Dataset, ceilings: Mapping[str, float | None]) -> dict[str, float | None]:
    exact = ExactValues.of_plan(dataset.plan)
    return {"text_only": exact.class_from_text, "audio_only": exact.class_from_speech, **ceilings}
