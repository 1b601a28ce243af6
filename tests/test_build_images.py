"""Builds from directories of images, some of which are no use."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from image_files import encoded, jpeg, photograph, write_kaggle, write_tars, write_tree
from PIL import Image

from symile_m3.build import build, open_images
from symile_m3.distinct import distinct_media, media_ids
from symile_m3.engines import LocalEngine
from symile_m3.errors import SourceError
from symile_m3.images import open_image_pool
from symile_m3.lexicon import builtin_lexicon
from symile_m3.media import ImageOptions, Recipe, content_id
from symile_m3.mediastore import make_media
from symile_m3.plan import PlanConfig, load_plan
from symile_m3.progress import NoProgress
from symile_m3.shards import DatasetLayout, DatasetReader
from symile_m3.splits import fill_splits

# Directories called by emoji have names in ten languages.
KEYS = builtin_lexicon("emoji").select_languages(("el", "en")).without_clashes()[0].class_keys[:6]


class Told(NoProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def config_of(root: Path) -> PlanConfig:
    return PlanConfig(
        languages=("el", "en"),
        words=2,
        classes=len(KEYS),
        images=f"folder:{root}",
        names="emoji",
        image_size=40,
        train=60,
        val=12,
        test=12,
        clips=(4, 2, 2),
        shard_samples=20,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of six images, and two more that are no use, in one that is out of the ordinary each, and a pair."""
    root = write_tree(tmp_path_factory.mktemp("photos") / "photos", dict.fromkeys(KEYS, 6))
    (root / KEYS[0] / "broken.jpg").write_bytes(jpeg(900)[:700])
    (root / KEYS[0] / "tiny.jpg").write_bytes(jpeg(901, 20, 20))
    (root / KEYS[1] / "ink.jpg").write_bytes(encoded(photograph(902, 60, 48).convert("CMYK")))
    frames = [photograph(seed, 60, 48) for seed in (903, 904)]
    (root / KEYS[2] / "moving.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    shutil.copy(root / KEYS[3] / f"{KEYS[3]}_0.jpg", root / KEYS[3] / "again.jpg")
    (root / "eel").mkdir()
    (root / "LICENSE").write_text("CC0\n")
    return root


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root, told = tmp_path_factory.mktemp("built") / "data", Told()
    build(root, config_of(photos), workers=1, progress=told)
    return root, told.lines


def test_a_folder_becomes_a_dataset_and_what_is_no_use_is_counted(built: tuple[Path, list[str]], photos: Path) -> None:
    root, lines = built
    plan = load_plan(DatasetLayout(root).plan)
    assert Counter(medium.recipe.group for medium in plan.images) == {**dict.fromkeys(KEYS, 6), KEYS[1]: 7, KEYS[2]: 7}
    (left_out,) = (line for line in lines if "cannot be used" in line)
    assert left_out.startswith("2 of 41 images cannot be used and are left out: ")
    assert f"{photos}/{KEYS[0]}/broken.jpg: not an image that can be decoded" in left_out
    assert f"{photos}/{KEYS[0]}/tiny.jpg: 20 x 20 pixels" in left_out
    assert "Among the images: 1 CMYK, 1 animated, the first frame taken" in lines
    assert any("1 class has too few images: eel (0)" in line for line in lines)
    assert any("are the same bytes; counted once" in line for line in lines)
    sample = DatasetReader(root, "train").read(0)
    assert Image.open(io.BytesIO(sample["jpg"])).size == (40, 40)
    record = json.loads(sample["json"])
    assert (record["image_source"], record["image_licence"]) == ("folder:photos", "CC0")
    assert (photos / record["image_attributes"]["file"]).is_file()
    card = (root / "README.md").read_text()
    assert "| images | folder:photos | CC0 | 38 |" in card
    assert "--image-size 40 " in card
    assert "--shard-samples 20\n" in card


def test_workers_and_interruptions_change_nothing(
    built: tuple[Path, list[str]], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.relative_to(built[0]): path.read_bytes() for path in built[0].rglob("*.tar")}
    build(tmp_path / "two", config_of(photos), workers=2)
    assert {
        path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.tar")
    } == files

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("symile_m3.build._write_shards", fail)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "twice", config_of(photos), workers=1)
    layout = DatasetLayout(tmp_path / "twice")
    packs = {path: path.stat().st_mtime_ns for path in layout.pool.glob("images-*")}
    assert len(packs) == 2
    told = Told()
    with monkeypatch.context() as patch:
        patch.setattr("symile_m3.images.prepare.prepare", fail)  # no image is prepared again
        build(tmp_path / "twice", config_of(photos), workers=1, progress=told)
    assert {path.relative_to(tmp_path / "twice"): path.read_bytes() for path in layout.data.iterdir()} == files
    assert not layout.pool.exists()


