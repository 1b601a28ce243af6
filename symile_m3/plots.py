"""Plots as files and as part of pages: how they look, PNG, and SVG whose colours follow the page."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from symile_m3.wording import objective_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "symile": "#1f6fb4",
    "clip": "#b8540f",
    "gram": "#59880a",
    "triangle": "#0f745b",
    "gated": "#7864c8",
    "confu": "#903d8b",
    "sigmoid": "#128696",
    "soft": "#be4a63",
    "cliplite": "#927306",
}
"""Of the objectives, on light ground: hues 40 degrees of Oklch apart, neighbours in it of different lightness."""
DARK_COLOURS = {
    "symile": "#74b3ee",
    "clip": "#f0a063",
    "gram": "#abd87c",
    "triangle": "#43cba4",
    "gated": "#c6befe",
    "confu": "#df92d8",
    "sigmoid": "#3fdef6",
    "soft": "#feaeb9",
    "cliplite": "#e8c35a",
}
"""The same on dark ground."""
EXACT = "#666666"
"""Of what is known exactly, or measured once for all objectives."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx", "----")
_WITHIN = 5  # names that leave room for the curves
_BESIDE = 24  # characters of a name that leave room for another beside it
_LINE = 44  # characters of a name that a figure is wide enough for
_LINE_IN = 0.2  # inches

_CLASSES = {  # colours that plots are drawn in -> the end of the name of a class of the page's style
    "#000000": "ink",
    "#262626": "ink",
    "#b0b0b0": "line",
    "#cccccc": "line",
    EXACT: "quiet",
    **{colour: name for name, colour in COLOURS.items()},
}
_ATTRIBUTES = {
    "stroke-width",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-opacity",
    "fill-opacity",
    "opacity",
    "text-anchor",
    "dominant-baseline",
    "font-size",
    "font-weight",
}
_FONT = re.compile(r"^(?:(?P<weight>bold|\d00) )?(?P<size>[\d.]+px) ")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a row of an evaluation is drawn: in the colour of its objective, and told from its other recipes by the rest.

    Attributes:
        colour: None for the next one of matplotlib's.
        marker, dash: of a line.
        hatch: of a bar; empty for a filled one.
    """

    colour: str | None
    marker: str
    dash: str
    hatch: str


def looks(rows: Iterable[str]) -> dict[str, Look]:
    """The look of each row, given the keys of all of them."""
    found: dict[str, Look] = {}
    of_objective: dict[str, int] = {}
    for row in rows:
        objective = objective_of(row)
        nth = of_objective[objective] = of_objective.get(objective, -1) + 1
        found[row] = Look(
            colour=COLOURS.get(objective),
            marker=MARKERS[nth % len(MARKERS)],
            dash=DASHES[nth % len(DASHES)],
            hatch=HATCHES[nth % len(HATCHES)],
        )
    return found


def legend_label(name: str) -> str:
    """A name in as many lines as it takes."""
    return textwrap.fill(name, _LINE, subsequent_indent="   ", break_on_hyphens=False)


def legend_columns(names: Sequence[str]) -> int:
    """How many names there is room for beside each other, in a figure's legend."""
    return 1 if max(map(len, names)) > _BESIDE else 2


def new_figure(width_in: float, height_in: float, *, fitted: bool = True) -> Figure:
    """A figure without a screen.

    Args:
        fitted: its parts are given the room that they need, for which all is drawn twice.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained" if fitted else None)
    FigureCanvasAgg(figure)
    return figure


def draw_legend(axis: Axes) -> float:
    """Names of what is drawn: within the axis, or above it where they are many or long.

    Returns:
        By how many inches a figure should be higher for it.
    """
    names = axis.get_legend_handles_labels()[1]
    long = max(map(len, names), default=0) > _BESIDE
    if len(names) <= _WITHIN and not long:
        axis.legend(frameon=False)
        return 0.0
    columns = 1 if long else 3
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize="small")
    return _LINE_IN * sum(name.count("\n") + 1 for name in names) if long else 0.0


def as_png(figure: Figure) -> bytes:
    """The figure on white, 120 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def plot_colours() -> str:
    """The style of the objectives' classes, such as `stroke-symile` and `fill-symile`, for light and dark pages."""
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in colours.items()) for colours in (COLOURS, DARK_COLOURS)
    )
    classes = [f".{key}-{name}{{{key}:var(--{name})}}" for name in COLOURS for key in ("stroke", "fill")]
    return "\n".join([f":root{{{light}}}", f"@media (prefers-color-scheme: dark){{:root{{{dark}}}}}", *classes, ""])


def as_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an element of a page, without a ground of its own and in the page's font.

    Colours become classes such as `stroke-ink` and `fill-symile`, which the page's style gives for light and dark, as
    its policy forbids styles in the elements themselves.

    Args:
        name: tells its ids from those of other plots on the page.
        label: what it shows, for those who do not see it.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    whole = ElementTree.fromstring(buffer.getvalue())
    for parent in list(whole.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in whole.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        attributes |= _presentation(attributes.pop("style", ""))
        element.attrib.clear()
        element.attrib.update({key: _own(name, key, value) for key, value in attributes.items()})
    for key in ("width", "height", "version"):
        whole.attrib.pop(key, None)
    whole.attrib |= {"class": "plot", "role": "img", "aria-label": label}
    return ElementTree.tostring(whole, encoding="unicode")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _own(name: str, key: str, value: str) -> str:
    """An id, or a reference to one, that no other plot of the page has."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-")


def _presentation(style: str) -> Mapping[str, str]:
    """The declarations of a style attribute as attributes, with classes for colours."""
    found: dict[str, str] = {}
    classes = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke"):
            colour = _CLASSES.get(value)
            if colour:
                classes.append(f"{key}-{colour}")
            else:
                found[key] = value
        elif key == "font" and (font := _FONT.match(value)):
            found["font-size"] = font["size"]
            if font["weight"]:
                found["font-weight"] = font["weight"]
        elif key in _ATTRIBUTES:
            found[key] = value
    if classes:
        found["class"] = " ".join(classes)
    return found
