"""Figures as tables for people; every function takes plain values and returns what `rich` can print."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symile_m3.wording import PATTERNS as PATTERNS
from symile_m3.wording import ceilings_of, setting, shown_differences
from symile_m3.wording import listed as listed
from symile_m3.wording import objective_title as objective_title
from symile_m3.wording import share as share
from symile_m3.wording import span as span

_NAME, _COLUMN = 28, 18  # characters of a row's name that a line holds: beside figures, and above them


def row_title(row: str) -> str:
    """The name of a row of an evaluation, in as many lines as it takes."""
    return textwrap.fill(objective_title(row), _NAME, subsequent_indent="  ", break_on_hyphens=False)


def column_title(row: str) -> str:
    """The same above a column."""
    return textwrap.fill(objective_title(row), _COLUMN, break_on_hyphens=False)


def facts(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values, one a row."""
    table = plain_table(title)
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def figures(title: str | None, header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> Table:
    """Rows of figures, set right, behind the first `names` columns, which name them."""
    table = plain_table(title)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i < names else "right", overflow="fold", no_wrap=i >= names)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def beside(names: Iterable[str], most: int = 4) -> list[list[str]]:
    """The objectives of each of several tables, where a table has columns for each of them and must not be too wide."""
    everything = list(names)
    step = math.ceil(len(everything) / max(1, math.ceil(len(everything) / most)))
    return [everything[i : i + step] for i in range(0, len(everything), max(1, step))]


def evaluation_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """The tables of `eval`: accuracies beside bounds, by language, and by what was left of hidden queries."""
    parts: list[RenderableType] = [accuracy_table(report), *recipe_tables(report)]
    parts += [language_table(report, names) for names in beside(report["results"])]
    if "missing" in report:
        names = [name for name in report["results"] if name in report["missing"]]
        parts += [missing_table(report, some) for some in beside(names)]
        parts += fill_lines(report["missing"])
    return parts


