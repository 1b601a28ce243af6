"""Datasets with recorded speech, by the real console script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from script import error_of, symile_m3

from symile_m3.shards import DatasetReader, decode_member

SMALL = ("--langs", "en,el", "--classes", "4", "--train", "40", "--val", "6", "--test", "6", "--workers", "1")


def babble(seed: int, rate_hz: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """1.2 s of noise that swells as speech does."""
    times_s = np.arange(int(1.2 * rate_hz)) / rate_hz
    return np.random.default_rng(seed).uniform(-0.1, 0.1, len(times_s)) * (1 + np.sin(30 * times_s)) / 2


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two languages, by six speakers each."""
    root = tmp_path_factory.mktemp("voices")
    for number, code in enumerate(("el", "en")):
        folder = root / code / "clips"
        folder.mkdir(parents=True)
        rows = []
        for i in range(12):
            rate_hz = (8_000, 22_050, 48_000)[i % 3]
            name = f"{i}.{('mp3', 'flac', 'wav')[i // 4]}"
            soundfile.write(folder / name, babble(100 * number + i, rate_hz), rate_hz)
            rows.append(f"{name}\t{code} speaker {i // 2}\n")
        (root / code / "speakers.tsv").write_text("file\tspeaker\n" + "".join(rows), encoding="utf-8")
    (root / "licence.txt").write_text("CC-BY-4.0\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def common_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cv")
    for number, code in enumerate(("el", "en")):
        folder = root / "cv-corpus-17.0-2024-03-15" / code
        (folder / "clips").mkdir(parents=True)
        rows = ["client_id\tpath\tsentence\tup_votes\n"]
        for i in range(12):
            name = f"common_voice_{code}_{i}.mp3"
            soundfile.write(folder / "clips" / name, babble(300 + 100 * number + i, 32_000), 32_000)
            rows.append(f"{number}{i % 6}{'0' * 126}\t{name}\tSentence {i} of {code}\t2\n")
        (folder / "validated.tsv").write_text("".join(rows), encoding="utf-8")
    return root


def records(data: Path) -> list[dict[str, Any]]:
    found = []
    for split in ("train", "val", "test"):
        reader = DatasetReader(data, split)
        found += [decode_member("json", reader.read(i, ["json"])["json"]) for i in range(len(reader))]
    return found


def test_a_dataset_of_recordings(recordings: Path, tmp_path: Path) -> None:
    data = tmp_path / "m3"
    result = symile_m3(
        "build", *SMALL, "--speech", f"recordings:{recordings.name}", "--data", data, cwd=recordings.parent
    )
    assert result.returncode == 0, result.stderr
    clips = {record["clip_id"]: record for record in records(data)}
    assert {(r["clip_source"], r["clip_licence"], r["clip_synthetic"]) for r in clips.values()} == {
        ("recordings", "CC-BY-4.0", False)
    }
    assert all(r["clip_attributes"]["file"].startswith(f"{r['lang']}/clips/") for r in clips.values())
    assert all(r["clip_attributes"]["voice"].startswith(r["lang"]) for r in clips.values())
    verified = symile_m3("verify", "--no-probes", "--data", data)
    assert verified.returncode == 0, verified.stderr + verified.stdout
    info = symile_m3("info", "--data", data, "--json", "-")
    sources = json.loads(info.stdout)["sources"]
    assert Counter(source["source"] for source in sources)["recordings"] == 1
    assert "CC-BY-4.0" in (data / "README.md").read_text(encoding="utf-8")


def test_a_dataset_of_common_voice(common_voice: Path, tmp_path: Path) -> None:
    data = tmp_path / "m3"
    words = ("build", *SMALL, "--speech", f"common-voice:{common_voice}", "--clips", "8,2,2", "--data", data)
    result = symile_m3(*words)
    assert result.returncode == 0, result.stderr
    for record in records(data):
        attributes = record["clip_attributes"]
        assert (record["clip_source"], record["clip_licence"]) == ("common-voice", "CC0-1.0")
        assert attributes["text"].endswith(f"of {record['lang']}")
        assert len(attributes["voice"]) == 16
    verified = symile_m3("verify", "--no-probes", "--data", data)
    assert verified.returncode == 0, verified.stderr + verified.stdout
    page = tmp_path / "page.html"
    assert symile_m3("preview", "--data", data, "--output", page).returncode == 0
    assert "Sentence 1" in page.read_text(encoding="utf-8")
    card = (data / "README.md").read_text(encoding="utf-8")
    assert "| clips | common-voice | CC0-1.0 |" in card
    assert "not to try to find out who speaks" in card


