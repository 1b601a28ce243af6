"""The source `recordings:DIR`."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from recorded_speech import babble, write

from symile_m3.errors import SourceError, UsageError
from symile_m3.media import Recipe, SpeechOptions, content_id
from symile_m3.speech import open_clip_pool
from symile_m3.speech.recordings import RecordingsPool

SUFFIXES = ("mp3", "ogg", "flac", "wav")


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Greek in clips/, English without it, in four formats, mono and stereo, 8 to 48 kHz; and what is of no use."""
    root = tmp_path_factory.mktemp("voices")
    for code, folder in (("el", root / "el" / "clips"), ("en", root / "en")):
        for i in range(24):
            rate_hz = (8_000, 16_000, 22_050, 48_000)[i % 4]
            one = babble(100 * len(code) + i + (code == "el") * 50, 1.2, rate_hz)
            samples = np.stack([one, 0.2 * one], axis=1) if i % 3 == 0 else one
            write(folder / f"{i:02d}.{SUFFIXES[i // 6]}", samples, rate_hz)
    (root / "en" / "zero.mp3").write_bytes(b"")
    (root / "en" / "page.wav").write_text("<html></html>")
    (root / "en" / "notes.txt").write_text("mine")
    (root / "en" / "phone.m4a").write_bytes(b"\0" * 100)
    write(root / "en" / "click.wav", babble(1, 0.1))
    return root


def pool_of(root: Path, **options: object) -> RecordingsPool:
    pool = open_clip_pool(f"recordings:{root}", SpeechOptions(**options))  # type: ignore[arg-type]
    assert isinstance(pool, RecordingsPool)
    return pool


def files(recipes: list[Recipe], split: str | None = None) -> set[str]:
    return {recipe.attributes["file"] for recipe in recipes if split in (None, recipe.split)}


def test_every_recording_that_can_be_used_is_a_clip(voices: Path) -> None:
    pool = pool_of(voices)
    recipes = pool.recipes(["el", "en"])
    assert Counter((r.group, r.split) for r in recipes) == {
        (code, split): n for code in ("el", "en") for split, n in (("train", 20), ("val", 2), ("test", 2))
    }
    assert len(files(recipes)) == len({recipe.name for recipe in recipes}) == 48
    assert len({content_id(pool.make(recipe)) for recipe in recipes}) == 48
    assert recipes[0] == Recipe(
        name="el-train-00000",
        group="el",
        split="train",
        source="recordings",
        licence="not stated",
        attributes={"file": recipes[0].attributes["file"], "longest_s": "10"},
    )
    assert recipes[0].attributes["file"].startswith("el/clips/")


def test_what_is_left_out_is_said_in_one_line(voices: Path) -> None:
    pool = pool_of(voices)
    pool.recipes(["el", "en"])
    (line,) = pool.notes()
    assert "en: left out of en: 3 empty, damaged or too short, such as click.wav; 1 of a format" in line
    assert "phone.m4a" in line


def test_recipes_are_the_same_again_and_the_seed_changes_them(voices: Path) -> None:
    recipes = pool_of(voices).recipes(["en"])
    assert pool_of(voices).recipes(["en"]) == recipes
    assert files(pool_of(voices, seed=1).recipes(["en"]), "test") != files(recipes, "test")


def test_the_pool_can_be_pickled(voices: Path) -> None:
    pool = pool_of(voices, seconds=5, forbidden={"en": frozenset({"goat"})})
    assert pickle.loads(pickle.dumps(pool)) == pool
    assert not pool.options.forbidden


def test_no_more_are_taken_than_asked_for(voices: Path) -> None:
    recipes = pool_of(voices, clips=(5, 3, 2)).recipes(["en"])
    assert Counter(recipe.split for recipe in recipes) == {"train": 5, "val": 3, "test": 2}


def test_the_longest_clip_is_part_of_the_recipe(voices: Path) -> None:
    recipe = pool_of(voices, seconds=2.5).recipes(["en"])[0]
    assert recipe.attributes["longest_s"] == "2.5"


def test_a_language_of_any_code_works_and_a_region_is_found(voices: Path, tmp_path: Path) -> None:
    (tmp_path / "fr-FR").symlink_to(voices / "en")
    (tmp_path / "tlh").symlink_to(voices / "el")
    recipes = pool_of(tmp_path).recipes(["fr", "tlh"])
    assert {(r.group, r.attributes["file"].split("/")[0]) for r in recipes} == {("fr", "fr-FR"), ("tlh", "tlh")}


