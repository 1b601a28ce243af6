"""What pools of recordings share: which recordings are taken, for which split, and what is recorded of them."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import soundfile

from symile_m3.errors import SourceError
from symile_m3.media import Medium, Recipe, SpeechOptions
from symile_m3.parallel import available_cpus
from symile_m3.plan import SPLITS, PlanConfig
from symile_m3.speech.cut import cut_clip, quiet_decoder, shortest_s
from symile_m3.speech.speakers import split_speakers

FEWEST = 10
"""Recordings that a language has at least."""

SPARE = 2
"""Recordings looked at for each that is taken: some repeat a sentence of another split, or cannot be used."""

_LONGEST = "longest_s"  # attribute: what a clip was cut to
_ATTEMPTS = 20  # to divide the speakers so that few sentences, said by many, are enough for all splits


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One recording that may become a clip.

    Attributes:
        file: its path below the directory of the source, with `/`.
        speaker: who speaks; the file itself where that is not known.
        voice: what to call the speaker in a dataset; None where the source tells none apart.
        text: what is said; None where that is not known.
    """

    file: str
    speaker: str
    voice: str | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedPool:
    """What pools of recordings have in common; each says with `recipes` what it has.

    Attributes:
        root: the directory.
        options: how many clips a language at most, of how many seconds, and the seed of what is taken.
    """

    root: Path
    options: SpeechOptions
    _left_out: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def suffix(self) -> str:
        """`flac`."""
        return "flac"

    def notes(self) -> list[str]:
        """What the last `recipes` left out, in a line for each language."""
        return list(self._left_out.values())

    def make(self, recipe: Recipe) -> bytes:
        """The clip as FLAC: 16 kHz, mono, 16 bit.

        Raises:
            UnusableError: the recording is damaged, silent, or too short; the message names the recipe.
            SourceError: it is not there, or cannot be opened.
        """
        try:
            return cut_clip(self.root / recipe.attributes["file"], longest_s=float(recipe.attributes[_LONGEST]))
        except SourceError as error:
            raise type(error)(f"clip {recipe.name}: {error}") from error


def choose_recipes(
    found: Mapping[str, Sequence[Recording]],
    options: SpeechOptions,
    *,
    source: str,
    licence: str,
    where: Mapping[str, str],
) -> list[Recipe]:
    """The recordings that are taken of each language, and the split of each.

    A speaker is in one split only, and so is a sentence. Test is filled first, then val, then train.

    Args:
        found: language -> usable recordings, in the order to take them in.
        options: how many a language, and how long they may be.
        source, licence: of the recipes.
        where: language -> the place they are from, for messages.

    Raises:
        SourceError: a language has too few recordings, or too few speakers, for three splits.
    """
    counts = {code: Counter(recording.speaker for recording in of_code) for code, of_code in found.items()}
    for code, speakers in counts.items():
        if len(speakers) < len(SPLITS):
            raise SourceError(
                f"{where[code]}: {len(speakers)} speaker{'s' * (len(speakers) != 1)} of {code}; no one is heard in two "
                f"of train, val and test, so at least three are needed: add recordings, or leave {code} out of --langs"
            )
    weights = {code: _weights(found[code], speakers, sum(options.clips)) for code, speakers in counts.items()}
    for attempt in range(_ATTEMPTS):
        splits = split_speakers(weights, options.clips, options.seed, attempt)
        taken = {code: _take(recordings, splits[code], options.clips) for code, recordings in found.items()}
        empty = [(code, split) for code in found for split in SPLITS if not taken[code][split]]
        if not empty:
            break
    else:
        code, split = empty[0]
        raise SourceError(
            f"{where[code]}: no recordings of {code} left for {split}, where each speaker and each sentence is in one "
            f"split only; add recordings, or leave {code} out of --langs"
        )
    recipes = []
    for code in found:
        for split in SPLITS:
            for i, recording in enumerate(taken[code][split]):
                attributes = {"file": recording.file, _LONGEST: f"{options.seconds:g}"}
                if recording.voice is not None:
                    attributes["voice"] = recording.voice
                if recording.text is not None:
                    attributes["text"] = recording.text
                    attributes["sentence"] = _sentence_id(recording.text or recording.file)
                recipes.append(
                    Recipe(
                        name=f"{code}-{split}-{i:05d}",
                        group=code,
                        split=split,
                        source=source,
                        licence=licence,
                        attributes=attributes,
                    )
                )
    return recipes


def _weights(recordings: Sequence[Recording], counts: Mapping[str, int], taken: int) -> dict[str, int]:
    """Speaker -> recordings, but no more than are taken of anyone while others have some left."""
    most = max(Counter(recording.speaker for recording in recordings[:taken]).values())
    return {speaker: min(count, most) for speaker, count in counts.items()}


