"""The options that several commands share, and how their values are read."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ALL = 0  # what `--classes all` is read as


def paragraphs(function: Callable[..., None]) -> str:
    """The docstring without its line breaks, which Typer would keep."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(function.__doc__ or "").split("\n\n"))


def probability(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise typer.BadParameter(f"{text} is not a probability; give a number from 0 to 1")
    return value


def class_count(value: str | int) -> int:
    """A number of classes, or `all`."""
    text = str(value)  # Typer passes the default as it is
    if text == "all":
        return ALL
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text}: give a number of classes, or all")
    return int(text)


def clip_counts(value: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """Three numbers: `480,40,60`."""
    parts = value.split(",") if isinstance(value, str) else [str(count) for count in value]
    counts = tuple(int(part) for part in parts if part.strip().isdecimal())
    if len(parts) != 3 or len(counts) != 3 or min(counts) < 1:
        raise typer.BadParameter(f"{value}: give three numbers, for train, val and test, such as 480,40,60")
    return counts[0], counts[1], counts[2]


def json_path(text: str) -> Path:
    """Where figures go: `-` or a file that can be written; checked before any long work."""
    path = Path(text)
    if text != "-":
        if path.is_dir():
            raise typer.BadParameter(f"{text} is a directory; name a file, or - for standard output")
        if not path.parent.is_dir():
            raise typer.BadParameter(
                f"the directory {path.parent} does not exist; create it, or give - for standard output"
            )
    return path


def output_path(text: str) -> Path:
    """A file that can be written; checked before any long work."""
    path = Path(text)
    if path.is_dir():
        raise typer.BadParameter(f"{text} is a directory; name a file")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"the directory {path.parent} does not exist; create it, or name another file")
    return path


def dataset_root(text: str) -> Path | str:
    """A directory, or a URL as it is: a `Path` would lose one of its slashes."""
    from symile_m3.shards.urls import is_url

    return text if is_url(text) else Path(text)


def shown_root(root: Path | str) -> str:
    """A directory or URL as it may be shown: without user, password and query."""
    from symile_m3.shards.urls import is_url, shown

    return shown(str(root)) if is_url(root) else str(root)


DatasetOption = Annotated[
    Any, typer.Option("--data", metavar="DIR|URL", parser=dataset_root, help="Directory or URL of the dataset.")
]

RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Directory of the runs, one subdirectory an objective.")
]

RUNS = Path("runs/m3")

SeveralRunsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--runs",
        metavar="DIR",
        show_default=str(RUNS),
        help="Directory of the runs, one subdirectory an objective; several to compare any runs on the same dataset: "
        "those that differ in the seed alone are taken together, in the --missing-p of their training give a curve, "
        "in other settings stand side by side.",
    ),
]

BootstrapOption = Annotated[
    int,
    typer.Option(
        "--bootstrap",
        metavar="N",
        min=1,
        help="Resamples for the intervals: of the test images, each with its queries (of declared modalities: of the "
        "queries), and of the runs.",
    ),
]

SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]

WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, show_default="one a CPU", help="Worker processes.")
]

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Remove what is there first.", rich_help_panel="Output")
]


def bad_sample_action(text: str) -> str:
    """What a damaged sample does: `stop` or `skip`."""
    from symile_m3.errors import UsageError

    if text not in ("stop", "skip"):
        raise UsageError(f"--on-bad-sample {text}: give stop or skip")
    return text


BadSampleOption = Annotated[
    str,
    typer.Option(
        "--on-bad-sample",
        metavar="stop|skip",
        parser=bad_sample_action,
        help="What a damaged sample does: stop the command, or be left out and counted.",
        rich_help_panel="Data",
    ),
]

CorrectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--corrections",
        metavar="FILE",
        help="Names that take the place of those: class_key, language, name a line, or JSON.",
        rich_help_panel="Sources",
    ),
]

JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="PATH",
        parser=json_path,
        help="Write the figures as JSON; - for standard output, in place of the table.",
        rich_help_panel="Output",
    ),
]
