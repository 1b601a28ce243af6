"""`train` and `eval` where the modalities are declared: in a TOML file, by a preset, or by the runs themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symile_m3.cli.build import DATA

if TYPE_CHECKING:
    from rich.console import RenderableType

    from symile_m3.modalities.declaration import Declaration
    from symile_m3.recipe import RunOptions
    from symile_m3.rundir import RunSummary

CLINICAL = "clinical"


def declaration_of(modalities: Path | None, preset: str, data: Path | str) -> Declaration | None:
    """What is declared by a file or by the preset; None where neither is asked for.

    Raises:
        UsageError: both are, or the file declares what cannot be.
    """
    from symile_m3.errors import UsageError

    if modalities is not None:
        from symile_m3.modalities.declaration import read_declaration

        if preset != "default":
            raise UsageError(f"--modalities and --preset {preset}: give one of them")
        if data != DATA:
            raise UsageError("--modalities and --data: the declaration says where the samples are; leave --data out")
        return read_declaration(modalities)
    if preset == CLINICAL:
        from symile_m3.modalities.clinical import clinical

        if data == DATA:
            raise UsageError(f"--preset {CLINICAL}: name the directory of the arrays with --data")
        return clinical(data)
    return None


def with_changes(declaration: Declaration, changes: Mapping[str, Any], settings: Sequence[str]) -> Declaration:
    """The declaration with another recipe.

    Raises:
        UsageError: a setting that is not one of it.
    """
    return replace(declaration, config=replace(declaration.config, **changes).with_settings(settings))


def train_declaration(
    declaration: Declaration,
    runs: Path,
    *,
    objectives: Sequence[str],
    options: RunOptions,
    overwrite: bool,
    on_bad_sample: str,
) -> list[RunSummary]:
    """Train with progress on standard error."""
    from symile_m3.cli.progress import open_progress
    from symile_m3.modalities.training import train_declared

    return train_declared(
        declaration,
        runs,
        objectives=tuple(dict.fromkeys(objectives)),
        options=options,
        overwrite=overwrite,
        on_bad_sample=on_bad_sample,
        progress=open_progress(),
    )


def evaluates_declared(modalities: Path | None, runs: Sequence[Path]) -> bool:
    """Whether what is to be evaluated are runs of declared modalities."""
    from symile_m3.modalities.evaluation import is_declared

    return modalities is not None or is_declared(runs[0])


def evaluate_declaration(
    modalities: Path | None, data: Path | str, runs: Sequence[Path], **asked: Any
) -> tuple[list[RenderableType], dict[str, Any]]:
    """Evaluate with progress on standard error: the tables and the figures.

    Args:
        asked: as those of `symile_m3.modalities.evaluation.evaluate_declared`.

    Raises:
        UsageError: the file declares what cannot be, or no arrays can be where `data` says.
    """
    from symile_m3.cli.progress import open_progress
    from symile_m3.errors import UsageError
    from symile_m3.modalities.declaration import DataConfig, read_declaration
    from symile_m3.modalities.evaluation import evaluate_declared

    where: DataConfig | None = None
    if modalities is not None:
        if data != DATA:
            raise UsageError("--modalities and --data: the declaration says where the samples are; leave --data out")
        where = read_declaration(modalities).data
    elif data != DATA:
        where = DataConfig(arrays=str(Path(data).absolute()), candidates=10)
    report = evaluate_declared(list(runs), data=where, progress=open_progress(), **asked)
    return question_tables(report), report


def question_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """Top-1, top-5 and mean reciprocal rank of every question, one row an objective."""
    from rich.text import Text

    from symile_m3.cli.tables import listed, objective_title, plain_table, recipe_tables, row_title, share, span

    hidden = f"; each query modality hidden, p = {report['missing_p']:g}" if report["missing_p"] else ""
    table = plain_table(f"Retrieval on {report['data']['test']:,} test samples{hidden}")
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("top-1", "95% interval", "top-5", "MRR", "chance", "of", "queries"):
        table.add_column(name, justify="right", no_wrap=True)
    for question in report["questions"]:
        label = f"{question['retrieve']} from {', '.join(question['from'])}"
        for i, (name, found) in enumerate(question["results"].items()):
            table.add_row(
                Text("" if i else label),
                Text(row_title(name), style="bold"),
                share(found["top1"]),
                span(found["ci95"]),
                share(found["top5"]),
                share(found["mrr"]),
                "" if i else share(question["chance"]),
                "" if i else f"{question['candidates']:,}",
                "" if i else f"{question['n']:,}",
            )
    parts: list[RenderableType] = [table, *recipe_tables(report)]
    by_how: dict[str, list[str]] = {}
    for name, how in report["fill"].items():
        by_how.setdefault(how, []).append(objective_title(name))
    for how, names in by_how.items():
        if how:
            parts.append(Text(f"In place of what a query does not show, {listed(names)}: {how}"))
    return parts
