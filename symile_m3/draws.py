"""From raw 64-bit draws to whole numbers and to texts, for all samples of a range at once.

Array suffixes: N samples, W words a text, J draws without replacement, R raw 64-bit draws a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def below(raw: NDArray[np.uint64], bound: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Uniform integers in [0, bound) from raw 64-bit draws."""
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53 * bound).astype(np.int64)


def _distinct(raw_NJ: NDArray[np.uint64], avoid_N: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
    """J distinct integers in [0, bound) a row, none equal to `avoid`; the result is (N, 1 + J), `avoid` first.

    Every ordered choice is equally likely. Each draw says which of the integers not yet taken it means, so
    the rows are Lehmer codes, decoded from the right for all rows at once.
    """
    count, draws = raw_NJ.shape
    chosen = np.empty((draws + 1, count), dtype=np.int32)
    chosen[0] = avoid_N
    chosen[1:] = below(raw_NJ.T, bound - 1 - np.arange(draws)[:, None])
    for place in range(draws - 1, -1, -1):
        after = chosen[place + 1 :]
        after += after >= chosen[place]
    return np.ascontiguousarray(chosen.T, dtype=np.int64)


def draws_per_text(words: int) -> int:
    """Raw 64-bit draws that `draw_texts` needs a sample."""
    return 3 * words - 2


def draw_texts(
    raw_NR: NDArray[np.uint64],
    class_ids_N: NDArray[np.int64],
    language_ids_N: NDArray[np.int64],
    *,
    words: int,
    classes: int,
    languages: int,
    overlap: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw the distractors of N texts and shuffle each text.

    Args:
        raw_NR: (N, `draws_per_text(words)`) raw 64-bit draws.
        class_ids_N, language_ids_N: (N,) the target words.

    Returns:
        The words' class ids (N, W), their language ids (N, W), and the position of the target (N,).
    """
    others = words - 1
    raw_language, raw_class, raw_order = np.split(raw_NR, [others, 2 * others], axis=1)
    if overlap:
        word_languages = below(raw_language, languages - 1)
        word_languages += word_languages >= language_ids_N[:, None]
        word_languages = np.concatenate([language_ids_N[:, None], word_languages], axis=1)
        word_classes = np.concatenate([class_ids_N[:, None], below(raw_class, classes)], axis=1)
    else:
        word_languages = _distinct(raw_language, language_ids_N, languages)
        word_classes = _distinct(raw_class, class_ids_N, classes)
    order = np.argsort(raw_order, axis=1, kind="stable")
    places = order + words * np.arange(len(order))[:, None]
    return (
        word_classes.take(places),
        word_languages.take(places),
        np.argmin(order, axis=1),  # where 0, the target, went
    )
