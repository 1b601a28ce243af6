"""A page opened in headless Chromium, and what is looked for in any page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCREENS = [(width, height, scheme) for width, height in ((360, 740), (1280, 900)) for scheme in ("light", "dark")]

# Every text that is seen, with its colour and the colour behind it, which is that of the nearest ancestor
# that has one; all colours of the page are opaque.
CONTRASTS = """
() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1 };
  };
  const luminance = ({ rgb }) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest("script, .hidden")) continue;
    if (!element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    let behind = element;
    while (behind && parse(getComputedStyle(behind).backgroundColor).alpha === 0) behind = behind.parentElement;
    const ground = parse(getComputedStyle(behind).backgroundColor);
    const ink = parse(style.color);
    const [low, high] = [luminance(ink), luminance(ground)].sort((a, b) => a - b);
    found.push({
      text: walker.currentNode.textContent.trim().slice(0, 30),
      opaque: ink.alpha === 1 && ground.alpha === 1 && style.opacity === "1",
      contrast: (high + 0.05) / (low + 0.05),
    });
  }
  return found;
}
"""
DURATIONS = """
() => Promise.all([...document.querySelectorAll(".card")].map((card) => new Promise((resolve) => {
  const audio = card.querySelector("audio");
  const done = () => resolve([card.id, audio.error ? audio.error.message : audio.duration]);
  if (audio.readyState >= 1 || audio.error) done();
  audio.addEventListener("loadedmetadata", done);
  audio.addEventListener("error", done);
})))
"""


@dataclass
class Opened:
    """A page in the browser, and what it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def open_page(browser: Any, path: Path, screen: tuple[int, int, str]) -> Iterator[Opened]:
    """The file, on a screen of this width and height and light or dark."""
    width, height, scheme = screen
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    found = Opened(page)
    page.on("request", lambda asked: found.requests.append(asked.url))
    page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.goto(path.as_uri(), wait_until="load")
    yield found
    page.close()
