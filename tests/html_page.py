"""A page as a parser of HTML reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "br", "wbr", "rect", "path"}


@dataclass
class Element:
    """One element, with the text within it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    within: list[Element] = field(default_factory=list)

    def find(self, css_class: str) -> list[Element]:
        return [e for e in self.within if css_class in e.attributes.get("class", "").split()]


class Page(HTMLParser):
    """Every element of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        for outer in self._open:
            outer.within.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        for outer in self._open:
            outer.within.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for outer in self._open:
            outer.text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def of_class(self, css_class: str) -> list[Element]:
        return [e for e in self.elements if css_class in e.attributes.get("class", "").split()]
