"""Encoding: one pass for every distinct image and clip, resumable, the same from any number of processes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tiny_models
import torch

from symile_m3 import encode as encoding
from symile_m3.ceilings import Ceilings
from symile_m3.encode import Job
from symile_m3.errors import TrainingError, UsageError
from symile_m3.evaluate import evaluate
from symile_m3.features import Dataset, FeatureConfig, feature_folders, feature_key, make_features, open_dataset
from symile_m3.featurestore import FeatureStore
from symile_m3.model import ModelConfig
from symile_m3.progress import NoProgress
from symile_m3.recipe import RunOptions, TrainConfig
from symile_m3.shards import decode_audio, decode_image
from symile_m3.towers.clip import ClipImages, ClipVision
from symile_m3.towers.whisper import WhisperClips
from symile_m3.train import train


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encode") / "data"
    return shutil.copytree(tiny_dataset, root, ignore=shutil.ignore_patterns("features"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_models.save_clip(root / "clip")
    tiny_models.save_whisper(root / "whisper")
    tiny_models.save_xlmr(root / "xlmr")
    return root


@pytest.fixture(scope="module")
def config(models: Path) -> FeatureConfig:
    return FeatureConfig(image=f"clip:{models}/clip", audio=f"whisper:{models}/whisper", image_views=2)


@pytest.fixture
def small_parts() -> Iterator[None]:
    """Parts of eight media, so that a small dataset has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symile_m3.features.rows_a_part", lambda rows: 8)
        yield


@pytest.fixture
def dataset(data: Path, tmp_path: Path) -> Dataset:
    """A copy without features."""
    return open_dataset(shutil.copytree(data, tmp_path / "data"))


