"""What the espeak clip pool says, and the engine that says it."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

import numpy as np
import pytest

from symile_m3.errors import MissingDependencyError, SourceError
from symile_m3.languages import LANGUAGES, SETS
from symile_m3.speech import engine
from symile_m3.speech.clip import SAMPLE_RATE_HZ, encode_clip
from symile_m3.speech.forbidden import NameFilter
from symile_m3.speech.kana import date_in_kana, is_kana, number_in_kana, year_in_kana
from symile_m3.speech.phrases import phrase_at, phrases
from symile_m3.speech.sentences import load_sentences

TEN = SETS[10]


@pytest.mark.parametrize("variant", ["", "f3", "klatt4", "shelby"])
def test_the_same_samples_whatever_was_said_before(variant: str) -> None:
    def say_a() -> list[float]:
        samples, rate_hz = engine.synthesize("Καλημέρα σας", voice="el", variant=variant, rate_wpm=150, pitch=40)
        assert rate_hz == 22_050
        return samples.tolist()  # type: ignore[no-any-return]

    first = say_a()
    other, _ = engine.synthesize("Something else.", voice="en-us", variant="f2", rate_wpm=190, pitch=70)
    assert say_a() == first
    assert other.tolist() != first


def test_rate_pitch_and_variant_matter() -> None:
    def say(**settings: int | str) -> list[float]:
        return engine.synthesize("Good morning to you", voice="en-us", **settings)[0].tolist()  # type: ignore[arg-type,no-any-return]

    assert len(say(rate_wpm=120)) > 1.2 * len(say(rate_wpm=170))
    assert len({tuple(say(pitch=30)), tuple(say(pitch=70)), tuple(say(variant="f2"))}) == 3


@pytest.mark.parametrize(
    ("voice", "variant", "message"),
    [("xx-nowhere", "", "no voice 'xx-nowhere'"), ("en-us", "nobody", "no voice variant 'nobody'")],
)
def test_unknown_voices(voice: str, variant: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        engine.synthesize("hello", voice=voice, variant=variant)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    engine._installed.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingDependencyError, match="pip install espeakng-loader"):
        engine.synthesize("hello", voice="en-us")
    monkeypatch.undo()
    engine._installed.cache_clear()
    assert len(engine.synthesize("hello", voice="en-us")[0]) > 0


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("language", TEN)
def test_phrases_stay_in_their_language(language: str, count: int) -> None:
    for phrase in phrases(language, seed=5, count=count):
        sounds = engine.phonemes(phrase.spoken, voice=LANGUAGES[language].espeak)
        assert "(" not in sounds, phrase  # espeak-ng marks a change of language so: (en)


def test_what_cannot_be_spoken_is_passed_over() -> None:
    some = phrases("fr", seed=5, count=20, accept=lambda text: "," in text)
    assert len(some) == 20
    assert all("," in phrase.spoken for phrase in some)


def test_a_language_that_cldr_knows_too_little_of_is_refused() -> None:
    with pytest.raises(SourceError, match="'jbo': CLDR has too few names of months"):
        phrases("jbo", seed=5, count=1)


def test_voices_of_languages() -> None:
    voices = engine.language_voices()
    assert (voices["fr"], voices["pt-br"], voices["zh-yue"], voices["no"]) == ("fr", "pt-BR", "yue", "nb")
    assert "kl" not in voices  # ends the process
    assert "fo" not in voices  # has no dictionary


def test_phonemes_mark_a_change_of_language() -> None:
    assert "(en)" in engine.phonemes("匈牙利", voice="cmn")


@pytest.mark.parametrize("language", TEN)
def test_sentences_stay_in_their_language(language: str) -> None:
    for sentence in load_sentences():
        sounds = engine.phonemes(sentence.spoken[language], voice=LANGUAGES[language].espeak)
        assert "(" not in sounds, (sentence.id, sentence.spoken[language])


@pytest.mark.parametrize("language", TEN)
def test_phrases_are_distinct_and_a_function_of_their_place(language: str) -> None:
    found = phrases(language, seed=5, count=120)
    assert len({phrase.written for phrase in found}) == 120
    assert found[:40] == phrases(language, seed=5, count=40)
    assert found[17] == phrase_at(language, seed=5, position=int(found[17].id[1:]))
    assert {p.written for p in found}.isdisjoint(p.written for p in phrases(language, seed=6, count=10))


def test_phrases_pass_over_forbidden_names() -> None:
    before = phrases("uk", seed=0, count=400)
    assert any("Чад" in phrase.written for phrase in before)
    after = phrases("uk", seed=0, count=400, forbidden={"чад"})
    assert not any("Чад" in phrase.written.replace(",", "").split() for phrase in after)
    assert [phrase for phrase in before if "Чад" not in phrase.written] == after[: len(before)][
        : sum("Чад" not in phrase.written for phrase in before)
    ]


@pytest.mark.parametrize(
    ("language", "name", "text", "found"),
    [
        ("en", "turkey", "Chad, Turkey, and Peru", True),
        ("en", "ant", "Antarctica", False),
        ("en", "star", "Start now.", False),
        ("en", "fox", "two foxes", True),
        ("en", "crane bird", "a crane, birds", True),
        ("en", "crane bird", "a bird, crane", False),
        ("ar", "ديك", "وديك", True),
        ("ru", "золото", "27 золота", True),
        ("fr", "cheval", "un cheval, deux", True),
        ("fr", "chat", "acheter", False),
        ("zh-Hant", "金星", "黃金星期", True),
        ("ar", "الديك", "ديك", True),
        ("uk", "золото", "27 золота", True),
        ("uk", "рак", "ракета", False),
        ("uk", "долар", "27 доларів", True),
        ("ja", "月", "3月14日", False),
        ("ja", "土曜日", "3月14日土曜日", True),
        ("ja", "ﾄﾙｺ", "トルコ、チリ", True),
        ("zh", "金星", "黄金星期", True),
        ("ko", "칠면조", "칠면조를", True),
        ("te", "కోడి", "కోడిని", True),
        ("th", "ไก่", "ลูกไก่งวง", True),
        ("en", "?", "what?", False),
    ],
)
def test_name_filter(language: str, name: str, text: str, found: bool) -> None:
    assert NameFilter(language, [name]).finds(text) is found


def test_kana() -> None:
    numbers = {300: "さんびゃく", 600: "ろっぴゃく", 800: "はっぴゃく", 3000: "さんぜん", 8000: "はっせん"}
    assert {number: number_in_kana(number) for number in numbers} == numbers
    assert year_in_kana(2024) == "にせんにじゅうよねん"
    assert date_in_kana(datetime.date(2004, 4, 20)) == "にせんよねん しがつ はつか かようび"
    assert date_in_kana(datetime.date(2023, 12, 31)).endswith("じゅうにがつ さんじゅういちにち にちようび")
    assert is_kana("タイ バーツ")
    assert not any(map(is_kana, ("中国", "EU", "ノルウェー", "サン・マリノ", "")))


def tone(duration_s: float, *, amplitude: float = 0.5, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)


def decoded(samples: np.ndarray, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    import io

    import soundfile

    return soundfile.read(io.BytesIO(encode_clip(samples, rate_hz, language="en", text="hum")))[0]


def test_silence_around_is_trimmed() -> None:
    silence = np.zeros(8_000, np.float32)
    assert len(decoded(np.concatenate([silence, tone(1.5), silence]))) == pytest.approx(24_000, abs=320)


def test_a_long_clip_is_cut_where_it_is_quiet() -> None:
    samples = tone(5.0)
    samples[40_000:41_600] = 0  # at 2.5 s
    assert len(decoded(samples)) == pytest.approx(40_000, abs=320)
    assert 2.0 <= len(decoded(tone(5.0))) / SAMPLE_RATE_HZ <= 3.0


def test_resampling_keeps_the_duration() -> None:
    assert len(decoded(tone(1.5, rate_hz=22_050), 22_050)) == pytest.approx(24_000, abs=320)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(32_000, np.float32), "is silent"),
        (np.zeros(0, np.float32), "is silent"),
        (np.clip(tone(2.0, amplitude=3.0), -1, 1), "is clipped"),
        (tone(0.8), "lasts 0.80 s"),
    ],
)
def test_bad_samples_are_refused(samples: np.ndarray, why: str) -> None:
    with pytest.raises(SourceError, match=f"'en' of 'hum' {why}"):
        decoded(samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row[:-1] for row in rows], "no column ja_kana"),
        (lambda rows: [*rows, rows[-1]], "is there twice"),
        (lambda rows: [*rows[:-1], [rows[-1][0], " ", *rows[-1][2:]]], "line 3: column ar is empty"),
    ],
)
def test_bad_tables_are_refused(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    columns = ["id", *LANGUAGES, "ja_kana"]
    rows = [columns, *([f"s{row}", *("x" for _ in columns[1:])] for row in range(2))]
    path = tmp_path / "table.tsv"
    path.write_text("\n".join("\t".join(row) for row in change(rows)) + "\n", encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        load_sentences(path)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no sentences to speak"):
        load_sentences(tmp_path / "none.tsv")
