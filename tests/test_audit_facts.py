"""What `verify` keeps of samples: the same leaks and the same rows in whatever order shards come, in few bytes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_m3.audit import verify
from symile_m3.audit_facts import SHOWN, FactList, FirstPlaces, Lines, SampleTable, sample_type
from symile_m3.plan import SPLITS, Plan, load_plan
from symile_m3.probes import run_probes
from symile_m3.progress import NoProgress
from symile_m3.shards import DatasetIndex, DatasetLayout, RawSample, ShardInfo, ShardReader, write_shard


@pytest.fixture(scope="module")
def plan(tiny_dataset: Path) -> Plan:
    return load_plan(DatasetLayout(tiny_dataset).plan)


def shard(split: str, i: int, nsamples: int) -> ShardInfo:
    return ShardInfo(name=f"{split}-{i}.tar", split=split, nsamples=nsamples, filesize=1, sha256="")


def test_lines_are_counted_and_the_first_shown() -> None:
    lines = Lines(f"a{i}" for i in range(15))
    other = Lines(f"b{i}" for i in range(40))
    assert lines.shown() == tuple(f"a{i}" for i in range(15))
    lines.merge(other)
    lines.append("c")
    expected = [*(f"a{i}" for i in range(15)), *(f"b{i}" for i in range(5))]
    assert len(expected) == SHOWN
    assert lines.shown() == (*expected, "... and 36 more problems")


@pytest.mark.parametrize("seed", range(5))
def test_leaks_are_those_that_all_samples_together_show(seed: int) -> None:
    """60 values over 8 shards of 20 samples; told of the shards in another order than theirs."""
    random = np.random.default_rng(seed)
    shards = [(split, [f"v{v}" for v in random.integers(60, size=20)]) for split in SPLITS for _ in range(3)][:8]
    first: dict[str, tuple[str, int, int]] = {}
    leaks: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
    for number, (split, values) in enumerate(shards):  # what a look at all samples in order finds
        for position, value in enumerate(values):
            where, *place = first.setdefault(value, (split, number, position))
            if where != split and value not in leaks:
                leaks[value] = ((place[0], place[1]), (number, position))
    places = FirstPlaces()
    for number in random.permutation(len(shards)).tolist():
        split, values = shards[number]
        firsts = {value: (position, f"key{position}") for position, value in reversed(list(enumerate(values)))}
        places.add(split, number, firsts)
    assert len(leaks) > 10
    assert len(places) == len(first)
    assert [(value, one[:2], two[:2]) for value, one, two in places.leaks()] == [
        (value, one, two) for value, (one, two) in leaks.items()
    ]
    assert all(place.key == f"key{place.position}" for _, *pair in places.leaks() for place in pair)


def test_a_sample_takes_few_bytes(plan: Plan) -> None:
    def bytes_of(classes: int, words: int) -> int:
        lexicon = dataclasses.replace(plan.lexicon, class_keys=("x",) * classes)
        config = dataclasses.replace(plan.config, words=words, text="overlap")
        return sample_type(dataclasses.replace(plan, lexicon=lexicon, config=config)).itemsize

    assert bytes_of(250, 10) == 34
    assert bytes_of(256, 10) == 34
    assert bytes_of(2000, 10) == 45
    assert bytes_of(8, 1) == 16


def facts(plan: Plan, records: list[dict[str, Any]], **asked: bool) -> FactList:
    found = FactList(plan, **{"firsts": True, "samples": True, **asked})
    for n, record in enumerate(records):
        found.add(n, f"key{n}", record, record["spoken"], f"{n % 2:016x}", f"{n % 3:016x}")
    return found


def test_nothing_is_taken_for_granted_of_a_json(plan: Plan) -> None:
    usable = {"class_id": 7, "lang": "en", "clip_attributes": {"voice": "a", "sentence": 3}, "spoken": [(7, 1), (2, 0)]}
    records = [
        usable,
        {**usable, "lang": ["en"]},
        {**usable, "lang": "xx", "clip_attributes": {"voice": ["b"]}},
        {**usable, "class_id": 8},
        {**usable, "class_id": -1, "clip_attributes": 5},
        {**usable, "class_id": "7"},
        {**usable, "class_id": 10**30},
        {**usable, "spoken": [(7, 1)]},
        {"spoken": []},
        usable,
    ]
    found = facts(plan, records).facts()
    assert found.read == 10
    assert found.samples is not None
    assert [tuple(np.asarray(value).tolist() for value in row.item()) for row in found.samples] == [
        (7, 1, [7, 2], [1, 0], n % 3, n) for n in (0, 9)
    ]
    assert found.firsts == {
        "image": {f"{0:016x}": (0, "key0"), f"{1:016x}": (1, "key1")},
        "clip": {f"{n:016x}": (n, f"key{n}") for n in range(3)},
        "sentence": {"en/3": (0, "key0"), "['en']/3": (1, "key1")},
        "voice": {"a": (0, "key0"), "['b']": (2, "key2")},
    }
    assert facts(plan, records, samples=False).facts().samples is None
    assert facts(plan, records, firsts=False).facts().firsts == {}


def test_rows_lie_in_the_order_of_the_shards(plan: Plan) -> None:
    infos = [shard("train", i, n) for i, n in enumerate([3, 10**15, 2, 2, 4])]  # what an altered index says
    table = SampleTable(plan, infos)
    parts = {}
    for i, n in ((4, 4), (0, 2), (1, 32), (3, 5)):  # of shard 2 nothing could be read; 3 holds more than it may
        parts[i] = np.zeros(n, sample_type(plan))
        parts[i]["position"] = 100 * i + np.arange(n)
        table.add(infos[i].name, parts[i])
    samples = table.samples()
    expected = [*parts[0], *parts[1], *parts[3][:2], *parts[4]]
    assert samples.rows["position"].tolist() == [int(row["position"]) for row in expected]
    places = [samples.place(n) for n in range(len(samples.rows))]
    assert places == [(f"train-{row['position'] // 100}.tar", int(row["position"])) for row in expected]


def test_probes_without_samples(plan: Plan, tiny_dataset: Path) -> None:
    tables = [SampleTable(plan, [shard(split, 0, 4)]) for split in ("train", "test")]
    values, lines = run_probes(
        DatasetLayout(tiny_dataset), plan, *(table.samples() for table in tables), progress=NoProgress()
    )
    assert (values, lines) == ({}, ["probes: no readable samples of train or of test"])


def rewrite(data: Path, name: str, **changes: Any) -> None:
    """Write a shard with other jsons; index and sidecar agree."""
    layout = DatasetLayout(data)
    reader = ShardReader(layout.shard(name))
    samples = []
    for i in range(len(reader)):
        members = reader.read(i)
        members["json"] = json.dumps({**json.loads(members["json"]), **changes}).encode()
        samples.append(RawSample(reader.key(i), members))
    info = write_shard(layout.shard(name), samples)
    index = DatasetIndex.load(layout.index)
    shards = [info if one.name == name else one for one in index.shards]
    dataclasses.replace(index, shards=shards).save(layout.index)


@pytest.mark.parametrize("workers", [1, 2])
def test_problems_of_several_shards_are_counted_in_their_order(
    tiny_dataset: Path, tmp_path: Path, workers: int
) -> None:
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    for name in ("test-00000-of-00001.tar", "val-00000-of-00001.tar", "train-00001-of-00002.tar"):
        rewrite(data, name, class_key="x")
    audit = verify(data, probes=False, workers=workers)
    assert audit.problems[-1] == f"... and {32 + 16 + 16 - SHOWN} more problems"
    assert [line.split(":")[1] for line in audit.problems[:SHOWN]] == [
        f" sample train-{i:08d}" for i in range(32, 32 + SHOWN)
    ]
    assert dict(audit.checks)["shards"].endswith("3 of them damaged or altered")


def test_a_split_of_one_voice_leaks_once(tiny_dataset: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    for name in ("test-00000-of-00001.tar", "val-00000-of-00001.tar"):
        rewrite(data, name, clip_attributes={"voice": "one"})
    audit = verify(data, probes=False)
    checks = dict(audit.checks)
    assert checks["splits by voice"].endswith(" distinct, 1 in two splits")
    assert audit.problems[-1] == f"... and {32 + 1 - SHOWN} more problems"
