"""From a recording to a clip: decoded as far as needed, trimmed, cut at a quiet place, 16 kHz mono FLAC.

A recording is what people make with what they have: one of two channels may be silent, the level twenty times lower
than that of the next, the loudest parts flat. It is set to the same level as any other clip, since else the level
would tell the language, and refused only where nothing can be understood in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from symile_m3.errors import SourceError, UnusableError
from symile_m3.speech.clip import SAMPLE_RATE_HZ, finish_clip

SHORTEST_S = 0.5
"""What lasts less without its silence is refused; or half the longest clip, if that is less."""

_FRAME_S = 0.01  # resolution of trimming and of the place to cut
_SMOOTH = 5  # frames; so short a gap is none
_MARGIN = 10  # frames kept before the first and after the last that is heard: soft beginnings and ends
_LOUD = 20  # frames that are as loud, or louder, than the loudness that silence is relative to: a click is not
_TRIM_BELOW_DB = -35.0
_SILENT = 3e-4  # root mean square; -70 dB of full scale
_CUT_WINDOW_S = 2.0  # a long recording is cut within the last two seconds allowed, or the second half if that is less
_LEAD_S = 2.0  # silence before the speech that is decoded at once; for more of it, reading goes on
_FLAT_TOP = 0.998  # of the peak
_FLAT_SHARE = 0.1  # of all samples: more at the peak is noise, not speech that was recorded too loud
_CANCELLED = 0.1  # of the loudest channel: channels whose mean is less cancel each other


def shortest_s(longest_s: float) -> float:
    """Seconds that a clip lasts at least, where it may last `longest_s` at most."""
    return min(SHORTEST_S, longest_s / 2)


def cut_clip(path: Path, *, longest_s: float) -> bytes:
    """The beginning of a recording as a clip: 16 kHz, mono, 16-bit FLAC.

    Silence at the beginning and the end is left out but for a tenth of a second. What is longer than `longest_s` ends
    at the quietest place of the last two seconds allowed. Of a long recording no more is decoded than is needed. The
    same file gives the same bytes.

    Args:
        path: in any format that libsndfile reads, at any rate, of any number of channels.
        longest_s: seconds.

    Raises:
        UnusableError: it is no audio, damaged, silent, noise from end to end, or too short.
        SourceError: it is not there, or cannot be opened.
    """
    try:
        with quiet_decoder(path), soundfile.SoundFile(path) as file:
            rate_hz = file.samplerate
            samples = _beginning(file, longest_s)
    except (soundfile.LibsndfileError, OSError) as error:
        if not path.exists():
            raise SourceError(f"{path}: is not there") from error
        if isinstance(error, OSError):
            raise SourceError(f"{path}: cannot be read: {error}") from error
        why = "is empty" if not path.stat().st_size else "is not audio that can be read (damaged, or of another format)"
        raise UnusableError(f"{path}: {why}") from error
    if samples is None:
        raise UnusableError(f"{path}: is silent")
    samples = _trim_end(_cut(samples, rate_hz, longest_s), rate_hz)
    duration_s = len(samples) / rate_hz
    if duration_s < shortest_s(longest_s):
        raise UnusableError(
            f"{path}: lasts {duration_s:.2f} s without its silence, less than {shortest_s(longest_s)} s"
        )
    peak = max(samples.max(), -samples.min())
    flat = np.count_nonzero(samples >= _FLAT_TOP * peak) + np.count_nonzero(samples <= -_FLAT_TOP * peak)
    if flat > _FLAT_SHARE * len(samples):
        raise UnusableError(f"{path}: more than {_FLAT_SHARE:.0%} of it is clipped")
    if rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    return finish_clip(samples)


@contextlib.contextmanager
def quiet_decoder(path: Path) -> Iterator[None]:
    """Without what the MP3 decoder writes to standard error about damaged files: what matters is raised as an error."""
    kept = None
    if path.suffix.lower() == ".mp3":
        with contextlib.suppress(OSError):  # this process has no standard error
            kept = os.dup(2)
    if kept is None:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _beginning(file: soundfile.SoundFile, longest_s: float) -> NDArray[np.float32] | None:
    """From where something is heard, as much as a clip may need, mono; None if nothing is heard in all of it."""
    rate_hz = file.samplerate
    window = int((longest_s + _LEAD_S) * rate_hz)
    lead = int(_LEAD_S * rate_hz)
    while True:
        samples = _read(file, window)
        heard = _heard(samples, rate_hz)
        if heard is not None:
            if heard[0] >= lead:
                samples = np.concatenate([samples, _read(file, heard[0])])
            return samples[heard[0] :]
        if len(samples) < window:
            return None


def _read(file: soundfile.SoundFile, frames: int) -> NDArray[np.float32]:
    """The next frames as one channel, without an offset: their mean, or the loudest where they cancel each other."""
    channels: NDArray[np.float32] = file.read(frames, dtype="float32", always_2d=True)
    if not len(channels):
        return channels[:, 0]
    offsets = channels.mean(axis=0)
    if not np.isfinite(offsets).all():
        raise UnusableError(f"{file.name}: holds samples that are no numbers")
    channels -= offsets
    if channels.shape[1] == 1:
        return channels[:, 0]
    mono: NDArray[np.float32] = channels.mean(axis=1)
    loudness = np.sqrt((channels**2).mean(axis=0))
    if np.sqrt((mono**2).mean()) < _CANCELLED * loudness.max():
        return channels[:, int(loudness.argmax())]
    return mono


def _levels(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """Root mean square of each whole frame and its neighbours, shape (n_frames,)."""
    size = max(1, int(_FRAME_S * rate_hz))
    count = len(samples) // size
    if not count:
        return np.zeros(0)
    frames = samples[: count * size].reshape(count, size)
    energies = np.einsum("ij,ij->i", frames, frames).astype(np.float64) / size
    half = _SMOOTH // 2
    sums = np.concatenate([[0.0], np.cumsum(np.pad(energies, half, mode="edge"))])
    levels: NDArray[np.float64] = np.sqrt(np.maximum(sums[_SMOOTH:] - sums[:-_SMOOTH], 0) / _SMOOTH)
    return levels


def _heard(samples: NDArray[np.float32], rate_hz: int) -> tuple[int, int] | None:
    """Where what is heard begins and ends, with its margins; None if nothing is."""
    levels = _levels(samples, rate_hz)
    if not len(levels):
        return None
    rank = min(_LOUD, len(levels))
    loud = np.partition(levels, -rank)[-rank]
    if levels.max() < _SILENT:
        return None
    frames = np.flatnonzero(levels > max(_SILENT, loud * 10 ** (_TRIM_BELOW_DB / 20)))
    if not len(frames):
        return None
    size = max(1, int(_FRAME_S * rate_hz))
    return max(0, int(frames[0]) - _MARGIN) * size, min(len(samples), (int(frames[-1]) + 1 + _MARGIN) * size)


def _trim_end(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    heard = _heard(samples, rate_hz)
    return samples[: heard[1]] if heard else samples[:0]


def _cut(samples: NDArray[np.float32], rate_hz: int, longest_s: float) -> NDArray[np.float32]:
    """At most `longest_s` of it, ending where it is quietest."""
    limit = int(longest_s * rate_hz)
    if len(samples) <= limit:
        return samples
    size = max(1, int(_FRAME_S * rate_hz))
    first = limit - int(min(_CUT_WINDOW_S, longest_s / 2) * rate_hz)
    levels = _levels(samples[first:limit], rate_hz)
    quietest = len(levels) - 1 - int(levels[::-1].argmin())  # the last of equally quiet ones
    return samples[: first + quietest * size + size // 2]
