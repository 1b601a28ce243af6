"""A comparison on declared modalities: objectives and seeds on the user's samples, tuned with equal effort.

DIR/trials/my-<samples>/symile-<recipe>/...         metrics of the trials of the tuning
DIR/tuning/my-<samples>-symile-<trials>.json        every trial and what was chosen
DIR/runs/my-<samples>/symile-<recipe>/seed-0/symile/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from symile_m3.comparison import tuning
from symile_m3.comparison.figures import objective_figures
from symile_m3.comparison.jobs import Ended, JobConfig, run_jobs
from symile_m3.comparison.question import recipe_for, recipe_key
from symile_m3.comparison.study import Quiet, run_trials, trial_records
from symile_m3.comparison.tuning import TrialPoint, TuneConfig
from symile_m3.comparison.worker import Job
from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import Declaration, DeclaredConfig
from symile_m3.modalities.evaluation import evaluate_declared
from symile_m3.modalities.questions import Question as Retrieval
from symile_m3.modalities.questions import parse_question
from symile_m3.modalities.splits import fingerprint_of, open_splits
from symile_m3.modalities.towers import check_factories
from symile_m3.objectives import get_objective
from symile_m3.progress import NoProgress, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredQuestion:
    """What is compared.

    Attributes:
        name: of the samples, for people and in paths.
        declaration: of the modalities, with the recipe of every run but for what is tuned.
        objectives: their names.
        seeds: runs of each, with the seeds 0, 1, ...
        retrieve: as `eval --retrieve` takes them; by default each modality from all the others.
        tune: how much is tried for each objective.
        reach: a validation top-1 to which the time is told.
        bootstrap: resamples for the intervals.
    """

    name: str
    declaration: Declaration
    objectives: tuple[str, ...]
    seeds: int = 3
    retrieve: tuple[str, ...] = ()
    tune: TuneConfig = field(default_factory=TuneConfig)
    reach: float = 0.5
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise UsageError("--objective: give at least one, each once")
        if not 1 <= self.seeds <= self.tune.seed:
            raise UsageError(f"--seeds {self.seeds}: at least one")
        if not 0 < self.reach < 1:
            raise UsageError(f"--reach {self.reach:g}: an accuracy between 0 and 1")
        if self.bootstrap < 1:
            raise UsageError(f"--bootstrap {self.bootstrap}: at least one resample")
        if not self.retrievals():
            raise UsageError("--retrieve: nothing to retrieve")
        for name in self.objectives:
            recipe_for(name, self.declaration.config)
            get_objective(name).check_modalities(len(self.declaration.config.modalities))

    def retrievals(self) -> list[Retrieval]:
        """What is retrieved from what.

        Raises:
            UsageError: there is no such modality.
        """
        names = self.declaration.config.modality_names
        return [parse_question(text, names) for text in self.retrieve or names]


def compare_declared(
    question: DeclaredQuestion, out: Path, *, work: JobConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Answer a question: tune where asked, train every run that is not finished, evaluate on the test samples.

    Runs that fail are in the report, and everything else goes on; the same call, again, goes on with what is missing.

    Returns:
        The report, as that of `symile_m3.comparison.compare`, with a point for each retrieval and its chance in place
        of the exact values.

    Raises:
        UsageError: an argument is out of range, or a tower is not to be had.
        SymileM3Error: the samples cannot be read, or a finished run is damaged.
    """
    progress = progress or NoProgress()
    work = work or JobConfig()
    data, config = question.declaration.data, question.declaration.config
    sources = open_splits(question.declaration)
    samples = len(sources["train"])
    if config.batch_size > samples:
        raise UsageError(f"--batch-size {config.batch_size}: there are {samples} training samples; lower it")
    check_factories(config)
    config = config.in_steps(samples)
    fingerprint = fingerprint_of(sources, data)
    folder = f"{question.name}-{fingerprint[:8]}"

    def job(name: str, what: str, recipe: DeclaredConfig, directory: Path, *, keep: bool = True) -> Job:
        return Job(
            name=f"{name}, {question.name}, {what}",
            data=data,
            directory=directory,
            objective=name,
            config=recipe,
            keep_weights=keep,
        )

    failed: list[dict[str, str]] = []
    asked = {}
    for name in question.objectives if question.tune.trials else ():
        trials = tuning.trial_recipes(recipe_for(name, config), question.tune)
        jobs = [
            job(name, f"trial {i}", tried, out / "trials" / folder / f"{name}-{recipe_key(tried)}", keep=False)
            for i, (_, tried) in enumerate(trials)
        ]
        path = out / "tuning" / f"{folder}-{name}-{tuning.trials_key(jobs)}.json"
        asked[folder, name] = (path, [point for point, _ in trials], jobs)
    found = run_trials(asked, work, progress, failed)
    points = {name: found[folder, name].point for name in question.objectives if (folder, name) in found}
    if not question.tune.trials:
        points = dict.fromkeys(question.objectives, TrialPoint())

    runs: list[Job] = []
    for name, point in points.items():
        recipe = point.applied(recipe_for(name, config))
        directory = out / "runs" / folder / f"{name}-{recipe_key(recipe)}"
        runs += [
            job(name, f"seed {seed}", replace(recipe, seed=seed), directory / f"seed-{seed}")
            for seed in range(question.seeds)
        ]
    ended = run_jobs("Training", runs, work, progress)
    failed += [{"run": end.job.name, "error": end.error} for end in ended if end.error]
    trained = {name: [end for end in ended if end.job.objective == name and end.summary] for name in points}
    return {
        "question": {
            "objectives": question.objectives,
            "seeds": question.seeds,
            "recipe": asdict(config),
            "modalities": config.modality_names,
            "data": asdict(data),
            "retrieve": [str(one) for one in question.retrievals()],
            "over": None,
            "tune": {
                **asdict(question.tune),
                "rate_factors": tuning.RATE_FACTORS,
                "log_scale_offsets": tuning.SCALE_OFFSETS,
            },
            "reach": question.reach,
            "bootstrap": question.bootstrap,
        },
        "work": {"jobs": work.at_once, "threads": work.threads},
        "tuning": trial_records(found),
        "points": _points(question, {name: ends for name, ends in trained.items() if ends}, points, progress),
        "failed": failed,
    }


def _points(
    question: DeclaredQuestion,
    trained: Mapping[str, list[Ended]],
    points: Mapping[str, TrialPoint],
    progress: Progress,
) -> list[dict[str, Any]]:
    """The figures of each retrieval; objectives without a finished run are left out."""
    if not trained:
        return []
    report = evaluate_declared(
        [end.job.directory for ends in trained.values() for end in ends],
        data=question.declaration.data,
        retrieve=[f"{one.retrieve}={','.join(one.given)}" for one in question.retrievals()],
        bootstrap=question.bootstrap,
        progress=Quiet(progress),
    )
    found = []
    for asked in report["questions"]:
        results = {
            name: objective_figures(
                {**asked["results"][name], "runs": report["runs"][name]},
                None,
                [(end.job, end.summary) for end in ends if end.summary is not None],
                reach=question.reach,
                point=points[name],
            )
            for name, ends in trained.items()
        }
        found.append(
            {
                "name": f"{asked['retrieve']} from {', '.join(asked['from'])}",
                "value": None,
                "dataset": {
                    "name": question.name,
                    "fingerprint": report["data"]["fingerprint"],
                    **{key: asked[key] for key in ("retrieve", "from", "n", "candidates")},
                },
                "bounds": {"chance": asked["chance"]},
                "results": results,
                "differences": asked["differences"],
            }
        )
    return found
