"""Tables of figures as HTML, which scroll by themselves where a screen is too narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LONG = 24  # characters of a name that has no other line


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows that belong together, with a line above them.

    Attributes:
        rows: plain text; the first cell of each names it.
        heading: of all of them.
        kind: class of their cells: `name` for what the table is about, `known` for what it is held against.
    """

    rows: Sequence[Sequence[str]]
    heading: str = ""
    kind: str = ""


def figure_table(caption: str, header: Sequence[str], groups: Sequence[Rows]) -> str:
    """A table with a header over all columns but the first, whose cells name the rows.

    Args:
        caption: of the table, for screen readers.
        header: of the columns behind the first.
    """
    head = "".join(f'<th scope="col"{_long(cell)}>{escape(cell)}</th>' for cell in header)
    bodies = "".join(f"<tbody>{_rows(group, len(header) + 1)}</tbody>" for group in groups)
    table = (
        f'<table class="figures"><caption class="hidden">{escape(caption)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead>{bodies}</table>"
    )
    return scrolling(table, caption)


def scrolling(table: str, label: str) -> str:
    """A table in a place of its own that scrolls, by the keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'


def _long(name: str) -> str:
    """The class of a name that takes several lines where there is no room for it in one."""
    return ' class="long"' if len(name) > _LONG else ""


def _rows(group: Rows, columns: int) -> str:
    lines = []
    if group.heading:
        lines.append(f'<tr><th scope="rowgroup" colspan="{columns}" class="heads">{escape(group.heading)}</th></tr>')
    for name, *cells in group.rows:
        values = "".join(f'<td class="{group.kind}">{escape(cell)}</td>' for cell in cells)
        long = " long" if len(name) > _LONG else ""
        lines.append(f'<tr><th scope="row" class="{group.kind}{long}">{escape(name)}</th>{values}</tr>')
    return "".join(lines)
