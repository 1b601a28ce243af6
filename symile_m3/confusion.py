"""Which word of the text the retrieved image shows: the word in the spoken language, or one in another.

A text names one class in the spoken language and other classes in others. A model that hears the language retrieves
what the first one names; one that does not, what any of them names. Suffixes: S runs, Q queries, W words a text,
L languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_WORD = "no word"


def shown_languages(
    class_SQ: NDArray[np.int64], spoken_Q: NDArray[np.int64], words_QW: NDArray[np.int64], languages: int
) -> NDArray[np.int64]:
    """(S, Q) the language of the word that names the class of the retrieved image.

    Where several words do, which only `overlap` texts allow, the one in the spoken language counts, else the first.

    Args:
        class_SQ: class of the image each query retrieved, in each run.
        spoken_Q: language that is spoken.
        words_QW: words of the texts, as class * languages + language.
        languages: how many there are.

    Returns:
        Numbers of languages; `languages` itself where no word names the class.
    """
    named_SQW = words_QW // languages == class_SQ[:, :, None]
    word_languages_QW = words_QW % languages
    spoken_SQW = named_SQW & (word_languages_QW == spoken_Q[:, None])
    order_SQW = named_SQW.astype(np.int8) + spoken_SQW
    at_SQ = order_SQW.argmax(axis=2)
    shown_SQ = np.take_along_axis(np.broadcast_to(word_languages_QW, order_SQW.shape), at_SQ[:, :, None], axis=2)
    found: NDArray[np.int64] = np.where(named_SQW.any(axis=2), shown_SQ[:, :, 0], languages)
    return found


def confusion(shown_SQ: NDArray[np.int64], spoken_Q: NDArray[np.int64], codes: Sequence[str]) -> dict[str, Any]:
    """Of the queries spoken in each language: in what share the image shows the word in each language.

    Args:
        shown_SQ: as `shown_languages` has it.
        spoken_Q: language that is spoken.
        codes: of the languages.

    Returns:
        `languages`: the columns, of which the last is "no word"; `rows`: spoken language -> shares, one a column, which
        add up to one; `n`: spoken language -> queries; `target`, `distractor`, `no_word`: shares of all queries. A
        language that no query speaks has no row.
    """
    columns = len(codes) + 1
    rows, n = {}, {}
    for i, code in enumerate(codes):
        chosen = spoken_Q == i
        if chosen.any():
            counts = np.bincount(shown_SQ[:, chosen].ravel(), minlength=columns)
            rows[code] = (counts / counts.sum()).tolist()
            n[code] = int(chosen.sum())
    target, none = float((shown_SQ == spoken_Q).mean()), float((shown_SQ == len(codes)).mean())
    return {
        "languages": [*codes, NO_WORD],
        "rows": rows,
        "n": n,
        "target": target,
        "distractor": 1 - target - none,
        "no_word": none,
    }
