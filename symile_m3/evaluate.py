"""Evaluation: the table of Symile, CLIP, exact values and measured ceilings, with intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symile_m3.batches import open_loader
from symile_m3.ceilings import measure_ceilings
from symile_m3.checkpoints import load_tensors
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.exact import ExactValues
from symile_m3.features import Dataset, FeatureConfig, Features, feature_key, load_features, open_dataset
from symile_m3.model import Model, ModelConfig
from symile_m3.objectives import OBJECTIVES, Objective, get_objective
from symile_m3.progress import NoProgress, Progress
from symile_m3.recipe import TrainConfig
from symile_m3.retrieval import QUERY, Retrieval, query_inputs, retrieve
from symile_m3.seeds import generator
from symile_m3.shards import missing_mask
from symile_m3.train import new_model, new_tokeniser, pretrained_weights

PATTERNS = {  # name -> which of (audio, text) is missing
    "both": (False, False),
    "text_only": (True, False),
    "audio_only": (False, True),
    "none": (True, True),
}


@dataclass(frozen=True, kw_only=True)
class _Trained:
    objective: Objective
    config: TrainConfig
    model: Model


def evaluate(
    data: Path | str,
    runs: Path,
    *,
    missing_p: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate every run in `runs` on the test split of the dataset in `data`, a directory or URL.

    Args:
        missing_p: also hide each query modality with this probability and report by what is left.
        bootstrap: resamples of the queries for the 95% intervals.
        seed: of the bootstrap and of what is hidden.

    Returns:
        The figures, as `eval --json` writes them: dataset, bounds, results, and missing where asked for.

    Raises:
        UsageError: an argument is out of range.
        NotBuiltError: there is no dataset, or no finished run.
        TrainingError: a run is of another dataset, or damaged.
    """
    if missing_p is not None and not 0 <= missing_p < 1:
        raise UsageError(f"--missing-p {missing_p}: a probability from 0 to less than 1")
    if bootstrap < 1:
        raise UsageError(f"--bootstrap {bootstrap}: at least one resample")
    progress = progress or NoProgress()
    dataset = open_dataset(data, on_bad_sample, progress)
    found = [name for name in OBJECTIVES if (runs / name / "best.pt").exists()]
    if not found:
        raise NotBuiltError(f"no trained run in {runs}: run `symile-m3 train` first, or name its directory with --runs")
    configs = {name: _load_config(runs / name, dataset) for name in found}
    if len({config.features for config in configs.values()}) > 1:
        raise TrainingError(f"the runs in {runs} use different features; evaluate them from separate --runs")
    feature_config = configs[found[0]].features
    features = load_features(dataset, feature_config, progress)
    trained = [_load_run(runs / name, name, configs[name], dataset, features) for name in found]

    results: dict[str, Any] = {}
    missing: dict[str, Any] = {"p": missing_p}
    with progress.task("Evaluating", len(trained), "runs") as task:
        for run in trained:
            tokeniser = new_tokeniser(dataset, run.config)
            queries = Retrieval.of_split(dataset, features, "test", tokeniser, on_bad_sample)
            results[run.objective.name] = _complete(run, queries, dataset, bootstrap, seed)
            if missing_p is not None:
                fill = None if run.config.missing_p else _mean_reps(run, dataset, features, on_bad_sample)
                missing[run.objective.name] = _with_missing(run, queries, fill, missing_p, seed)
            task.advance()
    report = {
        "dataset": _describe(dataset),
        "bounds": _bounds(dataset, features, feature_config),
        "results": results,
    }
    if missing_p is not None:
        report["missing"] = missing
    return report


