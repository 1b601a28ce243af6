"""Names by Google Translate: the real client of deep-translator against a server, and the checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google_server import GoogleServer

from symile_m3.errors import LexiconError, ServiceError, SourceError, UsageError
from symile_m3.lexicon.google import GoogleNames, Refused, checked_name, open_google, plain_name, refusal
from symile_m3.web import Answers, Manners, Service

QUICK = Manners(rate=500, timeout_s=3, patience_s=60, first_pause_s=0.01)


def google_names(directory: Path) -> GoogleNames:
    answers = Answers(directory=directory)
    return GoogleNames(service=Service(name="google", title="Google", version="1", answers=answers, manners=QUICK))


def test_names_are_translated_in_their_order_and_asked_for_once(google: GoogleServer, tmp_path: Path) -> None:
    names = ["goldfish", "crane (bird)", "great white shark"]
    assert google_names(tmp_path).translate(names, "el") == ["γολδφισχ", "κρανε", "γρεατ ωχιτε σχαρκ"]
    assert google_names(tmp_path).translate(names, "el") == ["γολδφισχ", "κρανε", "γρεατ ωχιτε σχαρκ"]
    assert [asked.question.text for asked in google.asked] == names
    assert {asked.question.language for asked in google.asked} == {"el"}


def test_brackets_come_off_in_whatever_form(google: GoogleServer, tmp_path: Path) -> None:
    assert google.translate("drake (duck)", "ja") == "ダルアキエ（ダウカキ）"
    assert google_names(tmp_path).translate(["drake (duck)"], "ja") == ["ダルアキエ"]


def test_english_is_not_asked_for(google: GoogleServer, tmp_path: Path) -> None:
    assert google_names(tmp_path).translate(["crane (bird)", "tench"], "en") == ["crane", "tench"]
    assert google.asked == []


def test_languages_have_the_codes_of_the_service(google: GoogleServer, tmp_path: Path) -> None:
    google.translate = lambda name, language: {"zh-CN": "鱼", "iw": "דג", "no": "fisk", "tl": "isda"}[language]
    for language in ("zh", "he", "nb", "fil"):
        google_names(tmp_path).translate(["fish"], language)
    assert [asked.question.language for asked in google.asked] == ["zh-CN", "iw", "no", "tl"]
    with pytest.raises(SourceError, match="does not know language 'xx'; it knows af, ak, "):
        google_names(tmp_path).translate(["fish"], "xx")


@pytest.mark.parametrize("fault", ["html", "empty", "error page", "500", "hang", "429 Retry-After: 1"])
def test_what_is_no_answer_is_not_kept_and_is_asked_for_again(fault: str, google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: fault if number == 1 else ""
    assert google_names(tmp_path).translate(["tench"], "el") == ["τενκχ"]
    assert len(google.asked) == 2


def test_a_name_that_is_never_answered_is_refused_and_the_others_are_not(google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: "html" if question.text == "tench" else ""
    found, refused = google_names(tmp_path).try_names(["goldfish", "tench", "shark"], "el")
    assert found == ["γολδφισχ", "", "σχαρκ"]
    [one] = refused
    assert (one.name, one.language) == ("tench", "el")
    assert one.why == "Google: a page without a translation in it, asked 7 times"


def test_refused_answers_are_listed_in_one_line_and_never_used(google: GoogleServer, tmp_path: Path) -> None:
    answers = {
        "tench": "tench",
        "jay": "Jay",
        "kite": "<b>χαρταετός</b>",
        "eft": "ефт",
        "coho (fish)": "σολομός κόχο",
        "ruffed grouse": "αγριόκοτα",
        "prairie chicken": "Αγριόκοτα",
        "hen": "κότα",
    }
    google.translate = lambda name, language: answers[name]
    found, refused = google_names(tmp_path).try_names(list(answers), "el")
    assert found == ["", "", "", "", "", "", "", "κότα"]
    assert {one.name: one.why for one in refused} == {
        "tench": "left in English",
        "jay": "left in English",
        "kite": "HTML, not a name",
        "eft": "not in the script of the language (Grek)",
        "coho (fish)": "the hint cannot be told from the name",
        "ruffed grouse": "the same as for prairie chicken",
        "prairie chicken": "the same as for ruffed grouse",
    }
    with pytest.raises(LexiconError) as error:
        google_names(tmp_path).translate(list(answers), "el")
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith("Google Translate gave no usable name for 7 of 8: tench in el: left in English ('tench'); ")
    assert line.endswith("Name these in a file of corrections")
    assert len(google.asked) == 8  # refused or not, an answer is kept


def test_a_service_that_is_down_is_given_up(google: GoogleServer, tmp_path: Path) -> None:
    names = [f"fish {chr(97 + i)}" for i in range(8)]
    google.fault = lambda number, question: "503" if number > 3 else ""
    hurried = replace(google_names(tmp_path).service, manners=replace(QUICK, patience_s=0.6))
    with pytest.raises(ServiceError, match=r"Google has failed for .*HTTP 503 Service Unavailable"):
        GoogleNames(service=hurried).translate(names, "el")
    answered = google.answered()
    assert sum(answered.values()) == 3
    google.fault = lambda number, question: ""
    assert len(google_names(tmp_path).translate(names, "el")) == 8
    assert set(google.answered().values()) == {1}


@pytest.mark.parametrize(
    ("name", "answer", "script", "found"),
    [
        ("crane (bird)", "grue (oiseau)", "Latn", "grue"),
        ("crane (bird)", "鶴（鳥）", "Jpan", "鶴"),
        ("crane (bird)", "鹤 【鸟】", "Hans", "鹤"),
        ("crane (bird)", "كركي (طائر)", "Arab", "كركي"),
        ("crane (bird)", "журавель [птах].", "Cyrl", "журавель"),
        ("t-shirt", "Tシャツ", "Jpan", "Tシャツ"),
        ("CD player", "CDプレーヤー", "Jpan", "CDプレーヤー"),
        ("ice  cream", " παγωτό\n χωνάκι. ", "Grek", "παγωτό χωνάκι"),
        ("apostrophe", "м'яч", "Cyrl", "м'яч"),
        ("umbrella", "छाता", "Deva", "छाता"),
        ("screwdriver", "స్క్రూడ్రైవర్", "Telu", "స్క్రూడ్రైవర్"),
        ("mouse", "마우스", "Kore", "마우스"),
    ],
)
def test_good_names(name: str, answer: str, script: str, found: str) -> None:
    assert checked_name(name, answer, script) == (found, "")


@pytest.mark.parametrize(
    ("name", "answer", "script", "why"),
    [
        ("crane (bird)", "crane (oiseau)", "Latn", "left in English"),
        ("crane (bird)", "Crane (bird)", "Latn", "left in English"),
        ("crane (bird)", "(oiseau) grue", "Latn", "the hint cannot be told from the name"),
        ("crane (bird)", "grue (oiseau) (animal)", "Latn", "the hint cannot be told from the name"),
        ("crane (bird)", "鶴（鳥", "Jpan", "the hint cannot be told from the name"),
        ("crane", "grue (oiseau)", "Latn", "brackets in it"),
        ("polaroid camera", "polaroidカメラ", "Jpan", "not in the script of the language (Jpan)"),
        ("polaroid camera", "Polaroid camera", "Jpan", "left in English"),
        ("tench", "линь", "Latn", "not in the script of the language (Latn)"),
        ("tench", "tinca", "Cyrl", "not in the script of the language (Cyrl)"),
        ("tench", "123", "Latn", "not in the script of the language (Latn)"),
        ("tench", "tan_che", "Latn", "'_' in it, which separates the words of a text"),
        ("tench", "l&#39;huile", "Latn", "HTML, not a name"),
        ("tench", "une phrase " * 10, "Latn", "too long for a name"),
        ("tench", " \n", "Latn", "empty"),
    ],
)
def test_names_that_are_refused(name: str, answer: str, script: str, why: str) -> None:
    assert checked_name(name, answer, script) == ("", why)


def test_hints() -> None:
    assert plain_name("crane (bird)") == "crane"
    assert plain_name("black-and-tan coonhound") == "black-and-tan coonhound"
    assert plain_name("(bird)") == "(bird)"


def test_a_long_list_is_cut() -> None:
    refused = [Refused(name=f"n{i}", language="el", answer="", why="empty") for i in range(50)]
    assert "n19 in el: empty; and 30 more. Name these" in refusal(refused, 60)


def test_the_spec() -> None:
    assert open_google().service.version.startswith("deep-translator 1.")
    with pytest.raises(UsageError, match="google takes nothing after its name"):
        open_google("x")
