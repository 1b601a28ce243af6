"""Charts as HTML with inline SVG: bars that stretch with the page, beside text that does not."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def share_bars(rows: Sequence[tuple[str, int, str]], *, note: str, longest: int | None = None) -> str:
    """One bar a row, from zero.

    Args:
        rows: label (HTML), count, and the class of the bar's colour.
        note: what a count is a count of, for screen readers.
        longest: the count of a bar of full length; by default the largest.
    """
    longest = longest or max((count for _, count, _ in rows), default=0) or 1
    lines = [f'<table class="bars"><caption class="hidden">{escape(note)}</caption><tbody>']
    for label, count, colour in rows:
        width = f"{100 * count / longest:.2f}"
        lines.append(
            f'<tr><th scope="row">{label}</th><td class="bar">'
            f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" class="{colour}">'
            f'<rect width="{width}" height="10"/></svg></td><td class="count">{count:,}</td></tr>'
        )
    return "\n".join([*lines, "</tbody></table>"])


def rank_chart(counts: Sequence[int], expected: float, *, label: str) -> str:
    """The counts from the largest to the smallest, as steps, with a line at the expected count.

    Args:
        counts: one or more.
        label: what it shows, in one sentence, for screen readers.
    """
    ordered = sorted(counts, reverse=True)
    top = max(ordered[0], expected, 1)
    heights = [100 * (1 - count / top) for count in ordered]
    steps = "".join(f"L{i} {height:.2f}L{i + 1} {height:.2f}" for i, height in enumerate(heights))
    line = f"{100 * (1 - expected / top):.2f}"
    width = len(ordered)
    return (
        f'<svg class="ranks" viewBox="0 0 {width} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path class="area" d="M0 100{steps}L{width} 100Z"/>'
        f'<path class="expected" d="M0 {line}H{width}"/></svg>'
    )
