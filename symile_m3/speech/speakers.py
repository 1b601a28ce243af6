"""Who speaks in recordings: taking turns among speakers, and which split each of them belongs to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from symile_m3.plan import SPLITS
from symile_m3.seeds import generator


def in_turn(speakers: NDArray[np.int64], *key: object) -> NDArray[np.int64]:
    """The order in which recordings are taken, so that any first part of it has as many speakers as it can.

    First comes one recording of every speaker, then a second one of every speaker who has two, and so on; speakers and
    their recordings are in an order that is drawn.

    Args:
        speakers: (N,) who speaks in each recording, as numbers from 0.
        key: what the draw depends on, such as a seed and a language.

    Returns:
        (N,) positions in `speakers`.
    """
    count = len(speakers)
    if not count:
        return np.empty(0, dtype=np.int64)
    rng = generator("in-turn", *key)
    drawn = rng.permutation(count)
    by_speaker = drawn[np.argsort(speakers[drawn], kind="stable")]
    grouped = speakers[by_speaker]
    starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
    sizes = np.diff(np.concatenate([starts, [count]]))
    turns = np.empty(count, dtype=np.int64)
    turns[by_speaker] = np.arange(count) - np.repeat(starts, sizes)
    place = rng.permutation(int(speakers.max()) + 1)
    return np.lexsort((place[speakers], turns))


def split_speakers(
    counts: Mapping[str, Mapping[str, int]], shares: tuple[int, int, int], *key: object
) -> dict[str, dict[str, str]]:
    """The split of every speaker, the same in all languages that one speaks.

    In each language the splits get recordings in proportion to `shares`, as far as whole speakers allow: from the one
    with most recordings on, each goes where most are lacking. A language with three speakers or more has one in every
    split, unless other languages have settled it otherwise.

    Args:
        counts: language -> speaker -> number of recordings.
        shares: of train, val and test.
        key: what the order among speakers with equally many recordings depends on, such as a seed.

    Returns:
        language -> speaker -> split.
    """
    settled: dict[str, str] = {}
    for language in sorted(counts, key=lambda language: (len(counts[language]), language)):
        total = sum(counts[language].values())
        lacking = {split: total * share / sum(shares) for split, share in zip(SPLITS, shares, strict=True)}
        filled = set()
        free = []
        for speaker, count in counts[language].items():
            if speaker in settled:
                lacking[settled[speaker]] -= count
                filled.add(settled[speaker])
            else:
                free.append(speaker)
        free.sort()
        order = generator("split-speakers", *key, language).permutation(len(free)).tolist()
        drawn = sorted((free[i] for i in order), key=lambda speaker: -counts[language][speaker])
        for i, speaker in enumerate(drawn):
            empty = [split for split in SPLITS if split not in filled]
            open_to = empty if len(drawn) - i <= len(empty) else SPLITS
            split = max(open_to, key=lambda split: lacking[split])
            settled[speaker] = split
            lacking[split] -= counts[language][speaker]
            filled.add(split)
    return {language: {speaker: settled[speaker] for speaker in speakers} for language, speakers in counts.items()}
