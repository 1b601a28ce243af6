"""The tables of `eval` that are shown where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symile_m3.cli.tables import (
    PATTERNS,
    beside,
    column_title,
    fill_lines,
    listed,
    objective_title,
    plain_table,
    row_title,
    share,
    span,
)

TITLES = {"image": "image", "audio": "audio clip", "text": "text"}


def more_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """Curves over p, directions, the modality gap, the bound of the total correlation, and classes."""
    parts: list[RenderableType] = []
    if "missing_curve" in report:
        parts += [curve_table(report), *fill_lines(report["missing_curve"][0])]
    if "trained_missing_curve" in report:
        parts.append(trained_table(report))
    if "directions" in report:
        parts += [*(direction_table(report, name) for name in TITLES), *_direction_notes(report)]
    if "modality_gap" in report:
        parts += gap_tables(report)
    if "total_correlation" in report:
        parts.append(bound_table(report))
    with_classes = [name for name, result in report["results"].items() if "by_class" in result]
    parts += [class_table(report, names) for names in beside(with_classes, 2)]
    return parts


def curve_table(report: Mapping[str, Any]) -> Table:
    """Top-1 over the probability that a query modality is hidden."""
    table = plain_table("Top-1 over p, audio and text each hidden with probability p")
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column(PATTERNS["overall"], justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    left = [key for key in PATTERNS if key != "overall"]
    for key in left:
        table.add_column(PATTERNS[key], justify="right", no_wrap=True)
    for record in report["missing_curve"]:
        for name in report["results"]:
            figures = record[name]
            cells = [f"{record['p']:g}", row_title(name), share(figures["overall"])]
            cells += [span(figures["ci95"]["overall"]), *(share(figures.get(key)) for key in left)]
            table.add_row(*cells)
        exact = record.get("exact", {})
        cells = [f"{record['p']:g}", "exact", share(exact.get("overall")), "", *(share(exact.get(key)) for key in left)]
        table.add_row(*(Text(cell, style="dim") for cell in cells), end_section=True)
    return table


def trained_table(report: Mapping[str, Any]) -> Table:
    """Top-1 on complete queries over the probability with which modalities were missing in training."""
    table = plain_table("Top-1 on complete queries, by the p of what was missing in training")
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("top-1", "95% interval", "of the first", "95% interval", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, records in report["trained_missing_curve"].items():
        for record in records:
            table.add_row(
                f"{record['p']:g}",
                row_title(name),
                share(record["top1"]),
                span(record["ci95"]),
                share(record["of_first"]),
                "" if record["of_first_ci95"] is None else span(record["of_first_ci95"]),
                str(record["runs"]),
            )
    return table


def direction_table(report: Mapping[str, Any], retrieved: str) -> Table:
    """One modality retrieved from the other two, and from each alone."""
    found, names = report["directions"][retrieved], list(report["results"])
    table = plain_table(
        f"{TITLES[retrieved].capitalize()} among {found['candidates']:,}: right are {found['right']}; "
        f"chance {share(found['chance'])}"
    )
    table.add_column("from", no_wrap=True)
    table.add_column("", no_wrap=True)
    for label in ("top-1", "95% interval", "top-5", "MRR"):
        table.add_column(label, justify="right", no_wrap=True)
    for label in ("exact", "ceiling"):
        table.add_column(label, justify="right", no_wrap=True, style="dim")
    for given, record in found["from"].items():
        for name in names:
            figures = record[name]
            reader = record.get("readers", {}).get(name, record["reader"])
            cells = [given.replace("+", " and "), row_title(name), share(figures["top1"])]
            cells += [span(figures["ci95"]), share(figures["top5"]), share(figures["mrr"])]
            table.add_row(*cells, share(record["fitting"]), share(reader), end_section=name == names[-1])
    return table


def _direction_notes(report: Mapping[str, Any]) -> list[RenderableType]:
    by_text: dict[str, list[str]] = {}
    for name, how in report["directions"]["fill"].items():
        by_text.setdefault(how, []).append(objective_title(name))
    lines = [f"In place of the modality left out, {listed(names)}: {how}" for how, names in by_text.items()]
    lines += [
        "exact: how often a random one of the candidates that fit what is given is right, on these samples",
        "ceiling: measured; what classifiers of the same frozen features reach together",
    ]
    return [Text(line) for line in lines]


def gap_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """How far the modalities lie apart, and accuracy with and without it."""
    gaps = report["modality_gap"]
    pairs = list(next(iter(gaps.values()))["distances"])
    table = plain_table("Modality gap: distance of the centroids of normalised representations, from 0 to 2")
    table.add_column("", no_wrap=True)
    for label in (*(pair.replace("-", " to ") for pair in pairs), "normalised", "and centred", "difference, 95%"):
        table.add_column(label, justify="right", no_wrap=True)
    for name, gap in gaps.items():
        low, high = gap["difference"]["ci95"]
        table.add_row(
            Text(row_title(name), style="bold"),
            *(f"{gap['distances'][pair]:.3f}" for pair in pairs),
            share(gap["normalised"]["top1"]),
            share(gap["without"]["top1"]),
            f"{low:+.3f} to {high:+.3f}",
        )
    words = "normalised, and centred: top-1 of normalised representations, as they are and less their centroids"
    return [table, Text(words)]


def bound_table(report: Mapping[str, Any]) -> Table:
    """The lower bound of the total correlation beside its exact value."""
    found = report["total_correlation"]
    table = plain_table("Total correlation of image, audio and text, in nats")
    table.add_column("", no_wrap=True)
    table.add_column("nats", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in report["results"]:
        if name in found:
            rows, highest = found[name]["rows"], found[name]["highest"]
            how = f"at least: ln {rows - 1:,} - loss on the test, {highest:.2f} at most"
            table.add_row(Text(row_title(name), style="bold"), f"{found[name]['nats']:.3f}", how)
        else:
            table.add_row(Text(row_title(name), style="bold"), "-", "no bound: its score is not the plain product")
    exact = found["exact"]
    table.add_section()
    table.add_row("exact", "-" if exact is None else f"{exact:.3f}", Text("ln K + ln L - ln w", style="dim"))
    return table


def class_table(report: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Top-1 of some objectives by class, the worst of the first one first."""
    results = report["results"]
    table = plain_table("Top-1 by class")
    table.add_column("class", overflow="fold")
    table.add_column("queries", justify="right", no_wrap=True)
    for name in names:
        table.add_column(column_title(name), justify="right", no_wrap=True)
        table.add_column("95% interval", justify="right", no_wrap=True)
    first = results[names[0]]["by_class"]
    for key in sorted(first, key=lambda key: (first[key]["top1"], key)):
        cells = [Text(key), Text(str(first[key]["n"]))]
        for name in names:
            cells.append(Text(share(results[name]["by_class"][key]["top1"])))
            cells.append(Text(span(results[name]["by_class"][key]["ci95"])))
        table.add_row(*cells)
    return table
