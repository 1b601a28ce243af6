"""Features: those of every medium as computed directly, once, and kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from symile_m3.errors import DamagedSampleError, NotBuiltError, ShardError, UsageError
from symile_m3.features import (
    Dataset,
    FeatureConfig,
    Features,
    Media,
    feature_folders,
    feature_key,
    load_features,
    open_dataset,
)
from symile_m3.progress import NoProgress, Task
from symile_m3.shards import DatasetReader, ShardReader, decode_audio, decode_image, decode_json
from symile_m3.towers import audio as audio_tower
from symile_m3.towers.image import open_image_backbone, pixel_views

CONFIG = FeatureConfig(image_views=2, audio_steps=4)
SPLITS = ("train", "val", "test")


class Labels(NoProgress):
    """Notes which tasks were begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.said: list[str] = []

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        self.begun.append(label)
        with super().task(label, total, unit, done) as task:
            yield task

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without caches."""
    root = shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("features") / "data")
    shutil.rmtree(root / ".symile" / "features", ignore_errors=True)
    return root


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return open_dataset(data)


@pytest.fixture(scope="module")
def features(dataset: Dataset) -> Features:
    return load_features(dataset, CONFIG, NoProgress())


def records(data: Path) -> list[tuple[str, int, dict[str, object]]]:
    """(split, sample number, json) of all samples."""
    return [
        (split, i, decode_json(reader.read(i)["json"]))
        for split in SPLITS
        for reader in [DatasetReader(data, split)]
        for i in range(len(reader))
    ]


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_media_are_those_of_the_samples(kind: str, data: Path, dataset: Dataset) -> None:
    media: Media = getattr(dataset, f"{kind}s")
    splits: dict[object, set[str]] = {}
    groups: dict[object, object] = {}
    first: dict[object, tuple[str, int]] = {}
    for split, i, record in records(data):
        medium = record[f"{kind}_id"]
        splits.setdefault(medium, set()).add(split)
        first.setdefault(medium, (split, i))
        groups[medium] = (
            record["class_id"] if kind == "image" else dataset.plan.lexicon.languages.index(str(record["lang"]))
        )
    assert list(media.row_of) == sorted(splits)  # type: ignore[type-var]
    assert list(media.row_of.values()) == list(range(len(splits)))
    for medium, row in media.row_of.items():
        assert media.splits[row] == splits[medium]
        assert media.first[row] == first[medium]
        assert int(media.group_ids[row]) == groups[medium]
    for split in SPLITS:
        assert media.of_split(split).tolist() == [row for m, row in media.row_of.items() if split in splits[m]]
    assert sum(len(media.of_split(split)) for split in SPLITS) == len(splits)  # split by media


def test_candidates_are_the_images_of_the_split(dataset: Dataset) -> None:
    by_media = {split: dataset.candidates(split).tolist() for split in SPLITS}
    for split in SPLITS:
        assert sorted(by_media[split]) == dataset.images.of_split(split).tolist()
    config = replace(dataset.plan.config, split_by="sample")
    by_sample = replace(dataset, plan=replace(dataset.plan, config=config))
    for split in SPLITS:  # an image that training samples use is a candidate too
        assert sorted(by_sample.candidates(split).tolist()) == list(range(len(dataset.images.row_of)))


def test_image_features_are_those_of_each_image(dataset: Dataset, features: Features) -> None:
    backbone = open_image_backbone(CONFIG.image)
    assert features.image_NVF.shape == (len(dataset.images.row_of), 2, 1280)
    assert features.image_NVF.dtype == torch.float16
    for image_id, row in list(dataset.images.row_of.items())[::5]:
        split, i = dataset.images.first[row]
        views = 2 if split == "train" else 1
        image = decode_image(dataset.readers[split].read(i, ("jpg",))["jpg"])
        direct = backbone.features(pixel_views(image, views, CONFIG.feature_seed, image_id))
        found = features.image_NVF[row].float()
        assert float(torch.cosine_similarity(found[:views], direct).min()) > 0.995  # bfloat16, other batches
        assert not bool(found[views:].any())


def log_mels(dataset: Dataset, row: int) -> Tensor:
    split, i = dataset.clips.first[row]
    samples, rate_hz = decode_audio(dataset.readers[split].read(i, ("flac",))["flac"])
    assert rate_hz == audio_tower.SAMPLE_RATE_HZ
    return audio_tower.log_mel(torch.from_numpy(samples)[None])


def test_log_mels_are_those_of_each_clip(dataset: Dataset) -> None:
    found = load_features(dataset, replace(CONFIG, audio="conv:scratch"), NoProgress())
    assert found.clip_mask_NT is not None
    for row in range(0, len(dataset.clips.row_of), 3):
        mels = log_mels(dataset, row)
        direct, _ = audio_tower.normalise(mels, torch.tensor([mels.shape[2]]))
        length = mels.shape[2]
        assert found.clip_mask_NT[row].tolist() == [t < length for t in range(found.clip_mask_NT.shape[1])]
        torch.testing.assert_close(found.clip_NF[row, :, :length].float(), direct[0], atol=1e-3, rtol=1e-3)
        assert not bool(found.clip_NF[row, :, length:].any())


def test_clip_features_are_those_of_a_net_fitted_to_the_training_clips(dataset: Dataset, features: Features) -> None:
    assert features.clip_mask_NT is None
    parts = [log_mels(dataset, row) for row in range(len(dataset.clips.row_of))]
    lengths = torch.tensor([part.shape[2] for part in parts])
    longest = int(lengths.max())
    padded = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[2])) for part in parts])
    mels, mask = audio_tower.normalise(padded, lengths)
    train = dataset.clips.of_split("train")
    assert 0 < len(train) < len(parts)
    net = audio_tower.fit_languages(mels[train], mask[train], dataset.clips.group_ids[train], steps=4, seed=0)
    with torch.inference_mode():
        for row, part in enumerate(parts[:20]):  # each alone, without padding
            direct = net(*audio_tower.normalise(part, lengths[row : row + 1]))[0]
            torch.testing.assert_close(features.clip_NF[row].float(), direct, atol=5e-3, rtol=5e-3)


def caches(data: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns
        for path in (data / ".symile" / "features").rglob("*")
        if path.suffix in (".npz", ".npy")
    }


def equal(a: Features, b: Features) -> bool:
    return torch.equal(a.image_NVF, b.image_NVF) and torch.equal(a.clip_NF, b.clip_NF)


def test_features_are_computed_once(data: Path, dataset: Dataset, features: Features) -> None:
    before = caches(data)
    assert {path.name for path in before} == {"images.npy", "clips.npz"}
    progress = Labels()
    began = time.process_time()
    again = load_features(open_dataset(data), CONFIG, progress)
    assert time.process_time() - began < 1.0
    assert progress.begun == []
    assert caches(data) == before
    assert equal(features, again)


def test_what_shapes_features_keys_their_cache(dataset: Dataset) -> None:
    keys = {
        feature_key(dataset, config)
        for config in (
            CONFIG,
            replace(CONFIG, image_views=3),
            replace(CONFIG, audio_steps=5),
            replace(CONFIG, feature_seed=1),
            replace(CONFIG, audio="conv:scratch"),
            FeatureConfig(image_views=2, audio_steps=4),
        )
    }
    assert len(keys) == 5
    media = dataset.images
    row_of = {f"{image_id}x": row for image_id, row in media.row_of.items()}
    assert feature_key(replace(dataset, images=replace(media, row_of=row_of)), CONFIG) not in keys
    splits = (frozenset({"train", "test"}), *media.splits[1:])
    assert feature_key(replace(dataset, images=replace(media, splits=splits)), CONFIG) not in keys


@pytest.mark.parametrize("damage", ["cut off", "altered", "empty", "not numpy"])
def test_a_damaged_cache_is_made_anew(
    damage: str, data: Path, dataset: Dataset, features: Features, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    path = feature_folders(open_dataset(copy), CONFIG)["clips"] / "clips.npz"
    content = path.read_bytes()
    altered = bytearray(content)
    altered[len(content) // 2] ^= 1
    path.write_bytes(
        {"cut off": content[: len(content) // 2], "altered": bytes(altered), "empty": b"", "not numpy": b"x" * 99}[
            damage
        ]
    )
    progress = Labels()
    again = load_features(open_dataset(copy), CONFIG, progress)
    assert progress.begun == ["Log-mels", "Fitting the audio net"]
    assert equal(features, again)
    assert path.read_bytes() == content


def test_a_cache_without_the_fitted_net_is_made_anew(
    data: Path, dataset: Dataset, features: Features, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    path = feature_folders(open_dataset(copy), CONFIG)["clips"] / "clips.npz"
    content = path.read_bytes()
    np.savez(path, features=features.clip_NF.numpy())
    progress = Labels()
    again = load_features(open_dataset(copy), CONFIG, progress)
    assert progress.begun == ["Log-mels", "Fitting the audio net"]
    assert equal(features, again)
    assert path.read_bytes() == content


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^image=magic: unknown image tower; known: efficientnet-lite0, clip"):
        FeatureConfig(image="magic")
    with pytest.raises(UsageError, match=r"^audio=magic: unknown audio tower; known: conv, conv:scratch, wh"):
        FeatureConfig(audio="magic")
    for change in ({"image_views": 0}, {"audio_steps": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            FeatureConfig(**change)  # type: ignore[arg-type]


def test_a_dataset_that_is_not_there_or_not_finished(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="symile-m3 build"):
        open_dataset(tmp_path)
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / ".symile" / "index.json").unlink()
    with pytest.raises(NotBuiltError, match="has not finished"):
        open_dataset(copy)


def alter(data: Path, split: str, i: int, member: str) -> tuple[str, str]:
    """Alter one byte of a member of sample `i`; its shard and key."""
    reader = DatasetReader(data, split)
    name, key = reader.shard(i), reader.key(i)
    inside = i
    for shard in reader.shards:
        if shard.name == name:
            break
        inside -= shard.nsamples
    path = reader.layout.shard(name)
    index = ShardReader(path).index
    column = index.members.index(member)
    content = bytearray(path.read_bytes())
    content[int(index.offsets[inside, column]) + int(index.sizes[inside, column]) // 2] ^= 0x11
    path.write_bytes(content)
    return name, key


@pytest.mark.parametrize("member", ["json", "jpg", "flac"])
def test_a_damaged_sample_stops_or_is_left_out(member: str, data: Path, tmp_path: Path) -> None:
    """The sample whose image or clip comes first among the media, so that it is the one to be read."""
    config = FeatureConfig(audio="conv:scratch", image_views=1)
    copy = shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("features"))
    clean = open_dataset(copy)
    split, number = (clean.clips if member == "flac" else clean.images).first[0]
    name, key = alter(copy, split, number, member)
    with pytest.raises(DamagedSampleError, match=f"^{name}: sample {key}: .*{member}"):
        load_features(open_dataset(copy), config, NoProgress())
    progress = Labels()
    whole = open_dataset(copy, "skip", progress)
    assert progress.said == ["1 damaged samples are skipped"]
    for before, media in ((clean.images, whole.images), (clean.clips, whole.clips)):
        assert (split, number) not in media.first
        assert set(media.row_of) <= set(before.row_of)
    for other in ("json", "jpg", "flac", "txt"):
        with pytest.raises(DamagedSampleError, match=key):
            whole.readers[split].read(number, (other,))
    same = (whole.images.row_of, whole.clips.row_of) == (clean.images.row_of, clean.clips.row_of)
    assert (feature_key(whole, config) == feature_key(clean, config)) == same
    assert len(load_features(whole, config, NoProgress()).image_NVF) == len(whole.images.row_of)


def test_a_shard_that_is_cut_off_is_named(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "data")
    shard = sorted((copy / "data").glob("train-*.tar"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ShardError, match=f"^{shard.name}: is .* bytes long .*cut off"):
        open_dataset(copy)
