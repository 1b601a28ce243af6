"""From the bytes of a member to what it holds. Sizes are capped, and nothing is ever unpickled.

Whatever is wrong with the bytes, a decoder raises ValueError with a reason; only the caller knows which
shard and sample to name.
"""

from __future__ import annotations

import functools
import io
import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 50_000_000
MAX_SECONDS = 60.0
MAX_TEXT_BYTES = 1_000_000
MAX_ARRAY_BYTES = 1 << 28
_MAX_CHANNELS = 8
_MAX_RATE_HZ = 192_000
_AUDIO_MAGIC = (b"fLaC", b"RIFF", b"RF64", b"OggS", b"ID3")
_UNKNOWN_FRAMES = 1 << 62  # libsndfile gives 2**63 - 1 where a FLAC does not say how long it is


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """How large what a member holds may be. What is larger is refused before it takes memory.

    Attributes:
        pixels: width times height of an image; Pillow itself takes no more than 178,956,970.
        seconds: duration of a clip.
        text_bytes: length of a text or of a JSON object.
        array_bytes: size of an array.

    Raises:
        ValueError: a limit is not positive.
    """

    pixels: int = MAX_PIXELS
    seconds: float = MAX_SECONDS
    text_bytes: int = MAX_TEXT_BYTES
    array_bytes: int = MAX_ARRAY_BYTES

    def __post_init__(self) -> None:
        for name in ("pixels", "seconds", "text_bytes", "array_bytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


LIMITS = DecodeLimits()
"""The limits by default."""

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
_AUDIO = frozenset({"flac", "wav", "ogg", "opus", "mp3"})


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
    pixels_HWC = _decode_jpeg(data, max_pixels)
    if pixels_HWC is not None:
        return pixels_HWC
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")
            return np.array(image.convert("RGB"))
    except ValueError:
        raise
    except MemoryError:
        raise ValueError("not an image that fits into memory") from None
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise ValueError(f"not an image that can be decoded: {error}") from error


def decode_audio(data: bytes, *, max_seconds: float = MAX_SECONDS) -> tuple[npt.NDArray[np.float32], int]:
    """Decode FLAC, WAV, Ogg (Vorbis, Opus) or MP3 audio; several channels are averaged.

    Args:
        data: the encoded audio.
        max_seconds: duration at most; no more than that is ever decoded, and a header that claims more is
            refused at once.

    Returns:
        The waveform in -1 .. 1, shape (T,), and its sample rate in Hz.

    Raises:
        ValueError: it is no such audio, cut off, empty, or longer than allowed.
    """
    try:
        if not data.startswith(_AUDIO_MAGIC) and not (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
            raise ValueError("not audio that can be decoded: neither FLAC, WAV, Ogg nor MP3")
        with _one_way()(io.BytesIO(data)) as file:
            rate_hz, channels, claimed = file.samplerate, file.channels, file.frames
            if not 0 < rate_hz <= _MAX_RATE_HZ or not 0 < channels <= _MAX_CHANNELS:
                raise ValueError(f"{channels} channels at {rate_hz} Hz are not supported")
            limit = int(max_seconds * rate_hz)
            known = claimed < _UNKNOWN_FRAMES
            if known and claimed > limit:
                raise ValueError(f"{claimed / rate_hz:,.1f} s are longer than the {max_seconds:g} s allowed")
            wave_TC = file.read((claimed if known else limit) + 1, dtype="float32", always_2d=True)
    except ValueError:
        raise
    except MemoryError:
        raise ValueError("not audio that fits into memory") from None
    except Exception as error:  # damaged bytes make a decoder raise anything
        raise ValueError(f"not audio that can be decoded: {error}") from error
    if len(wave_TC) > limit:
        raise ValueError(f"longer than the {max_seconds:g} s allowed")
    if len(wave_TC) == 0 or (known and len(wave_TC) < claimed):
        raise ValueError(f"cut off after {len(wave_TC)} of {claimed} frames")
    wave_T = wave_TC[:, 0] if channels == 1 else wave_TC.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(wave_T), int(rate_hz)


@functools.cache
def _one_way() -> Any:
    """A sound file that is read through once. One that can seek would seek to where it stands after each
    read, which fails where a header claims more than there is."""
    import soundfile

    class OneWay(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return OneWay


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


def decode_array(data: bytes, *, max_bytes: int = MAX_ARRAY_BYTES) -> npt.NDArray[Any]:
    """Decode a NumPy array (`.npy`) of numbers or truth values.

    Args:
        data: the file; its header is checked against its length before anything is read.
        max_bytes: size of the array at most.

    Raises:
        ValueError: it is no such file, cut off or too long, holds objects, or is larger than allowed.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the format is for tables")
    except Exception as error:  # damaged headers make the parser raise anything
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"not an array that can be decoded: {reason}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype} (only numbers and truth values are read)")
    if any(side < 0 for side in shape):
        raise ValueError(f"not an array that can be decoded: shape {shape}")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > max_bytes:
        raise ValueError(f"{nbytes:,} bytes of an array are more than the {max_bytes:,} allowed")
    if len(data) - file.tell() != nbytes:
        raise ValueError(f"{len(data) - file.tell():,} bytes follow the header, which promises {nbytes:,}")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def decode_member(member: str, data: bytes, limits: DecodeLimits = LIMITS) -> Any:
    """Decode a member by the last part of its name (`left.png` is an image); one with an unknown name stays bytes.

    Raises:
        ValueError: the bytes are not what the name says, or are more than the limits allow.
    """
    member = member.rpartition(".")[2]
    if member == "npy":
        return decode_array(data, max_bytes=limits.array_bytes)
    if member in _IMAGES:
        return decode_image(data, max_pixels=limits.pixels)
    if member in _AUDIO:
        return decode_audio(data, max_seconds=limits.seconds)
    if member == "txt":
        return decode_text(data, max_bytes=limits.text_bytes)
    if member == "json":
        return decode_json(data, max_bytes=limits.text_bytes)
    return data


def _decode_jpeg(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8] | None:
    """The same pixels as Pillow's in a third of the time. None for what is left to Pillow: other formats, CMYK,
    which is converted differently, and all that is damaged or too large."""
    import simplejpeg

    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > max_pixels or colours not in ("YCbCr", "Gray", "RGB"):
            return None
        pixels_HWC: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None
    return pixels_HWC


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
