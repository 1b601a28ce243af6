"""MP3 as web services send it, which may have been cut off on the way.

Decoders forgive: of half an MP3 they give half the samples, and where the file does not say how long it is they
guess from its first frame. So the frames are counted first, and the decoder is told.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

_BITRATES_KBPS = {  # layer III, by index from 1
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits
_SLACK_FRAMES = 5  # what an encoder adds at both ends and a decoder may leave out


def decode_mp3(data: bytes) -> tuple[NDArray[np.float32], int]:
    """The samples of an MP3, mono, shape (n,), and their rate in hertz.

    Raises:
        ValueError: it is empty, not an MP3, cut off, or cannot be decoded as a whole.
    """
    frames, samples = count_frames(data)
    start, end = _tags(data)
    try:
        sound, rate_hz = soundfile.read(
            io.BytesIO(_announced(data[start:end], frames)), dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"an MP3 that cannot be decoded: {error}") from error
    if len(sound) < samples - _SLACK_FRAMES * samples // max(1, frames):
        raise ValueError(f"an MP3 of {samples} samples of which only {len(sound)} can be decoded")
    return np.ascontiguousarray(sound.mean(axis=1)), int(rate_hz)


def count_frames(data: bytes) -> tuple[int, int]:
    """How many frames an MP3 has, and how many samples they hold.

    Raises:
        ValueError: it is empty, not an MP3, or cut off.
    """
    if not data:
        raise ValueError("an empty MP3")
    at, end = _tags(data)
    frames = samples = 0
    announced = None
    while at < end and data[at:end].strip(b"\0"):  # some encoders end with zeros
        size, held = _frame(data, at)
        if at + size > end:
            raise ValueError("an MP3 cut off in the middle of a frame")
        if frames == 0 and announced is None and (place := _announcement(data, at)):
            flags = int.from_bytes(data[place + 4 : place + 8], "big")
            announced = int.from_bytes(data[place + 8 : place + 12], "big") if flags & 1 else 0
        else:
            frames, samples = frames + 1, samples + held
        at += size
    if not frames:
        raise ValueError("an MP3 without sound")
    if announced and frames < announced:
        raise ValueError(f"an MP3 cut off after {frames} of {announced} frames")
    return frames, samples


def _announcement(data: bytes, at: int) -> int:
    """Where in the first frame it says how many follow; 0 where it does not."""
    place = at + _side_info_end(data, at)
    return place if data[place : place + 4] in (b"Xing", b"Info") else 0


def _side_info_end(data: bytes, at: int) -> int:
    """Bytes of a frame's header and side information."""
    first_version, mono = data[at + 1] >> 3 & 3 == 3, data[at + 3] >> 6 == 3
    return 4 + ((17 if mono else 32) if first_version else (9 if mono else 17))


def _announced(data: bytes, frames: int) -> bytes:
    """With a first frame that says how many follow."""
    if _announcement(data, 0):
        return data
    # Silent, without a checksum, of 128 (version 1) or 64 kbit/s, which leaves room enough.
    head = bytes((data[0], data[1] | 1, (9 if data[1] >> 3 & 3 == 3 else 8) << 4 | data[2] & 0x0C, data[3]))
    size, _ = _frame(head, 0)
    frame = head + b"\0" * (_side_info_end(head, 0) - 4) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return frame.ljust(size, b"\0") + data


def _tags(data: bytes) -> tuple[int, int]:
    """Where the frames begin and end: after an ID3v2 tag, before an ID3v1 tag."""
    start, end = 0, len(data)
    if data[:3] == b"ID3" and len(data) >= 10:
        size = 0
        for byte in data[6:10]:
            size = size << 7 | byte & 0x7F
        start = 10 + size
    if end - start >= 128 and data[-128:-125] == b"TAG":
        end -= 128
    return start, end


def _frame(data: bytes, at: int) -> tuple[int, int]:
    """The bytes of the frame that begins here, and the samples a channel that it holds."""
    head = int.from_bytes(data[at : at + 4], "big")
    version, layer = head >> 19 & 3, head >> 17 & 3
    bitrate, rate = head >> 12 & 15, head >> 10 & 3
    if len(data) - at < 4:
        raise ValueError("an MP3 cut off in the middle of a frame")
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        raise ValueError("not an MP3" if at == 0 else "an MP3 with something else in it")
    kbps = _BITRATES_KBPS[1 if version == 3 else 2][bitrate - 1]
    factor = 144 if version == 3 else 72
    return factor * kbps * 1000 // _RATES_HZ[version][rate] + (head >> 9 & 1), factor * 8
