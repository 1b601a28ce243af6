"""The files that pages are made of: HTML, style and script, each page in one file in the end."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from string import Template


def assemble(name: str, values: Mapping[str, str], *, style: str = "") -> str:
    """The page `name`, with style and script within it, and a policy that forbids it anything else.

    The policy (a Content-Security-Policy) lets the browser load nothing from outside and run no script but
    the pages' own, whatever the values hold.

    Args:
        values: HTML for the placeholders of the template.
        style: CSS in addition to that of all pages and that of this one.
    """
    css = _read("common.css") + _read(f"{name}.css") + style
    js = _read("common.js")
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_digest(css)}'; script-src '{_digest(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_read(f"{name}.html")).substitute(values, policy=policy, style=css, script=js)


def data_uri(mime: str, data: bytes) -> str:
    """`data` as an address that holds it."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _read(file: str) -> str:
    return resources.files("symile_m3.pages").joinpath(file).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
