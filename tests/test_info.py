"""What `info` says of a dataset, against counting its decoded samples by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewritten_dataset import rewrite

from symile_m3.errors import DamagedSampleError, NotBuiltError, PlanError
from symile_m3.info import DatasetInfo, count_split, describe_dataset
from symile_m3.plan import SPLITS, load_plan
from symile_m3.shards import (
    DatasetIndex,
    DatasetLayout,
    DatasetReader,
    ShardIndex,
    decode_audio,
    decode_json,
)


@pytest.fixture(scope="module")
def found(tiny_dataset: Path) -> DatasetInfo:
    return describe_dataset(tiny_dataset)


def decoded(data: Path, split: str) -> list[dict[str, Any]]:
    """The records of a split, each with the seconds of its clip."""
    reader = DatasetReader(data, split)
    samples = []
    for i in range(len(reader)):
        members = reader.read(i)
        wave_T, rate_hz = decode_audio(members["flac"])
        samples.append({**decode_json(members["json"]), "seconds": len(wave_T) / rate_hz})
    return samples


@pytest.mark.parametrize("split", SPLITS)
def test_counts_are_those_of_the_decoded_samples(tiny_dataset: Path, found: DatasetInfo, split: str) -> None:
    samples, one = decoded(tiny_dataset, split), found.splits[split]
    assert one.samples == one.counted == len(samples)
    tars = list((tiny_dataset / "data").glob(f"{split}-*.tar"))
    assert (one.shards, one.bytes) == (len(tars), sum(tar.stat().st_size for tar in tars))
    assert one.by_language == {code: sum(s["lang"] == code for s in samples) for code in ("el", "en")}
    by_class = Counter(s["class_id"] for s in samples)
    assert one.classes == {
        "used": len(by_class),
        "rarest": min(by_class[c] for c in range(8)),
        "most_frequent": max(by_class.values()),
    }
    assert one.images["used"] == len({s["image_id"] for s in samples})
    assert one.clips["used"] == len({s["clip_id"] for s in samples})


@pytest.mark.parametrize("split", SPLITS)
def test_durations_are_those_of_the_decoded_clips(tiny_dataset: Path, found: DatasetInfo, split: str) -> None:
    samples, speech = decoded(tiny_dataset, split), found.splits[split].speech
    distinct = list({s["clip_id"]: s["seconds"] for s in samples}.values())
    assert speech.clips == speech.measured == len(distinct)
    assert speech.total_hours == pytest.approx(sum(s["seconds"] for s in samples) / 3600)
    assert speech.distinct_hours == pytest.approx(sum(distinct) / 3600)
    assert (speech.min_s, speech.max_s) == (min(distinct), max(distinct))
    assert speech.median_s == pytest.approx(float(np.median(distinct)))


def test_what_the_plan_has_is_told_beside_what_samples_use(tiny_dataset: Path, found: DatasetInfo) -> None:
    plan = load_plan(DatasetLayout(tiny_dataset).plan)
    for split, one in found.splits.items():
        assert one.images["planned"] == sum(image.recipe.split == split for image in plan.images)
        assert one.clips["planned"] == sum(clip.recipe.split == split for clip in plan.clips)


def test_sources_count_each_distinct_medium_once(tiny_dataset: Path, found: DatasetInfo) -> None:
    plan = load_plan(DatasetLayout(tiny_dataset).plan)
    by_kind = Counter[str]()
    for row in found.sources:
        by_kind[row["media"]] += row["count"]
    assert by_kind == {"images": len(plan.images), "clips": len(plan.clips)}
    recorded = {(s["clip_source"], s["clip_licence"]) for split in SPLITS for s in decoded(tiny_dataset, split)}
    assert recorded <= {(row["source"], row["licence"]) for row in found.sources if row["media"] == "clips"}


def test_configuration_and_exact_values(tiny_dataset: Path, found: DatasetInfo) -> None:
    assert (found.languages, found.words, found.classes) == (("el", "en"), 2, 8)
    assert (found.split_by, found.text, found.seed) == ("media", "disjoint", 0)
    assert found.fingerprint == load_plan(DatasetLayout(tiny_dataset).plan).fingerprint
    assert found.exact.text_class == pytest.approx(math.log(8 / 2))
    assert found.exact.total_correlation == pytest.approx(math.log(8 * 2 / 2))
    assert (found.exact.class_from_text, found.exact.class_from_speech) == (1 / 2, 1 / 8)


def test_figures_are_json(found: DatasetInfo) -> None:
    again = json.loads(json.dumps(found.to_json()))
    assert again["splits"]["train"]["speech"]["clips"] == found.splits["train"].speech.clips
    assert again["exact"]["class_from_text"] == 0.5


def test_media_shared_by_the_splits_are_counted_for_each(tiny_dataset: Path, tmp_path: Path) -> None:
    data = rewrite(tiny_dataset, tmp_path / "shared", ("el", "en"), str, text="overlap")
    shared = describe_dataset(data)
    assert len({one.clips["planned"] for one in shared.splits.values()}) == 1
    assert shared.exact.text_class is None
    for split, one in shared.splits.items():
        assert one.clips["used"] == len({s["clip_id"] for s in decoded(data, split)})


def test_a_part_of_a_large_split_says_of_how_many_it_is(tiny_dataset: Path) -> None:
    one = describe_dataset(tiny_dataset, max_samples=32, max_clips=5).splits["train"]
    first = decoded(tiny_dataset, "train")[:32]
    assert (one.samples, one.counted) == (64, 32)
    assert one.by_language == dict(sorted(Counter(s["lang"] for s in first).items()))
    assert (one.speech.clips, one.speech.measured) == (len({s["clip_id"] for s in first}), 5)
    seconds = {s["seconds"] for s in first}
    assert min(seconds) <= one.speech.min_s <= one.speech.median_s <= one.speech.max_s <= max(seconds)
    assert 64 * one.speech.min_s <= 3600 * one.speech.total_hours <= 64 * one.speech.max_s
    assert one.speech.distinct_hours <= one.speech.total_hours


def test_chosen_shards_lie_all_over_a_large_split(tiny_dataset: Path) -> None:
    plan = load_plan(DatasetLayout(tiny_dataset).plan)
    small = replace(plan, config=replace(plan.config, shard_samples=4), _groups={})
    counts = count_split(small, "train", max_samples=16)
    rows = [small.rows("train", start, start + 4) for start in (0, 16, 32, 48)]
    assert counts.counted == 16
    expected = np.bincount(np.concatenate([r.class_ids for r in rows]), minlength=8)
    assert counts.by_class.tolist() == expected.tolist()


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="symile-m3 build"):
        describe_dataset(tmp_path)


def test_a_build_that_has_not_ended(tiny_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    DatasetLayout(data).index.unlink()
    with pytest.raises(NotBuiltError, match="has not ended"):
        describe_dataset(data)


def test_shards_of_another_plan(tiny_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    path = DatasetLayout(data).index
    replace(DatasetIndex.load(path), fingerprint="f" * 32).save(path)
    with pytest.raises(PlanError, match="another plan"):
        describe_dataset(data)


def test_a_clip_without_a_header_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    reader = DatasetReader(data, "val")
    tar = DatasetLayout(data).shard(reader.shard(0))
    index = ShardIndex.open(tar)
    with tar.open("r+b") as file:
        for offset in index.offsets[:, index.members.index("flac")].tolist():
            file.seek(offset)
            file.write(b"\0" * 64)
    with pytest.raises(DamagedSampleError, match=r"val-\d+: flac: no sound"):
        describe_dataset(data)
