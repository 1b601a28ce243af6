"""Splits by key, arrays as samples, and what the towers are given."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from user_shards import write_user_shards

from symile_m3.errors import TrainingError, UsageError
from symile_m3.modalities.arrays import ArraySource
from symile_m3.modalities.declaration import DataConfig, Declaration, ModalityConfig, read_declaration
from symile_m3.modalities.prepare import Collate, Prepared
from symile_m3.modalities.splits import fingerprint_of, open_splits, split_by_key
from symile_m3.planted import PlantedConfig, write_planted
from symile_m3.shards import ForeignReader, Loader, LoaderConfig, Sample, ShardError

SMALL = PlantedConfig(
    values=4, train=24, val=20, test=40, image=(3, 16, 16), signal=(1, 64, 12), listed=True, dtype="float16"
)
FIELDS = ("cxr.npy", "labs_percentiles.npy")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("splits") / "data")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("arrays"), SMALL)


def test_a_split_by_key_is_disjoint_complete_and_the_same_every_time(root: Path) -> None:
    reader = ForeignReader(str(root / "shards"), fields=("txt",))
    splits = split_by_key(reader, (0.6, 0.2, 0.2))
    keys = {name: [source.key(i) for i in range(len(source))] for name, source in splits.items()}
    assert sorted(key for of in keys.values() for key in of) == sorted(reader.key(i) for i in range(len(reader)))
    assert len(keys["train"]) > len(keys["val"]) + len(keys["test"])
    for name, source in splits.items():
        assert sum(source.shard_sizes) == len(source)
        assert source.read(0)["txt"]
        again = split_by_key(ForeignReader(str(root / "shards"), fields=("txt",)), (0.6, 0.2, 0.2))[name]
        assert again.fingerprint == source.fingerprint
        loader = Loader(pickle.loads(pickle.dumps(source)), LoaderConfig(batch_size=5, seed=0, fields=("txt",)))
        read = [sample.key for batch in loader for sample in batch]
        assert len(read) == len(set(read)) == len(source) // 5 * 5
        assert set(read) <= set(keys[name])


def test_a_split_without_a_sample_is_refused(root: Path) -> None:
    reader = ForeignReader(str(root / "shards"), fields=("txt",))
    with pytest.raises(UsageError, match="of 104 samples is in val; give it more"):
        split_by_key(reader, (0.998, 0.001, 0.001))


def test_a_member_that_no_sample_has_is_named(root: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    xray, *others = declaration.config.modalities
    config = replace(declaration.config, modalities=(replace(xray, member=("ct.npy",)), *others))
    with pytest.raises(ShardError, match=r"has no ct\.npy"):
        open_splits(replace(declaration, config=config))


def test_rows_of_arrays_are_samples(arrays: Path) -> None:
    source = ArraySource.splits(arrays, FIELDS)["train"]
    assert len(source) == 24
    loader = Loader(pickle.loads(pickle.dumps(source)), LoaderConfig(batch_size=24, seed=3, fields=FIELDS))
    (batch,) = loader
    whole = np.load(arrays / "data_npy" / "train" / "cxr_train.npy")
    for sample in batch:
        row = int(sample.key.rpartition("-")[2])
        np.testing.assert_array_equal(sample.fields["cxr.npy"], whole[row])


def test_the_lists_of_candidates_are_those_of_the_labels(arrays: Path) -> None:
    splits = ArraySource.splits(arrays, FIELDS)
    assert splits["train"].lists is None
    lists = splits["test"].lists
    assert lists is not None
    assert lists.shape == (4, 10)
    assert lists[:, 0].tolist() == [0, 1, 2, 3]
    of = np.load(arrays / "data_npy" / "test" / "label_hadm_id_test.npy")
    assert (of[lists] == of[lists[:, :1]]).all()
    assert splits["val"].key(0).startswith("val_retrieval-")


def test_other_arrangements_of_the_files_are_found(tmp_path: Path) -> None:
    for split, path in (("train", "train/a.npy"), ("val", "a_val.npy"), ("test", "data_npy/test/a_test.npy")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / path, np.full((2, 3), len(split)))
    found = ArraySource.splits(tmp_path, ("a.npy",))
    assert [np.load(io.BytesIO(found[split].read(1)["a.npy"]))[0] for split in ("train", "val", "test")] == [5, 3, 4]
    assert len({source.fingerprint for source in found.values()}) == 3


def test_what_is_wrong_with_arrays_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        ArraySource.splits(tmp_path / "no", FIELDS)
    with pytest.raises(UsageError, match=r"no array cxr of train; sought train/cxr_train\.npy, cxr_train\.npy"):
        ArraySource.splits(tmp_path, FIELDS)
    np.save(tmp_path / "cxr_train.npy", np.zeros((3, 2)))
    np.save(tmp_path / "labs_percentiles_train.npy", np.zeros((4, 2)))
    with pytest.raises(UsageError, match=r"different lengths: cxr_train\.npy 3, labs_percentiles_train\.npy 4"):
        ArraySource(tmp_path, "train", FIELDS)
    (tmp_path / "cxr_train.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(UsageError, match="not an array that can be mapped"):
        ArraySource(tmp_path, "train", FIELDS)
    with pytest.raises(UsageError, match="has no member txt"):
        ArraySource(tmp_path, "train", ("txt",))


def one(**changes: object) -> ModalityConfig:
    return ModalityConfig(**{"name": "x", "member": ("x.npy",), "tower": "mlp", "shape": (2,), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "value", "says"),
    [
        (one(), np.zeros(3), r"sample k: x: x\.npy has shape \[3\], declared is \[2\]"),
        (one(dtype="float32"), np.zeros(2), r"x\.npy is of float64, declared is float32"),
        (one(), np.array([1, np.nan]), r"x\.npy holds NaN or infinities"),
        (one(), ["a", "b"], r"x\.npy holds no numbers"),
        (one(), [[1], [2, 3]], r"x\.npy holds no numbers"),
    ],
)
def test_a_sample_that_is_not_as_declared_is_named(config: ModalityConfig, value: object, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        Prepared(config)(["k"], [[value]])


def test_arrays_are_joined_and_scaled_and_missing_ones_are_zero() -> None:
    config = one(member=("a.npy", "json:b"), shape=(3,), mean=1.0, std=2.0)
    prepared = Prepared(config)
    values = [prepared.find({"a.npy": np.array([[1, 3]]), "json": {"b": 5}}), prepared.find({"a.npy": np.zeros(2)})]
    assert values[1] is None
    (found,) = prepared(["k", "l"], values)
    assert found.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]


def test_images_sound_and_text_become_what_their_towers_take(root: Path) -> None:
    reader = ForeignReader(str(root / "shards/train-0.tar"), fields=("photo.png", "sound.wav", "txt"))
    (batch,) = Loader(reader, LoaderConfig(batch_size=32, seed=0, fields=reader.fields, shuffle=False))
    keys = [sample.key for sample in batch]

    def inputs(**config: object) -> tuple[object, ...]:
        prepared = Prepared(one(shape=(), **config))
        return prepared(keys, [None, *(prepared.find(sample.fields) for sample in batch[1:])])

    (pixels,) = inputs(member=("photo.png",), tower="conv-image")
    assert isinstance(pixels, torch.Tensor)
    assert pixels.shape == (32, 3, 224, 224)
    assert pixels[1, :, 100, 100].mul(127.5).add(127.5).round().tolist() == [60, 128, 195]
    mels, mask = inputs(member=("sound.wav",), tower="conv-audio", seconds=1.0)
    assert mels.shape == (32, 64, 51)  # type: ignore[attr-defined]
    assert mask.sum(dim=1).tolist() == [1.0] + [26.0] * 31  # type: ignore[attr-defined]
    (texts,) = inputs(member=("txt",), tower="embedding-bag")
    assert texts.word_counts.tolist() == [1] + [2] * 31  # type: ignore[attr-defined]
    (tokens,) = inputs(member=("txt",), tower="mine:text")
    assert bytes(tokens.ids_BT[1].tolist()) == b"finding bbbb"  # type: ignore[attr-defined]
    assert tokens.mask_BT.sum(dim=1).tolist() == [1] + [12] * 31  # type: ignore[attr-defined]


def test_absent_and_hidden_samples_are_masked(root: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    samples = [
        Sample("a", 0, {"xray.npy": np.ones((1, 32, 32)), "txt": "one", "json": {"class": 1, "age": 3}}),
        Sample(
            "b",
            1,
            {
                "xray.npy": np.ones((1, 32, 32)),
                "txt": "two",
                "json": {"class": 2, "age": 4},
                "ecg.npy": np.ones((64, 2)),
            },
        ),
    ]
    batch = Collate(declaration.config, declaration.data, hide=True)(samples, 0)
    assert {name: mask.tolist() for name, mask in batch.missing.items()} == {"ecg": [True, False]}
    assert batch.labels == ("1", "2")
    elsewhere = pickle.loads(pickle.dumps(Collate(declaration.config, declaration.data, hide=True)))(samples, 0)
    assert torch.equal(elsewhere.given["xray"][0], batch.given["xray"][0])  # as in a worker process
    hiding = replace(declaration.config, missing_p=0.9)
    masks = Collate(hiding, declaration.data, hide=True)(samples * 20, 0).missing
    assert set(masks) == {"xray", "ecg", "note", "age"}
    complete = Collate(hiding, declaration.data, hide=False)(samples, 0).missing
    assert {name: mask.any().item() for name, mask in complete.items()} == {
        "xray": False,
        "ecg": True,
        "note": False,
        "age": False,
    }
    xray, ecg, *others = declaration.config.modalities
    strict = replace(declaration.config, modalities=(xray, replace(ecg, missing=False), *others))
    with pytest.raises(TrainingError, match=r"sample a lacks ecg\.npy; .* missing = true"):
        Collate(strict, declaration.data, hide=False)(samples, 0)
    with pytest.raises(TrainingError, match="sample a: has no label json:kind"):
        Collate(declaration.config, replace(declaration.data, label="json:kind"), hide=False)(samples, 0)


def test_the_fingerprint_is_of_samples_and_labels(arrays: Path) -> None:
    from symile_m3.modalities.clinical import clinical

    declaration: Declaration = clinical(arrays)
    sources = open_splits(declaration)
    first = fingerprint_of(sources, declaration.data)
    assert fingerprint_of(open_splits(declaration), replace(declaration.data, candidates=3)) == first
    assert fingerprint_of(sources, DataConfig(all=("x",), label="json:a")) != first
