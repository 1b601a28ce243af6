"""Which word the retrieved image shows, and which queries are drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from symile_m3.confusion import confusion, shown_languages
from symile_m3.gallery import draw_evenly, smaller_clip, smaller_image

CODES = ("a", "b", "c")


def word(class_id: int, code: str) -> int:
    return class_id * len(CODES) + CODES.index(code)


def test_the_word_that_names_the_class_tells_the_language() -> None:
    words = np.array([[word(4, "b"), word(7, "a"), word(2, "c")]] * 4)
    spoken = np.array([0, 0, 1, 2])
    shown = shown_languages(np.array([[7, 4, 9, 2]]), spoken, words, 3)
    assert shown.tolist() == [[0, 1, 3, 2]]


def test_of_several_words_for_a_class_the_spoken_one_counts() -> None:
    words = np.array([[word(4, "b"), word(4, "c"), word(1, "a")]] * 3)
    shown = shown_languages(np.array([[4, 4, 4]]), np.array([2, 1, 0]), words, 3)
    assert shown.tolist() == [[2, 1, 1]]


def test_shares_are_counts_over_queries_and_runs() -> None:
    spoken = np.array([0, 0, 0, 2])
    shown = np.array([[0, 1, 3, 2], [0, 0, 1, 0]])
    table = confusion(shown, spoken, CODES)
    assert table["rows"] == {"a": pytest.approx([3 / 6, 2 / 6, 0, 1 / 6]), "c": pytest.approx([0.5, 0, 0.5, 0])}
    assert table["n"] == {"a": 3, "c": 1}
    assert table["target"] == pytest.approx(4 / 8)
    assert table["no_word"] == pytest.approx(1 / 8)
    assert table["distractor"] == pytest.approx(3 / 8)


def test_kinds_are_drawn_evenly_as_far_as_they_go() -> None:
    kinds = np.array([0] * 50 + [1] * 3 + [3] * 20)
    drawn = draw_evenly(kinds, 15, seed=4)
    assert len(set(drawn)) == 15
    assert np.bincount(kinds[drawn]).tolist() == [6, 3, 0, 6]
    assert sorted(kinds[drawn[:3]]) == [0, 1, 3]
    assert drawn == draw_evenly(kinds, 15, seed=4) != draw_evenly(kinds, 15, seed=5)
    assert sorted(draw_evenly(kinds, 1000, seed=0)) == list(range(73))
    assert draw_evenly(kinds, 0, seed=0) == []


def test_large_media_are_carried_smaller_and_small_ones_as_they_are() -> None:
    noise = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(noise.integers(0, 256, (900, 600, 3), dtype=np.uint8)).save(buffer, format="JPEG", quality=95)
    image = smaller_image(buffer.getvalue())
    with Image.open(io.BytesIO(image)) as found:
        assert (found.format, found.size) == ("JPEG", (149, 224))
    assert len(image) < len(buffer.getvalue()) / 10
    assert smaller_image(image, len(image)) is image

    buffer = io.BytesIO()
    soundfile.write(buffer, noise.normal(0, 0.1, 16_000 * 12), 16_000, format="FLAC")
    kind, clip = smaller_clip(buffer.getvalue())
    assert kind == "audio/mpeg"
    assert len(clip) < len(buffer.getvalue()) / 5
    sound, rate_hz = soundfile.read(io.BytesIO(clip))
    assert len(sound) / rate_hz == pytest.approx(12, abs=0.2)
    assert smaller_clip(buffer.getvalue(), len(buffer.getvalue())) == ("audio/flac", buffer.getvalue())
