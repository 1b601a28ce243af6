"""The report in headless Chromium: on a phone and on a desktop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_checks import CONTRASTS, DURATIONS, SCREENS, Opened, open_page

from symile_m3.report import make_report

pytestmark = pytest.mark.browser

# What is right of the screen, but for what scrolls by itself.
CUT = """
() => [...document.querySelectorAll("body *")].filter((e) =>
  !e.closest(".hidden, svg, .scroll > *") && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth
).map((e) => e.className || e.tagName)
"""
# The colours of plots, each with its contrast to the card behind it.
INKS = """
() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number)
      .map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const card = luminance(getComputedStyle(document.querySelector(".panel")).backgroundColor);
  const found = {};
  for (const e of document.querySelectorAll(".plot text, .plot [class*=-symile], .plot [class*=-clip]")) {
    const own = ["fill", "stroke"].filter((kind) => e.classList.value.includes(kind));
    for (const kind of e.tagName === "text" ? ["fill"] : own) {
      const colour = getComputedStyle(e)[kind];
      const [low, high] = [luminance(colour), card].sort((a, b) => a - b);
      found[colour] = (high + 0.05) / (low + 0.05);
    }
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def made(hostile_runs: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, runs = hostile_runs
    out = tmp_path_factory.mktemp("report")
    return make_report(data, runs, out, missing_p=(0.0, 0.5), gallery=8, bootstrap=50).page


@pytest.fixture(params=SCREENS, ids=lambda screen: "-".join(map(str, screen)))
def opened(request: pytest.FixtureRequest, browser: Any, made: Path) -> Iterator[Opened]:
    with open_page(browser, made, request.param) as found:
        yield found


def test_report_stands_alone_and_fits(opened: Opened) -> None:
    page = opened.page
    images = page.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth)")
    assert len(images) == 8 * 3
    assert all(images)
    assert [where for where, seconds in page.evaluate(DURATIONS) if not isinstance(seconds, int | float)] == []
    whole, body, screen = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert max(whole, body) <= screen
    assert page.evaluate(CUT) == []
    assert [url[:60] for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in opened.requests) == 1
    assert opened.complaints == []


def test_text_and_plots_stand_out_from_their_ground(opened: Opened) -> None:
    page = opened.page
    page.locator(".legend button").first.click()  # a chosen button has other colours
    found = page.evaluate(CONTRASTS.replace('"script, .hidden"', '"script, .hidden, svg"'))
    assert len(found) > 100
    assert [one for one in found if not one["opaque"] or one["contrast"] < 4.5] == []
    inks = page.evaluate(INKS)
    assert len(inks) == 3  # of text, and of each objective
    assert [ink for ink, contrast in inks.items() if contrast < 4.5] == []


def test_plots_have_their_lines_and_their_text(opened: Opened) -> None:
    sizes = opened.page.evaluate("""
      [...document.querySelectorAll(".plot")].map((plot) => {
        const box = plot.getBoundingClientRect();
        const within = [...plot.querySelectorAll("text")].map((e) => e.getBoundingClientRect());
        const inside = within.every((b) => b.left >= box.left - 2 && b.right <= box.right + 2);
        return [box.width, box.height, within.length, inside];
      })""")
    assert len(sizes) == 6
    for width, height, texts, inside in sizes:
        assert width > 200
        assert height > 100
        assert texts > 8
        assert inside


def test_outcomes_are_chosen_by_keyboard(browser: Any, made: Path) -> None:
    with open_page(browser, made, SCREENS[0]) as found:
        page = found.page
        shown = (
            "[...document.querySelectorAll('.card')].filter((e) => e.checkVisibility()).map((e) => e.dataset.outcome)"
        )
        before = page.evaluate(shown)
        assert len(before) == 8
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
            if reached[-1] == "outcome":
                break
        assert reached.count("scroll") == 5  # three tables and two of confusion
        chosen = page.evaluate("document.activeElement.dataset.outcome")
        page.keyboard.press("Enter")
        assert page.evaluate(shown) == [outcome for outcome in before if outcome == chosen]
        page.get_by_role("button", name="Show all queries").click()
        assert page.evaluate(shown) == before
        assert found.complaints == []


def test_wide_tables_scroll_by_themselves(browser: Any, made: Path) -> None:
    with open_page(browser, made, (320, 640, "light")) as found:
        wide = found.page.evaluate(
            "[...document.querySelectorAll('.scroll')].map((e) => e.scrollWidth > e.clientWidth)"
        )
        assert any(wide)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_report_without_gallery_complains_of_nothing(
    browser: Any, hostile_runs: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    data, runs = hostile_runs
    made = make_report(data, runs[0], tmp_path, missing_p=(), gallery=0, bootstrap=10)
    with open_page(browser, made.page, SCREENS[0]) as found:
        assert found.page.locator("h2").count() == 4
        assert found.complaints == []
