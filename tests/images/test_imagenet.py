"""ImageNet as Kaggle packs it, and as the tars of the original archive."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from image_files import MAPPING, SYNSETS, write_kaggle, write_tars, write_tree

from symile_m3.errors import SourceError, UnusableError, UsageError
from symile_m3.images import open_image_pool
from symile_m3.images.imagenet import ImagenetPool, read_mapping, tar_members
from symile_m3.media import ImageOptions

TRAIN = "ILSVRC/Data/CLS-LOC/train"


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kaggle(tmp_path_factory.mktemp("kaggle"))


@pytest.fixture(scope="module")
def tars(kaggle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tars(kaggle / TRAIN, tmp_path_factory.mktemp("original") / "train")


def open_imagenet(root: Path) -> ImagenetPool:
    pool = open_image_pool(f"imagenet:{root}", ImageOptions(size_px=40))
    assert isinstance(pool, ImagenetPool)
    return pool


@pytest.mark.parametrize("level", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", TRAIN])
def test_any_directory_of_the_archive_may_be_named(kaggle: Path, level: str) -> None:
    pool = open_imagenet(kaggle / level)
    assert pool.root == kaggle / TRAIN
    assert pool.classes() == dict.fromkeys(SYNSETS, 5)
    assert pool.table == "imagenet"
    assert pool.labels()["n01440764"] == "tench"
    assert pool.notes() == ()


def test_recipes_say_which_file_and_on_what_terms(kaggle: Path) -> None:
    recipes = open_imagenet(kaggle).recipes(SYNSETS)
    assert len(recipes) == len({recipe.name for recipe in recipes}) == 20
    assert recipes[0].attributes == {"file": "n01440764/n01440764_0.JPEG"}
    assert {recipe.source for recipe in recipes} == {"imagenet:ILSVRC2012"}
    assert all("non-commercial research" in recipe.licence for recipe in recipes)


def test_tars_give_the_same_recipes_and_the_same_bytes(kaggle: Path, tars: Path) -> None:
    unpacked, packed = open_imagenet(kaggle), open_imagenet(tars)
    recipes = unpacked.recipes(SYNSETS)
    assert packed.classes() == unpacked.classes()
    assert packed.recipes(SYNSETS) == recipes
    elsewhere: ImagenetPool = pickle.loads(pickle.dumps(packed))
    assert [elsewhere.make(recipe) for recipe in recipes] == [unpacked.make(recipe) for recipe in recipes]


def test_a_directory_is_preferred_to_a_tar_of_the_same_synset(kaggle: Path, tmp_path: Path) -> None:
    train = write_tars(kaggle / TRAIN, tmp_path / "train")
    write_tree(train, {"n01440764": 7}, ".JPEG")
    pool = open_imagenet(tmp_path)
    assert pool.root == train
    assert pool.classes() == {**dict.fromkeys(SYNSETS, 5), "n01440764": 7}
    for recipe in pool.recipes(SYNSETS):
        assert pool.make(recipe).startswith(b"\xff\xd8")


def test_labels_that_two_synsets_share_get_a_second_word_where_they_have_one(tmp_path: Path) -> None:
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text(MAPPING)
    assert read_mapping(path) == {
        "n01440764": "tench",
        "n01443537": "goldfish",
        "n02012849": "crane",
        "n03126707": "crane (lifting machine)",
    }
    path.write_text("n01440764 tench\ntench n01440764\n")
    with pytest.raises(SourceError, match=r"LOC_synset_mapping.txt, line 2: not a synset and its words"):
        read_mapping(path)
    path.write_bytes(b"n01440764 tench\xff\n")
    with pytest.raises(SourceError, match="cannot be read"):
        read_mapping(path)


def test_damaged_tars_are_named(kaggle: Path, tmp_path: Path) -> None:
    train = write_tars(kaggle / TRAIN, tmp_path / "train")
    victim = train / f"{SYNSETS[0]}.tar"
    pool = open_imagenet(train)
    last = pool.recipes(SYNSETS[:1])[-1]
    data = victim.read_bytes()
    at, size = tar_members(victim)[last.attributes["file"].partition("/")[2]]
    victim.write_bytes(data[:at] + b"not an image".ljust(size) + data[at + size :])
    with pytest.raises(UnusableError, match=f"{last.attributes['file']}: not an image"):
        pool.make(last)
    victim.write_bytes(b"no tar at all" * 100)
    with pytest.raises(SourceError, match=r"n01440764.tar: not a tar that can be read"):
        open_imagenet(train).classes()


def test_directories_without_synsets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images imagenet: name a directory"):
        open_image_pool("imagenet:")
    with pytest.raises(SourceError, match="does not exist"):
        open_imagenet(tmp_path / "nowhere")
    write_tree(tmp_path / "photos", {"cat": 3, "dog": 3})
    with pytest.raises(SourceError, match="no directories or tars called by synsets, such as n01440764"):
        open_imagenet(tmp_path / "photos")
