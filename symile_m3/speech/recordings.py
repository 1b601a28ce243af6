"""`recordings:DIR`: a folder of recordings a language, in any format that libsndfile reads.

DIR/en/clips/*.mp3    or    DIR/en/*.wav
DIR/en/speakers.tsv         optional: file, speaker
DIR/licence.txt             optional: its first line is the licence of the recordings
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symile_m3.errors import SourceError, UsageError
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.speech.recorded import (
    RecordedPool,
    Recording,
    check_count,
    choose_recipes,
    find_folder,
    of_options,
    subfolders,
    usable,
    wanted,
)
from symile_m3.speech.speakers import in_turn

SUFFIXES = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64"}
    | {".snd", ".sph", ".voc", ".w64", ".wav", ".wave"}
)
"""Of the files that are taken for recordings."""

SPEAKERS = "speakers.tsv"
LICENCES = ("licence.txt", "license.txt", "LICENCE", "LICENSE")
NOT_STATED = "not stated"

_AUDIO = frozenset({".3gp", ".aac", ".amr", ".m4a", ".mka", ".mp4", ".webm", ".wma"})  # libsndfile reads none


@dataclass(frozen=True, kw_only=True)
class RecordingsPool(RecordedPool):
    """Clips from a folder of recordings a language.

    With a table of speakers, no speaker is in two splits, in whatever languages; a file that is not in it is a
    speaker of its own. Without one, each file is.
    """

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """The clips of these languages: by language as given, then train, val, test.

        Raises:
            SourceError: a language has no folder, fewer than ten recordings that can be used, or fewer than three
                speakers; or its table of speakers cannot be read.
        """
        folders = self._folders(groups)
        speakers = {code: _speakers(folder / SPEAKERS) for code, folder in folders.items()}
        known = any(speakers.values())
        found = {code: self._found(code, folder, speakers[code], known) for code, folder in folders.items()}
        where = {code: str(folder) for code, folder in folders.items()}
        return choose_recipes(found, self.options, source="recordings", licence=self._licence(), where=where)

    def _folders(self, groups: Sequence[str]) -> dict[str, Path]:
        """Language -> its folder."""
        names = subfolders(self.root)
        folders = {code: find_folder(self.root, names, code) for code in groups}
        missing = [code for code, name in folders.items() if name is None]
        if missing:
            there = f"there are {', '.join(names[:20])}" if names else "there is no folder at all"
            raise SourceError(
                f"{self.root}: no folder for {', '.join(missing)} ({there}); put recordings into "
                f"{self.root / missing[0]}, or leave it out of --langs"
            )
        return {code: self.root / name for code, name in folders.items() if name is not None}

    def _found(self, code: str, folder: Path, speakers: Mapping[str, str], known: bool) -> list[Recording]:
        """The usable recordings of a language, or the first of them, in the order to take them in."""
        directory = folder / "clips" if (folder / "clips").is_dir() else folder
        files, unread = _files(directory)
        recordings = []
        for file in files:
            path = (directory / file).relative_to(self.root).as_posix()
            speaker = speakers.get(file, path)
            recordings.append(Recording(file=path, speaker=speaker, voice=speaker if known else None))
        numbers = {speaker: i for i, speaker in enumerate(sorted({recording.speaker for recording in recordings}))}
        who = np.array([numbers[recording.speaker] for recording in recordings], dtype=np.int64)
        order = in_turn(who, self.options.seed, "recordings", code).tolist()
        found: list[Recording] = []
        tried: list[Recording] = []
        enough = wanted(self.options)
        for start in range(0, len(order), enough):
            if len(found) < enough:
                more = [recordings[i] for i in order[start : start + enough]]
                tried += more
                found += usable(self.root, more, self.options)
        notes = []
        if len(found) < len(tried):
            bad = min({recording.file for recording in tried} - {recording.file for recording in found})
            notes.append(f"{len(tried) - len(found)} empty, damaged or too short, such as {Path(bad).name}")
        if unread:
            notes.append(f"{len(unread)} of a format that cannot be read, such as {unread[0]}: convert to FLAC or MP3")
        check_count(code, len(found), str(directory), "; ".join(notes))
        self._left_out.pop(code, None)
        if notes:
            self._left_out[code] = f"{directory}: left out of {code}: {'; '.join(notes)}"
        return found

    def _licence(self) -> str:
        for name in LICENCES:
            path = self.root / name
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                return lines[0].strip() if lines else NOT_STATED
        return NOT_STATED


def _files(directory: Path) -> tuple[list[str], list[str]]:
    """The names of recordings, and those of other audio, each sorted."""
    files: list[str] = []
    unread: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            suffix = Path(entry.name).suffix.lower()
            if entry.name.startswith(".") or suffix not in SUFFIXES | _AUDIO or not entry.is_file():
                continue
            (files if suffix in SUFFIXES else unread).append(entry.name)
    return sorted(files), sorted(unread)


def _speakers(path: Path) -> dict[str, str]:
    """File name -> speaker, of a table; empty where there is none.

    Raises:
        SourceError: it is not UTF-8, lacks a column, has an empty cell, or names a file twice.
    """
    if not path.exists():
        return {}
    speakers: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not {"file", "speaker"} <= set(reader.fieldnames or ()):
                raise SourceError(f"{path}: the first line must name the columns file and speaker, with a tab between")
            for row in reader:
                name, speaker = ((row[column] or "").strip() for column in ("file", "speaker"))
                if not name or not speaker:
                    raise SourceError(f"{path}, line {reader.line_num}: file or speaker is empty")
                name = Path(name).name
                if speakers.setdefault(name, speaker) != speaker:
                    raise SourceError(f"{path}, line {reader.line_num}: {name} has two speakers")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    return speakers


def open_recordings(argument: str, options: SpeechOptions) -> RecordingsPool:
    """The pool of `--speech recordings:DIR`.

    Raises:
        UsageError: no directory is named.
        SourceError: it is not there.
    """
    if not argument:
        raise UsageError("--speech recordings: name the directory that holds en/, el/ and so on: recordings:DIR")
    root = Path(argument).expanduser().absolute()
    subfolders(root)
    return RecordingsPool(root=root, options=of_options(options))
