"""Evaluation of declared modalities: any of them retrieved from any others, with intervals and chance beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from symile_m3.accuracies import accuracy, difference, stacked
from symile_m3.assembly import load_best
from symile_m3.checkpoints import BEST, check_age
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.intervals import Resampling
from symile_m3.modalities.declaration import DataConfig, Declaration, DeclaredConfig
from symile_m3.modalities.encoded import MEAN_OF, EncodedSplit, encode_split, origins, stand_ins
from symile_m3.modalities.questions import Question, ScoresOf, all_questions, answer, ask, parse_question, scores_of
from symile_m3.modalities.saved import CONFIG, is_declared_run, read_declared, saved_data
from symile_m3.modalities.splits import fingerprint_of, open_splits
from symile_m3.modalities.towers import new_model
from symile_m3.objectives import OBJECTIVES, get_objective
from symile_m3.progress import NoProgress, Progress
from symile_m3.rows import differing, pairs_of, rows_of, without_twins
from symile_m3.shards import Source
from symile_m3.standins import LEARNED
from symile_m3.towers.device import device


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A run that is there."""

    directory: Path
    name: str
    config: DeclaredConfig
    fingerprint: str


def is_declared(runs: Path) -> bool:
    """Whether a directory of runs, or a run of its, is of declared modalities."""
    return any(is_declared_run(path.parent) for path in runs.glob(f"*/{CONFIG}"))


