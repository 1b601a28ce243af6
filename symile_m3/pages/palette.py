"""Colours for any number of languages, readable on light and on dark pages.

Hues lie evenly around the circle of Oklch (Ottosson 2020), where one lightness looks equally light in every
hue; so one pair of lightnesses gives enough contrast whatever the hue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Swatch:
    """The colours of one language, `#rrggbb`: of text, and of the ground it stands on.

    Attributes:
        light_ink, light_ground: on a light page.
        dark_ink, dark_ground: on a dark page.
    """

    light_ink: str
    light_ground: str
    dark_ink: str
    dark_ground: str


def palette(count: int) -> list[Swatch]:
    """`count` swatches, as different in hue as can be, neighbours included."""
    swatches = []
    for i in range(count):
        hue = 25 + 360 * i / max(count, 1)
        swatches.append(
            Swatch(
                light_ink=_hex(0.44, 0.13, hue),
                light_ground=_hex(0.955, 0.025, hue),
                dark_ink=_hex(0.84, 0.10, hue),
                dark_ground=_hex(0.29, 0.045, hue),
            )
        )
    return swatches


def heat(count: int) -> list[Swatch]:
    """`count` swatches from hardly any colour to a strong one, each with the ink that stands out from it."""
    swatches = []
    for i in range(count):
        part = i / max(count - 1, 1)
        light, dark = (_hex(lightness, 0.11 * part, 250) for lightness in (0.985 - 0.535 * part, 0.25 + 0.55 * part))
        swatches.append(
            Swatch(light_ink=_ink(light), light_ground=light, dark_ink=_ink(dark), dark_ground=dark),
        )
    return swatches


def _ink(ground: str) -> str:
    """Nearly black or white, whichever stands out more."""
    channels = (int(ground[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return "#0b0c0e" if (luminance + 0.05) ** 2 > 1.05 * 0.0535 else "#ffffff"


def _hex(lightness: float, chroma: float, hue_deg: float) -> str:
    """Oklch as sRGB; chroma is lowered until the colour is one that a screen can show."""
    while True:
        rgb = _linear_rgb(lightness, chroma, math.radians(hue_deg))
        if chroma <= 0 or all(-1e-4 <= channel <= 1 + 1e-4 for channel in rgb):
            return "#" + "".join(f"{round(255 * _gamma(min(max(channel, 0.0), 1.0))):02x}" for channel in rgb)
        chroma -= 0.005


def _linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _gamma(channel: float) -> float:
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055