def test_a_backbone_sees_every_distinct_medium_once(
    dataset: Dataset, config: FeatureConfig, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    seen = {"images": 0, "clips": 0}
    vision, hear = ClipVision.forward, WhisperClips.features

    def counted_images(self: ClipVision, pixels: torch.Tensor) -> torch.Tensor:
        seen["images"] += len(pixels)
        return vision(self, pixels)

    def counted_clips(self: WhisperClips, clips: list[np.ndarray]) -> torch.Tensor:  # type: ignore[type-arg]
        seen["clips"] += len(clips)
        return hear(self, clips)

    monkeypatch.setattr(ClipVision, "forward", counted_images)
    monkeypatch.setattr(WhisperClips, "features", counted_clips)
    one_view = replace(config, image_views=1)
    samples = sum(len(reader) for reader in dataset.readers.values())
    images, clips = len(dataset.images.row_of), len(dataset.clips.row_of)
    assert max(images, clips) < samples
    features, passes = make_features(dataset, one_view, NoProgress(), workers=1)
    assert seen == passes == {"images": images, "clips": clips}
    again, passes = make_features(open_dataset(dataset.layout.root), one_view, NoProgress())
    assert passes == {"images": 0, "clips": 0}
    assert seen == {"images": images, "clips": clips}
    assert torch.equal(features.image_NVF, again.image_NVF)
    assert torch.equal(features.clip_NF, again.clip_NF)


def test_features_are_those_of_each_medium(dataset: Dataset, config: FeatureConfig) -> None:
    found, _ = make_features(dataset, config, NoProgress(), workers=1)
    images, clips = ClipImages(config.image_tower), WhisperClips(config.audio_tower)
    assert found.image_NVF.dtype == found.clip_NF.dtype == torch.float16
    for image_id, row in list(dataset.images.row_of.items())[::4]:
        split, i = dataset.images.first[row]
        views = 2 if split == "train" else 1
        pixels = images.views(decode_image(dataset.readers[split].read(i, ("jpg",))["jpg"]), views, 0, image_id)
        torch.testing.assert_close(found.image_NVF[row, :views].float(), images.features(pixels), atol=2e-3, rtol=1e-3)
        assert not bool(found.image_NVF[row, views:].any())
    for row in range(0, len(dataset.clips.row_of), 4):
        split, i = dataset.clips.first[row]
        samples, _ = decode_audio(dataset.readers[split].read(i, ("flac",))["flac"])
        torch.testing.assert_close(found.clip_NF[row].float(), clips.features([samples])[0], atol=2e-3, rtol=1e-3)


def test_half_precision_is_as_near_as_it_can_be(dataset: Dataset, config: FeatureConfig) -> None:
    half, _ = make_features(dataset, config, NoProgress(), workers=1)
    full, _ = make_features(dataset, replace(config, precision="full"), NoProgress(), workers=1)
    assert full.image_NVF.dtype == full.clip_NF.dtype == torch.float32
    assert torch.equal(full.image_NVF.half(), half.image_NVF)
    assert torch.equal(full.clip_NF.half(), half.clip_NF)


@pytest.mark.parametrize("image", ["as installed", "clip"])
def test_processes_make_the_same_features(
    dataset: Dataset, config: FeatureConfig, small_parts: None, image: str
) -> None:
    if image == "as installed":  # with weights of its own, in bfloat16 on CPUs that compute in it
        config = replace(config, image=FeatureConfig().image)
    one, _ = make_features(dataset, config, NoProgress(), workers=1)
    folders = feature_folders(dataset, config)
    shutil.rmtree(folders["images"])
    two, passes = make_features(dataset, config, NoProgress(), workers=2)
    assert passes == {"images": len(dataset.images.row_of), "clips": 0}
    torch.testing.assert_close(one.image_NVF, two.image_NVF, atol=2e-3, rtol=2e-3)


def test_an_interrupted_run_goes_on(
    dataset: Dataset, config: FeatureConfig, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    whole, _ = make_features(dataset, config, NoProgress(), workers=1)
    folder = feature_folders(dataset, config)["images"]
    shutil.rmtree(folder)
    made = encoding._arrays
    calls = 0

    def interrupted(job: Job, loaded: list[object]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return made(job, loaded)

    monkeypatch.setattr(encoding, "_arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_features(dataset, config, NoProgress(), workers=1)
    assert sorted(path.name for path in folder.iterdir()) == ["images-parts"]
    again, passes = make_features(dataset, config, NoProgress(), workers=1)
    assert passes["images"] == len(dataset.images.row_of) - 16  # two parts of eight were done
    assert torch.equal(again.image_NVF, whole.image_NVF)
    assert sorted(path.name for path in folder.iterdir()) == ["images.json", "images.npy"]


def test_another_process_may_have_put_the_parts_together(dataset: Dataset, config: FeatureConfig) -> None:
    features, _ = make_features(dataset, config, NoProgress(), workers=1)
    folder = feature_folders(dataset, config)["images"]
    rows = len(features.image_NVF)
    facts = json.loads((folder / "images.json").read_text())["facts"]
    store = FeatureStore(directory=folder, kind="images", rows=rows, facts=facts, part_rows=8)
    left = folder / "images.npy.tmp-nowhere-1-00000000"  # by a process of another machine, long ago
    left.touch()
    os.utime(left, (0, 0))
    assert np.array_equal(store.finish()["features"], features.image_NVF.numpy())
    assert not left.exists()
    (folder / "images.npy").unlink()
    with pytest.raises(TrainingError, match=r"000000\.npz: gone or damaged; run the same command again"):
        store.finish()


def test_features_are_mapped_and_writing_to_them_changes_no_file(dataset: Dataset, config: FeatureConfig) -> None:
    features, _ = make_features(dataset, config, NoProgress(), workers=1)
    path = feature_folders(dataset, config)["images"] / "images.npy"
    assert isinstance(np.load(path, mmap_mode="c"), np.memmap)
    before = path.read_bytes()
    features.image_NVF.zero_()
    assert path.read_bytes() == before


def test_other_weights_have_other_features(dataset: Dataset, config: FeatureConfig, tmp_path: Path) -> None:
    tiny_models.save_clip(tmp_path / "clip", seed=1)
    moved = shutil.copytree(config.image.removeprefix("clip:"), tmp_path / "moved")
    assert feature_key(dataset, replace(config, image=f"clip:{moved}")) == feature_key(dataset, config)
    keys = {
        feature_key(dataset, changed)
        for changed in (
            config,
            replace(config, image=f"clip:{tmp_path}/clip"),
            replace(config, image=f"clip:{moved}:train"),
            replace(config, image_views=1),
            replace(config, precision="full"),
        )
    }
    assert len(keys) == 5


def test_features_of_another_dataset_are_refused(dataset: Dataset, config: FeatureConfig) -> None:
    make_features(dataset, config, NoProgress(), workers=1)
    media = dataset.images
    renamed = {f"{image_id}x": row for image_id, row in media.row_of.items()}
    other = replace(dataset, images=replace(media, row_of=renamed))
    folders = feature_folders(dataset, config), feature_folders(other, config)
    shutil.copytree(folders[0]["images"], folders[1]["images"])
    with pytest.raises(TrainingError, match=r"not the features of this dataset .*\(other media\); delete the folder"):
        make_features(other, config, NoProgress(), workers=1)


@pytest.mark.parametrize("damage", ["cut off", "altered", "facts gone"])
def test_damaged_features_are_made_anew(damage: str, dataset: Dataset, config: FeatureConfig) -> None:
    whole = make_features(dataset, config, NoProgress(), workers=1)[0].clip_NF.clone()  # the file is mapped
    path = feature_folders(dataset, config)["clips"] / "clips.npy"
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        path.write_bytes(content[:-10])
    elif damage == "altered":
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        path.with_name("clips.json").unlink()
    again, passes = make_features(dataset, config, NoProgress(), workers=1)
    assert passes == {"images": 0, "clips": len(dataset.clips.row_of)}
    assert torch.equal(again.clip_NF, whole)


# ---- training on pretrained towers


def recipe(models: Path, mode: str) -> TrainConfig:
    return TrainConfig(
        features=FeatureConfig(
            image=f"clip:{models}/clip:{mode}", audio=f"whisper:{models}/whisper:{mode}", image_views=1
        ),
        model=ModelConfig(text=f"xlmr:{models}/xlmr:{mode}", dim=16, image_hidden=0, audio_hidden=0),
        steps=4,
        batch_size=16,
        lr=1e-3,
        net_lr=1e-3,
        evaluations=2,
        missing_p=0.3,
        schedule="constant",
    )


@pytest.mark.parametrize("mode", ["frozen", "train"])
def test_training_and_evaluation_take_pretrained_towers(
    mode: str, dataset: Dataset, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "frozen":  # a classifier takes as long as all else here
        monkeypatch.setattr("symile_m3.evaluate.measure_ceilings", lambda *_: Ceilings(image=0.5, language=0.5))
    config = recipe(models, mode)
    root = dataset.layout.root
    (summary,) = train(root, tmp_path / "runs", objectives=["symile"], config=config)
    assert summary.steps == 4
    report = evaluate(root, tmp_path / "runs", missing_p=0.5, bootstrap=10)
    assert 0 <= report["results"]["symile"]["top1"] <= 1
    assert (report["bounds"]["image_ceiling"] is None) == (mode == "train")
    state = safetensors.torch.load_file(tmp_path / "runs" / "symile" / "last.safetensors")
    moved = {
        name.partition(".")[0]
        for name, value in safetensors.torch.load_file(tmp_path / "runs" / "symile" / "best.safetensors").items()
        if ".backbone." in name and not torch.equal(value, state[name])
    }
    written = json.loads((tmp_path / "runs" / "symile" / "config.json").read_text())
    assert set(written["weights"]) == {"image", "audio", "text"}
    if mode == "frozen":
        assert moved == set()
        assert not any(name.startswith(("image.backbone", "audio.backbone")) for name in state)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP with an image encoder that normalises over the batch."""
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    return tiny_models.save_clip(tmp_path_factory.mktemp("models") / "resnet", vision=vision)


def test_a_backbone_that_normalises_over_the_batch_is_not_trained_on_parts_of_it(
    resnet: Path, dataset: Dataset, tmp_path: Path
) -> None:
    features = FeatureConfig(image=f"clip:{resnet}:train", image_views=1, audio_steps=5)
    config = TrainConfig(features=features, model=ModelConfig(dim=16), steps=1, batch_size=16, net_lr=1e-3)
    with pytest.raises(UsageError, match=r"normalises over the batch: train it without --micro-batch$"):
        train(dataset.layout.root, tmp_path, objectives=["symile"], config=config, options=RunOptions(micro_batch=4))
    (summary,) = train(dataset.layout.root, tmp_path, objectives=["symile"], config=config)
    assert summary.steps == 1
    frozen = replace(config, features=replace(features, image=f"clip:{resnet}"))
    train(dataset.layout.root, tmp_path / "f", objectives=["symile"], config=frozen, options=RunOptions(micro_batch=4))


def test_weights_that_are_not_there_are_missed_before_any_image_is_encoded(
    dataset: Dataset, config: FeatureConfig
) -> None:
    with pytest.raises(UsageError, match="there is no folder /no/such/folder"):
        make_features(dataset, replace(config, audio="whisper:/no/such/folder"), NoProgress(), workers=1)
    assert not dataset.layout.features.exists()


def test_runs_of_other_towers_are_refused(dataset: Dataset, models: Path, tmp_path: Path) -> None:
    own = shutil.copytree(models, tmp_path / "models")
    config = recipe(own, "frozen")
    root = dataset.layout.root
    train(root, tmp_path / "runs", objectives=["symile"], config=config)
    shutil.rmtree(own / "xlmr")
    tiny_models.save_xlmr(own / "xlmr", seed=1)
    with pytest.raises(TrainingError, match=r"was trained on other weights than .*text.* have now"):
        evaluate(root, tmp_path / "runs")
    with pytest.raises(TrainingError, match=r"holds a run of another recipe: weights"):
        train(root, tmp_path / "runs", objectives=["symile"], config=config)
