"""`symile-m3 compare`: objectives, seeds and datasets at equal budget, tuned with equal effort."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.declared import CLINICAL, declaration_of, with_changes
from symile_m3.cli.options import JsonOption, dataset_root, output_path
from symile_m3.cli.train import OBJECTIVES, preset_config

if TYPE_CHECKING:
    from symile_m3.comparison import DeclaredQuestion, Question
    from symile_m3.recipe import TrainConfig

OUT = Path("runs/compare")

_DATA = "Data"
_BUDGET = "Budget"
_TUNING = "Tuning"
_MACHINE = "Machine"
_OUTPUT = "Output"


def compare(
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            show_default=" and ".join(OBJECTIVES),
            help="Objective to compare; may be repeated.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each, with the seeds 0, 1, ...")] = 3,
    over: Annotated[
        str | None,
        typer.Option(
            "--over",
            metavar="KEY=V1,V2,...",
            show_default="nothing",
            help="What else varies: a setting of the run such as steps, batch_size, dim, negatives or missing_p, or of "
            "the dataset: langs, classes, words, train.",
        ),
    ] = None,
    langs: Annotated[
        str | None,
        typer.Option(
            "--langs",
            metavar="N,N,...",
            show_default="2,5,10; with --over 10",
            help="Numbers of languages, or codes such as en+el+uk; the datasets are built where they are missing.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    data: Annotated[
        list[Any] | None,
        typer.Option(
            "--data",
            metavar="DIR|URL",
            parser=dataset_root,
            show_default="those built for --langs",
            help="Dataset to compare on, in place of --langs; may be repeated.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    modalities: Annotated[
        Path | None,
        typer.Option(
            "--modalities",
            metavar="FILE",
            help="Compare on the modalities that this TOML file declares, in place of datasets of triples.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    retrieve: Annotated[
        list[str] | None,
        typer.Option(
            "--retrieve",
            metavar="NAME[=NAME,...]",
            show_default="each from all others",
            help="Of declared modalities: which is retrieved, and from which others; may be repeated.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="NAME", help="Settings to start from, as for train.", rich_help_panel=_BUDGET),
    ] = "default",
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, show_default="the preset's", help="Steps of a run.", rich_help_panel=_BUDGET),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting of the runs, or of the datasets: classes, words, train, val, test, clips; may be "
            "repeated.",
            rich_help_panel=_BUDGET,
        ),
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            "--tune",
            metavar="N",
            min=0,
            show_default="none",
            help="Trials of learning rates and initial scale for each objective, judged on the validation samples.",
            rich_help_panel=_TUNING,
        ),
    ] = 0,
    tune_steps: Annotated[
        int | None,
        typer.Option(
            "--tune-steps",
            min=1,
            show_default="a quarter of a run's",
            help="Steps of a trial.",
            rich_help_panel=_TUNING,
        ),
    ] = None,
    tune_on: Annotated[
        str,
        typer.Option(
            "--tune-on",
            metavar="largest|each",
            help="largest: the dataset with most languages, for all of them; each: every dataset for itself.",
            rich_help_panel=_TUNING,
        ),
    ] = "largest",
    reach: Annotated[
        float,
        typer.Option(
            "--reach",
            metavar="SHARE",
            help="Validation top-1 to which steps and time are told.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.5,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, show_default="one a CPU", help="Runs at a time, each a process.", rich_help_panel=_MACHINE
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads of each run.", rich_help_panel=_MACHINE)
    ] = 1,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Where data, runs and trials are kept.", rich_help_panel=_OUTPUT),
    ] = OUT,
    plot_to: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="PATH",
            parser=output_path,
            show_default="comparison.png in --out",
            help="Where the plot goes, as PNG.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    markdown_to: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="PATH",
            parser=output_path,
            help="Write the tables as Markdown.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """Compare objectives at equal budget, on the same data, with several seeds.

    Datasets are built where they are missing, features are made once, and the runs go side by side, each in a
    process of its own. Rates and scale may be tuned for each objective, with as many trials for one as for any other,
    on the validation samples; the test samples are for the table at the end. Interrupted, it goes on where it stopped
    when the same command is run again, and comparisons in one --out share the runs that they have in common.
    """
    from symile_m3.cli.output import show
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import figures
    from symile_m3.comparison import JobConfig, TuneConfig, compare_declared
    from symile_m3.comparison import compare as run_comparison
    from symile_m3.comparison.plot import draw_comparison
    from symile_m3.comparison.tables import markdown, tables
    from symile_m3.errors import TrainingError, UsageError
    from symile_m3.shards import write_text

    if langs is not None and data:
        raise UsageError("--langs and --data: give one of them")
    work = JobConfig(jobs=jobs, threads=threads)
    asked: dict[str, Any] = {
        "steps": steps,
        "objectives": tuple(objective or OBJECTIVES),
        "seeds": seeds,
        "tune": TuneConfig(trials=tune, steps=tune_steps or 0, on=tune_on),
        "reach": reach,
    }
    declared = modalities is not None or preset == CLINICAL
    if declared:
        for option, given in {"--langs": langs, "--over": over}.items():
            if given is not None:
                raise UsageError(f"{option}: only for datasets of triples; leave it out")
        mine = _declared_question(modalities, preset, data or [], settings or [], retrieve=retrieve or [], **asked)
        report = compare_declared(mine, out, work=work, progress=open_progress())
    else:
        if retrieve:
            raise UsageError("--retrieve: only for declared modalities; give --modalities, or leave it out")
        question = _question(
            preset_config(preset), settings or [], data=tuple(data or ()), langs=langs, over=over, **asked
        )
        report = run_comparison(question, out, work=work, progress=open_progress())
    shown: list[Any] = [figures(rows.title, rows.header, rows.rows, names=rows.names) for rows in tables(report)]
    best = "val: best on validation"
    shown.insert(1, best if declared else f"passes: the whole interval is above 1/w; {best}; image, language: ceilings")
    if any(point["results"] for point in report["points"]):
        plot = plot_to or out / "comparison.png"
        draw_comparison(plot, report)
        report["plot"] = str(plot)
        shown.append(f"Plot: {plot}")
    if markdown_to is not None:
        write_text(markdown_to, markdown(report))
    show(shown, report, json_to)
    if report["failed"]:
        first, count = report["failed"][0], len(report["failed"])
        raise TrainingError(
            f"{count} failed: {first['run']} ({first['error']}){' and others' if count > 1 else ''}; "
            "run the same command again: it goes on with what is missing"
        )


def _declared_question(
    modalities: Path | None,
    preset: str,
    data: list[Any],
    settings: list[str],
    *,
    steps: int | None,
    retrieve: list[str],
    **others: Any,
) -> DeclaredQuestion:
    """What is asked of declared modalities.

    Raises:
        UsageError: something is unknown or out of range.
    """
    from symile_m3.comparison import DeclaredQuestion
    from symile_m3.errors import UsageError

    if len(data) > 1:
        raise UsageError("--data: name one directory of arrays")
    declaration = declaration_of(modalities, preset, data[0] if data else DATA)
    assert declaration is not None
    if any(setting.startswith("seed=") for setting in settings):
        raise UsageError("--set seed: runs have the seeds 0, 1, ...; say how many with --seeds")
    changes: dict[str, Any] = {} if steps is None else {"steps": steps, "epochs": 0.0}
    return DeclaredQuestion(
        name=preset if modalities is None else modalities.stem,
        declaration=with_changes(declaration, changes, settings),
        retrieve=tuple(retrieve),
        **others,
    )


def _question(
    recipe: TrainConfig,
    settings: list[str],
    *,
    steps: int | None,
    langs: str | None,
    over: str | None,
    **others: Any,
) -> Question:
    """What is asked; each setting goes to the runs or to the datasets.

    Raises:
        UsageError: something is unknown or out of range.
    """
    from symile_m3.comparison import Over, Question
    from symile_m3.comparison.datasets import SETTINGS
    from symile_m3.errors import UsageError

    of_data: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key in SETTINGS and equals:
            of_data[key] = value
        elif key == "seed":
            raise UsageError("--set seed: runs have the seeds 0, 1, ...; say how many with --seeds")
        else:
            recipe = recipe.with_settings([setting])
    if steps is not None:
        recipe = replace(recipe, steps=steps, epochs=0.0)
    default = "10" if over is not None else "2,5,10"
    return Question(
        recipe=recipe,
        settings=of_data,
        langs=tuple(part.strip() for part in (langs or default).split(",")),
        over=None if over is None else Over.parse(over),
        **others,
    )
