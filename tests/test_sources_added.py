"""Sources that other packages bring by entry point, and the example in the documentation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from distributions import install

from symile_m3.errors import SourceError, UsageError
from symile_m3.images import open_image_pool
from symile_m3.lexicon import open_lexicon, open_translator
from symile_m3.media import ImageOptions, SpeechOptions
from symile_m3.sources import find_source
from symile_m3.speech import open_clip_pool

DOCUMENT = Path(__file__).parents[1] / "docs" / "sources" / "own.md"
COMMAND = re.compile(r"^\$ symile-m3 (.+)$", re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed."""
    (project,), (module,) = blocks("toml"), blocks("python")
    points = tomllib.loads(project)["project"]["entry-points"]
    return install(tmp_path_factory.mktemp("site"), "my-sources", {"my_sources.py": module}, points)


@pytest.fixture
def there(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.delitem(sys.modules, "my_sources", raising=False)
    return installed


def run(words: str, installed: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symile_m3.cli", *words.split()]
    paths = os.pathsep.join([str(installed), str(Path(__file__).parents[1])])
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def test_a_source_of_each_kind_is_found_and_opened_with_what_it_is_given(there: Path) -> None:
    images = open_image_pool("shapes:12", ImageOptions(per_class=11, size_px=64))
    assert images.classes() == {"triangle": 11, "square": 11, "hexagon": 11, "circle": 11}
    clips = open_clip_pool("chords", SpeechOptions(clips=(3, 2, 1)))
    assert [recipe.split for recipe in clips.recipes(["fr"])] == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert open_translator("dictionary").translate(["circle", "star"], "ru") == ["круг", ""]
    recipe = images.recipes(["circle"])[0]
    assert images.make(recipe) == images.make(recipe)


def test_its_module_is_imported_only_when_it_is_asked_for(there: Path) -> None:
    open_image_pool("emoji")
    assert "my_sources" not in sys.modules
    open_image_pool("shapes")
    assert "my_sources" in sys.modules


def test_its_names_come_from_a_translator_that_is_added_too(there: Path) -> None:
    lexicon = open_lexicon("dictionary", ["ru", "fr"], open_image_pool("shapes"))
    assert lexicon.class_keys == ("circle", "hexagon", "square", "triangle")
    assert lexicon.names[0] == ("cercle", "круг")


def test_its_own_errors_reach_the_user(there: Path) -> None:
    with pytest.raises(UsageError, match="shapes:many: give a number"):
        open_image_pool("shapes:many")
    with pytest.raises(SourceError, match="the dictionary has no el"):
        open_lexicon("dictionary", ["el", "fr"], open_image_pool("shapes"))


def test_an_unknown_source_is_answered_with_those_that_are_there(there: Path) -> None:
    with pytest.raises(UsageError, match=r"--images sketches: no such source; known: emoji,.* shapes$"):
        open_image_pool("sketches")
    with pytest.raises(UsageError, match=r"--names sketches: unknown source of names; known: builtin,.* dictionary$"):
        open_lexicon("sketches", ["el", "en"], open_image_pool("emoji"))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import a_package_that_is_not_there\n", "No module named 'a_package_that_is_not_there'"),
        ("raise RuntimeError('no camera')\n", "no camera"),
        ("x = 1\n", "has no attribute 'open_it'"),
    ],
)
def test_a_package_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str) -> None:
    points = {f"symile_m3.{kind}": {"broken": "broken_source:open_it"} for kind in ("images", "speech", "translators")}
    monkeypatch.syspath_prepend(str(install(tmp_path, "broken", {"broken_source.py": code}, points)))
    for kind in ("images", "speech", "translators"):
        monkeypatch.delitem(sys.modules, "broken_source", raising=False)
        with pytest.raises(SourceError, match=rf"^broken: its package cannot be used: .*{why}.*broken_source:open_it"):
            find_source(kind, "broken", {})


def test_ours_cannot_be_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def open_it(argument, options):\n    raise AssertionError\n"
    points = {"symile_m3.images": {"emoji": "other_emoji:open_it"}}
    monkeypatch.syspath_prepend(str(install(tmp_path, "other", {"other_emoji.py": code}, points)))
    assert open_image_pool("emoji").table == "emoji"


def test_the_commands_of_the_documentation_run(installed: Path, tmp_path: Path) -> None:
    build, verify = COMMAND.findall("".join(blocks("console")))
    made = run(f"{build} --workers 1 --image-size 64 --json made.json", installed, tmp_path)
    assert made.returncode == 0, made.stderr
    figures = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    assert (figures["classes"], figures["languages"], figures["images"], figures["clips"]) == (
        4,
        ["fr", "ru"],
        160,
        120,
    )
    checked = run(verify, installed, tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    card = (tmp_path / "data" / "shapes" / "README.md").read_text(encoding="utf-8")
    assert "French, Russian" in card
    assert "| images | shapes | CC0-1.0 | 160 |" in card
    assert "Of the 120 clips 120 are synthetic speech" in card
    assert "machine translations from English, by `dictionary`" in card