def accuracy_table(report: Mapping[str, Any]) -> Table:
    """Top-1 and top-5 of each row, then what is exactly possible, then the measured ceilings."""
    dataset, bounds, results = report["dataset"], report["bounds"], report["results"]
    counts = sorted({int(result["n"]) for result in results.values() if "n" in result})
    queries = f"{' or '.join(f'{n:,}' for n in counts)} queries, " if counts else ""
    table = plain_table(
        f"Image from audio and text: {queries}{dataset['languages']} languages, "
        f"{dataset['words']} words a text, {dataset['classes']} classes"
    )
    table.add_column("", no_wrap=True)
    with_mrr = any("mrr" in result for result in results.values())
    for name in ("top-1", "95% interval", "top-5", *(["MRR"] if with_mrr else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, result in results.items():
        runs = len(result.get("runs", ())) or 1
        table.add_row(
            Text(row_title(name), style="bold"),
            Text(share(result["top1"]), style="bold"),
            span(result["ci95"]),
            share(result["top5"]),
            *([share(result.get("mrr"))] if with_mrr else []),
            f"{runs} runs" if runs > 1 else "",
        )
    shown, others = shown_differences(report)
    for pair, found in shown.items():
        titles = [row_title(name) for name in pair.split(" - ")]
        label = ("\n- " if ", " in pair else " - ").join(titles)
        low, high = found["ci95"]
        table.add_row(
            label,
            f"{found['top1']:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            *[""] * (1 + with_mrr),
            Text("on the same queries", style="dim"),
        )
    if others:
        table.add_row(f"{others} others", *[""] * (3 + with_mrr), Text("with --json", style="dim"))
    table.add_section()
    for key, label, how in (
        ("text_only", "text alone", f"exact, 1/{dataset['words']}"),
        ("audio_only", "audio alone", f"exact, 1/{dataset['classes']}"),
    ):
        if bounds.get(key) is not None:
            table.add_row(label, share(bounds[key]), *[""] * (2 + with_mrr), Text(how, style="dim"))
    for key, label, how in (
        ("image_ceiling", "image ceiling", "measured: class from image"),
        ("language_ceiling", "language ceiling", "measured: language from clip"),
    ):
        for rows, value in ceilings_of(report, key):
            said = f"{how}, of {rows}" if rows else how
            table.add_row(label, share(value), *[""] * (2 + with_mrr), Text(said, style="dim"))
    return table


def recipe_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """The settings in which the recipes of the rows differ, in full; none where they do not."""
    tables: list[RenderableType] = []
    for rows in beside(report.get("recipes", {})):
        recipes = {row: report["recipes"][row] for row in rows}
        keys = list(dict.fromkeys(key for settings in recipes.values() for key in settings))
        table = plain_table("Settings that differ")
        table.add_column("", no_wrap=True)
        for row in recipes:
            table.add_column(column_title(row), overflow="fold")
        for key in keys:
            table.add_row(Text(key), *(Text(setting(settings.get(key))) for settings in recipes.values()))
        tables.append(table)
    return tables


def language_table(report: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Top-1 of some objectives by the language that is spoken."""
    from symile_m3.languages import language_label

    results = {name: report["results"][name] for name in names}
    table = plain_table("Top-1 by spoken language")
    table.add_column("", no_wrap=True)
    for name in results:
        table.add_column(column_title(name), justify="right", no_wrap=True)
    codes = sorted({code for result in results.values() for code in result.get("by_language", {})})
    for code in codes:
        table.add_row(
            language_label(code), *(share(result.get("by_language", {}).get(code)) for result in results.values())
        )
    return table


def missing_table(report: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Top-1 of some objectives by what is left of a query when modalities are hidden from it."""
    missing, bounds = report["missing"], report["bounds"]
    exact = {
        "both": 1.0,
        "text_only": bounds.get("text_only"),
        "audio_only": bounds.get("audio_only"),
        "none": bounds.get("audio_only"),
        **missing.get("exact", {}),
    }
    table = plain_table(f"Top-1 with audio and text hidden, p = {missing['p']:g}")
    table.add_column("what is left", no_wrap=True)
    for name in names:
        table.add_column(column_title(name), justify="right", no_wrap=True)
    table.add_column("exact", justify="right", no_wrap=True, style="dim")
    for key, label in PATTERNS.items():
        table.add_row(label, *(share(missing[name].get(key)) for name in names), share(exact.get(key)))
    return table


def fill_lines(missing: Mapping[str, Any]) -> list[RenderableType]:
    """What stands for what is hidden, one line for all objectives that have the same."""
    by_text: dict[str, list[str]] = {}
    for name, figures in missing.items():
        if isinstance(figures, Mapping) and "fill" in figures:
            by_text.setdefault(str(figures["fill"]), []).append(objective_title(name))
    return [Text(f"In place of what is hidden, {listed(names)}: {how}") for how, names in by_text.items()]


def run_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """What `train` left, one row an objective."""
    from symile_m3.cli.output import duration

    table = plain_table("Trained; top-1 on the validation samples")
    table.add_column("", no_wrap=True)
    for name in ("steps", "best step", "top-1", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("directory", overflow="fold")
    for name, run in results.items():
        table.add_row(
            Text(objective_title(name), style="bold"),
            f"{run['steps']:,}",
            f"{run['best_step']:,}",
            share(run["best_top1"]),
            duration(run["seconds"]),
            Text(str(run["directory"])),
        )
    return table


def audit_tables(
    checks: Sequence[tuple[str, str]], probes: Mapping[str, Mapping[str, float]], problems: Sequence[str]
) -> list[RenderableType]:
    """What `verify` looked at, what the probes reached, and the problems."""
    parts: list[RenderableType] = [facts("Checks", checks)]
    if probes:
        table = plain_table("Probes: accuracy beside what is exactly possible")
        table.add_column("", no_wrap=True)
        for name in ("accuracy", "exact", "limit"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for name, probe in probes.items():
            limit = probe.get("limit")  # a ceiling that is only measured has none
            verdict = "measured" if limit is None else "ok" if probe["accuracy"] <= limit else "too much"
            table.add_row(Text(name), *(share(probe.get(key)) for key in ("accuracy", "exact", "limit")), verdict)
        parts.append(table)
    parts += [Text(f"problem: {problem}") for problem in problems]
    parts.append(Text(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "no problems"))
    return parts


def lexicon_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Class names, one class a row."""
    table = plain_table(None)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def plain_table(title: str | None) -> Table:
    """A table as all of ours look."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
