"""`common-voice:DIR`: Mozilla Common Voice, as its archives unpack.

    DIR/cv-corpus-17.0-2024-03-15/en/clips/*.mp3
    DIR/cv-corpus-17.0-2024-03-15/en/validated.tsv         or train.tsv, dev.tsv and test.tsv
    DIR/cv-corpus-17.0-2024-03-15/en/clip_durations.tsv    in newer releases

DIR may also be the corpus folder itself, or hold the folders of languages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import SourceError, UsageError
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.speech.cut import shortest_s
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

if TYPE_CHECKING:
    import pyarrow

LICENCE = "CC0-1.0"
SPLIT_TABLES = ("train.tsv", "dev.tsv", "test.tsv")
DURATIONS = "clip_durations.tsv"

FOLDERS = {"zh": ("zh-CN", "zh-TW"), "no": ("nb-NO", "nn-NO")}
"""Language -> what Common Voice calls it, where it has several of them; the first that is there is taken."""

_BLOCK_BYTES = 1 << 20  # of a table that are in memory at a time
_MORE = 4  # times as many rows are looked at when too few can be used


@dataclass(frozen=True, kw_only=True)
class CommonVoicePool(RecordedPool):
    """Clips from Common Voice: validated ones, by as many different speakers as there are.

    No `client_id` is in two splits, in whatever languages, and no sentence of a language. The splits that come with a
    corpus are not heeded, as most clips are in none of them.
    """

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """The clips of these languages: by language as given, then train, val, test.

        Raises:
            SourceError: a language is not there, has fewer than ten clips that can be used or fewer than three
                speakers, or a table cannot be read.
        """
        folders = self._folders(groups)
        found = {code: self._found(code, folder) for code, folder in folders.items()}
        where = {code: str(folder) for code, folder in folders.items()}
        return choose_recipes(found, self.options, source="common-voice", licence=LICENCE, where=where)

    def _folders(self, groups: Sequence[str]) -> dict[str, Path]:
        """Language -> its folder; of several releases the newest whole one."""
        there = {folder.name: folder for folder in _language_folders(self.root)}
        folders = {}
        missing = []
        for code in groups:
            name = find_folder(self.root, there, code, FOLDERS.get(code, ()))
            if name is None:
                missing.append(code)
            else:
                folders[code] = there[name]
        if missing:
            known = f"there are {', '.join(sorted(there))}" if there else "no folder in it has a validated.tsv"
            raise SourceError(
                f"{self.root}: no Common Voice of {', '.join(missing)} ({known}); unpack the archive of {missing[0]} "
                "there, or leave it out of --langs"
            )
        return folders

    def _found(self, code: str, folder: Path) -> list[Recording]:
        """The usable clips of a language, or the first of them, in the order to take them in."""
        tables = _tables(folder)
        who, speakers = client_numbers(tables)
        order = in_turn(who, self.options.seed, "common-voice", code)
        order = order[who[order] != speakers.get("", -1)]
        found: list[Recording] = []
        start, count = 0, wanted(self.options)
        while start < len(order) and len(found) < wanted(self.options):
            rows = order[start : start + count]
            found += self._usable(folder, read_rows(tables, rows, folder.relative_to(self.root).as_posix()))
            start, count = start + count, count * _MORE
        tried = min(start, len(order))
        notes = f"{tried - len(found):,} of {tried:,} not in clips/, empty, damaged or too short"
        check_count(code, len(found), str(folder), notes if tried > len(found) else "")
        self._left_out.pop(code, None)
        if tried > len(found):
            self._left_out[code] = f"{folder}: left out of {code}: {notes}"
        return found

    def _usable(self, folder: Path, recordings: list[Recording]) -> list[Recording]:
        """Those that last long enough by the table of durations, if there is one, and by their files."""
        durations = folder / DURATIONS
        if durations.exists():
            names = [recording.file.rpartition("/")[2] for recording in recordings]
            short = _shorter(durations, names, 1000 * shortest_s(self.options.seconds))
            recordings = [recording for recording, name in zip(recordings, names, strict=True) if name not in short]
        return usable(self.root, recordings, self.options)


def _language_folders(root: Path) -> list[Path]:
    """The folders with tables of clips in a directory, at most two levels down, the newest release last."""
    if _tables(root):
        return [root]
    found = []
    for name in sorted(subfolders(root), key=_release):
        folder = root / name
        if _tables(folder):
            found.append(folder)
        else:
            found += [folder / inner for inner in subfolders(folder) if _tables(folder / inner)]
    return found


def _release(name: str) -> tuple[bool, list[int], str]:
    """What releases are sorted by; one that only adds to another comes before all whole ones."""
    return "delta" not in name, [int(number) for number in re.findall(r"\d+", name)], name


def _tables(folder: Path) -> list[Path]:
    """The tables of clips in a language's folder."""
    if (folder / "validated.tsv").is_file():
        return [folder / "validated.tsv"]
    return [folder / name for name in SPLIT_TABLES if (folder / name).is_file()]


