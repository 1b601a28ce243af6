"""A comparison from beginning to end: data, features, tuning, runs, evaluation; what is finished is not done again.

    DIR/data/langs10/                               datasets that were built for it
    DIR/trials/langs10-<plan>/symile-<recipe>/...   metrics of the trials of the tuning
    DIR/tuning/langs10-<plan>-symile-<trials>.json  every trial and what was chosen
    DIR/runs/langs10-<plan>/symile-<recipe>/seed-0/symile/

Paths follow from what a run is of, so comparisons in the same directory share whatever they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from symile_m3.comparison import tuning
from symile_m3.comparison.figures import objective_figures
from symile_m3.comparison.jobs import Ended, JobConfig, run_jobs
from symile_m3.comparison.question import Point, Question, recipe_for, recipe_key
from symile_m3.comparison.tuning import TrialPoint, Tuned
from symile_m3.comparison.worker import Job
from symile_m3.errors import UsageError
from symile_m3.evaluate import evaluate
from symile_m3.features import Dataset
from symile_m3.progress import NoProgress, Progress, Task
from symile_m3.recipe import TrainConfig

Trials = tuple[Path, list[TrialPoint], list[Job]]
"""Where what comes out is written, what is tried, and a job for each."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A point with its dataset opened; `folder` names the dataset in paths."""

    point: Point
    dataset: Dataset
    folder: str
    recipe: TrainConfig


