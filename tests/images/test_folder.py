"""Image folders: classes, splits, licences, and what is wrong with them."""

from __future__ import annotations

import pickle
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from image_files import jpeg, photograph, write_tree

from symile_m3.errors import SourceError, UnusableError, UsageError
from symile_m3.images import open_image_pool
from symile_m3.images.folder import FolderPool
from symile_m3.media import ImageOptions, ImagePool, Recipe
from symile_m3.splits import draw_splits, rank

OPTIONS = ImageOptions(size_px=40)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("photos") / "photos", {"cat": 40, "dog": 3, "red_fox": 21})


def open_photos(root: Path, **options: int) -> ImagePool:
    return open_image_pool(f"folder:{root}", ImageOptions(size_px=40, **options))


def by_split(recipes: list[Recipe]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for recipe in recipes:
        counts.setdefault(recipe.group, Counter())[recipe.split] += 1
    return counts


def test_a_directory_is_a_class_and_a_tenth_of_it_is_held_out_twice(photos: Path) -> None:
    pool = open_photos(photos)
    assert pool.classes() == {"cat": 40, "dog": 3, "red_fox": 21}
    assert pool.labels() == {"cat": "cat", "dog": "dog", "red_fox": "red fox"}
    assert pool.table == ""
    recipes = pool.recipes(["red_fox", "cat", "dog"])
    assert by_split(recipes) == {
        "cat": {"train": 32, "val": 4, "test": 4},
        "dog": {"train": 1, "val": 1, "test": 1},
        "red_fox": {"train": 17, "val": 2, "test": 2},
    }
    assert len({recipe.name for recipe in recipes}) == 64
    assert [recipe.attributes["file"] for recipe in recipes] == sorted(
        path.relative_to(photos).as_posix() for path in photos.glob("*/*.jpg")
    )
    assert {(recipe.source, recipe.licence) for recipe in recipes} == {("folder:photos", "unknown, given by the user")}
    assert pool.recipes(["dog"]) == [recipe for recipe in recipes if recipe.group == "dog"]


def test_splits_follow_from_the_seed_and_the_names_alone(photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(photos, tmp_path / "photos")
    recipes = open_photos(photos).recipes(["cat"])
    assert open_photos(copy).recipes(["cat"]) == recipes
    splits = {recipe.name: recipe.split for recipe in recipes}
    other = {recipe.name: recipe.split for recipe in open_photos(photos, seed=1).recipes(["cat"])}
    assert splits.keys() == other.keys()
    assert splits != other
    # One more image moves at most the last of each held-out split.
    (copy / "cat" / "another.jpg").write_bytes(jpeg(999))
    more = {recipe.name: recipe.split for recipe in open_photos(copy).recipes(["cat"])}
    assert sum(more[name] != split for name, split in splits.items()) <= 2


def test_every_split_gets_its_share_of_any_number_of_images() -> None:
    import numpy as np

    for count in range(3, 60):
        splits = Counter(draw_splits(np.array([rank(0, str(i)) for i in range(count)], dtype=np.uint64)))
        assert splits["val"] == splits["test"] == max(1, count // 10)
        assert splits["train"] == count - 2 * splits["val"] >= 1


def test_images_per_class_are_drawn_and_more_contain_fewer(photos: Path) -> None:
    files = {}
    for limit in (3, 10, 100):
        pool = open_photos(photos, per_class=limit)
        assert pool.classes()["cat"] == min(limit, 40)
        recipes = pool.recipes(["cat"])
        files[limit] = {recipe.attributes["file"] for recipe in recipes}
        assert len(recipes) == min(limit, 40)
        assert set(by_split(recipes)["cat"]) == {"train", "val", "test"}
    assert files[3] < files[10] < files[100]
    other = open_photos(photos, per_class=10, seed=1).recipes(["cat"])
    assert {recipe.attributes["file"] for recipe in other} != files[10]


def test_media_are_made_from_the_recipe_alone(photos: Path) -> None:
    from symile_m3.images.prepare import prepare

    pool = open_photos(photos)
    recipes = pool.recipes(["cat"])
    elsewhere: ImagePool = pickle.loads(pickle.dumps(pool))
    assert len(pickle.dumps(pool)) < 1000
    for recipe in recipes[::13]:
        made = elsewhere.make(recipe)
        assert made == prepare((photos / recipe.attributes["file"]).read_bytes(), OPTIONS)


def test_directories_within_a_class_are_of_the_class_and_the_rest_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 3, "dog": 3, "eel": 2, "elk": 0, "__MACOSX": 4, ".git": 4})
    (root / "cat" / "at home").mkdir()
    (root / "cat" / "at home" / "Böse Katze.JPEG").write_bytes(jpeg(100))
    (root / "cat" / ".hidden.jpg").write_bytes(b"")
    (root / "cat" / "notes.txt").write_text("mine")
    (root / "dog" / "Thumbs.db").write_bytes(b"\0")
    (root / "loose.png").write_bytes(b"")
    with open(bytes(root / "dog") + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(jpeg(101))
    pool = open_photos(root)
    assert isinstance(pool, FolderPool)
    assert pool.classes() == {"cat": 4, "dog": 3}
    assert "cat/at home/Böse Katze.JPEG" in {recipe.attributes["file"] for recipe in pool.recipes(["cat", "dog"])}
    few, others, unnamed, loose = pool.notes()
    assert "2 classes have too few images: eel (2), elk (0)" in few
    assert "2 files that are no images by their names are left out: cat/notes.txt, dog/Thumbs.db" in others
    assert "1 files or directories whose names are not UTF-8" in unnamed
    assert "1 images beside the classes' directories" in loose


def test_names_of_any_script_give_keys_that_tars_take(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for key in ("ไก่ งวง", "кошка", unicodedata.normalize("NFD", "é"), "a.b"):
        (root / key).mkdir(parents=True)
        for number, name in enumerate(("1.jpg", "__2__.jpg", "3 .tar.jpg", "图.jpg", "x" * 200 + ".jpg")):
            (root / key / name).write_bytes(jpeg(number))
    pool = open_photos(root)
    assert set(pool.classes()) == {"ไก่ งวง", "кошка", unicodedata.normalize("NFC", "é"), "a.b"}
    recipes = pool.recipes(list(pool.classes()))
    assert len({recipe.name for recipe in recipes}) == 20
    for recipe in recipes:
        assert recipe.name.isascii()
        assert 1 <= len(recipe.name) < 90
        assert not set(recipe.name) & set("./\\ ")
        assert not recipe.name.startswith("_")
        assert pool.make(recipe).startswith(b"\xff\xd8")


def test_directories_called_by_synsets_have_imagenet_s_names(tmp_path: Path) -> None:
    assert open_photos(write_tree(tmp_path / "a", {"n01440764": 3, "n01443537": 3})).table == "imagenet"
    assert open_photos(write_tree(tmp_path / "b", {"n01440764": 3, "tench": 3})).table == ""


@pytest.mark.parametrize("name", ["LICENSE", "licence.txt", "License.md"])
def test_a_licence_file_is_quoted_by_its_first_line(tmp_path: Path, name: str) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 3, "dog": 3})
    (root / name).write_text("\n# CC BY 4.0, by the photographers\nmore\n")
    assert {recipe.licence for recipe in open_photos(root).recipes(["cat"])} == {"CC BY 4.0, by the photographers"}


def test_what_is_no_image_is_told_from_what_cannot_be_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "photos", {"cat": 3, "dog": 4})
    (root / "cat" / "cat_0.jpg").write_text("not an image")
    (root / "cat" / "cat_1.jpg").write_bytes(b"")
    photograph(1, 20, 20).save(root / "cat" / "cat_2.jpg")
    pool = open_photos(root)
    recipes = {recipe.attributes["file"]: recipe for recipe in pool.recipes(["cat", "dog"])}
    for file, why in (("cat_0", "not an image"), ("cat_1", "empty"), ("cat_2", "20 x 20 pixels")):
        with pytest.raises(UnusableError, match=f"{root}/cat/{file}.jpg: {why}"):
            pool.make(recipes[f"cat/{file}.jpg"])
    (root / "dog" / "dog_0.jpg").unlink()
    with pytest.raises(SourceError, match=r"dog_0.jpg: cannot be read \(No such file") as refused:
        pool.make(recipes["dog/dog_0.jpg"])
    assert not isinstance(refused.value, UnusableError)


def test_folders_without_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images folder: name a directory"):
        open_image_pool("folder")
    with pytest.raises(SourceError, match="nowhere does not exist; name a directory that is there"):
        open_photos(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SourceError, match="file is a file; name a directory"):
        open_photos(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"0 directories in .*empty, 0 of them with three images or more"):
        open_photos(tmp_path / "empty").classes()
    one = write_tree(tmp_path / "one", {"cat": 9})
    with pytest.raises(SourceError, match=r"1 directory in .*one, 1 of them .*at least two classes are needed"):
        open_photos(one).classes()
    few = write_tree(tmp_path / "few", {"cat": 9, "dog": 2, "eel": 0})
    with pytest.raises(SourceError, match=r"3 directories.*1 of them.*\(2 classes have too few images: dog \(2\), eel"):
        open_photos(few).classes()
    with pytest.raises(SourceError, match=r"1 class has too few images: dog \(2\) in .*few, and three are needed"):
        open_photos(few).recipes(["cat", "dog"])
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        (flat / f"{number}.jpg").write_bytes(jpeg(number))
    with pytest.raises(SourceError, match="flat has 3 images and no directories"):
        open_photos(flat).classes()
