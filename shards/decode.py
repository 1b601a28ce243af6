"""From the bytes of a member to what it holds. Sizes are capped, and nothing is ever unpickled.

Whatever is wrong with the bytes, a decoder raises ValueError with a reason; only the caller knows which
shard and sample to name.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 50_000_000
MAX_SECONDS = 60.0
MAX_TEXT_BYTES = 1_000_000
_MAX_CHANNELS = 8
_MAX_RATE_HZ = 192_000


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image.

    Args:
        data: the encoded image.
        max_pixels: width times height at most; checked before any pixel is decoded.

    Returns:
        RGB, shape (H, W, 3).

    Raises:
        ValueError: it is no such image, cut off, or larger than allowed.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")
            return np.array(image.convert("RGB"))
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise ValueError(f"not an image that can be decoded: {error}") from error


def decode_audio(data: bytes, *, max_seconds: float = MAX_SECONDS) -> tuple[npt.NDArray[np.float32], int]:
    """Decode FLAC, WAV, Ogg or MP3 audio; several channels are averaged.

    Args:
        data: the encoded audio.
        max_seconds: duration at most; no more than that is ever decoded.

    Returns:
        The waveform in -1 .. 1, shape (T,), and its sample rate in Hz.

    Raises:
        ValueError: it is no such audio, cut off, empty, or longer than allowed.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate_hz, channels, claimed = file.samplerate, file.channels, file.frames
            if not 0 < rate_hz <= _MAX_RATE_HZ or not 0 < channels <= _MAX_CHANNELS:
                raise ValueError(f"{channels} channels at {rate_hz} Hz are not supported")
            limit = int(max_seconds * rate_hz)
            wave_TC = file.read(limit + 1, dtype="float32", always_2d=True)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise ValueError(f"not audio that can be decoded: {error}") from error
    if len(wave_TC) > limit:
        raise ValueError(f"longer than the {max_seconds:g} s allowed")
    if len(wave_TC) == 0 or len(wave_TC) < claimed:
        raise ValueError(f"cut off after {len(wave_TC)} of {claimed} frames")
    wave_T = wave_TC[:, 0] if channels == 1 else wave_TC.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(wave_T), int(rate_hz)


def decode_text(data: bytes, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Decode UTF-8 text.

    Raises:
        ValueError: it is not UTF-8, or longer than `max_bytes`.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{len(data):,} bytes of text are more than the {max_bytes:,} allowed")
    return data.decode()


def decode_json(data: bytes, *, max_bytes: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        ValueError: it is not one, holds NaN or an infinity, or is longer than `max_bytes`.
    """
    try:
        value = json.loads(decode_text(data, max_bytes=max_bytes), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {type(value).__name__}")
    return value


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "jpg": decode_image,
    "jpeg": decode_image,
    "png": decode_image,
    "webp": decode_image,
    "flac": decode_audio,
    "wav": decode_audio,
    "ogg": decode_audio,
    "mp3": decode_audio,
    "txt": decode_text,
    "json": decode_json,
}


def decode_member(member: str, data: bytes) -> Any:
    """Decode a member by its name; one with an unknown name stays bytes.

    Raises:
        ValueError: the bytes are not what the name says.
    """
    decoder = DECODERS.get(member)
    return data if decoder is None else decoder(data)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