def compare(
    question: Question, out: Path, *, work: JobConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Answer a question: tune where asked, train every run that is not finished, evaluate on the test samples.

    The test samples are read by the evaluation at the end and by nothing before. Runs that fail are in the report,
    and everything else goes on; the same call, again, goes on with what is missing.

    Args:
        out: where everything goes; several questions may share it.
        work: how runs are spread over this machine.

    Returns:
        The report: `question`, `work`, `tuning`, `points` (each with `dataset`, `bounds`, `results` by objective and
        paired `differences`), and `failed`.

    Raises:
        UsageError: an argument is out of range, or a key unknown.
        SymileM3Error: a dataset or its features cannot be made, or a finished run is damaged.
    """
    progress = progress or NoProgress()
    work = work or JobConfig()
    points = question.points(out)
    for name in question.objectives:
        for point in points:
            recipe_for(name, point.recipe)
    places = _prepared(question, points, progress)
    failed: list[dict[str, str]] = []
    tuned, records = _tuned(question, places, out, work, progress, failed)

    jobs: dict[tuple[int, str], list[Job]] = {}
    for i, place in enumerate(places):
        for name in question.objectives:
            found = tuned(place, name)
            if found is not None:
                recipe = found.applied(recipe_for(name, place.recipe))
                jobs[i, name] = _seeds(place, name, recipe, question.seeds, out)
    distinct = {job.run: job for some in jobs.values() for job in some}  # some values make no difference to some
    ended = {end.job.run: end for end in run_jobs("Training", list(distinct.values()), work, progress)}
    failed += [{"run": end.job.name, "error": end.error} for end in ended.values() if end.error]
    results = []
    for i, place in enumerate(places):
        of_point = {
            name: [ended[job.run] for job in jobs[i, name]] for name in question.objectives if (i, name) in jobs
        }
        results.append(_point(question, place, of_point, partial(tuned, place), progress))
    return {
        "question": _question(question, places),
        "work": {"jobs": work.at_once, "threads": work.threads},
        "tuning": records,
        "points": results,
        "failed": failed,
    }


def _prepared(question: Question, points: Sequence[Point], progress: Progress) -> list[_Place]:
    """Each point with its dataset, built and with all features made: no run is to make any."""
    opened: dict[str, Dataset] = {}
    for point in points:
        name = str(point.source.root)
        if name not in opened:
            wanted = [other.recipe.features for other in points if str(other.source.root) == name]
            if question.tune.trials:
                wanted.append(question.recipe.features)
            opened[name] = point.source.prepared(wanted, progress)
    places = []
    for point in points:
        dataset = opened[str(point.source.root)]
        samples = len(dataset.readers["train"])
        if point.recipe.batch_size > samples:
            raise UsageError(
                f"--batch-size {point.recipe.batch_size}: {point.source.name} has {samples} training samples"
            )
        folder = f"{point.source.name}-{dataset.plan.fingerprint[:8]}"
        places.append(_Place(point=point, dataset=dataset, folder=folder, recipe=point.recipe.in_steps(samples)))
    return places


def _seeds(place: _Place, objective: str, recipe: TrainConfig, seeds: int, out: Path) -> list[Job]:
    folder = out / "runs" / place.folder / f"{objective}-{recipe_key(recipe)}"
    return [
        Job(
            name=f"{objective}, {place.point.name}, seed {seed}",
            data=place.point.source.root,
            directory=folder / f"seed-{seed}",
            objective=objective,
            config=replace(recipe, seed=seed),
        )
        for seed in range(seeds)
    ]


def _tuned(
    question: Question,
    places: Sequence[_Place],
    out: Path,
    work: JobConfig,
    progress: Progress,
    failed: list[dict[str, str]],
) -> tuple[Callable[[_Place, str], TrialPoint | None], dict[str, dict[str, Any]]]:
    """What to take for an objective at a place (None where its trials failed), and what was tried, by dataset."""
    if not question.tune.trials:
        return lambda place, objective: TrialPoint(), {}
    last = {place.folder: place for place in reversed(places)}
    largest = max(reversed(last.values()), key=_size)
    chosen = list(reversed(last.values())) if question.tune.on == tuning.EACH else [largest]
    asked: dict[tuple[str, str], Trials] = {}
    for place in chosen:
        for name in question.objectives:
            # With what `over` varies left as it is without: no value of it is tuned for.
            recipe = question.recipe.in_steps(len(place.dataset.readers["train"]))
            trials = tuning.trial_recipes(recipe_for(name, recipe), question.tune)
            jobs = [_trial(place, name, i, tried, out) for i, (_, tried) in enumerate(trials)]
            path = out / "tuning" / f"{place.folder}-{name}-{tuning.trials_key(jobs)}.json"
            asked[place.folder, name] = (path, [point for point, _ in trials], jobs)
    found = run_trials(asked, work, progress, failed)
    folder_of = {place.folder: place.folder if question.tune.on == tuning.EACH else largest.folder for place in places}

    def tuned(place: _Place, objective: str) -> TrialPoint | None:
        outcome = found.get((folder_of[place.folder], objective))
        return outcome.point if outcome else None

    return tuned, trial_records(found)


def run_trials(
    asked: Mapping[tuple[str, str], Trials], work: JobConfig, progress: Progress, failed: list[dict[str, str]]
) -> dict[tuple[str, str], Tuned]:
    """Run the trials of each dataset and objective that is not tuned yet; what failed is added to `failed`.

    Args:
        asked: (dataset, objective) -> where the outcome is written, the points, and a job for each.
    """
    found: dict[tuple[str, str], Tuned] = {}
    waiting: dict[tuple[str, str], Trials] = {}
    for key, trials in asked.items():
        earlier = tuning.remembered(trials[0])
        if earlier is not None:
            found[key] = earlier
        else:
            waiting[key] = trials
    all_jobs = [job for _, _, jobs in waiting.values() for job in jobs]
    ended = {end.job.run: end for end in run_jobs("Tuning", all_jobs, work, progress)} if all_jobs else {}
    for key, (path, points, jobs) in waiting.items():
        outcome = tuning.choose(points, [ended[job.run] for job in jobs])
        if outcome.missing:
            failed.append({"run": f"tuning of {key[1]} on {key[0]}", "error": outcome.missing})
        else:
            tuning.remember(path, outcome)
            found[key] = outcome
    return found


def trial_records(found: Mapping[tuple[str, str], Tuned]) -> dict[str, dict[str, Any]]:
    """What was tried and chosen, by dataset and objective."""
    records: dict[str, dict[str, Any]] = {}
    for (folder, name), outcome in found.items():
        records.setdefault(folder, {})[name] = outcome.record()
    return records


def _size(place: _Place) -> tuple[int, int, int]:
    plan = place.dataset.plan
    return len(plan.config.languages), len(plan.lexicon), len(place.dataset.readers["train"])


def _trial(place: _Place, objective: str, number: int, recipe: TrainConfig, out: Path) -> Job:
    return Job(
        name=f"{objective}, {place.point.source.name}, trial {number}",
        data=place.point.source.root,
        directory=out / "trials" / place.folder / f"{objective}-{recipe_key(recipe)}",
        objective=objective,
        config=recipe,
        keep_weights=False,
    )


def _point(
    question: Question,
    place: _Place,
    ended: dict[str, list[Ended]],
    tuned: Callable[[str], TrialPoint | None],
    progress: Progress,
) -> dict[str, Any]:
    """The figures of one dataset and value; objectives without a finished run are left out."""
    trained = {name: [end for end in ends if end.summary is not None] for name, ends in ended.items()}
    trained = {name: ends for name, ends in trained.items() if ends}
    record: dict[str, Any] = {"name": place.point.source.name, "value": place.point.value or None}
    if not trained:
        config = place.dataset.plan.config
        about = {"languages": len(config.languages), "words": config.words, "classes": len(place.dataset.plan.lexicon)}
        return {**record, "dataset": about, "bounds": {}, "results": {}, "differences": {}}
    report = evaluate(
        place.point.source.root,
        [end.job.directory for ends in trained.values() for end in ends],
        bootstrap=question.bootstrap,
        progress=Quiet(progress),
    )
    results = {
        name: objective_figures(
            report["results"][name],
            report["bounds"]["text_only"],
            [(end.job, end.summary) for end in ends if end.summary is not None],
            reach=question.reach,
            point=tuned(name) or TrialPoint(),
        )
        for name, ends in trained.items()
    }
    return {
        **record,
        "dataset": report["dataset"],
        "bounds": report["bounds"],
        "results": results,
        "differences": report.get("differences", {}),
    }


def _question(question: Question, places: Sequence[_Place]) -> dict[str, Any]:
    record = asdict(question)
    record["data"] = [str(place.point.source.root) for place in {place.folder: place for place in places}.values()]
    record["over"] = None if question.over is None else {"key": question.over.key, "values": question.over.values}
    record["tune"]["rate_factors"] = tuning.RATE_FACTORS
    record["tune"]["log_scale_offsets"] = tuning.SCALE_OFFSETS
    return record


class Quiet:
    """Shows no tasks of the evaluations, which are short and many; says what they say."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def task(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        return NoProgress().task(label, total, unit, done)

    def say(self, line: str) -> None:
        self._progress.say(line)
