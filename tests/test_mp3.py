"""MP3 that may have been cut off on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from symile_m3.speech.mp3 import count_frames, decode_mp3


def mp3(rate_hz: int, mode: str = "CONSTANT", channels: int = 1) -> bytes:
    times = np.arange(rate_hz * 2) / rate_hz
    tone = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([tone] * channels, 1), rate_hz, format="MP3", bitrate_mode=mode)
    return buffer.getvalue()


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_a_whole_mp3_is_decoded_and_no_part_of_it(rate_hz: int, mode: str) -> None:
    whole = mp3(rate_hz, mode)
    samples, found_hz = decode_mp3(whole)
    assert found_hz == rate_hz
    assert abs(len(samples) / rate_hz - 2) < 0.01
    assert 0.19 < np.sqrt((samples**2).mean()) < 0.23
    for end in range(0, len(whole), 31):
        with pytest.raises(ValueError, match="MP3"):
            decode_mp3(whole[:end])


def test_an_mp3_that_does_not_say_its_length_is_found_cut_off_within_a_frame() -> None:
    whole = mp3(24_000)
    _, held = count_frames(whole)
    first = 72 * [8, 16, 24, 32, 40, 48, 56, 64][(whole[2] >> 4) - 1] * 1000 // 24_000 + (whole[2] >> 1 & 1)
    plain = whole[first:]  # without the frame that announces how many follow
    assert count_frames(plain)[1] == held
    with soundfile.SoundFile(io.BytesIO(plain)) as file:
        assert file.frames < 10_000  # what the decoder guesses by itself
    assert abs(len(decode_mp3(plain)[0]) - 48_000) < 2000
    with pytest.raises(ValueError, match="cut off in the middle of a frame"):
        count_frames(plain[:-10])


def test_tags_and_zeros_around_it_do_not_matter() -> None:
    whole = mp3(24_000)
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x01" + b"\0" * 257
    assert count_frames(tag + whole + b"TAG" + b"x" * 125) == count_frames(whole)
    assert count_frames(whole + b"\0" * 50) == count_frames(whole)
    assert len(decode_mp3(mp3(24_000, channels=2))[0]) == len(decode_mp3(whole)[0])


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff", b"ID3", b"\xff\xfb", b"\0" * 100, b"RIFF" + b"\0" * 40])
def test_what_is_no_mp3(content: bytes) -> None:
    with pytest.raises(ValueError, match="MP3"):
        decode_mp3(content)
