"""Sources of images, speech and names: ours, and those that other packages bring.

A spec is a name and, for some, what it takes: `emoji`, `folder:photos`, `hf:ILSVRC/imagenet-1k`. Another package adds
a source by an entry point, whose name is the spec's:

    [project.entry-points."symile_m3.images"]
    sketches = "my_package.sketches:open_sketches"

and `--images sketches:DIR` then calls `open_sketches("DIR", options)`, which returns a `symile_m3.media.ImagePool`. In
the same way `symile_m3.speech` has functions of (argument, `SpeechOptions`) that return a `ClipPool`, and
`symile_m3.translators` functions of (argument,) that return a `Translator`. The module of an entry point is
imported only when its source is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from symile_m3.errors import SourceError, UsageError

Factory = Callable[..., Any]


def split_spec(spec: str) -> tuple[str, str]:
    """`folder:photos` -> (`folder`, `photos`); `emoji` -> (`emoji`, empty)."""
    name, _, argument = spec.partition(":")
    return name.strip(), argument.strip()


def added(kind: str) -> dict[str, EntryPoint]:
    """Name -> entry point, of the sources that installed packages add; `kind` is images, speech or translators."""
    return {point.name: point for point in entry_points(group=f"symile_m3.{kind}")}


def find_source(kind: str, spec: str, ours: Mapping[str, str]) -> tuple[Factory, str]:
    """The function that opens a source, and the argument that the spec gives it.

    Args:
        kind: `images`, `speech` or `translators`.
        spec: as the user gave it.
        ours: name -> `module:function` of the sources that are part of this package.

    Raises:
        UsageError: there is no such source.
        SourceError: the package that adds it cannot be imported.
    """
    name, argument = split_spec(spec)
    if name in ours:
        module, _, function = ours[name].partition(":")
        return getattr(import_module(module), function), argument
    others = added(kind)
    if name not in others:
        option = {"translators": "names"}.get(kind, kind)
        known = ", ".join([*ours, *sorted(others)])
        raise UsageError(f"--{option} {spec}: no such source; known: {known}")
    try:
        return others[name].load(), argument
    except Exception as error:  # whatever a foreign module raises
        raise SourceError(f"{name}: its package cannot be used: {error} ({others[name].value})") from error
