"""The source `common-voice:DIR`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from recorded_speech import client, corpus

from symile_m3.errors import SourceError, UsageError
from symile_m3.media import Recipe, SpeechOptions, content_id
from symile_m3.speech import open_clip_pool
from symile_m3.speech.common_voice import CommonVoicePool

SENTENCES = [f'He said "hello {i}' for i in range(40)]  # with a quotation mark that is never closed


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two languages as they unpack, one by one, with the usual faults."""
    root = tmp_path_factory.mktemp("cv")
    release = root / "cv-corpus-17.0-2024-03-15"
    clips = [(client(i % 8), SENTENCES[i % 15]) for i in range(30)]
    names = corpus(release / "en", clips, durations={"common_voice_en_3.mp3": 0, "common_voice_en_4.mp3": 300})
    (release / "en" / "clips" / names[5]).unlink()
    (release / "en" / "clips" / names[6]).write_bytes(b"")
    (release / "en" / "clips" / names[7]).write_bytes(b"damaged" * 100)
    with (release / "en" / "validated.tsv").open("a", encoding="utf-8") as file:
        file.write("a row with too few columns\n")
        file.write("\t".join(["", "common_voice_en_0.mp3", *[""] * 11]) + "\n")
    corpus(release / "zh-CN", [(client(100 + i), SENTENCES[i]) for i in range(6)], table="train.tsv", seed=200)
    corpus(release / "zh-CN", [(client(110 + i), SENTENCES[i]) for i in range(4)], table="dev.tsv", seed=300)
    corpus(release / "zh-CN", [(client(120 + i), SENTENCES[i]) for i in range(4)], table="test.tsv", seed=400)
    corpus(release / "zh-HK", [(client(130 + i), SENTENCES[i]) for i in range(2)], seed=500)
    return root


def pool_of(root: Path, **options: object) -> CommonVoicePool:
    pool = open_clip_pool(f"common-voice:{root}", SpeechOptions(**options))  # type: ignore[arg-type]
    assert isinstance(pool, CommonVoicePool)
    return pool


def by(recipes: list[Recipe], attribute: str) -> dict[str, set[str]]:
    """Language and value of an attribute -> the splits it is in."""
    splits: dict[str, set[str]] = {}
    for recipe in recipes:
        splits.setdefault(f"{recipe.group}/{recipe.attributes[attribute]}", set()).add(recipe.split)
    return splits


def test_clips_that_can_be_used_are_taken(voices: Path) -> None:
    pool = pool_of(voices)
    recipes = pool.recipes(["en", "zh"])
    taken = {int(r.attributes["file"].rpartition("_")[2].removesuffix(".mp3")) for r in recipes if r.group == "en"}
    assert taken < set(range(30)) - {3, 4, 5, 6, 7}
    assert len(taken) >= 15
    assert sum(recipe.group == "zh" for recipe in recipes) >= 10
    assert len({content_id(pool.make(recipe)) for recipe in recipes}) == len(recipes)
    assert {(recipe.source, recipe.licence, recipe.synthetic) for recipe in recipes} == {
        ("common-voice", "CC0-1.0", False)
    }
    first = recipes[0].attributes
    assert first["file"].startswith("cv-corpus-17.0-2024-03-15/en/clips/common_voice_en_")
    assert set(first) == {"file", "longest_s", "voice", "text", "sentence"}
    assert first["text"] in SENTENCES
    assert len(first["voice"]) == 16


def test_what_is_left_out_is_said_in_one_line_a_language(voices: Path) -> None:
    pool = pool_of(voices)
    pool.recipes(["en", "zh"])
    (line,) = pool.notes()
    assert line.endswith("left out of en: 5 of 30 not in clips/, empty, damaged or too short")


@pytest.mark.parametrize("seed", range(8))
def test_no_speaker_and_no_sentence_is_in_two_splits(seed: int, voices: Path) -> None:
    recipes = pool_of(voices, seed=seed).recipes(["en", "zh"])
    for attribute in ("voice", "sentence", "text"):
        assert [value for value, splits in by(recipes, attribute).items() if len(splits) > 1] == []
    assert {(r.group, r.split) for r in recipes} == {(c, s) for c in ("en", "zh") for s in ("train", "val", "test")}


def test_many_speakers_come_before_many_clips_of_one(tmp_path: Path) -> None:
    corpus(tmp_path / "en", [(client(i if i < 20 else 0), f"sentence {i}") for i in range(60)])
    recipes = pool_of(tmp_path, clips=(14, 3, 3)).recipes(["en"])
    assert Counter(recipe.split for recipe in recipes) == {"train": 14, "val": 3, "test": 3}
    assert len(by(recipes, "voice")) >= 18
    assert max(Counter(recipe.attributes["voice"] for recipe in recipes).values()) <= 3


