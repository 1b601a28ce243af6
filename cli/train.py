"""`symile-m3 train`: Symile and pairwise CLIP, same data order, budget and seed, from the shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.declared import CLINICAL, declaration_of, train_declaration, with_changes
from symile_m3.cli.options import (
    RUNS,
    BadSampleOption,
    DatasetOption,
    JsonOption,
    OverwriteOption,
    RunsOption,
    shown_root,
)

if TYPE_CHECKING:
    from symile_m3.recipe import LoopConfig, RunOptions, TrainConfig
    from symile_m3.rundir import RunSummary

OBJECTIVES = ("symile", "clip")
KNOWN = ("symile", "clip", "gram", "triangle", "gated", "confu", "sigmoid", "soft", "cliplite")
"""Those of `symile_m3.objectives`, whose import takes too long for `--help`."""

_BUDGET = "Budget"
_DATA = "Data"
_MACHINE = "Machine"


def train(
    objective: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="NAME",
            show_default=" and ".join(OBJECTIVES),
            help=f"Objective to train: {', '.join(KNOWN[:-1])} or {KNOWN[-1]}; may be repeated.",
        ),
    ] = None,
    data: DatasetOption = DATA,
    runs: RunsOption = RUNS,
    preset: Annotated[
        str,
        typer.Option(
            "--preset", metavar="NAME", help="Settings to start from: default, quickstart, paper or clinical."
        ),
    ] = "default",
    modalities: Annotated[
        Path | None,
        typer.Option(
            "--modalities",
            metavar="FILE",
            help="Train on the modalities that this TOML file declares, in place of a dataset of triples.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, show_default="the preset's", help="Seed of everything random."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the run; may be repeated."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, show_default="the preset's", help="Steps.", rich_help_panel=_BUDGET),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Passes over the data, in place of steps.", rich_help_panel=_BUDGET),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=2,
            show_default="the preset's",
            help="Samples a step.",
            rich_help_panel=_BUDGET,
        ),
    ] = None,
    missing_p: Annotated[
        str | None,
        typer.Option(
            "--missing-p",
            metavar="P",
            show_default="none missing",
            help="Hide each modality of each training sample with this probability, or some: image=.5,audio=.2.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    no_redraw: Annotated[
        bool,
        typer.Option(
            "--no-redraw",
            help="Train on the texts as stored; otherwise their distractors are drawn anew each epoch.",
            rich_help_panel=_DATA,
        ),
    ] = False,
    on_bad_sample: BadSampleOption = "stop",
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            metavar="N",
            min=1,
            show_default="the whole batch",
            help="Samples in memory at a time; the loss stays that of the whole batch.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="32|bf16",
            show_default="32",
            help="What the towers compute in; weights stay in 32 bits.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    compile_towers: Annotated[
        bool,
        typer.Option("--compile", help="Compile the towers first, with torch.compile.", rich_help_panel=_MACHINE),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log-to",
            metavar="NAME",
            help="Where each step is written: csv, tensorboard or wandb; may be repeated.",
            rich_help_panel="Output",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Fail where there is no run to go on with.", rich_help_panel="Output")
    ] = False,
    show_config: Annotated[
        bool,
        typer.Option("--show-config", help="Print every setting of the run as JSON, and train nothing."),
    ] = False,
    overwrite: OverwriteOption = False,
    json_to: JsonOption = None,
) -> None:
    """Train Symile and pairwise CLIP on a dataset, with the same data order, budget and seed.

    An interrupted run goes on where it stopped when the same command is run again; one of another recipe gives way
    only to --overwrite, unless it had saved nothing yet. Each run holds its configuration, checkpoints, metrics and
    curves. Under torchrun, several processes or GPUs share each batch.
    """
    from symile_m3.errors import UsageError

    if steps is not None and epochs is not None:
        raise UsageError("--steps and --epochs: give one of them")
    if resume and overwrite:
        raise UsageError("--resume and --overwrite: give one of them")
    given = {"steps": steps, "batch_size": batch_size, "seed": seed, "precision": precision}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if steps is not None:
        changes["epochs"] = 0.0
    if epochs is not None:
        changes |= {"steps": 0, "epochs": float(epochs)}
    if missing_p is not None:
        changes["missing_p"] = missing_probability(missing_p)
    declared = declaration_of(modalities, preset, data)
    if declared is not None:
        if no_redraw:
            raise UsageError("--no-redraw: only texts of triples are drawn anew")
        declared = with_changes(declared, changes, settings or [])
        config: LoopConfig = declared.config
    else:
        if no_redraw:
            changes["redraw"] = False
        triples = replace(preset_config(preset), **changes).with_settings(settings or [])
        config = triples
    options = run_options(micro_batch=micro_batch or 0, compile=compile_towers, logs=tuple(log or ()), resume=resume)

    from symile_m3.cli.output import as_json, command, show
    from symile_m3.cli.tables import run_table

    if show_config:
        print(as_json(asdict(declared or config)), end="")
        return

    if declared is not None:
        summaries = train_declaration(
            declared,
            runs,
            objectives=objective or OBJECTIVES,
            options=options,
            overwrite=overwrite,
            on_bad_sample=on_bad_sample,
        )
    else:
        summaries = run_training(
            data,
            runs,
            objectives=objective or OBJECTIVES,
            config=triples,
            options=options,
            overwrite=overwrite,
            on_bad_sample=on_bad_sample,
        )
    results = runs_json(summaries)
    if int(os.environ.get("RANK", "0")):
        return  # one process of torchrun shows what all have done
    where = str(DATA) if declared else shown_root(data)
    show(
        [run_table(results), f"Next: {command('eval', data=(where, str(DATA)), runs=(runs, RUNS))}"],
        {"data": shown_root(modalities or data), "runs": str(runs), "config": asdict(config), "results": results},
        json_to,
    )


def preset_config(name: str) -> TrainConfig:
    """The settings a preset stands for.

    Raises:
        UsageError: it is unknown.
    """
    from symile_m3.errors import UsageError
    from symile_m3.recipe import PRESETS

    if name not in PRESETS:
        raise UsageError(f"--preset {name}: unknown; known: {', '.join((*PRESETS, CLINICAL))}")
    return PRESETS[name]


def missing_probability(text: str) -> Any:
    """One probability, or one a modality.

    Raises:
        UsageError: neither.
    """
    from symile_m3.errors import UsageError
    from symile_m3.recipe import parse_missing_p

    try:
        return parse_missing_p(text)
    except ValueError as error:
        raise UsageError(
            f"--missing-p {text}: give a probability from 0 to less than 1, or one a modality: image=.5,audio=.2"
        ) from error


def run_options(**given: Any) -> RunOptions:
    """How the run is carried out.

    Raises:
        UsageError: an unknown log.
    """
    from symile_m3.recipe import RunOptions

    return RunOptions(**given)


def run_training(
    data: Path | str,
    runs: Path,
    *,
    objectives: Sequence[str],
    config: TrainConfig,
    options: RunOptions | None = None,
    overwrite: bool = False,
    on_bad_sample: str = "stop",
) -> list[RunSummary]:
    """Train with progress on standard error."""
    from symile_m3.cli.progress import open_progress
    from symile_m3.train import train as train_objectives

    return train_objectives(
        data,
        runs,
        objectives=tuple(dict.fromkeys(objectives)),
        config=config,
        options=options,
        overwrite=overwrite,
        on_bad_sample=on_bad_sample,
        progress=open_progress(),
    )


def runs_json(summaries: Sequence[RunSummary]) -> dict[str, dict[str, Any]]:
    """The summaries by objective."""
    return {summary.objective: {**asdict(summary), "directory": str(summary.directory)} for summary in summaries}
