"""From samples to a clip: 16 kHz, mono, 16-bit FLAC, at most three seconds, at one level."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from symile_m3.errors import SourceError

SAMPLE_RATE_HZ = 16_000
MAX_DURATION_S = 3.0
MIN_DURATION_S = 1.0
LEVEL_DBFS = -23.0  # root mean square over the clip
PEAK_CEILING_DBFS = -1.0  # wins over the level

_FRAME_S = 0.01  # resolution of trimming and of the place to cut
_TRIM_BELOW_DB = -40.0  # relative to the loudest frame
_LONG_SILENCE_S = 0.3
_CUT_WINDOW_S = 1.0  # a long clip is cut within its last second
_FADE_S = 0.01
_SILENT_PEAK = 1e-3
_CLIPPED_PEAK = 0.999
_CLIPPED_SHARE = 1e-3  # of all samples
_COMPRESSION = 0.5  # of FLAC's levels, 0 to 1


def encode_clip(samples: NDArray[np.float32], rate_hz: int, *, language: str, text: str) -> bytes:
    """A clip of speech as FLAC.

    Leading and trailing silence is trimmed; what is longer than `MAX_DURATION_S` is cut at the quietest
    place of the last second allowed. The level is set to `LEVEL_DBFS`, or lower if the peak would pass
    `PEAK_CEILING_DBFS`. The same samples give the same bytes.

    Args:
        samples: mono, shape (n,), in [-1, 1].
        rate_hz: their sample rate.
        language, text: what is spoken, for messages.

    Raises:
        SourceError: silent, clipped, or shorter than `MIN_DURATION_S` without its silence.
    """
    what = f"speech in {language!r} of {text!r}"
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < _SILENT_PEAK:
        raise SourceError(f"{what} is silent")
    clipped = float((np.abs(samples) >= _CLIPPED_PEAK).mean())
    if clipped > _CLIPPED_SHARE:
        raise SourceError(f"{what} is clipped: {clipped:.1%} of its samples are at full scale")
    if rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    samples = _trim(_cut(_trim(samples)))
    duration_s = len(samples) / SAMPLE_RATE_HZ
    if duration_s < MIN_DURATION_S:
        raise SourceError(f"{what} lasts {duration_s:.2f} s, less than {MIN_DURATION_S} s")
    return finish_clip(samples)


def finish_clip(samples: NDArray[np.float32]) -> bytes:
    """What has its length already, faded at both ends, at the level of all clips, as 16-bit FLAC.

    Args:
        samples: mono at `SAMPLE_RATE_HZ`, shape (n,), not silent, longer than a fade.
    """
    return _encode(_level(_fade(samples)))


def trim_clip(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what is silent for more than `_LONG_SILENCE_S` at either end, such as in a user's own recording.

    A clip of a dataset, whose silence is shorter, stays as it is.

    Args:
        samples: mono at `SAMPLE_RATE_HZ`, shape (n,).
    """
    levels, size = _levels(samples), int(_FRAME_S * SAMPLE_RATE_HZ)
    heard = np.flatnonzero(levels > levels.max(initial=0.0) * 10 ** (_TRIM_BELOW_DB / 20))
    if not len(heard):
        return samples
    start, stop, most = int(heard[0]) * size, int(heard[-1] + 1) * size, int(_LONG_SILENCE_S * SAMPLE_RATE_HZ)
    return samples[start if start > most else 0 : stop if len(samples) - stop > most else len(samples)]


def level_clip(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scaled to `LEVEL_DBFS`, with no peak above `PEAK_CEILING_DBFS`, as every clip of a dataset is."""
    return _level(samples)


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square of each whole frame, shape (n_frames,)."""
    size = int(_FRAME_S * SAMPLE_RATE_HZ)
    n_frames = len(samples) // size
    frames = samples[: n_frames * size].astype(np.float64).reshape(n_frames, size)
    levels: NDArray[np.float64] = np.sqrt((frames**2).mean(axis=1))
    return levels


def _trim(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the silence before the first and after the last frame that is heard."""
    levels = _levels(samples)
    heard = np.flatnonzero(levels > levels.max(initial=0.0) * 10 ** (_TRIM_BELOW_DB / 20))
    if not len(heard):
        return samples[:0]
    size = int(_FRAME_S * SAMPLE_RATE_HZ)
    return samples[heard[0] * size : (heard[-1] + 1) * size]


def _cut(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `MAX_DURATION_S` of it, ending where it is quietest."""
    limit = int(MAX_DURATION_S * SAMPLE_RATE_HZ)
    if len(samples) <= limit:
        return samples
    size = int(_FRAME_S * SAMPLE_RATE_HZ)
    first = limit - int(_CUT_WINDOW_S * SAMPLE_RATE_HZ)
    quietest = int(_levels(samples[first:limit]).argmin())
    return samples[: first + quietest * size + size // 2]


def _fade(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """With short linear ramps at both ends, so that no edge clicks."""
    size = int(_FADE_S * SAMPLE_RATE_HZ)
    ramp = np.arange(1, size + 1, dtype=np.float32) / np.float32(size)
    faded = samples.copy()
    faded[:size] *= ramp
    faded[-size:] *= ramp[::-1]
    return faded


def _level(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scaled to `LEVEL_DBFS`, with no peak above `PEAK_CEILING_DBFS`."""
    wide = samples.astype(np.float64)
    gain = 10 ** (LEVEL_DBFS / 20) / np.sqrt((wide**2).mean())
    ceiling = 10 ** (PEAK_CEILING_DBFS / 20) / np.abs(wide).max()
    leveled: NDArray[np.float64] = wide * min(gain, ceiling)
    return leveled


def _encode(samples: NDArray[np.float64]) -> bytes:
    """As 16-bit FLAC."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        np.rint(samples * 32767).astype(np.int16),
        SAMPLE_RATE_HZ,
        format="FLAC",
        subtype="PCM_16",
        compression_level=_COMPRESSION,
    )
    return buffer.getvalue()