def _load_config(directory: Path, dataset: Dataset) -> TrainConfig:
    try:
        record = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        fingerprint = record.pop("fingerprint")
        weights = dict(record.pop("weights", {}))
        record["features"] = FeatureConfig(**record["features"])
        record["model"] = ModelConfig(**record["model"])
        config = TrainConfig(**{field.name: record[field.name] for field in fields(TrainConfig)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{directory}/config.json: unreadable ({error}); train again with --overwrite") from error
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
    state = load_tensors(directory / "best.pt")
    assert state is not None
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise TrainingError(
            f"{directory}/best.pt is of other towers than {directory}/config.json says; train again with --overwrite"
        ) from error
    return _Trained(objective=objective, config=config, model=model.eval())


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


def _bounds(dataset: Dataset, features: Features, config: FeatureConfig) -> dict[str, Any]:
    ceilings = measure_ceilings(dataset, features, feature_key(dataset, config))
    exact = ExactValues.of_plan(dataset.plan)
    return {
        "text_only": exact.class_from_text,
        "audio_only": exact.class_from_speech,
        "image_ceiling": ceilings.image,
        "language_ceiling": ceilings.language,
    }


def _complete(run: _Trained, queries: Retrieval, dataset: Dataset, bootstrap: int, seed: int) -> dict[str, Any]:
    hits = retrieve(run.model, run.objective, queries)
    top1 = hits[1].float()
    return {
        "top1": float(top1.mean()),
        "ci95": bootstrap_interval(hits[1].numpy(), bootstrap, seed),
        "top5": float(hits[5].float().mean()),
        "by_language": {
            language: float(top1[queries.language_ids == i].mean())
            for i, language in enumerate(dataset.plan.lexicon.languages)
            if bool((queries.language_ids == i).any())
        },
        "n": len(queries),
        "trained_with_missing_p": run.config.missing_p,
    }


def bootstrap_interval(hits: Any, resamples: int, seed: int) -> list[float]:
    """95% percentile interval of the mean over queries, from resampling queries with replacement."""
    random = generator(seed, "bootstrap")
    # The number of hits in a resample of independent yes-or-no outcomes is binomial.
    means = random.binomial(len(hits), np.mean(hits), size=resamples) / len(hits)
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(low), float(high)]


def _with_missing(
    run: _Trained, queries: Retrieval, fill: dict[str, Tensor] | None, p: float, seed: int
) -> dict[str, Any]:
    """Accuracy overall and by what is left of the query, with `fill` or the learned embeddings for the rest."""
    missing = {modality: torch.from_numpy(missing_mask(queries.keys, modality, p, seed)) for modality in QUERY}
    hits = retrieve(run.model, run.objective, queries, (1,), missing=missing, fill=fill)[1].float()
    report: dict[str, Any] = {
        "overall": float(hits.mean()),
        "fill": "learned embedding" if fill is None else "mean training representation",
        "n": {},
    }
    for name, (no_audio, no_text) in PATTERNS.items():
        chosen = (missing["audio"] == no_audio) & (missing["text"] == no_text)
        report["n"][name] = int(chosen.sum())
        report[name] = float(hits[chosen].mean()) if bool(chosen.any()) else None
    return report


@torch.inference_mode()
def _mean_reps(run: _Trained, dataset: Dataset, features: Features, on_bad_sample: str) -> dict[str, Tensor]:
    """Mean representation of each query modality over all training samples, (D,).

    For a model that never saw a missing modality. The MIP is multilinear, so its value at the mean is its
    expectation over the missing modality.
    """
    tokeniser = new_tokeniser(dataset, run.config)
    totals = {modality: torch.zeros(run.config.model.dim, dtype=torch.float64) for modality in QUERY}
    count = 0
    for batch in open_loader(
        dataset, "train", tokeniser=tokeniser, batch_size=500, seed=run.config.seed, on_bad_sample=on_bad_sample
    ):
        inputs = query_inputs(batch, features)
        for modality, total_D in totals.items():
            total_D += run.model.encode(modality, inputs).sum(dim=0, dtype=torch.float64)
        count += len(batch.keys)
    return {modality: (total_D / count).float() for modality, total_D in totals.items()}
