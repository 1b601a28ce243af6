"""From a recording to a clip."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from recorded_speech import FORMATS, babble, write

from symile_m3.errors import SourceError, UnusableError
from symile_m3.speech.clip import LEVEL_DBFS
from symile_m3.speech.cut import cut_clip

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000)


def clip_of(path: Path, longest_s: float = 10.0) -> NDArray[np.float64]:
    data = cut_clip(path, longest_s=longest_s)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert (file.samplerate, file.channels, file.format, file.subtype) == (16_000, 1, "FLAC", "PCM_16")
        return file.read(dtype="float64")


def level_db(samples: NDArray[np.float64]) -> float:
    return float(20 * np.log10(np.sqrt((samples**2).mean())))


def silence(seconds: float, rate_hz: int = 16_000) -> NDArray[np.float32]:
    return np.zeros(int(seconds * rate_hz), dtype=np.float32)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_becomes_a_clip_at_the_level_of_all_clips(suffix: str, channels: int, tmp_path: Path) -> None:
    rates = (8_000, 48_000) if suffix == "opus" else RATES_HZ
    for rate_hz in rates:
        one = babble(1, 1.5, rate_hz)
        samples = np.stack([one, 0.5 * one], axis=1) if channels == 2 else one
        clip = clip_of(write(tmp_path / f"{rate_hz}.{suffix}", samples, rate_hz))
        assert len(clip) / 16_000 == pytest.approx(1.5, abs=0.08)
        assert level_db(clip) == pytest.approx(LEVEL_DBFS, abs=0.1)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", babble(1, 12, 44_100), 44_100)
    assert cut_clip(path, longest_s=5) == cut_clip(path, longest_s=5)


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_a_long_recording_is_cut_in_the_gap_before_the_limit(rate_hz: int, tmp_path: Path) -> None:
    samples = babble(2, 20, rate_hz)
    for begin_s, end_s in ((1.0, 1.4), (3.7, 4.0), (6.0, 6.5)):  # too early, right, too late
        samples[int(begin_s * rate_hz) : int(end_s * rate_hz)] *= 0.02
    path = write(tmp_path / "long.wav", samples, rate_hz)
    assert 3.7 <= len(clip_of(path, 5)) / 16_000 <= 4.0 + 0.01
    assert 6.0 <= len(clip_of(path, 7)) / 16_000 <= 6.5 + 0.01
    assert len(clip_of(path, 30)) / 16_000 == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("longest_s", [0.5, 1, 3, 60])
def test_no_clip_is_longer_than_stated_and_none_is_less_than_half(longest_s: float, tmp_path: Path) -> None:
    clip = clip_of(write(tmp_path / "long.flac", babble(3, 70, 8_000), 8_000), longest_s)
    assert longest_s / 2 <= len(clip) / 16_000 <= longest_s


@pytest.mark.parametrize("lead_s", [0.05, 1.5, 9.0, 47.3])
def test_silence_at_both_ends_is_left_out_but_for_a_margin(lead_s: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speech = babble(4, 2.0)
    samples = np.concatenate([silence(lead_s), speech, silence(30)])
    samples += (1e-4 * rng.standard_normal(len(samples))).astype(np.float32)  # the room
    clip = clip_of(write(tmp_path / "lead.wav", samples))
    assert 2.0 <= len(clip) / 16_000 <= 2.3


def test_speech_after_a_long_silence_is_as_long_as_any(tmp_path: Path) -> None:
    speech = babble(5, 20)
    speech[4 * 16_000 : int(4.3 * 16_000)] *= 0.02
    clip = clip_of(write(tmp_path / "late.wav", np.concatenate([silence(6), speech])), 5)
    assert 4.1 <= len(clip) / 16_000 <= 4.42  # with the margin before it


def test_of_a_long_recording_little_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "minutes.mp3", np.tile(babble(6, 60, 8_000), 5), 8_000)
    read: list[int] = []
    original = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int = -1, **options: object) -> NDArray[np.float32]:
        samples = original(self, frames, **options)
        read.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    cut_clip(path, longest_s=5)
    assert sum(read) <= 8 * 8_000


@pytest.mark.parametrize("gain", [0.005, 0.05, 1.0, 3.0])
def test_quiet_and_loud_recordings_come_out_alike(gain: float, tmp_path: Path) -> None:
    clip = clip_of(write(tmp_path / "a.wav", np.clip(gain * babble(7, level=0.4), -1, 1)))
    assert level_db(clip) == pytest.approx(LEVEL_DBFS, abs=0.1)


@pytest.mark.parametrize(
    "channels",
    [
        lambda one: np.stack([one, 0 * one], axis=1),
        lambda one: np.stack([0 * one, one], axis=1),
        lambda one: np.stack([one, -one], axis=1),
        lambda one: np.stack([one, -one, 0.1 * one], axis=1),
        lambda one: np.stack([one + 0.3, one], axis=1),
    ],
    ids=["right silent", "left silent", "opposite", "three", "offset"],
)
def test_whatever_the_channels_the_speech_is_kept(channels, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one = babble(8)
    plain = clip_of(write(tmp_path / "one.wav", one))
    mixed = clip_of(write(tmp_path / "more.wav", channels(one)))
    assert abs(np.corrcoef(plain[:20_000], mixed[:20_000])[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.mp3", b"", "is empty"),
        ("text.mp3", b"not at all audio" * 200, "is not audio"),
        ("text.wav", b"not at all audio" * 200, "is not audio"),
        ("page.ogg", b"<html></html>", "is not audio"),
    ],
)
def test_files_that_are_no_audio_are_named(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableError, match=why) as caught:
        cut_clip(tmp_path / name, longest_s=5)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (silence(3), "is silent"),
        (np.zeros(0, dtype=np.float32), "is silent"),
        (np.concatenate([silence(2), babble(9, 0.2), silence(2)]), "lasts 0.4"),
        (np.sign(babble(10, 3)), "clipped"),
    ],
    ids=["silent", "no samples", "short", "noise"],
)
def test_recordings_of_no_use_are_named(samples: NDArray[np.float32], why: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.wav", samples)
    with pytest.raises(UnusableError, match=rf"bad\.wav: .*{why}"):
        cut_clip(path, longest_s=5)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    samples = babble(11)
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(UnusableError, match="no numbers"):
        cut_clip(tmp_path / "nan.wav", longest_s=5)


def test_a_recording_that_is_gone_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there") as caught:
        cut_clip(tmp_path / "gone.mp3", longest_s=5)
    assert not isinstance(caught.value, UnusableError)


def test_of_a_truncated_recording_the_rest_is_taken_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write(tmp_path / "whole.mp3", babble(12, 6, 48_000), 48_000).read_bytes()
    (tmp_path / "half.mp3").write_bytes(whole[: len(whole) // 2])
    assert len(clip_of(tmp_path / "half.mp3")) / 16_000 == pytest.approx(3, abs=0.3)
    assert capfd.readouterr().err == ""


def test_samples_beyond_full_scale_are_no_clipping(tmp_path: Path) -> None:
    samples = 20 * babble(13)
    soundfile.write(tmp_path / "hot.wav", samples, 16_000, subtype="FLOAT")
    assert level_db(clip_of(tmp_path / "hot.wav")) == pytest.approx(LEVEL_DBFS, abs=0.1)
