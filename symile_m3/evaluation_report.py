"""The parts of an evaluation's report, from what was measured of the runs.

Suffixes: S runs, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.accuracies import accuracy, by_group, by_pattern, difference, hits, stacked
from symile_m3.ceilings import measure_readings
from symile_m3.exact import RETRIEVED, RIGHT, ExactRetrieval, ExactValues
from symile_m3.features import Dataset
from symile_m3.intervals import Resampling, ratio_interval, runs_interval
from symile_m3.measures import Measures, hidden
from symile_m3.questions import Questions
from symile_m3.reader import read_ranks
from symile_m3.recipe import TrainConfig
from symile_m3.rows import pairs_of


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run and what was measured of it.

    Attributes:
        directory: of the run.
        name: of its objective.
        row: that it counts for; see `symile_m3.rows.Row.key`.
        config: its recipe.
        measures: of it.
    """

    directory: Path
    name: str
    row: str
    config: TrainConfig
    measures: Measures


def result(runs: Sequence[Measured], questions: Questions, with_classes: bool, how: Resampling) -> dict[str, Any]:
    """Retrieval of the image from audio and text, by the runs of one row."""
    ranks_SQ = stacked([run.measures.ranks_Q for run in runs])
    lexicon = questions.dataset.plan.lexicon
    languages = by_group(ranks_SQ, questions.language_ids.numpy(), lexicon.languages, how)
    top1_S = hits(ranks_SQ, 1).mean(axis=1)
    result = {
        **accuracy(ranks_SQ, how),
        "by_language": {name: group["top1"] for name, group in languages.items()},
        "by_language_ci95": {name: group["ci95"] for name, group in languages.items()},
        "n": len(questions),
        "trained_with_missing_p": runs[0].config.missing_p,
        "runs": [
            {"directory": str(run.directory), "seed": run.config.seed, "top1": float(top1)}
            for run, top1 in zip(runs, top1_S, strict=True)
        ],
    }
    if len(runs) > 1:
        result["deviation_over_runs"] = float(np.std(top1_S, ddof=1))
    if with_classes:
        result["by_class"] = by_group(ranks_SQ, questions.class_ids.numpy(), lexicon.class_keys, how.one_by_one())
    return result


def with_hidden(main: dict[str, list[Measured]], questions: Questions, p: float, how: Resampling) -> dict[str, Any]:
    """Accuracy with query modalities hidden, overall and by what is left, beside what is possible."""
    masks = hidden(questions, p, how.seed)
    exact = ExactValues.of_plan(questions.dataset.plan)
    record: dict[str, Any] = {"p": p}
    for name, runs in main.items():
        ranks_SQ = stacked([run.measures.missing[p] for run in runs])
        record[name] = {**by_pattern(ranks_SQ, masks, how), "fill": runs[0].measures.fill}
    record["exact"] = {
        "both": exact.class_from_both,
        "text_only": exact.class_from_text,
        "audio_only": exact.class_from_speech,
        "none": exact.class_from_speech,
    }
    if exact.class_from_text is not None:
        left = (1 - p) ** 2 * exact.class_from_both + p * (1 - p) * exact.class_from_text
        record["exact"]["overall"] = left + p * exact.class_from_speech
    return record


def differences(main: dict[str, list[Measured]], how: Resampling) -> dict[str, dict[str, Any]]:
    """Rows against each other, as `symile_m3.rows.pairs_of` has them, in the runs of the same seed."""
    report = {}
    for one, other in pairs_of(list(main)):
        ranks = [{run.config.seed: run.measures.ranks_Q for run in main[name]} for name in (one, other)]
        seeds = [number for number in ranks[0] if number in ranks[1]]
        if seeds:
            first, second = (stacked([of_seed[number] for number in seeds]) for of_seed in ranks)
            report[f"{one} - {other}"] = difference(first, second, how)
    return report


