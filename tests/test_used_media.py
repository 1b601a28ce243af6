"""Which media a dataset uses: what the plan tells is what a look at every sample finds."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_servers import serving

from symile_m3.batches import Collate
from symile_m3.errors import DamagedSampleError, TrainingError
from symile_m3.features import Dataset, FeatureConfig, load_features, open_dataset
from symile_m3.plan import SPLITS, Plan, PlanConfig, load_plan
from symile_m3.progress import NoProgress
from symile_m3.shards import DatasetIndex, DatasetLayout, RawSample, Sample, ShardReader, write_shard
from symile_m3.towers.text import Tokeniser
from symile_m3.used_media import Media, media_of_plan


def large(plan: Plan, **changes: Any) -> Plan:
    """The same media, with other sizes."""
    return replace(plan, config=replace(plan.config, **changes), _groups={})


def counted(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Medium id -> splits, first sample and group of images and clips; sample by sample."""
    images: dict[str, Any] = {}
    clips: dict[str, Any] = {}
    for split in SPLITS:
        rows = plan.rows(split, 0, plan.config.sizes[split])
        for found, media, used, groups in (
            (images, plan.images, rows.image_rows, rows.class_ids),
            (clips, plan.clips, rows.clip_rows, rows.language_ids),
        ):
            for i, (row, group) in enumerate(zip(used.tolist(), groups.tolist(), strict=True)):
                splits = found.setdefault(media[row].id, (set(), (split, i), group))[0]
                splits.add(split)
    return images, clips


@pytest.mark.parametrize("split_by", ["media", "sample"])
@pytest.mark.parametrize("train", [5, 300, 200_000])
def test_the_plan_tells_what_a_look_at_every_sample_finds(tiny_dataset: Path, train: int, split_by: str) -> None:
    plan = large(load_plan(DatasetLayout(tiny_dataset).plan), train=train, split_by=split_by)
    for media, expected in zip(media_of_plan(plan), counted(plan), strict=True):
        assert list(media.row_of) == sorted(expected)
        assert list(media.row_of.values()) == list(range(len(expected)))
        for medium, row in media.row_of.items():
            assert (media.splits[row], media.first[row], int(media.group_ids[row])) == expected[medium]


def test_ten_million_samples_are_not_looked_at(tiny_dataset: Path) -> None:
    """Two languages of 24 clips: all of them are met within the first thousand samples."""
    plan = large(load_plan(DatasetLayout(tiny_dataset).plan), train=10_000_000)
    began = time.process_time()
    images, clips = media_of_plan(plan)
    assert time.process_time() - began < 1.0  # all rows take six seconds
    assert max(i for media in (images, clips) for _, i in media.first) < 2000
    assert len(clips.of_split("train")) == 48


def same(one: Media, other: Media) -> bool:
    return (one.row_of, one.splits, one.first) == (other.row_of, other.splits, other.first) and torch.equal(
        one.group_ids, other.group_ids
    )


def without_some(data: Path) -> None:
    """Half of the first shard goes, as when someone has filtered it; index and sidecar agree."""
    layout = DatasetLayout(data)
    index = DatasetIndex.load(layout.index)
    reader = ShardReader(layout.shard(index.shards[0].name))
    kept = [RawSample(reader.key(i), reader.read(i)) for i in range(1, len(reader), 2)]
    first = write_shard(layout.shard(index.shards[0].name), kept)
    replace(index, shards=(first, *index.shards[1:])).save(layout.index)


def test_shards_that_are_not_those_of_the_plan_are_looked_through(tiny_dataset: Path, tmp_path: Path) -> None:
    whole = open_dataset(tiny_dataset)
    for media, planned in zip((whole.images, whole.clips), media_of_plan(whole.plan), strict=True):
        assert same(media, planned)
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    without_some(data)
    found = open_dataset(data)
    assert len(found.readers["train"]) == 48
    records = [
        (split, i, json.loads(reader.read(i, ("json",))["json"]))
        for split, reader in found.readers.items()
        for i in range(len(reader))
    ]
    for kind, media in (("image", found.images), ("clip", found.clips)):
        ids = [record[f"{kind}_id"] for _, _, record in records]
        assert list(media.row_of) == sorted(set(ids))
        assert list(media.first) == [records[ids.index(medium)][:2] for medium in media.row_of]


def test_a_sample_that_denies_its_medium_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    """The index fits the plan, so that the sample is known only when its image is read."""
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    layout = DatasetLayout(data)
    index = DatasetIndex.load(layout.index)
    reader = ShardReader(layout.shard(index.shards[0].name))
    samples = [RawSample(reader.key(i), reader.read(i)) for i in range(len(reader))]
    record = json.loads(samples[0].members["json"])
    samples[0].members["json"] = json.dumps({**record, "image_id": "f" * 16}).encode()
    first = write_shard(layout.shard(index.shards[0].name), samples)
    replace(index, shards=(first, *index.shards[1:])).save(layout.index)
    dataset = open_dataset(data)
    with pytest.raises(DamagedSampleError, match=r"sample train-00000000: jpg: is f{16} by its json, where .* is plan"):
        load_features(dataset, FeatureConfig(image_views=1, audio_steps=1), NoProgress())
    with pytest.raises(TrainingError, match=r"^sample train-00000000: its json does not fit the plan \('f{16}'\)"):
        collate(dataset)([read(dataset, 0)], 0)
    batch = collate(dataset)([read(dataset, i) for i in (1, 2, 3)], 0)
    rows = dataset.plan.rows("train", 1, 4)
    assert batch.class_ids.tolist() == rows.class_ids.tolist()
    assert batch.language_ids.tolist() == rows.language_ids.tolist()
    assert batch.image_rows.tolist() == [dataset.images.row_of[dataset.plan.images[i].id] for i in rows.image_rows]
    assert batch.clip_rows.tolist() == [dataset.clips.row_of[dataset.plan.clips[i].id] for i in rows.clip_rows]


def collate(dataset: Dataset) -> Collate:
    return Collate(
        plan=dataset.plan,
        image_row_of=dataset.images.row_of,
        clip_row_of=dataset.clips.row_of,
        tokeniser=Tokeniser((name for row in dataset.plan.lexicon.names for name in row), buckets=16),
        seed=0,
        redraw=False,
        missing_p=0.0,
    )


def read(dataset: Dataset, i: int) -> Sample:
    reader = dataset.readers["train"]
    return Sample(reader.key(i), i, {"json": json.loads(reader.read(i, ("json",))["json"])})


def test_of_a_remote_dataset_only_shards_with_wanted_media_come(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from symile_m3.build import build

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = PlanConfig(
        **{"languages": ("el", "en"), "words": 2, "classes": 2, "clips": (4, 2, 2), "shard_samples": 20},
        **{"train": 400, "val": 40, "test": 40},
    )
    build(tmp_path / "data", config, workers=1)
    with serving(tmp_path / "data") as server:

        def fetched() -> set[str]:
            return {name for method, name, _, _ in server.requests if method == "GET" and name.endswith(".tar")}

        dataset = open_dataset(server.url)
        assert fetched() == set()
        load_features(dataset, FeatureConfig(image_views=1, audio_steps=1), NoProgress())
        wanted = {
            dataset.readers[split].shard(i) for media in (dataset.images, dataset.clips) for split, i in media.first
        }
        assert len(wanted) < 12  # of 24
        assert fetched() == wanted
        again = open_dataset(server.url)
        load_features(again, FeatureConfig(image_views=1, audio_steps=1), NoProgress())
        assert fetched() == wanted