def test_speakers_are_in_one_split_in_all_languages(voices: Path, tmp_path: Path) -> None:
    for code in ("el", "en"):
        (tmp_path / code / "clips").mkdir(parents=True)
        source = voices / code / "clips" if code == "el" else voices / code
        names = sorted(path.name for path in source.iterdir() if path.stem.isdecimal())
        for name in names:
            (tmp_path / code / "clips" / name).symlink_to(source / name)
        rows = [f"{name}\tperson {i // 3}" for i, name in enumerate(names[:-1])]
        (tmp_path / code / "speakers.tsv").write_text("\n".join(["file\tspeaker", *rows]) + "\n", encoding="utf-8")
    recipes = pool_of(tmp_path).recipes(["el", "en"])
    splits: dict[str, set[str]] = {}
    for recipe in recipes:
        splits.setdefault(recipe.attributes["voice"], set()).add(recipe.split)
    assert len(splits) == 10  # eight, and a file a language of no known speaker, called alike in both
    assert {"person 0", "person 7"} <= set(splits)
    assert {Path(voice).stem for voice in splits if "/" in voice} == {"23"}
    assert [voice for voice, where in splits.items() if len(where) > 1] == []
    assert {recipe.split for recipe in recipes if recipe.group == "en"} == {"train", "val", "test"}


def test_the_licence_is_taken_from_its_file(voices: Path, tmp_path: Path) -> None:
    (tmp_path / "en").symlink_to(voices / "en")
    (tmp_path / "licence.txt").write_text("CC-BY-4.0\nby my class\n", encoding="utf-8")
    assert {recipe.licence for recipe in pool_of(tmp_path).recipes(["en"])} == {"CC-BY-4.0"}


def test_wrong_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the directory"):
        open_clip_pool("recordings")
    with pytest.raises(SourceError, match="none: no such directory"):
        open_clip_pool(f"recordings:{tmp_path / 'none'}")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SourceError, match="file: is a file"):
        open_clip_pool(f"recordings:{tmp_path / 'file'}")


def test_a_language_without_a_folder_is_named(voices: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder for fr, ru \(there are el, en\); put recordings into .*fr"):
        pool_of(voices).recipes(["en", "fr", "ru"])


def test_a_language_with_fewer_than_ten_recordings_is_refused(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / "en" / f"{i}.wav", babble(i))
    (tmp_path / "en" / "x.wav").write_text("not audio")
    (tmp_path / "en" / "y.aac").write_text("not audio")
    with pytest.raises(SourceError) as caught:
        pool_of(tmp_path).recipes(["en"])
    says = ("en: 9 recordings of en", "1 empty, damaged", "x.wav", "1 of a format", "y.aac", "at least 10", "--langs")
    assert [part for part in says if part not in str(caught.value)] == []
    write(tmp_path / "en" / "9.wav", babble(9))
    assert Counter(r.split for r in pool_of(tmp_path).recipes(["en"])) == {"train": 8, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"name\twho\na.mp3\tx\n", "columns file and speaker"),
        (b"file\tspeaker\n00.mp3\t\n", "line 2: file or speaker is empty"),
        (b"file\tspeaker\n00.mp3\n", "line 2: file or speaker is empty"),
        (b"file\tspeaker\na.mp3\tx\na.mp3\ty\n", "line 3: a.mp3 has two speakers"),
        (b"file\tspeaker\na.mp3\t\xe9\n", "is not UTF-8"),
        (
            b"file\tspeaker\n" + b"".join(b"%02d.%s\tx\n" % (i, SUFFIXES[i // 6].encode()) for i in range(24)),
            "1 speaker",
        ),
    ],
    ids=["columns", "empty", "short", "two", "latin-1", "one speaker"],
)
def test_tables_of_speakers_are_checked(content: bytes, why: str, voices: Path, tmp_path: Path) -> None:
    (tmp_path / "en" / "clips").mkdir(parents=True)
    for path in (voices / "en").iterdir():
        if path.stem.isdecimal():
            (tmp_path / "en" / "clips" / path.name).symlink_to(path)
    (tmp_path / "en" / "speakers.tsv").write_bytes(content)
    with pytest.raises(SourceError, match=why):
        pool_of(tmp_path).recipes(["en"])