def test_speakers_whose_ids_begin_alike_are_told_apart(tmp_path: Path) -> None:
    corpus(tmp_path / "en", [(f"{i:0128d}", SENTENCES[i]) for i in range(12)])
    recipes = pool_of(tmp_path).recipes(["en"])
    assert len({recipe.attributes["voice"] for recipe in recipes}) == 12


def test_recipes_are_the_same_again_and_the_seed_changes_them(voices: Path) -> None:
    assert pool_of(voices).recipes(["en", "zh"]) == pool_of(voices).recipes(["en", "zh"])
    assert pool_of(voices, seed=1).recipes(["en"]) != pool_of(voices).recipes(["en"])


def test_whichever_folder_is_named_the_language_is_found(voices: Path, tmp_path: Path) -> None:
    release = voices / "cv-corpus-17.0-2024-03-15"
    there = {recipe.attributes["file"].rpartition("/")[2] for recipe in pool_of(voices).recipes(["en"])}
    for root in (release, release / "en"):
        recipes = pool_of(root).recipes(["en"])
        assert {recipe.attributes["file"].rpartition("/")[2] for recipe in recipes} == there
        assert all((root / recipe.attributes["file"]).exists() for recipe in recipes)
    (tmp_path / "cv-corpus-9.0-2022-04-27").mkdir()
    (tmp_path / "cv-corpus-10.0-2022-07-04").mkdir()
    (tmp_path / "cv-corpus-11.0-delta-2022-09-21").mkdir()
    for folder in tmp_path.iterdir():
        (folder / "sv-SE").symlink_to(release / "en")
    recipes = pool_of(tmp_path).recipes(["sv"])
    assert {recipe.attributes["file"].split("/")[0] for recipe in recipes} == {"cv-corpus-10.0-2022-07-04"}


def test_several_regions_are_not_guessed_at(voices: Path, tmp_path: Path) -> None:
    for name in ("rm-sursilv", "rm-vallader"):
        (tmp_path / name).symlink_to(voices / "cv-corpus-17.0-2024-03-15" / "en")
    with pytest.raises(SourceError, match="rm-sursilv, rm-vallader are all rm"):
        pool_of(tmp_path).recipes(["rm"])
    assert len(pool_of(tmp_path).recipes(["rm-vallader"])) >= 10


def test_a_part_of_the_clips_is_enough(tmp_path: Path) -> None:
    names = corpus(tmp_path / "en", [(client(i), f"sentence {i}") for i in range(400)], written=12)
    recipes = pool_of(tmp_path, clips=(8, 2, 2)).recipes(["en"])
    assert {recipe.attributes["file"] for recipe in recipes} == {f"en/clips/{name}" for name in names[:12]}


def test_wrong_directories_are_named(voices: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the directory"):
        open_clip_pool("common-voice")
    with pytest.raises(SourceError, match="no such directory"):
        open_clip_pool(f"common-voice:{tmp_path / 'none'}")
    with pytest.raises(SourceError, match="no Common Voice in it"):
        open_clip_pool(f"common-voice:{tmp_path}")
    with pytest.raises(SourceError, match=r"no Common Voice of fr \(there are en, zh-CN, zh-HK\)"):
        pool_of(voices).recipes(["en", "fr"])


def test_a_language_with_fewer_than_ten_clips_is_refused(voices: Path) -> None:
    with pytest.raises(SourceError, match=r"zh-HK: 2 recordings of zh-HK .*at least 10 are needed"):
        pool_of(voices).recipes(["zh-HK"])


def test_one_speaker_is_too_few(tmp_path: Path) -> None:
    corpus(tmp_path / "en", [(client(0), f"sentence {i}") for i in range(12)])
    with pytest.raises(SourceError, match="1 speaker of en; no one is heard in two"):
        pool_of(tmp_path).recipes(["en"])


def test_one_sentence_is_too_few(tmp_path: Path) -> None:
    corpus(tmp_path / "en", [(client(i), "always the same") for i in range(12)])
    with pytest.raises(SourceError, match="no recordings of en left for "):
        pool_of(tmp_path).recipes(["en"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"client\tpath\tsentence\nx\ty\tz\n", "client_id"),
        (b"", "[Ee]mpty"),
        (b"client_id\tpath\tsentence\nx\ty\t\xff\xfe\n" * 1, "UTF"),
    ],
    ids=["columns", "empty", "latin-1"],
)
def test_tables_that_cannot_be_read_are_named(content: bytes, why: str, voices: Path, tmp_path: Path) -> None:
    shutil.copytree(voices / "cv-corpus-17.0-2024-03-15" / "en", tmp_path / "en")
    (tmp_path / "en" / "validated.tsv").write_bytes(content)
    with pytest.raises(SourceError, match=rf"validated\.tsv: cannot be read as a table .*{why}"):
        pool_of(tmp_path).recipes(["en"])