def test_a_finished_dataset_needs_its_source_no_more(
    built: tuple[Path, list[str]], photos: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(photos, tmp_path / "photos")
    build(tmp_path / "data", config_of(moved), workers=1)
    shutil.rmtree(moved)
    assert build(tmp_path / "data", config_of(moved), workers=1).built == 0


def made_of(root: Path, pool_directory: Path, classes: tuple[str, ...]) -> tuple[list[Recipe], list[str]]:
    told = Told()
    pool = open_image_pool(f"folder:{root}", ImageOptions(size_px=40))
    recipes, store = make_media(pool, "images", classes, pool_directory, engine=LocalEngine(1), progress=told)
    assert all(recipe.name in store for recipe in recipes)
    media, _ = distinct_media(recipes, media_ids(store, LocalEngine(1)), "images")
    return [medium.recipe for medium in fill_splits(media, classes, 0)], told.lines


def test_a_class_keeps_an_image_for_every_split_as_long_as_three_are_left(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 5, "dog": 5})
    options = ImageOptions(size_px=40)
    recipes = open_image_pool(f"folder:{root}", options).recipes(["cat"])
    for split in ("val", "test"):
        (victim,) = (recipe for recipe in recipes if recipe.split == split)
        (root / victim.attributes["file"]).write_text("not an image")
    left, lines = made_of(root, tmp_path / "pool", ("cat", "dog"))
    assert lines[0].startswith("2 of 10 images cannot be used")
    for key, count in (("cat", 3), ("dog", 5)):
        splits = Counter(recipe.split for recipe in left if recipe.group == key)
        assert splits.total() == count
        assert splits["val"] == splits["test"] == 1
    assert [(recipe.name, recipe.split) for recipe in left if recipe.group == "dog"] == [
        (recipe.name, recipe.split)
        for recipe in sorted(open_image_pool(f"folder:{root}", options).recipes(["dog"]), key=lambda r: r.name)
    ]
    (root / next(r for r in recipes if r.split == "train").attributes["file"]).write_text("not an image either")
    with pytest.raises(SourceError, match=r"1 class has too few images: cat \(2\) among the distinct images"):
        made_of(root, tmp_path / "another", ("cat", "dog"))


def test_images_that_are_one_image_count_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 4, "dog": 4})
    for number in (1, 2):
        shutil.copy(root / "cat" / "cat_0.jpg", root / "cat" / f"cat_{number}.jpg")
    with pytest.raises(
        SourceError, match=r"cat \(2\) among the distinct images that can be used, and three are needed"
    ):
        made_of(root, tmp_path / "pool", ("cat", "dog"))


def test_of_many_images_that_are_the_same_bytes_a_few_are_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 40, "dog": 5})
    for number in range(12):
        shutil.copy(root / "cat" / f"cat_{number}.jpg", root / "cat" / f"copy_{number}.jpg")
    for number in range(12, 30):  # as a site gives for every photograph that it has no more
        shutil.copy(root / "dog" / "dog_0.jpg", root / "cat" / f"cat_{number}.jpg")
    pool = open_image_pool(f"folder:{root}", ImageOptions(size_px=16))
    recipes = pool.recipes(["cat", "dog"])
    ids = {recipe.name: content_id((root / recipe.attributes["file"]).read_bytes()) for recipe in recipes}
    media, lines = distinct_media(recipes, ids, "images")
    assert len(media) == 22 + 4
    assert len(lines) == 11
    assert lines[10] == "images: 3 more that are the same bytes as others"
    of_one_class = [replace(recipe, group="cat") for recipe in recipes]
    _, lines = distinct_media(of_one_class, dict.fromkeys(ids, "0" * 16), "images")
    assert lines == [f"images: {', '.join(r.name for r in recipes[:5])} and 52 more are the same bytes; counted once"]


