"""Local data sets read through `datasets`."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import datasets
import pytest
from hub_files import image_rows, write_parquet, write_webdataset
from image_files import jpeg, write_tree

from symile_m3.errors import SourceError, UnusableError
from symile_m3.images import open_image_pool
from symile_m3.images.huggingface import HubPool, HubSpec, class_keys, imagenet_names, parse_spec
from symile_m3.images.prepare import prepare
from symile_m3.media import ImageOptions, Recipe

NAMES = ("tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "drake")
LABELS = [row * 7 % 4 for row in range(30)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of 30, 30 and 10 images of four classes, with ImageNet's features; four are without a label."""
    root = tmp_path_factory.mktemp("parquet") / "photos"
    shards = [image_rows(LABELS, NAMES), image_rows(LABELS, NAMES, 100), image_rows([-1] * 4 + LABELS[:6], NAMES, 200)]
    write_parquet(root, shards)
    (root / "LICENSE").write_text("CC BY 4.0\n")
    return root


def open_hf(spec: object, **options: int) -> HubPool:
    pool = open_image_pool(f"hf:{spec}", ImageOptions(size_px=40, **options))
    assert isinstance(pool, HubPool)
    return pool


def splits_of(recipes: list[Recipe]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for recipe in recipes:
        counts.setdefault(recipe.group, Counter())[recipe.split] += 1
    return counts


def test_parquet_files_are_listed_by_their_labels(parquet: Path) -> None:
    pool = open_hf(parquet)
    counts = Counter([*LABELS, *LABELS, *LABELS[:6]])
    assert pool.classes() == {name: counts[label] for label, name in enumerate(NAMES)}
    assert pool.table == ""
    assert pool.labels() == dict(zip(NAMES, NAMES, strict=True))
    recipes = pool.recipes(NAMES)
    assert len(recipes) == len({recipe.name for recipe in recipes}) == 66
    # In the order of files and rows, so that what is made together lies together.
    where = [(recipe.attributes["file"], int(recipe.attributes["row"])) for recipe in recipes]
    assert where == sorted(where)
    assert where[0] == ("data/train-00000-of-00003.parquet", 0)
    assert {(recipe.source, recipe.licence) for recipe in recipes} == {("hf:photos", "CC BY 4.0")}
    for key, counts_of_key in splits_of(recipes).items():
        assert counts_of_key["val"] == counts_of_key["test"] == 1, key
    assert [r for r in recipes if r.group == NAMES[2]] == pool.recipes([NAMES[2]])
    assert {r.name: r.split for r in open_hf(parquet, seed=1).recipes(NAMES)} != {r.name: r.split for r in recipes}


def test_images_are_read_by_row_in_any_process_and_order(parquet: Path) -> None:
    pool = open_hf(parquet)
    recipes = pool.recipes(NAMES)
    elsewhere: HubPool = pickle.loads(pickle.dumps(pool))
    assert len(pickle.dumps(pool)) < 2000
    seeds = {f"data/train-{n:05d}-of-00003.parquet": 100 * n for n in range(3)}
    for recipe in [*recipes[::-7], *recipes[::5]]:
        seed = seeds[recipe.attributes["file"]] + int(recipe.attributes["row"])
        assert elsewhere.make(recipe) == prepare(jpeg(seed), pool.options)
    assert HubPool(parse_spec(str(parquet)), pool.options, "hf").make(recipes[5]) == pool.make(recipes[5])


def test_one_file_is_a_data_set_too(parquet: Path) -> None:
    pool = open_hf(parquet / "data" / "train-00001-of-00003.parquet")
    recipes = pool.recipes(list(pool.classes()))
    assert len(recipes) == 30
    assert recipes[3].attributes == {"file": "train-00001-of-00003.parquet", "row": "3"}
    assert pool.make(recipes[3]) == prepare(jpeg(103), pool.options)


def test_images_per_class_read_no_more_files_than_they_need(parquet: Path, tmp_path: Path) -> None:
    pool = open_hf(parquet, per_class=5)
    assert pool.classes() == dict.fromkeys(NAMES, 5)
    recipes = pool.recipes(NAMES)
    assert {recipe.attributes["file"] for recipe in recipes} == {"data/train-00000-of-00003.parquet"}
    assert all(counts == {"train": 3, "val": 1, "test": 1} for counts in splits_of(recipes).values())
    broken = write_parquet(tmp_path / "broken", [image_rows(LABELS, NAMES), image_rows(LABELS, NAMES, 100)])
    (broken / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1 and nothing more")
    assert open_hf(broken, per_class=5).recipes(NAMES) == [
        Recipe(
            name=recipe.name,
            group=recipe.group,
            split=recipe.split,
            source="hf:broken",
            licence="unknown, given by the user",
            attributes={**recipe.attributes, "file": "data/train-00000-of-00002.parquet"},
        )
        for recipe in recipes
    ]
    with pytest.raises(SourceError, match=r"train-00000-of-00002.parquet or one of the next 1 files cannot be read"):
        open_hf(broken).classes()


def test_labels_may_be_words_or_bare_numbers(tmp_path: Path) -> None:
    words = write_parquet(tmp_path / "words", [image_rows(["cat", "dog", "", "cat", "dog", "dog", "cat"], None)])
    pool = open_hf(words)
    assert pool.classes() == {"cat": 3, "dog": 3}
    assert {recipe.attributes["row"] for recipe in pool.recipes(["cat"])} == {"0", "3", "6"}
    numbers = write_parquet(tmp_path / "numbers", [image_rows([7, 2, 7, 2, 7, 2, -1], None)])
    assert open_hf(f"{numbers},label=label,image=image").classes() == {"2": 3, "7": 3}


def test_image_folders_are_read_where_they_are(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "pets" / "train", {"cat": 4, "dog": 3}).parent
    write_tree(root / "test", {"cat": 3, "dog": 3})
    pool = open_hf(root)
    assert pool.classes() == {"cat": 4, "dog": 3}
    recipes = pool.recipes(["cat", "dog"])
    assert recipes[0].attributes == {"file": "train/cat/cat_0.jpg"}
    elsewhere: HubPool = pickle.loads(pickle.dumps(pool))
    for recipe in recipes:
        assert elsewhere.make(recipe) == prepare((root / recipe.attributes["file"]).read_bytes(), pool.options)
    assert open_hf(f"{root},split=test").classes() == {"cat": 3, "dog": 3}
    assert not list((tmp_path / "cache").rglob("*.image"))


def test_other_formats_are_passed_through_once_and_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_webdataset(tmp_path / "tars" / "train-0.tar", [0, 1] * 6).parent
    write_webdataset(root / "train-1.tar", [1, 0] * 6, 50)
    spec = f"{root},label=cls,image=jpg"
    whole = open_hf(spec)
    recipes = whole.recipes(["0", "1"])
    made = [whole.make(recipe) for recipe in recipes]
    assert made == [prepare(jpeg(row if row < 12 else 38 + row), whole.options) for row in range(24)]
    assert recipes[13].attributes == {"row": "13"}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    rows = 0
    from symile_m3.images import hubstream

    def stopping(*arguments: object) -> None:
        nonlocal rows
        rows += 1
        if rows == 16:
            raise KeyboardInterrupt
        taking(*arguments)  # type: ignore[arg-type]

    taking = hubstream._take
    with monkeypatch.context() as patch:
        patch.setattr(hubstream, "_take", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_hf(spec).classes()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "another").rglob("*.image")}
    assert len(kept) == 15
    again = open_hf(spec)
    assert again.recipes(["0", "1"]) == recipes
    assert [pickle.loads(pickle.dumps(again)).make(recipe) for recipe in recipes] == made
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with monkeypatch.context() as patch:
        patch.setattr(hubstream, "_take", stopping)
        assert open_hf(spec).classes() == {"0": 12, "1": 12}  # and nothing is taken twice

    few = open_hf(spec, per_class=3)
    assert few.classes() == {"0": 3, "1": 3}
    for path in (tmp_path / "another").rglob("*.image"):
        path.unlink()
    with pytest.raises(SourceError, match=r"row 0: cannot be read \(not in the cache of this machine"):
        few.make(few.recipes(["0"])[0])


def test_rows_without_an_image_are_left_out(tmp_path: Path) -> None:
    rows = image_rows([0, 1] * 4, ["cat", "dog"])
    table = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    table[2]["image"] = {"bytes": None, "path": "elsewhere.jpg"}
    table[3]["image"] = {"bytes": b"not an image", "path": None}
    root = write_parquet(tmp_path / "photos", [datasets.Dataset.from_list(table, features=rows.features)])
    pool = open_hf(root)
    recipes = {int(recipe.attributes["row"]): recipe for recipe in pool.recipes(["cat", "dog"])}
    with pytest.raises(UnusableError, match=r"train-00000-of-00001.parquet, row 2: no image in the row itself"):
        pool.make(recipes[2])
    with pytest.raises(UnusableError, match="row 3: not an image"):
        pool.make(recipes[3])


def test_imagenet_s_names_stand_for_its_synsets_in_their_order() -> None:
    synsets = [f"n{10_000_000 + 37 * i}" for i in range(1000)]
    names = [
        "tench, Tinca tinca",
        *(f"thing {i}" for i in range(1, 999)),
        "toilet tissue, toilet paper, bathroom tissue",
    ]
    assert imagenet_names(names)
    assert class_keys(names, synsets[::-1]) == tuple(synsets)
    assert class_keys(names[:999], synsets)[0] == "tench, Tinca tinca"
    assert class_keys(names[::-1], synsets)[0].startswith("toilet tissue")
    # Where there is no table of synsets, names are keys, and all different.
    assert class_keys(["crane", " crane", "", "n01440764", "n01443537 goldfish"], ()) == (
        "crane",
        "crane 1",
        "2",
        "n01440764",
        "n01443537",
    )


def test_labels_that_are_synsets_have_imagenet_s_names_and_licence(tmp_path: Path) -> None:
    rows = image_rows([0, 1] * 3, ["n01440764", "n01443537"])
    pool = open_hf(write_parquet(tmp_path / "tiny-imagenet", [rows]))
    assert pool.table == "imagenet"
    assert all("non-commercial research" in recipe.licence for recipe in pool.recipes(["n01440764"]))


def test_specs_say_what_is_chosen(tmp_path: Path) -> None:
    assert parse_spec("ILSVRC/imagenet-1k") == HubSpec(name="ILSVRC/imagenet-1k")
    assert parse_spec("uoft-cs/cifar100,label=fine_label, split=test,revision=abc,config=x,image=img") == HubSpec(
        name="uoft-cs/cifar100", label="fine_label", split="test", revision="abc", config="x", image="img"
    )
    odd = tmp_path / "a,b=c"
    odd.mkdir()
    assert parse_spec(str(odd)) == HubSpec(name=str(odd), local=True)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (",split=nothing", "no split nothing; choose with split=, of train"),
        (",label=nothing", "no column of labels can be told; choose with label=, of image, label"),
        (",image=nothing", "no column of images can be told; choose with image=, of image, label"),
    ],
)
def test_choices_that_are_not_there_are_named(parquet: Path, choice: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_hf(f"{parquet}{choice}").classes()


def test_what_is_no_data_set_is_named(tmp_path: Path, parquet: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SourceError, match=r"--images hf:.*nothing: .*"):
        open_hf(tmp_path / "nothing").classes()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match=r"--images hf:.*broken.parquet: "):
        open_hf(tmp_path / "broken.parquet").classes()
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(SourceError, match=r"letters.txt is a file of no known kind; give a directory, or .parquet or"):
        open_hf(tmp_path / "letters.txt").classes()
    one = write_parquet(tmp_path / "one", [image_rows([0, 0, 0, 1], ["cat", "dog"])])
    with pytest.raises(SourceError, match=r"1 classes with three images or more in the split train .*dog \(1\)"):
        open_hf(one).classes()
    few = write_parquet(tmp_path / "few", [image_rows([0, 0, 0, 1, 2, 2, 2], ["cat", "dog", "eel"])])
    assert open_hf(few).notes() == [f"hf:{few}: 1 class has too few images: dog (1); left out, as each needs three"]
    with pytest.raises(SourceError, match=r"1 class has too few images: dog \(1\)"):
        open_hf(few).recipes(["cat", "dog"])
