"""Names from translators: what is asked, what is checked, and what is kept when it fails half-way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from distributions import install

from symile_m3.errors import LexiconError, SourceError
from symile_m3.images import EmojiPool
from symile_m3.lexicon import NameTable, builtin_names, open_lexicon
from symile_m3.lexicon.translate import BATCH, english_names, fill_names, translate_names
from symile_m3.progress import NoProgress

PETS = {"1": "cat", "2": "dog", "3": "bat (animal)", "4": "fly (insect)"}
RUSSIAN = {"cat": "кошка", "dog": "собака", "bat (animal)": "летучая мышь (животное)", "fly (insect)": "муха"}


class Words:
    """Translates by a dictionary, fails after a number of calls, and remembers what it was asked."""

    def __init__(self, words: dict[str, str], calls: int = 10**6) -> None:
        self.words = words
        self.calls = calls
        self.asked: list[str] = []

    def translate(self, names: Sequence[str], language: str) -> list[str]:
        if not self.calls:
            raise SourceError("the line is dead")
        self.calls -= 1
        self.asked += names
        return [self.words.get(name, "") for name in names]


class Echo(Words):
    """Gives everything back as it came."""

    def translate(self, names: Sequence[str], language: str) -> list[str]:
        return list(names)


def test_names_are_asked_with_their_sense_and_kept_without_it() -> None:
    words = Words(RUSSIAN)
    result = translate_names(words, PETS, "ru")
    assert result.names == {"1": "кошка", "2": "собака", "3": "летучая мышь", "4": "муха"}
    assert result.failed == {}
    assert words.asked == list(PETS.values())


def test_english_is_not_asked_for() -> None:
    words = Words({}, calls=0)
    assert translate_names(words, PETS, "en").names == {"1": "cat", "2": "dog", "3": "bat", "4": "fly"}


def test_what_fails_is_said_and_never_english() -> None:
    words = Words({"cat": "cat", "dog": " ", "bat (animal)": "летучая_мышь", "fly (insect)": "(insect)"})
    result = translate_names(words, PETS, "ru")
    assert result.names == {"3": "летучая мышь"}
    assert result.failed == {
        "1": "'cat' came back, in another script",
        "2": "nothing came back",
        "4": "nothing came back",
    }


def test_an_echo_is_found_in_a_language_of_the_same_script() -> None:
    english = {str(i): f"thing {chr(97 + i)}" for i in range(20)}
    with pytest.raises(SourceError, match="gave 20 of 20 names in fr back in English"):
        translate_names(Echo({}), english, "fr")
    cognates = {name: name if i < 5 else f"chose {i}" for i, name in enumerate(english.values())}
    assert translate_names(Words(cognates), english, "fr").names["0"] == "thing a"  # some are the same
    with pytest.raises(SourceError, match="gave 1 names in ru for 2"):
        translate_names(
            type("Short", (Words,), {"translate": lambda self, names, language: ["а"]})({}), {"1": "a", "2": "b"}, "ru"
        )


def test_english_names_of_sources_are_tidied() -> None:
    labels = {"n01440764": "tench, Tinca tinca", "golden": "golden_retriever", "empty": " "}
    assert english_names(labels) == {"n01440764": "tench", "golden": "golden retriever"}
    assert english_names({"n02012849": "crane bird"}, builtin_names("imagenet"))["n02012849"] == "crane (bird)"


def test_an_interrupted_translation_goes_on_where_it_stopped() -> None:
    english = {f"{i:03d}": f"thing {i}" for i in range(2 * BATCH + 10)}
    words = {name: f"вещь {chr(1072 + i % 30)}{i}" for i, name in enumerate(english.values())}
    kept: list[NameTable] = [NameTable(where="x", names={})]
    dying = Words(words, calls=2)
    with pytest.raises(SourceError, match="the line is dead"):
        fill_names(dying, english, ["ru"], kept[0], NoProgress(), kept.append)
    assert len(dying.asked) == 2 * BATCH
    healthy = Words(words)
    table, failed = fill_names(healthy, english, ["ru"], kept[-1], NoProgress(), kept.append)
    assert healthy.asked == [f"thing {i}" for i in range(2 * BATCH, 2 * BATCH + 10)]
    assert {key: row["ru"] for key, row in table.names.items()} == {key: words[name] for key, name in english.items()}
    assert failed == {}


@pytest.fixture
def dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A translator by entry point that knows all emoji in Russian but two, and counts its calls."""
    code = (
        "from symile_m3.lexicon import builtin_names\n"
        "from symile_m3.lexicon.translate import english_names\n"
        "calls = []\n"
        "table = builtin_names('emoji')\n"
        "known = {name: table.names[key]['uk'] for key, name in english_names({}, table).items()}\n"
        "known['pizza'] = 'pizza'\n"
        "del known['hammer']\n"
        "class Ukrainian:\n"
        "    def translate(self, names, language):\n"
        "        calls.append(language)\n"
        "        return [known.get(name) or '' for name in names]\n"
        "def open_it(argument):\n"
        "    return Ukrainian()\n"
    )
    points = {"symile_m3.translators": {"slavic": "slavic_words:open_it"}}
    monkeypatch.syspath_prepend(str(install(tmp_path, "slavic", {"slavic_words.py": code}, points)))


@pytest.mark.usefixtures("dictionary")
def test_names_of_the_emoji_by_a_translator(tmp_path: Path) -> None:
    import slavic_words  # type: ignore[import-not-found]

    from symile_m3.cli.progress import LineProgress

    lines: list[str] = []
    pool = EmojiPool(seed=0)
    with pytest.raises(
        LexiconError,
        match=r"slavic: 2 of 540 .* name: 1f355 in uk \('pizza' came back, in another script\), 1f528 in uk",
    ):
        open_lexicon("slavic", ("en", "uk"), pool, progress=LineProgress(lines.append))
    assert "slavic: no name in uk for 2 classes, such as 1f355: 'pizza' came back, in another script" in lines
    assert "Translating names: 1,080/1,080 names" in " ".join(lines)
    fixes = tmp_path / "fixes.tsv"
    fixes.write_text("class_key\tlanguage\tname\n1f355\tuk\tпіца\n1f528\tuk\tмолоток\n", encoding="utf-8")
    lexicon = open_lexicon("slavic", ("en", "uk"), pool, corrections=str(fixes))
    assert len(lexicon) == 540
    assert len(open_lexicon("slavic", ("en", "uk"), pool, drop_unnamed=True)) == 538
    assert slavic_words.calls == ["uk"] * -(-540 // BATCH)  # once, for all three
