"""The lexicon: the table that is shipped, and the checks that any lexicon must pass."""

from __future__ import annotations

import unicodedata

import pytest

from symile_m3.errors import LexiconError, UsageError
from symile_m3.images import EmojiPool
from symile_m3.languages import SETS
from symile_m3.lexicon import Lexicon, builtin_lexicon, normalise, open_lexicon, parse_table

# How the Unicode names of the letters of each language begin.
SCRIPTS = {
    "ar": ("ARABIC ",),
    "el": ("GREEK ",),
    "en": ("LATIN ",),
    "hi": ("DEVANAGARI ",),
    "ja": ("HIRAGANA ", "KATAKANA ", "KATAKANA-HIRAGANA ", "CJK "),
    "ko": ("HANGUL ",),
    "te": ("TELUGU ",),
    "th": ("THAI ",),
    "uk": ("CYRILLIC ",),
    "zh": ("CJK ",),
}
FOREIGN = {
    ("ja", "T"),  # Tシャツ, a shirt of that shape
    ("zh", "T"),  # T恤
    ("ja", "U"),  # U字型磁石, a magnet of that shape
    ("uk", "\u02bc"),  # the Ukrainian apostrophe is a letter: м\u02bcяч
}
# CLDR's categories of what is no thing: faces, people and their parts, flags, signs.
NO_THINGS = (
    *("face", "emotion", "person", "people", "hand", "body", "family", "gesture", "role", "skin", "hair"),
    *("flag", "arrow", "symbol", "sign", "alphanum", "keycap", "geometric", "punctuation", "zodiac"),
    *("math", "gender", "currency", "av-", "other-symbol", "religion"),
)


def table(*rows: str, header: str = "class_key\tcategory\ten\tel") -> str:
    return "\n".join((header, *rows)) + "\n"


def lexicon(*names: tuple[str, ...], languages: tuple[str, ...] = ("en", "ja", "zh")) -> Lexicon:
    keys = tuple(f"k{i}" for i in range(len(names)))
    return Lexicon(languages=languages, class_keys=keys, categories=("",) * len(names), names=names)


def test_the_shipped_one_is_large_and_complete() -> None:
    shipped = builtin_lexicon()
    assert len(shipped) >= 500
    assert shipped.languages == SETS[10]
    assert list(shipped.class_keys) == sorted(set(shipped.class_keys))
    assert all(name == name.strip() and name and "_" not in name for row in shipped.names for name in row)


def test_no_shipped_name_stands_for_two_classes_or_languages() -> None:
    shipped = builtin_lexicon()
    assert shipped.clashes() == []
    assert len({normalise(name) for row in shipped.names for name in row}) == 10 * len(shipped)


@pytest.mark.parametrize("language", SETS[10])
def test_shipped_names_are_in_the_script_of_their_language(language: str) -> None:
    shipped = builtin_lexicon()
    column = shipped.languages.index(language)
    for row in shipped.names:
        letters = [character for character in row[column] if unicodedata.category(character)[0] == "L"]
        assert letters
        for letter in letters:
            written_so = unicodedata.name(letter).startswith(SCRIPTS[language])
            assert written_so or (language, letter) in FOREIGN, (row[column], letter)


def test_shipped_classes_are_things() -> None:
    shipped = builtin_lexicon()
    assert not {c for c in shipped.categories if any(part in c for part in NO_THINGS)}
    points = {int(point, 16) for key in shipped.class_keys for point in key.split("-")}
    assert not points & set(range(0x1F550, 0x1F568))  # clock faces
    assert not points & set(range(0x1F1E6, 0x1F200))  # flags
    assert not points & set(range(0x1F600, 0x1F650))  # faces
    assert not points & set(range(0x1F3FB, 0x1F400))  # skin tones


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("goat", "ヤギ", "山羊"), ("sheep", "goat", "绵羊")),  # between languages
        (("water buffalo", "水牛", "水 牛x"), ("cow", "牛", "水牛")),  # Japanese and Chinese
        (("Selfie", "a", "b"), ("selfie", "c", "d")),  # case
        (("tea", "ｶﾞ", "b"), ("moth", "ガ", "d")),  # compatibility forms
        (("hot  dog", "a", "b"), (" hot dog", "c", "d")),  # spacing
        (("straße", "a", "b"), ("STRASSE", "c", "d")),
    ],
)
def test_clashes_are_found_and_cost_their_classes(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    clashing = lexicon(("dog", "犬", "狗"), one, other)
    (clash,) = clashing.clashes()
    assert {key for key, _ in clash.uses} == {"k1", "k2"}
    assert str(clash).startswith(repr(clash.name))
    left, clashes = clashing.without_clashes()
    assert left.class_keys == ("k0",)
    assert clashes == [clash]


def test_a_class_may_not_be_called_the_same_in_two_languages() -> None:
    clashing = lexicon(("sushi", "寿司", "寿司"), ("dog", "犬", "狗"))
    assert str(clashing.clashes()[0]) == "'寿司' stands for k0 in ja, k0 in zh"
    assert clashing.without_clashes()[0].class_keys == ("k1",)
    assert clashing.select_languages(["en", "ja"]).clashes() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be"),
        (table(header="key\tcategory\ten"), "the first line must be"),
        (table(header="class_key\tcategory\ten\ten"), "line 1: a column is there twice"),
        (table("a\tx\tant\tμ", "b\tx\tbee"), "line 3: class b has 3 columns, the header 4"),
        (table("", "a\tx\tant\t "), "line 3, column el: class a has no name"),
        (table("a\tx\tfire_ant\tμ"), "line 2, column en: 'fire_ant' contains '_'"),
        (table("a\tx\tant\tμ", "a\tx\tbee\tν"), "line 3: class 'a' is there twice"),
        (table("\tx\tant\tμ"), "line 2: class '' is no key"),
    ],
)
def test_a_malformed_table_names_line_and_column(text: str, message: str) -> None:
    with pytest.raises(LexiconError, match=f"^mine.tsv.*{message}"):
        parse_table(text, "mine.tsv")


def test_a_table_is_sorted_by_key_and_language() -> None:
    parsed = parse_table(table("b\tx\tbee\tμέλισσα", "", "a\ty\tant\tμυρμήγκι"), "mine.tsv")
    assert parsed.class_keys == ("a", "b")
    assert parsed.languages == ("el", "en")
    assert parsed.categories == ("y", "x")
    assert parsed.names == (("μυρμήγκι", "ant"), ("μέλισσα", "bee"))


def test_classes_are_drawn_by_the_seed() -> None:
    shipped = builtin_lexicon()
    drawn = shipped.draw_classes(20, 3)
    assert drawn == shipped.draw_classes(20, 3)
    assert drawn.class_keys == tuple(sorted(drawn.class_keys))
    assert drawn != shipped.draw_classes(20, 4)
    assert set(drawn.class_keys) < set(shipped.draw_classes(21, 3).class_keys)
    with pytest.raises(UsageError, match=f"--classes 9999: the lexicon has {len(shipped)} usable"):
        shipped.draw_classes(9999, 0)


def test_unknown_languages_and_sources_are_named() -> None:
    with pytest.raises(LexiconError, match="no names in tlh"):
        builtin_lexicon().select_languages(["en", "tlh"])
    with pytest.raises(UsageError, match="--names wordnet: unknown source"):
        open_lexicon("wordnet", ["el", "en"], EmojiPool(seed=0))