@pytest.mark.parametrize(
    ("source", "langs", "code", "says"),
    [
        ("recordings", "en,el", 2, "--speech recordings: name the directory"),
        ("common-voice:", "en,el", 2, "--speech common-voice: name the directory"),
        ("recordings:nowhere", "en,el", 1, "nowhere: no such directory"),
        ("common-voice:voices", "en,el", 1, "voices: no Common Voice in it"),
        ("recordings:voices", "en,uk", 1, "voices: no folder for uk (there are el, en); put recordings into"),
        ("recordings:few", "en,el", 1, "few/el/clips: 4 recordings of el that can be used"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    source: str, langs: str, code: int, says: str, recordings: Path, tmp_path: Path
) -> None:
    (tmp_path / "voices").symlink_to(recordings)
    (tmp_path / "few" / "el" / "clips").mkdir(parents=True)
    (tmp_path / "few" / "en").symlink_to(recordings / "en")
    for i in range(4):
        (tmp_path / "few" / "el" / "clips" / f"{i}.mp3").symlink_to(recordings / "el" / "clips" / f"{i}.mp3")
    (tmp_path / "few" / "el" / "clips" / "x.wav").write_text("not audio")
    (tmp_path / "few" / "el" / "clips" / "y.mp3").write_bytes(b"not audio" * 500)
    result = symile_m3("build", *SMALL[2:], "--langs", langs, "--speech", source, "--data", "m3", cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert says in error_of(result)
    assert list((tmp_path / "m3").rglob("*.tar")) == []


def test_recordings_of_no_use_are_left_out_and_counted(recordings: Path, tmp_path: Path) -> None:
    voices = tmp_path / "voices"
    for code in ("el", "en"):
        (voices / code).mkdir(parents=True)
        for path in (recordings / code / "clips").iterdir():
            (voices / code / path.name).symlink_to(path)
    soundfile.write(voices / "en" / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(voices / "en" / "silent too.mp3", np.zeros(16_000), 16_000)
    whole = (voices / "el" / "0.mp3").read_bytes()
    (voices / "el" / "twice.mp3").write_bytes(whole)
    (voices / "el" / "empty.mp3").write_bytes(b"")
    result = symile_m3("build", *SMALL, "--speech", f"recordings:{voices}", "--data", tmp_path / "m3")
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if "cannot be used and are left out" in line)
    assert "2 of 27 clips" in line
    assert "silent.wav: is silent" in line
    assert "left out of el: 1 empty, damaged or too short, such as empty.mp3" in result.stderr
    assert "are the same bytes; counted once" in result.stderr
    assert symile_m3("verify", "--no-probes", "--data", tmp_path / "m3").returncode == 0


def test_too_few_clips_left_stop_the_build(recordings: Path, tmp_path: Path) -> None:
    voices = tmp_path / "voices"
    voices.mkdir()
    (voices / "en").symlink_to(recordings / "en")
    (voices / "el").mkdir()
    for i in range(12):
        source = recordings / "el" / "clips" / f"{0 if i > 6 else i}.{'mp3' if i > 6 else ('mp3', 'flac')[i // 4]}"
        (voices / "el" / f"{i}{source.suffix}").symlink_to(source)
    result = symile_m3("build", *SMALL, "--speech", f"recordings:{voices}", "--data", tmp_path / "m3")
    assert result.returncode == 1
    assert "too few distinct clips of el can be used" in error_of(result)
    assert list((tmp_path / "m3" / "data").glob("*.tar")) == []
    for i in range(7, 12):  # repaired in place, the next build takes them
        (voices / "el" / f"{i}.mp3").unlink()
        soundfile.write(voices / "el" / f"{i}.mp3", babble(100 + i, 16_000), 16_000)
    result = symile_m3("build", *SMALL, "--speech", f"recordings:{voices}", "--data", tmp_path / "m3")
    assert result.returncode == 0, result.stderr
