"""Texts drawn anew each epoch: the distractors of a sample from (seed, epoch, key), all else kept.

A text is one draw of a known process. With fixed texts a small build is memorised; with redrawn ones every
epoch shows the same images, clips, classes and languages with other distractors, in the same way for
every objective. Suffixes: B samples, R raw draws a sample, W words a text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from symile_m3.draws import draw_texts, draws_per_text
from symile_m3.plan import Plan

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def raw_draws(keys: Sequence[str], draws: int, *, seed: int, epoch: int) -> NDArray[np.uint64]:
    """Counter-based 64-bit draws for samples, (B, R): a pure function of (seed, epoch, key)."""
    prefix = f"{seed}\x1f{epoch}\x1f"
    digests = b"".join(hashlib.blake2b((prefix + key).encode(), digest_size=8).digest() for key in keys)
    start_B1 = np.frombuffer(digests, dtype="<u8").astype(np.uint64)[:, None]
    return _mix(start_B1 + _GOLDEN * np.arange(1, draws + 1, dtype=np.uint64))


def redraw_texts(
    plan: Plan,
    keys: Sequence[str],
    class_ids: NDArray[np.int64],
    language_ids: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
) -> list[str]:
    """A text for each sample, with distractors drawn for this epoch."""
    words = plan.config.words
    word_class_ids_BW, word_language_ids_BW, _ = draw_texts(
        raw_draws(keys, draws_per_text(words), seed=seed, epoch=epoch),
        class_ids,
        language_ids,
        words=words,
        classes=len(plan.lexicon),
        languages=len(plan.lexicon.languages),
        overlap=plan.config.text == "overlap",
    )
    names = plan.lexicon.names
    return [
        "_".join(names[word_class][word_language] for word_class, word_language in zip(classes, languages, strict=True))
        for classes, languages in zip(word_class_ids_BW.tolist(), word_language_ids_BW.tolist(), strict=True)
    ]