def trained_curve(measured: Sequence[Measured], how: Resampling) -> dict[str, list[dict[str, Any]]]:
    """Accuracy on complete queries over the mean `missing_p` of the training, row by row.

    Beside each is its share of the first, where least was missing, with the interval of that ratio on the same queries.
    """
    report: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys(run.row for run in measured):
        records: list[dict[str, Any]] = []
        first_SQ: NDArray[np.bool_] | None = None
        for p in sorted({run.config.mean_missing_p for run in measured if run.row == name}):
            runs = [run for run in measured if run.row == name and run.config.mean_missing_p == p]
            runs.sort(key=lambda run: run.config.seed)
            ranks_SQ = stacked([run.measures.ranks_Q for run in runs])
            top1 = hits(ranks_SQ, 1)
            share = float(top1.mean())
            record = {"p": p, "top1": share, "ci95": runs_interval(top1, how), "runs": len(ranks_SQ)}
            first_SQ = top1 if first_SQ is None or not first_SQ.any() else first_SQ
            found = first_SQ.any()
            record["of_first"] = share / float(first_SQ.mean()) if found else None
            record["of_first_ci95"] = ratio_interval(top1, first_SQ, how) if found else None
            records.append(record)
        report[name] = records
    return report


def reader_shares(questions: Questions, key: str) -> dict[str, float]:
    """Modality -> in what share of the queries a reader of the features retrieves it from both others.

    Empty where a backbone is trained, so that there are no features to read.

    Args:
        key: fingerprint of the features.
    """
    readings = measure_readings(
        questions.dataset, questions.features, key, questions.image_rows_N, questions.clip_rows_N
    )
    ranks: dict[str, Tensor] = {} if readings is None else read_ranks(questions, *readings)
    return {retrieved: float((ranks_Q == 1).double().mean()) for retrieved, ranks_Q in ranks.items()}


def in_directions(
    main: dict[str, list[Measured]],
    questions: Questions,
    readers: Mapping[str, Mapping[str, float]],
    how: Resampling,
) -> dict[str, Any]:
    """Every direction beside its chance, its exact best, and what a reader of the same features reaches.

    Args:
        readers: row -> `reader_shares` of its features. `reader` is that of the first row; where others have other
            features, `readers` has that of each.
    """
    dataset = questions.dataset
    first = next(iter(readers.values()))
    report: dict[str, Any] = {}
    for retrieved, both in RETRIEVED.items():
        exact = ExactRetrieval.of_plan(dataset.plan, retrieved)
        sets: dict[str, Any] = {}
        for given in (both, *((name,) for name in both)):
            record: dict[str, Any] = {
                "best": exact.best["+".join(given)],
                "fitting": questions.fitting(retrieved, given),
                "reader": first.get(retrieved) if given == both else None,
            }
            if given == both and any(shares != first for shares in readers.values()):
                record["readers"] = {name: shares.get(retrieved) for name, shares in readers.items()}
            for name, runs in main.items():
                ranks_SQ = stacked([run.measures.directions[retrieved, given] for run in runs])
                record[name] = accuracy(ranks_SQ, how)
            sets["+".join(given)] = record
        report[retrieved] = {
            "right": RIGHT[retrieved],
            "candidates": len(questions.answers[retrieved].labels_NW),
            "chance": questions.answers[retrieved].chance(),
            "exact_chance": exact.chance,
            "from": sets,
        }
    fill = {name: runs[0].measures.single_fill for name, runs in main.items()}
    return {**report, "fill": fill, "n": len(questions)}


def gap_figures(runs: Sequence[Measured], how: Resampling) -> dict[str, Any]:
    """The mean distances of an objective's runs, and accuracy of normalised representations with and without them."""
    gaps = [run.measures.gap for run in runs if run.measures.gap is not None]
    normalised_SQ = stacked([found.normalised_Q for found in gaps])
    without_SQ = stacked([found.centred_Q for found in gaps])
    return {
        "distances": {pair: float(np.mean([found.distances[pair] for found in gaps])) for pair in gaps[0].distances},
        "normalised": accuracy(normalised_SQ, how),
        "without": accuracy(without_SQ, how),
        "difference": difference(without_SQ, normalised_SQ, how),
    }


def total_correlation(main: dict[str, list[Measured]], dataset: Dataset) -> dict[str, Any]:
    """The exact value, and the bound of each objective that has one, as a mean over its runs."""
    report: dict[str, Any] = {"exact": ExactValues.of_plan(dataset.plan).total_correlation}
    for name, runs in main.items():
        bounds = [run.measures.bound for run in runs if run.measures.bound is not None]
        if bounds:
            nats = float(np.mean([bound.nats for bound in bounds]))
            report[name] = {"nats": nats, "rows": bounds[0].rows, "highest": bounds[0].highest}
    return report
