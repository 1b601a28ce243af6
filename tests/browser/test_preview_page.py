"""The preview page in headless Chromium: on a phone and on a desktop, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_checks import CONTRASTS, DURATIONS, SCREENS, Opened, open_page
from rewritten_dataset import rewrite

from symile_m3.preview import PreviewPage, preview_page
from symile_m3.shards import DatasetReader, decode_audio, decode_json

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def many(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty languages, and names as long and as hostile as a user's file may have them."""
    codes = ["ar", "he", "fa", *(f"x{i:02d}" for i in range(27))]
    root = tmp_path_factory.mktemp("many") / "data"
    return rewrite(tiny_dataset, root, codes, lambda name: f"<script>document.title='{'long' * 20}'</script>{name}")


@pytest.fixture(scope="module")
def made(
    tiny_dataset: Path, many: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, PreviewPage]]:
    """The pages of both datasets, on disk."""
    directory = tmp_path_factory.mktemp("pages")
    pages = {}
    for name, data in (("tiny", tiny_dataset), ("many", many)):
        page = preview_page(data, "train", samples=12)
        (directory / f"{name}.html").write_text(page.html, encoding="utf-8")
        pages[name] = (directory / f"{name}.html", page)
    return pages


@pytest.fixture(params=SCREENS, ids=lambda screen: "-".join(map(str, screen)))
def screen(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["tiny", "many"])
def opened(
    request: pytest.FixtureRequest, browser: Any, made: dict[str, tuple[Path, PreviewPage]], screen: Any
) -> Iterator[Opened]:
    with open_page(browser, made[request.param][0], screen) as found:
        yield found


def test_page_stands_alone_and_fits(opened: Opened) -> None:
    page = opened.page
    images = page.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth)")
    assert len(images) == 12
    assert all(images)
    durations = page.evaluate(DURATIONS)
    assert [where for where, seconds in durations if not isinstance(seconds, int | float)] == []
    wide = "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
    whole, body, screen = page.evaluate(wide)
    assert max(whole, body) <= screen
    cut = page.evaluate(
        "[...document.querySelectorAll('.card *, section *')].filter((e) => !e.closest('.hidden') && !e.closest('svg')"
        " && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth).map((e) => e.className || e.tagName)"
    )
    assert cut == []
    assert "longlong" not in page.title()[:8]  # no script of the data ran
    assert [url[:60] for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in opened.requests) == 1
    assert opened.complaints == []


def test_text_stands_out_from_its_ground(opened: Opened) -> None:
    page = opened.page
    page.locator(".legend button").first.click()  # a chosen language has other colours
    page.locator(".legend button").nth(1).click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 60
    assert [one for one in found if not one["opaque"] or one["contrast"] < 4.5] == []


def test_scheme_of_the_screen_is_followed(opened: Opened, screen: Any) -> None:
    ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
    assert light == (screen[2] == "light")


def test_clips_last_as_long_as_those_of_the_shards(
    browser: Any, made: dict[str, tuple[Path, PreviewPage]], tiny_dataset: Path
) -> None:
    reader = DatasetReader(tiny_dataset, "train")
    page = browser.new_page()
    page.goto(made["tiny"][0].as_uri())
    durations = dict(page.evaluate(DURATIONS))
    page.close()
    assert tuple(durations) == made["tiny"][1].keys
    for i in range(len(reader)):
        if reader.key(i) in durations:
            wave_T, rate_hz = decode_audio(reader.read(i, ("flac",))["flac"])
            assert durations[reader.key(i)] == pytest.approx(len(wave_T) / rate_hz, abs=0.05)


def test_legend_filters_by_keyboard_and_mouse(
    browser: Any, made: dict[str, tuple[Path, PreviewPage]], tiny_dataset: Path
) -> None:
    reader = DatasetReader(tiny_dataset, "train")
    keys = made["tiny"][1].keys
    langs = {reader.key(i): decode_json(reader.read(i, ("json",))["json"])["lang"] for i in range(len(reader))}
    speaking = {code: [key for key in keys if langs[key] == code] for code in ("el", "en")}
    page = browser.new_page()
    page.goto(made["tiny"][0].as_uri())

    def shown() -> list[str]:
        ids: list[str] = page.evaluate(
            "[...document.querySelectorAll('.card')].filter((e) => e.checkVisibility()).map((e) => e.id)"
        )
        return ids

    status = page.locator("[role=status]")
    assert (tuple(shown()), status.inner_text()) == (keys, "12 samples")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert (shown(), status.inner_text()) == (speaking["el"], f"{len(speaking['el'])} of 12 samples")
    assert page.locator("button[data-lang=el]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert tuple(shown()) == keys
    page.locator("button[data-lang=el]").click()
    assert shown() == speaking["en"]
    page.get_by_role("button", name="Show all languages").click()
    assert tuple(shown()) == keys
    assert page.locator("button[aria-pressed=true]").count() == 0
    assert page.get_by_role("button", name="Show all languages").count() == 0
    assert page.evaluate("document.activeElement.dataset.lang") == "el"  # the button that had the focus is gone
    page.close()


def test_a_language_nobody_on_the_page_speaks(browser: Any, many: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(preview_page(many, samples=1).html, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    spoken = page.locator(".card").get_attribute("data-lang")
    page.locator(f".legend button:not([data-lang={spoken}])").first.click()
    assert page.get_by_text("No sample on this page speaks what you chose.").is_visible()
    assert page.locator(".card").is_hidden()
    page.close()


def test_one_clip_plays_at_a_time(browser: Any, made: dict[str, tuple[Path, PreviewPage]]) -> None:
    page = browser.new_page()
    page.goto(made["tiny"][0].as_uri())
    playing = page.evaluate("""
      async () => {
        const [first, second] = document.querySelectorAll("audio");
        first.muted = second.muted = true;
        await first.play();
        const before = [first.paused, second.paused];
        await second.play();
        await new Promise((resolve) => setTimeout(resolve, 50));
        return [...before, first.paused, second.paused];
      }""")
    page.close()
    assert playing == [False, True, True, False]


def test_right_to_left_words_are_set_right(browser: Any, many: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(preview_page(many, samples=30).html, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    found = page.evaluate(
        "[...document.querySelectorAll('.word bdi')].map((e) => [e.lang, getComputedStyle(e).direction])"
    )
    page.close()
    assert {tuple(pair) for pair in found if not pair[0].startswith("x")} == {(c, "rtl") for c in ("ar", "fa", "he")}