def test_too_much_that_is_no_use_stops_the_build(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 20, "dog": 20})
    for number in range(11):
        (root / "cat" / f"cat_{number}.jpg").write_text("<html>Not Found</html>")
    for _ in range(2):  # it is no better the second time
        with pytest.raises(SourceError, match=r"11 of the 40 images cannot be used so far.*cat_0.jpg: not an image"):
            made_of(root, tmp_path / "pool", ("cat", "dog"))
    (root / "cat" / "cat_0.jpg").write_bytes(jpeg(500))
    left, lines = made_of(root, tmp_path / "pool", ("cat", "dog"))  # where it was left out before
    assert len(left) == 30
    assert lines[0].startswith("10 of 40 images cannot be used")
    assert lines[0].endswith("; and 7 more")


def test_images_of_an_interrupted_build_are_not_taken_for_those_of_other_settings(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of the same files at another size: nothing but the plan, which is not there yet, knows of it."""

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("symile_m3.build.media_ids", fail)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "data", config_of(photos), workers=1)
    assert not DatasetLayout(tmp_path / "data").plan.exists()
    assert list(DatasetLayout(tmp_path / "data").pool.glob("images-*.tar"))
    build(tmp_path / "data", replace(config_of(photos), image_size=32), workers=1)
    build(tmp_path / "fresh", replace(config_of(photos), image_size=32), workers=1)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.tar")} for name in ("data", "fresh")]
    assert files[0] == files[1]


def test_what_a_killed_build_noted_of_a_pack_does_not_outlive_it(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 5, "dog": 5})
    sound = (root / "cat" / "cat_0.jpg").read_bytes()
    (root / "cat" / "cat_0.jpg").write_bytes(b"")
    assert len(made_of(root, tmp_path / "pool", ("cat", "dog"))[0]) == 9
    (tar,) = (tmp_path / "pool").glob("*.tar")
    tar.unlink()  # killed before the tar was there
    (root / "cat" / "cat_0.jpg").write_bytes(sound)
    for _ in range(2):
        assert len(made_of(root, tmp_path / "pool", ("cat", "dog"))[0]) == 10


def test_images_repaired_under_their_names_are_taken_by_the_next_build(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 20, "dog": 20})
    for number in range(11):
        (root / "cat" / f"cat_{number}.jpg").write_text("<html>Not Found</html>")
    with pytest.raises(SourceError, match="11 of the 40 images cannot be used so far"):
        made_of(root, tmp_path / "pool", ("cat", "dog"))
    for number in range(11):
        (root / "cat" / f"cat_{number}.jpg").write_bytes(jpeg(500 + number))
    left, lines = made_of(root, tmp_path / "pool", ("cat", "dog"))
    assert (len(left), lines) == (40, [])


@pytest.mark.parametrize("fault", ["broken", "repeated"])
def test_a_class_that_has_too_few_images_is_mended_in_place(fault: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {**dict.fromkeys(KEYS[1:], 4), KEYS[0]: 3})
    first, second, _ = sorted((root / KEYS[0]).iterdir())
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes() if fault == "repeated" else whole[:700])
    with pytest.raises(SourceError, match=rf"1 class has too few images: {KEYS[0]} \(2\)"):
        build(tmp_path / "data", config_of(root), workers=1)
    first.write_bytes(whole)
    assert len(build(tmp_path / "data", config_of(root), workers=1).plan.images) == 23


def test_a_pack_of_which_nothing_is_left_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("symile_m3.mediastore.PACK_RECIPES", 4)
    root = write_tree(tmp_path / "photos", {"cat": 8, "dog": 8})
    for number in range(4):
        (root / "cat" / f"cat_{number}.jpg").write_bytes(b"")
    left, _ = made_of(root, tmp_path / "pool", ("cat", "dog"))
    assert len(left) == 12
    assert len(list((tmp_path / "pool").glob("*.tar"))) == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    again, lines = made_of(root, tmp_path / "pool", ("cat", "dog"))
    assert (again, lines) == (left, [])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()} == before


def test_imagenet_from_tars_and_from_files_gives_the_same_media(tmp_path: Path) -> None:
    kaggle = write_kaggle(tmp_path / "kaggle")
    tars = write_tars(kaggle / "ILSVRC/Data/CLS-LOC/train", tmp_path / "tars")
    packs = []
    for root in (kaggle, tars):
        config = replace(config_of(kaggle), images=f"imagenet:{root}", images_per_class=4)
        pool = open_images(config)
        recipes, store = make_media(
            pool, "images", list(pool.classes()), tmp_path / f"of-{root.name}", engine=LocalEngine(2), progress=Told()
        )
        assert len(recipes) == 16
        packs.append({path.name: path.read_bytes() for path in store.paths})
    assert packs[0] == packs[1]
