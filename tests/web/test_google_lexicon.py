"""Names of a dataset by Google Translate: the commands, the real client, and a server that stands for the service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google_server import GoogleServer
from test_web_build import kill_after, run

TRANSLATE = ["lexicon", "translate", "--langs", "el", "--names", "emoji", "--output"]
BUILD = [
    *("build", "--langs", "el,en", "--names", "google", "--classes", "6", "--clips", "8,3,3", "--workers", "1"),
    *("--train", "16", "--val", "4", "--test", "4"),
]


def test_a_killed_translation_goes_on_and_asks_for_nothing_twice(google: GoogleServer, tmp_path: Path) -> None:
    table = tmp_path / "names.tsv"
    kill_after(google, tmp_path, 120, *TRANSLATE, str(table))
    kept = table.read_text(encoding="utf-8").splitlines()
    assert 100 <= sum(bool(line.split("\t")[2]) for line in kept[1:]) < 540
    done = run(
        google, tmp_path, *TRANSLATE, str(table), "--json", str(tmp_path / "report.json"), SYMILE_M3_WEB_RATE="400"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["classes"], report["missing"], report["clashes"], report["script"]) == (540, [], [], [])
    answered = google.answered()
    assert len(answered) == 540
    assert sum(answered.values()) <= 541  # one was on its way
    asked = {question.text for question in answered}
    assert {"bat (animal)", "guitar"} <= asked
    names = dict(line.split("\t")[0::2] for line in table.read_text(encoding="utf-8").splitlines())
    assert names["1f987"] == "βατ"  # without its hint
    assert names["1f3b8"] == "γυιταρ"


def test_a_build_tells_what_was_refused_and_takes_corrections(google: GoogleServer, tmp_path: Path) -> None:
    faulty = {"guitar": "guitar", "hammer": "<b>σφυρί</b>"}
    translate = google.translate
    google.translate = lambda name, language: faulty.get(name) or translate(name, language)
    words = [*BUILD, "--data", str(tmp_path / "data")]
    failed = run(google, tmp_path, *words, SYMILE_M3_WEB_RATE="400")
    assert failed.returncode == 1
    assert (
        "--names google: 2 of 540 classes lack a name: 1f3b8 in el (left in English ('guitar' came back)), 1f528 in el"
        in (failed.stderr)
    )
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "data").exists()
    assert len(google.asked) == 540
    (tmp_path / "fixes.tsv").write_text(
        "class_key\tlanguage\tname\n1f3b8\tel\tκιθάρα\n1f528\tel\tσφυρί\n", encoding="utf-8"
    )
    done = run(google, tmp_path, *words, "--corrections", str(tmp_path / "fixes.tsv"), SYMILE_M3_WEB_RATE="400")
    assert done.returncode == 0, done.stderr
    assert len(google.asked) == 540  # all from the cache
    plan = json.loads((tmp_path / "data" / ".symile" / "plan.json").read_text(encoding="utf-8"))
    assert len(plan["lexicon"]["names"]) == 6
    assert "machine translations from English, by `google`" in (tmp_path / "data" / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("words", [[*TRANSLATE, "names.tsv", "--with", "google:x"], [*BUILD, "--names", "google:x"]])
def test_google_takes_nothing_after_its_name(
    words: list[str], google: GoogleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where they were called there may be a dataset already
    done = run(google, tmp_path, *words)
    assert done.returncode == 2
    assert "google takes nothing after its name" in done.stderr
    assert google.asked == []