def _batches(table: Path, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    """Some columns of a table, as text, a piece at a time.

    Raises:
        SourceError: it cannot be read, lacks a column, or is not UTF-8.
    """
    import pyarrow
    from pyarrow import csv

    try:
        with csv.open_csv(
            table,
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(
                delimiter="\t",
                quote_char=False,
                invalid_row_handler=lambda row: "skip",
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(columns),
                column_types={column: pyarrow.string() for column in columns},
                strings_can_be_null=False,
            ),
        ) as reader:
            yield from reader
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise SourceError(
            f"{table}: cannot be read as a table of Common Voice ({str(error).strip()}); unpack its archive again"
        ) from error


def client_numbers(tables: Sequence[Path]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Who speaks in each row of the tables, as numbers, and the number of each client_id."""
    numbers: dict[str, int] = {}
    parts = [np.empty(0, dtype=np.int64)]
    for table in tables:
        for batch in _batches(table, ["client_id"]):
            column = batch.column(0).dictionary_encode()
            local = [numbers.setdefault(client, len(numbers)) for client in column.dictionary.to_pylist()]
            parts.append(np.array(local, dtype=np.int64)[column.indices.to_numpy()])
    return np.concatenate(parts), numbers


def read_rows(tables: Sequence[Path], rows: NDArray[np.int64], folder: str) -> list[Recording]:
    """Some rows of the tables, in the order asked for; those without a file name left out."""
    ascending = np.sort(rows)
    columns = ["client_id", "path", "sentence"]
    read: list[dict[str, str]] = []
    start = 0
    for table in tables:
        for batch in _batches(table, columns):
            here = ascending[np.searchsorted(ascending, start) : np.searchsorted(ascending, start + len(batch))]
            read += batch.take((here - start).tolist()).to_pylist() if len(here) else []
            start += len(batch)
    place = {int(row): i for i, row in enumerate(ascending)}
    inside = "" if folder == "." else f"{folder}/"
    recordings = []
    for row in rows.tolist():
        clip = read[place[row]]
        name = clip["path"].rpartition("/")[2]
        if not name:
            continue
        if "." not in name:  # as in the first releases
            name += ".mp3"
        client = clip["client_id"]
        recordings.append(
            Recording(file=f"{inside}clips/{name}", speaker=client, voice=_voice(client), text=clip["sentence"].strip())
        )
    return recordings


def _voice(client: str) -> str:
    """What a speaker is called in a dataset: 16 hexadecimal digits, other ones for every `client_id`."""
    return hashlib.blake2b(client.encode(), digest_size=8).hexdigest()


def _shorter(table: Path, names: Sequence[str], least_ms: float) -> set[str]:
    """Those of some clips that the table of durations says are shorter."""
    import pyarrow
    from pyarrow import compute

    short: set[str] = set()
    wanted_names = pyarrow.array(names, pyarrow.string())
    for batch in _batches(table, _duration_columns(table)):
        clips, durations = batch.column(0), batch.column(1)
        ours = compute.is_in(clips, value_set=wanted_names)
        for name, duration_ms in zip(clips.filter(ours).to_pylist(), durations.filter(ours).to_pylist(), strict=True):
            try:
                is_short = float(duration_ms) < least_ms
            except ValueError:
                is_short = False  # its file tells
            if is_short:
                short.add(name)
    return short


def _duration_columns(table: Path) -> list[str]:
    """The names of the first two columns: the second is `duration[ms]`, and was `duration` in some releases."""
    with table.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n").split("\t")[:2]


def open_common_voice(argument: str, options: SpeechOptions) -> CommonVoicePool:
    """The pool of `--speech common-voice:DIR`.

    Raises:
        UsageError: no directory is named.
        SourceError: it is not there, or holds no Common Voice.
    """
    if not argument:
        raise UsageError("--speech common-voice: name the directory that holds cv-corpus-N/en/clips: common-voice:DIR")
    root = Path(argument).expanduser().absolute()
    if not _language_folders(root):
        raise SourceError(
            f"{root}: no Common Voice in it; it holds cv-corpus-N/LANG or LANG, with clips/ and validated.tsv each"
        )
    return CommonVoicePool(root=root, options=of_options(options))
