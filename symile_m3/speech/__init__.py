"""Clip pools: where the speech comes from."""

from __future__ import annotations

from symile_m3.media import ClipPool, SpeechOptions
from symile_m3.sources import find_source
from symile_m3.speech.espeak import EspeakPool

__all__ = ["SOURCES", "EspeakPool", "open_clip_pool"]

SOURCES = {
    "espeak": "symile_m3.speech.espeak:open_espeak",
    "gtts": "symile_m3.speech.gtts:open_gtts",
    "recordings": "symile_m3.speech.recordings:open_recordings",
    "common-voice": "symile_m3.speech.common_voice:open_common_voice",
}
"""Name -> function of (argument, `SpeechOptions`) that opens the pool."""


def open_clip_pool(spec: str, options: SpeechOptions | None = None) -> ClipPool:
    """The clip pool that `--speech` names.

    Raises:
        UsageError: an unknown spec, or one without what it takes.
        SourceError: the source is not there, or not what it should be.
    """
    factory, argument = find_source("speech", spec, SOURCES)
    pool: ClipPool = factory(argument, options or SpeechOptions())
    return pool
