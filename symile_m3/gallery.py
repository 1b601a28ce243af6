"""Queries to look at: what each objective retrieved for them, beside what was right.

Hits and misses are drawn evenly from all ways in which the objectives can be right and wrong together, so that each can
be seen; how often each way occurs is counted over all queries. Suffixes: O objectives, Q queries, N candidates.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from symile_m3.questions import Questions
from symile_m3.seeds import generator
from symile_m3.shards import decode_audio, decode_image
from symile_m3.shown import ShownSample, read_shown

IMAGE_BYTES, CLIP_BYTES = 24_000, 64_000
"""Media that are larger are carried on the page smaller: 24 samples then take less than 5 MB."""
_SIDE = 224  # pixels, of an image made smaller


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one objective retrieved for one query.

    Attributes:
        objective: its name.
        jpg, class_key, class_name: of the image.
        right: whether it has the query's class.
        rank: place of the first right image among all candidates.
        language: of the word of the text that names the image; None where no word does.
    """

    objective: str
    jpg: bytes
    class_key: str
    class_name: str
    right: bool
    rank: int
    language: str | None


@dataclass(frozen=True, kw_only=True)
class ShownQuery:
    """One query, and an answer by each objective."""

    sample: ShownSample
    answers: tuple[Answer, ...]

    @property
    def outcome(self) -> tuple[str, ...]:
        """The objectives that are right."""
        return tuple(answer.objective for answer in self.answers if answer.right)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The queries drawn.

    Attributes:
        queries: in the order they are shown.
        outcomes: objectives that are right -> how many of all queries; the commonest first.
    """

    queries: tuple[ShownQuery, ...]
    outcomes: dict[tuple[str, ...], int]


def draw_gallery(
    questions: Questions,
    names: Sequence[str],
    ranks_OQ: NDArray[np.int64],
    retrieved_OQ: NDArray[np.int64],
    shown_OQ: NDArray[np.int64],
    count: int,
    seed: int,
) -> Gallery:
    """Draw queries and read what is shown of them.

    Args:
        names: of the objectives.
        ranks_OQ: of the first right image.
        retrieved_OQ: candidates.
        shown_OQ: as `symile_m3.confusion.shown_languages` has it.
        count: how many to draw; 0 for none.
        seed: of the draw.

    Raises:
        DamagedSampleError: a sample drawn is damaged.
    """
    right_OQ = ranks_OQ == 1
    kinds_Q = (right_OQ * (1 << np.arange(len(names)))[:, None]).sum(axis=0)
    codes = questions.dataset.plan.lexicon.languages
    queries = []
    for q in draw_evenly(kinds_Q, count, seed):
        answers = []
        for o, name in enumerate(names):
            found = _image(questions, int(retrieved_OQ[o, q]))
            language = int(shown_OQ[o, q])
            answers.append(
                Answer(
                    objective=name,
                    jpg=found.jpg,
                    class_key=found.record["class_key"],
                    class_name=found.record["class_name"],
                    right=bool(right_OQ[o, q]),
                    rank=int(ranks_OQ[o, q]),
                    language=codes[language] if language < len(codes) else None,
                )
            )
        queries.append(ShownQuery(sample=_query(questions, q), answers=tuple(answers)))
    kinds, counts = np.unique(kinds_Q, return_counts=True)
    outcomes = {
        tuple(name for o, name in enumerate(names) if kinds[k] >> o & 1): int(counts[k])
        for k in np.argsort(-counts, kind="stable")
    }
    return Gallery(queries=tuple(queries), outcomes=outcomes)


def draw_evenly(kinds_Q: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """Queries drawn without replacement, of each kind as many as there are or as evenness takes, the kinds in turn."""
    random = generator(seed, "gallery")
    order = random.permutation(len(kinds_Q))
    turns = np.zeros(len(kinds_Q), np.int64)
    for kind in np.unique(kinds_Q):
        of_kind = order[kinds_Q[order] == kind]
        turns[of_kind] = np.arange(len(of_kind))
    drawn: list[int] = np.lexsort((kinds_Q, turns))[:count].tolist()
    return drawn


def smaller_image(data: bytes, limit: int = IMAGE_BYTES) -> bytes:
    """A JPEG as it is, or where it has more bytes than `limit`, one of at most 224 pixels a side."""
    if len(data) <= limit:
        return data
    image = Image.fromarray(decode_image(data))
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def smaller_clip(data: bytes, limit: int = CLIP_BYTES) -> tuple[str, bytes]:
    """The type and bytes of a clip: FLAC as it is, or where it has more bytes than `limit`, MP3."""
    if len(data) <= limit:
        return "audio/flac", data
    wave_T, rate_hz = decode_audio(data)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave_T, rate_hz, format="MP3", compression_level=0.9)
    return "audio/mpeg", buffer.getvalue()


def _query(questions: Questions, q: int) -> ShownSample:
    return read_shown(questions.dataset.readers["test"], int(questions.keys[q].rsplit("-", 1)[1]))


def _image(questions: Questions, candidate: int) -> ShownSample:
    """The first sample with a candidate image."""
    split, i = questions.dataset.images.first[int(questions.image_rows_N[candidate])]
    return read_shown(questions.dataset.readers[split], i)
