"""How figures are written for people, in tables and on pages."""

from __future__ import annotations

from collections.abc import Sequence

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


def objective_title(objective: str) -> str:
    """The name of an objective for people."""
    return TITLES.get(objective, objective)


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
    """Parts as a sentence lists them: `a, b and c`."""
    return " and ".join(", ".join(parts).rsplit(", ", 1)) if len(parts) > 1 else "".join(parts)
