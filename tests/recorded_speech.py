"""Recordings and corpora for tests: noise in syllables, which is loud and quiet as speech is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

FORMATS = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
}
COLUMNS = (
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
)


def babble(seed: int, seconds: float = 1.5, rate_hz: int = 16_000, level: float = 0.1) -> NDArray[np.float32]:
    """Shape (n,): noise that swells five times a second and is never quite silent."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 5 * times_s + rng.uniform(0, 6))
    return (level * swell * rng.uniform(-1, 1, len(times_s))).astype(np.float32)


def write(path: Path, samples: NDArray[np.float32], rate_hz: int = 16_000) -> Path:
    """A file in the format of its suffix; samples are (n,) or (n, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    container, coding = FORMATS[path.suffix[1:]]
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate_hz, channels, format=container, subtype=coding) as file:
        for start in range(0, len(samples), 4096):  # libsndfile's Vorbis encoder takes no more at once
            file.write(samples[start : start + 4096])
    return path


def corpus(
    folder: Path,
    clips: list[tuple[str, str]],
    *,
    table: str = "validated.tsv",
    seed: int = 0,
    durations: dict[str, int] | None = None,
    seconds: float = 1.2,
    written: int | None = None,
) -> list[str]:
    """A language of Common Voice: (client_id, sentence) of each clip -> the file names, of which some are written."""
    names = [f"common_voice_{folder.name}_{seed + i}.mp3" for i in range(len(clips))]
    for i, name in enumerate(names[:written]):
        write(folder / "clips" / name, babble(seed + i, seconds, 32_000), 32_000)
    rows = [
        "\t".join([client, name, f"id{i}", sentence, "", "2", "0", "", "", "", "", folder.name, ""])
        for i, ((client, sentence), name) in enumerate(zip(clips, names, strict=True))
    ]
    (folder / table).write_text("\n".join(["\t".join(COLUMNS), *rows]) + "\n", encoding="utf-8")
    if durations is not None:
        lines = [f"{name}\t{durations.get(name, int(1000 * seconds))}" for name in names]
        (folder / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *lines]) + "\n", encoding="utf-8")
    return names


def client(number: int) -> str:
    """A client_id, which is 128 digits long."""
    return f"{number:04x}" * 32