def evaluate_declared(
    runs: Path | Sequence[Path],
    *,
    data: DataConfig | None = None,
    retrieve: Sequence[str] = (),
    candidates: int | None = None,
    missing_p: float = 0.0,
    bootstrap: int = 1000,
    seed: int = 0,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate the runs in a directory, or in several, on the test samples.

    Runs that differ in the seed alone are taken together; others stand side by side, each recipe named by what
    differs (see `symile_m3.rows`).

    Args:
        data: where samples are, in place of where they were in training.
        retrieve: questions as `RETRIEVED=GIVEN,GIVEN` or `RETRIEVED`; by default each modality from all the others and
            from each alone.
        candidates: of a query, in place of what was declared; 0 for all samples.
        missing_p: hide each given modality of each query with this probability.
        bootstrap: resamples of the queries for the 95% intervals.
        seed: of the bootstrap, the candidates, and what is hidden.

    Returns:
        The figures, as `eval --json` writes them.

    Raises:
        UsageError: an argument is out of range, or names no modality.
        NotBuiltError: there is no finished run.
        TrainingError: a run is of other data, or damaged, or the runs do not go together.
    """
    if not 0 <= missing_p < 1:
        raise UsageError(f"--missing-p {missing_p}: a probability from 0 to less than 1")
    if bootstrap < 1:
        raise UsageError(f"--bootstrap {bootstrap}: at least one resample")
    if candidates is not None and (candidates < 0 or candidates == 1):
        raise UsageError(f"--candidates {candidates}: at least 2, or all")
    progress = progress or NoProgress()
    rows = rows_of(
        without_twins(_find_runs([runs] if isinstance(runs, Path) else list(runs)), progress), by_missing=True
    )
    found = [run for row in rows for run in row.runs]
    key_of = {run.directory: row.key for row in rows for run in row.runs}
    config = found[0].config
    if data is None:
        data = saved_data(found[0].directory)
    if candidates is not None:
        data = replace(data, candidates=candidates)
    names = config.modality_names
    questions = [parse_question(text, names) for text in retrieve] or all_questions(names)
    sources = open_splits(Declaration(data=data, config=config), on_bad_sample)
    fingerprint = fingerprint_of(sources, data)
    ranks: dict[str, dict[Question, list[Tensor]]] = {}
    kinds: dict[str, str] = {}
    about: dict[Question, dict[str, Any]] = {}
    with progress.task("Evaluating", len(found), "runs") as task:
        for run in found:
            if run.fingerprint != fingerprint:
                raise TrainingError(
                    f"{run.directory} was trained on other samples than these; name the right ones with --modalities "
                    "or --data, or train again with --overwrite"
                )
            key = key_of[run.directory]
            split, fill, kinds[key], scores = _encoded(
                run, sources, data, questions, hides=bool(missing_p), on_bad_sample=on_bad_sample
            )
            for question in questions:
                asked = ask(question, split, candidates=data.candidates, seed=seed, missing_p=missing_p)
                ranks_Q = answer(question, asked, split, scores, fill)
                ranks.setdefault(key, {}).setdefault(question, []).append(ranks_Q)
                about[question] = {
                    "retrieve": question.retrieve,
                    "from": list(question.given),
                    "n": len(ranks_Q),
                    "candidates": len(asked.candidates) if asked.lists_QK is None else asked.lists_QK.shape[1],
                    "chance": asked.chance,
                }
            task.advance()
    how = Resampling(resamples=bootstrap, seed=seed)
    seeds = {row.key: [run.config.seed for run in row.runs] for row in rows}
    return {
        "modalities": [asdict(modality) for modality in config.modalities],
        "data": {"fingerprint": fingerprint, "test": len(sources["test"]), "label": data.label},
        "missing_p": missing_p,
        "fill": kinds,
        "runs": {row.key: [str(run.directory) for run in row.runs] for row in rows},
        "seeds": seeds,
        **({"recipes": recipes} if (recipes := differing(rows)) else {}),
        "questions": [
            {**about[question], **_figures({name: of[question] for name, of in ranks.items()}, seeds, how)}
            for question in questions
        ],
    }


def _figures(
    ranks: Mapping[str, Sequence[Tensor]], seeds: Mapping[str, Sequence[int]], how: Resampling
) -> dict[str, Any]:
    """Accuracies of each row, and the differences in the runs of the same seeds."""
    tables = {name: stacked(of) for name, of in ranks.items()}
    differences: dict[str, Any] = {}
    for one, other in pairs_of(list(tables)):
        both = [seed for seed in seeds[one] if seed in seeds[other]]
        if both and tables[one].shape[1] == tables[other].shape[1]:
            first, second = (tables[name][[seeds[name].index(seed) for seed in both]] for name in (one, other))
            differences[f"{one} - {other}"] = difference(first, second, how)
    return {"results": {name: accuracy(table, how) for name, table in tables.items()}, "differences": differences}


def _encoded(
    run: _Found,
    sources: Mapping[str, Source],
    data: DataConfig,
    questions: Sequence[Question],
    *,
    hides: bool,
    on_bad_sample: str,
) -> tuple[EncodedSplit, dict[str, Tensor], str, ScoresOf]:
    """The test split, what stands for what a query does not show, in words what that is, and the scores."""
    objective = get_objective(run.name, run.config.negatives)
    model = new_model(run.config, objective)
    load_best(model, run.directory / BEST)
    model.to(device())
    split = encode_split(model, sources["test"], run.config, data, on_bad_sample=on_bad_sample)
    learned = run.config.learned
    # The cosine of a pair needs no third modality; a product does.
    in_pairs = bool(objective.alone) and not learned
    needed = {name for question in questions for name in question.given if hides or not split.observed[name].all()}
    if not in_pairs:
        for question in questions:
            needed |= set(model.modalities) - {question.retrieve, *question.given}
    split = replace(split, reps={name: objective.term(rep_ND) for name, rep_ND in split.reps.items()})
    scores = scores_of(model, objective, terms=True)
    if not needed:
        fewer = any(len(question.given) < len(model.modalities) - 1 for question in questions)
        return split, {}, objective.alone if fewer else "", scores
    names = [name for name in model.modalities if name in needed]
    fill = stand_ins(model, objective, sources["train"], run.config, data, names, MEAN_OF, on_bad_sample=on_bad_sample)
    how = set(origins(names, run.config, objective, len(sources["train"])).values())
    return split, fill, " or ".join(sorted(how, key=lambda one: one != LEARNED)), scores


def _find_runs(directories: Sequence[Path]) -> list[_Found]:
    found = []
    for directory in directories:
        names = sorted(path.parent.name for path in directory.glob(f"*/{BEST}"))
        names.sort(key=lambda name: OBJECTIVES.index(name) if name in OBJECTIVES else len(OBJECTIVES))
        for path in directory.glob("*/config.json"):
            check_age(path.parent)
        if not names:
            raise NotBuiltError(
                f"no trained run in {directory}: run `symile-m3 train` first, or name its directory with --runs"
            )
        found += [_load_run(directory / name) for name in names]
    for run in found:
        if _read(run.config) != _read(found[0].config):
            raise TrainingError(
                f"{found[0].directory} and {run.directory} are of other modalities, or members of them; "
                "evaluate them one by one"
            )
    return found


def _read(config: DeclaredConfig) -> list[tuple[str, tuple[str, ...], bool]]:
    """What a run reads of a sample."""
    return [(modality.name, modality.member, modality.missing) for modality in config.modalities]


def _load_run(directory: Path) -> _Found:
    config, fingerprint = read_declared(directory)
    return _Found(directory=directory, name=directory.name, config=config, fingerprint=fingerprint)