def _take(
    recordings: Sequence[Recording], split_of: Mapping[str, str], clips: tuple[int, int, int]
) -> dict[str, list[Recording]]:
    """Split -> the recordings taken for it: first one for each, where there is least choice first, then the rest."""
    free: dict[str, list[Recording]] = {split: [] for split in SPLITS}
    for recording in recordings:
        free[split_of[recording.speaker]].append(recording)
    taken: dict[str, list[Recording]] = {split: [] for split in SPLITS}
    split_of_text: dict[str, str] = {}
    most = dict(zip(SPLITS, clips, strict=True))
    rounds = [(split, 1) for split in sorted(SPLITS, key=lambda split: len(free[split]))]
    rounds += [(split, most[split]) for split in reversed(SPLITS)]
    for split, count in rounds:
        chosen = taken[split]
        for recording in free[split]:
            if len(chosen) >= count:
                break
            if recording in chosen[:1]:
                continue
            if not recording.text or split_of_text.setdefault(recording.text, split) == split:
                chosen.append(recording)
    return taken


def _sentence_id(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def usable(root: Path, recordings: Sequence[Recording], options: SpeechOptions) -> list[Recording]:
    """Those whose file is there, has a header that can be read, and is long enough by it."""
    least_s = shortest_s(options.seconds)

    def good(recording: Recording) -> bool:
        path = root / recording.file
        try:
            return path.stat().st_size > 0 and bool(soundfile.info(path).duration >= least_s)
        except (OSError, soundfile.LibsndfileError):
            return False

    with quiet_decoder(Path("any.mp3")), ThreadPoolExecutor(2 * available_cpus()) as executor:
        are_good = list(executor.map(good, recordings))
    return list(itertools.compress(recordings, are_good))


def wanted(options: SpeechOptions) -> int:
    """How many usable recordings of a language are enough to choose from."""
    return max(FEWEST, SPARE * sum(options.clips))


def check_count(code: str, count: int, where: str, unusable: str) -> None:
    """Check that a language has enough usable recordings.

    Args:
        where: the directory or table they are from.
        unusable: what else is there, in words; empty for nothing.

    Raises:
        SourceError: it has fewer than ten.
    """
    if count < FEWEST:
        also = f" ({unusable})" if unusable else ""
        raise SourceError(
            f"{where}: {count} recording{'s' * (count != 1)} of {code} that can be used{also}; at least {FEWEST} are "
            f"needed: add some, or leave {code} out of --langs"
        )


def check_clips(clips: Sequence[Medium], languages: Sequence[str], config: PlanConfig) -> None:
    """Check that the distinct clips that could be made are enough, whatever was left out.

    Raises:
        SourceError: a language has no clip in a split, or fewer than ten recordings.
    """
    counts = Counter((medium.recipe.group, medium.recipe.split) for medium in clips)
    synthetic = {medium.recipe.group for medium in clips if medium.recipe.synthetic}
    for code in languages:
        of_split = {split: counts[code, split] for split in SPLITS}
        total = sum(of_split.values())
        least = 1 if code in synthetic else min(FEWEST, sum(config.clips))
        if total < least or (config.split_by == "media" and not all(of_split.values())):
            left = ", ".join(f"{count} for {split}" for split, count in of_split.items())
            raise SourceError(
                f"--speech {config.speech}: too few distinct clips of {code} can be used ({left}); at least {least} "
                f"are needed, and one for each split: add recordings, or leave {code} out of --langs"
            )


def find_folder(root: Path, names: Iterable[str], code: str, preferred: Sequence[str] = ()) -> str | None:
    """The one of some folder names that stands for a language: its code, in any case, or the code with a region.

    Args:
        root: where the folders are, for messages.
        preferred: names that come before others with a region.

    Raises:
        SourceError: several regions are there, and none is preferred.
    """
    known = {name.lower().replace("_", "-"): name for name in sorted(names)}
    code = code.lower().replace("_", "-")
    for name in (code, *(name.lower() for name in preferred)):
        if name in known:
            return known[name]
    regions = [known[name] for name in known if name.partition("-")[0] == code]
    if len(regions) > 1:
        raise SourceError(
            f"{root}: {', '.join(regions)} are all {code}; name the one to take in --langs, or link it as {code}"
        )
    return regions[0] if regions else None


def subfolders(directory: Path) -> list[str]:
    """Names of the directories in a directory, sorted; hidden ones left out.

    Raises:
        SourceError: it is not there, no directory, or cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError as error:
        raise SourceError(f"{directory}: no such directory; name the one with a folder for each language") from error
    except NotADirectoryError as error:
        raise SourceError(f"{directory}: is a file; name the directory with a folder for each language") from error
    except OSError as error:
        raise SourceError(f"{directory}: cannot be read: {error.strerror}") from error


def of_options(options: SpeechOptions) -> SpeechOptions:
    """The options without what recordings do not heed, so that a pool stays small."""
    return replace(options, forbidden={})
