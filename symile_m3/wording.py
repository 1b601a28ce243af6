"""How figures are written for people, in tables and on pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MORE = "more"
"""Behind the number of settings that a name leaves out."""
PAIRED = 3
"""Rows that are all held against each other; of more, each against the first."""
TITLES = {
    "symile": "Symile",
    "clip": "CLIP",
    "gram": "GRAM",
    "triangle": "TRIANGLE",
    "gated": "Gated Symile",
    "confu": "ConFu",
    "sigmoid": "sigmoid",
    "soft": "soft targets",
    "cliplite": "CLIP-Lite",
}
PATTERNS = {
    "overall": "all queries",
    "both": "audio and text",
    "text_only": "text only",
    "audio_only": "audio only",
    "none": "nothing",
}


def objective_of(row: str) -> str:
    """The objective that a row of an evaluation is of; see `symile_m3.rows.Row.key`."""
    return row.partition(", ")[0]


def objective_title(row: str) -> str:
    """The name of an objective for people, or of a row of an evaluation, as in `Symile, negatives=faces`."""
    objective, comma, settings = row.partition(", ")
    return TITLES.get(objective, objective) + comma + settings


def setting(value: Any) -> str:
    """A setting of a recipe; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {p:g}" for name, p in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def ceilings_of(figures: Mapping[str, Any], key: str) -> list[tuple[str, float]]:
    """Measured ceilings that are there, each with the rows it is for; those are empty where it is for all."""
    if len({found[key] for found in figures.get("ceilings", ())}) < 2:
        value = figures["bounds"].get(key)
        return [] if value is None else [("", value)]
    return [
        (listed([objective_title(row) for row in found["rows"]]), found[key])
        for found in figures["ceilings"]
        if found[key] is not None
    ]


def shown_differences(figures: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The differences of rows that a table shows, and how many it does not: of many rows those with the first alone."""
    found = dict(figures.get("differences", {}))
    if len(figures["results"]) <= PAIRED:
        return found, 0
    first = next(iter(figures["results"]))
    shown = {pair: of for pair, of in found.items() if first in pair.split(" - ")}
    return shown, len(found) - len(shown)


def share(value: float | None) -> str:
    """A share with three digits, or four where it is small; `-` for none."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or value >= 0.0095 else f"{value:.4f}"


def span(ci95: Sequence[float]) -> str:
    """An interval of shares."""
    low, high = ci95
    return f"{share(low)} to {share(high)}"


def listed(parts: Sequence[str]) -> str:
    """Parts as a sentence lists them: `a, b and c`; with semicolons where there are commas within them."""
    between = "; " if any(", " in part for part in parts) else ", "
    return " and ".join([between.join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
