"""Results: tables on standard output, figures as JSON."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

PLAIN_WIDTH = 110  # where standard output is a file or a pipe


def console() -> Console:
    """The console of standard output, wide enough for the tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, soft_wrap=False)


def show(parts: Iterable[RenderableType], figures: Mapping[str, Any], json_to: Path | None) -> None:
    """Print the parts, and write the figures where `--json` says; `-` prints the figures in their place.

    Raises:
        ShardError: the file cannot be written.
    """
    if json_to is not None and str(json_to) == "-":
        print(as_json(figures), end="")
        return
    out = console()
    for part in parts:
        out.print(part)
    if json_to is not None:
        from symile_m3.shards import write_text

        write_text(json_to, as_json(figures))


def as_json(figures: Mapping[str, Any]) -> str:
    """Figures as JSON text; paths become strings."""
    return json.dumps(figures, indent=2, ensure_ascii=False, default=str) + "\n"


def command(*words: str | Path, **options: tuple[object, object]) -> str:
    """A command to type: options, given as (value, default), appear only where the two differ."""
    parts = [str(word) for word in words]
    for name, (value, default) in options.items():
        if value != default:
            parts += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(["symile-m3", *parts])


def size(nbytes: float) -> str:
    """A number of bytes for people: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def duration(seconds: float) -> str:
    """A time for people: `8.2 s`, `1:05`, `2:03:20`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
