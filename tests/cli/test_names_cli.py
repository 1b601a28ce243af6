"""`symile-m3 build` with names from files and in languages beyond the ten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_files import write_tree
from script import error_of, symile_m3

SMALL = ("--classes", "all", "--train", "24", "--val", "8", "--test", "8", "--clips", "8,4,4", "--workers", "1")
KEYS = ("1f408", "1f415", "1f40e", "1f426", "1f41f", "1f404")
WORDS = {
    "fr": ("chat", "chien", "cheval", "oiseau", "poisson", "vache"),
    "ro": ("pisică", "câine", "cal", "pasăre", "pește", "vacă"),
    "ru": ("кошка", "собака", "лошадь", "птица", "рыба", "корова"),
}


def names(folder: Path, **changes: str) -> None:
    """names.json: the six classes in three languages."""
    record = {
        f"class {key}": {"synset_id": key, **{code: words[i] for code, words in WORDS.items()}, "cls_id": i}
        for i, key in enumerate(KEYS)
    }
    record["class 1f408"] |= changes
    (folder / "names.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    names(root)
    (root / "fixes.tsv").write_text("class_key\tlanguage\tname\n1f408\tfr\tminet\n", encoding="utf-8")
    words = (
        "--langs",
        "fr,ru,ro",
        "--names",
        "file:names.json",
        "--corrections",
        "fixes.tsv",
        *SMALL,
    )
    result = symile_m3("build", *words, "--data", "m3", "--json", "made.json", cwd=root)
    assert result.returncode == 0, result.stderr
    return root


def test_the_plan_has_the_names_of_the_file_and_the_corrections(built: Path) -> None:
    plan = json.loads((built / "m3" / ".symile" / "plan.json").read_text(encoding="utf-8"))
    assert plan["lexicon"]["languages"] == ["fr", "ro", "ru"]
    assert plan["lexicon"]["class_keys"] == sorted(KEYS)
    assert dict(zip(plan["lexicon"]["class_keys"], plan["lexicon"]["names"], strict=True))["1f408"] == [
        "minet",
        "pisică",
        "кошка",
    ]
    assert {clip["group"] for clip in plan["clips"]} == {"fr", "ro", "ru"}
    assert len(plan["clips"]) == 3 * 16
    assert {clip["licence"] for clip in plan["clips"]} == {"Unicode-3.0"}  # phrases only


def test_the_card_says_whose_the_names_are(built: Path) -> None:
    card = (built / "m3" / "README.md").read_text(encoding="utf-8")
    assert "French, Romanian, Russian" in card
    assert "The class names are those of a file of the builder's" in card
    assert "Some are corrected by hand" in card
    assert "--names file:names.json --corrections fixes.tsv" in card
    assert "--drop-unnamed" not in card


def test_what_was_begun_goes_on_without_the_file(built: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(built / "m3", tmp_path / "m3")
    before = (tmp_path / "m3" / "data" / "val-00000-of-00001.tar").read_bytes()
    (tmp_path / "m3" / "data" / "val-00000-of-00001.tar").unlink()
    words = (
        "--langs",
        "fr,ru,ro",
        "--names",
        "file:names.json",
        "--corrections",
        "fixes.tsv",
        *SMALL,
    )
    result = symile_m3("build", *words, "--data", "m3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m3" / "data" / "val-00000-of-00001.tar").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"ro": ""}, (), "names.json: 1 of 6 classes lack a name: 1f408 in ro; add the names"),
        ({"ro": "pisica_mare"}, (), "class 'class 1f408', ro: 'pisica_mare' contains '_'"),
        ({}, ("--langs", "fr,sw"), "names.json: no names in sw; it has names in fr, ro, ru"),
        ({}, ("--corrections", "gone.tsv"), "gone.tsv: No such file"),
        ({}, ("--names", "file:gone.json"), "gone.json: No such file"),
    ],
)
def test_bad_names_stop_a_build_before_it_begins(
    changes: dict[str, str], options: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    names(tmp_path, **changes)
    words = ("--langs", "fr,ru,ro", "--names", "file:names.json", "--images", "emoji", *SMALL)
    result = symile_m3("build", *words, "--data", "m3", *options, cwd=tmp_path)
    assert result.returncode == 1
    assert says in error_of(result)
    assert not (tmp_path / "m3").exists()


def test_fewer_classes_than_words_are_the_images_fault_and_not_an_option_that_was_not_given(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", {"1f408": 3, "cat": 3})
    names(tmp_path)
    words = ("--langs", "fr,ru,ro", "--names", "file:names.json", "--images", "folder:photos", "--drop-unnamed")
    result = symile_m3("build", *words, "--train", "8", "--val", "4", "--test", "4", "--data", "m3", cwd=tmp_path)
    assert result.returncode == 1
    assert "names in all languages: 1; texts of 3 words need 3: add classes or their names" in error_of(result)


def test_a_language_that_espeak_has_no_voice_for_says_what_would_do(tmp_path: Path) -> None:
    names(tmp_path, ckb="پشیلە")
    record = json.loads((tmp_path / "names.json").read_text(encoding="utf-8"))
    record["class 1f415"]["ckb"] = "سەگ"
    (tmp_path / "names.json").write_text(json.dumps(record), encoding="utf-8")
    words = ("--langs", "fr,ckb", "--names", "file:names.json", "--drop-unnamed", *SMALL)
    result = symile_m3("build", *words, "--classes", "2", "--data", "m3", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "no voice for ckb (Central Kurdish); leave it out, or give recordings" in error_of(result)
