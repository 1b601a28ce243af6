"""The emoji image pool."""

from __future__ import annotations

import io
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from symile_m3.errors import SourceError, UsageError
from symile_m3.images import EmojiPool, open_image_pool
from symile_m3.images.emoji import BACKGROUND, CANVAS_PX, VENDORS
from symile_m3.lexicon import builtin_lexicon
from symile_m3.media import Recipe

KEYS = builtin_lexicon().class_keys
# Of this couple the package has the same file under every vendor.
SAME_FILES = "1f468-1f3fb-200d-2764-200d-1f468-1f3fb"


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    return EmojiPool(seed=0).recipes(KEYS)


def test_each_class_has_one_drawing_for_val_and_one_for_test(recipes: list[Recipe]) -> None:
    of_class: dict[str, Counter[str]] = {}
    for recipe in recipes:
        of_class.setdefault(recipe.group, Counter())[recipe.split] += 1
    assert tuple(of_class) == KEYS
    for counts in of_class.values():
        assert counts["val"] == counts["test"] == 1
        assert counts["train"] == counts.total() - 2 >= 1
    drawn = EmojiPool(seed=0).classes()
    assert all(of_class[key].total() == drawn[key] for key in KEYS)


def test_every_vendor_is_the_test_vendor_of_some_classes(recipes: list[Recipe]) -> None:
    for split in ("val", "test"):
        counts = Counter(recipe.attributes["vendor"] for recipe in recipes if recipe.split == split)
        assert set(counts) == set(VENDORS)
        assert max(counts.values()) < 2 * min(counts.values())


def test_the_choice_is_made_class_by_class(recipes: list[Recipe]) -> None:
    some = KEYS[10:20]
    assert EmojiPool(seed=0).recipes(some) == [recipe for recipe in recipes if recipe.group in some]
    splits = {recipe.name: recipe.split for recipe in recipes}
    other = {recipe.name: recipe.split for recipe in EmojiPool(seed=1).recipes(KEYS)}
    assert splits.keys() == other.keys()
    assert splits != other


def test_recipes_say_whose_a_drawing_is(recipes: list[Recipe]) -> None:
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        vendor = VENDORS[recipe.attributes["vendor"]]
        assert recipe.source == f"emoji:{vendor}"
        assert recipe.licence in ("Apache-2.0", "CC-BY-4.0") or vendor in recipe.licence


def test_emoji_that_are_not_drawn_by_each_vendor_are_refused() -> None:
    drawn = EmojiPool(seed=0).classes()
    assert SAME_FILES not in drawn
    with pytest.raises(SourceError, match=f"class {SAME_FILES}: 1 distinct drawings"):
        EmojiPool(seed=0).recipes([KEYS[0], SAME_FILES])
    with pytest.raises(SourceError, match="class nothing: 0 distinct drawings"):
        EmojiPool(seed=0).recipes(["nothing"])
    assert set(KEYS) <= set(drawn)
    assert 400 < sum(drawn[key] == len(VENDORS) for key in KEYS) <= len(KEYS)


def test_a_drawing_is_a_jpeg_on_a_light_background(recipes: list[Recipe]) -> None:
    pool = EmojiPool(seed=0)
    for recipe in recipes[::97]:
        with Image.open(io.BytesIO(pool.make(recipe))) as image:
            assert image.format == "JPEG"
            assert (image.mode, image.size) == ("RGB", (CANVAS_PX, CANVAS_PX))
            pixels = np.array(image).astype(int)
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.abs(corners - BACKGROUND).max() <= 4
        assert pixels.std() > 5


def test_drawings_are_the_same_again_and_distinct(recipes: list[Recipe]) -> None:
    of_class = [recipe for recipe in recipes if recipe.group == KEYS[100]]
    made = [EmojiPool(seed=0).make(recipe) for recipe in of_class]
    assert len(set(made)) == len(made)
    assert [pickle.loads(pickle.dumps(EmojiPool(seed=5))).make(recipe) for recipe in of_class] == made


def test_unknown_sources_are_named() -> None:
    with pytest.raises(UsageError, match="--images clipart: no such source; known: emoji"):
        open_image_pool("clipart")
    with pytest.raises(UsageError, match="--images emoji:x: emoji takes nothing"):
        open_image_pool("emoji:x")
