"""`verify`: a sound dataset passes, and each kind of damage is found and named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import symile_m3.plan
from symile_m3.audit import SHOWN, Audit, verify
from symile_m3.build import build
from symile_m3.errors import NotBuiltError
from symile_m3.plan import Plan, PlanConfig, Rows
from symile_m3.probes import binomial_limit
from symile_m3.shards import DatasetIndex, DatasetLayout, RawSample, ShardIndex, ShardReader, write_shard

TEST = "test-00000-of-00001.tar"
TRAIN = "train-00000-of-00002.tar"


@pytest.fixture
def data(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "data"))


def problems(data: Path) -> tuple[str, ...]:
    found = verify(data, probes=False).problems
    assert all("\n" not in line for line in found)
    return found


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


def rewrite(data: Path, name: str, change: Callable[[int, dict[str, bytes]], dict[str, bytes]]) -> None:
    """Write a shard anew with other samples, and make index and sidecar agree."""
    layout = DatasetLayout(data)
    reader = ShardReader(layout.shard(name))
    samples = [RawSample(reader.key(i), change(i, reader.read(i))) for i in range(len(reader))]
    info = write_shard(layout.shard(name), samples)
    index = DatasetIndex.load(layout.index)
    shards = tuple(info if shard.name == name else shard for shard in index.shards)
    dataclasses.replace(index, shards=shards).save(layout.index)


def edit(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    record = {**json.loads(members["json"]), **changes}
    return {**members, "json": json.dumps(record, ensure_ascii=False, sort_keys=True).encode()}


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are to go through, and what they find is of no interest."""
    for steps in ("_TEXT_STEPS", "_AUDIO_STEPS"):
        monkeypatch.setattr(f"symile_m3.probes.{steps}", 20)


@pytest.fixture(scope="module")
def audit(tiny_dataset: Path) -> Audit:
    """Of the sound dataset."""
    return verify(tiny_dataset, workers=2)


def test_a_sound_dataset_passes(audit: Audit) -> None:
    assert audit.problems == ()
    assert audit.ok
    checks = dict(audit.checks)
    assert checks["samples"] == "96 of 96 read"
    assert checks["splits by voice"].endswith("none in two splits")
    for name, exact in (
        ("class from text", 1 / 2),
        ("language from text", 1 / 2),
        ("class from speech", 1 / 8),
    ):
        values = audit.probes[name]
        assert values["exact"] == exact
        assert values["accuracy"] <= values["limit"] < 1
    assert audit.probes["language from speech"].keys() == {"accuracy"}


def test_probes_give_the_same_again(tiny_dataset: Path, audit: Audit) -> None:
    assert verify(tiny_dataset, workers=1).probes == audit.probes


@pytest.mark.parametrize("member", ["jpg", "flac", "txt", "json"])
def test_a_flipped_byte_names_its_sample(data: Path, member: str) -> None:
    layout = DatasetLayout(data)
    index = ShardIndex.open(layout.shard(TEST))
    flip(layout.shard(TEST), int(index.offsets[3, index.members.index(member)]) + 5)
    assert problems(data) == (f"{TEST}: sample test-00000003: {member}: bytes were altered",)


def test_a_flipped_byte_in_a_header_names_its_sample(data: Path) -> None:
    layout = DatasetLayout(data)
    flip(layout.shard(TEST), int(ShardIndex.open(layout.shard(TEST)).offsets[3, 1]) - 500)
    (line,) = problems(data)
    assert line.startswith(f"{TEST}: sample test-00000003: flac: ")


def test_a_truncated_shard_names_the_first_sample_that_is_cut(data: Path) -> None:
    layout = DatasetLayout(data)
    at = int(ShardIndex.open(layout.shard(TEST)).offsets[9, 0]) + 5
    with layout.shard(TEST).open("r+b") as file:
        file.truncate(at)
    (line,) = problems(data)
    assert line == f"{TEST}: sample test-00000009: jpg: cut off, and with it the 6 samples behind it"


def lose_sidecar(layout: DatasetLayout) -> None:
    layout.sidecar(TEST).unlink()


def lose_sidecar_and_cut(layout: DatasetLayout) -> None:
    layout.sidecar(TEST).unlink()
    with layout.shard(TEST).open("r+b") as file:
        file.truncate(5000)


def break_sidecar(layout: DatasetLayout) -> None:
    layout.sidecar(TEST).write_bytes(b"PK\x03\x04 garbage")


def lose_tar(layout: DatasetLayout) -> None:
    layout.shard(TEST).unlink()


def empty_tar(layout: DatasetLayout) -> None:
    layout.shard(TEST).write_bytes(b"")


def add_file(layout: DatasetLayout) -> None:
    (layout.data / "notes.txt").write_text("mine")


def other_fingerprint(layout: DatasetLayout) -> None:
    dataclasses.replace(DatasetIndex.load(layout.index), fingerprint="0" * 32).save(layout.index)


def drop_shard(layout: DatasetLayout) -> None:
    index = DatasetIndex.load(layout.index)
    dataclasses.replace(index, shards=index.shards[:-1]).save(layout.index)


def garbage_index(layout: DatasetLayout) -> None:
    layout.index.write_text("garbage")


def garbage_plan(layout: DatasetLayout) -> None:
    layout.plan.write_text("{}")


def altered_plan(layout: DatasetLayout) -> None:
    layout.plan.write_text(layout.plan.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (lose_sidecar, [f"{TEST}: its index test-00000-of-00001.idx.npz is missing"]),
        (lose_sidecar_and_cut, [f"{TEST}: .*bytes long", f"{TEST}: .*cut off", f"{TEST}: its index .*missing"]),
        (break_sidecar, [".*idx.npz: not the index of test-00000-of-00001.tar"]),
        (lose_tar, [f"{TEST}: cannot be read: No such file"]),
        (empty_tar, [f"{TEST}: the file is empty"]),
        (add_file, ["notes.txt: is in data/ but no shard"]),
        (other_fingerprint, ["index.json: is of the plan 0000"]),
        (drop_shard, [f"{TEST}: planned, but not in index.json", f"{TEST}: is in data/ but no shard"]),
        (garbage_index, [".*index.json: not a shard index"]),
        (garbage_plan, [".*plan.json: format None"]),
        (altered_plan, [".*plan.json: altered since it was written"]),
    ],
)
def test_damage_gets_one_clear_line(
    data: Path, damage: Callable[[DatasetLayout], None], messages: list[str], short_probes: None
) -> None:
    damage(DatasetLayout(data))
    audit = verify(data, workers=1)  # with probes: nothing of it may crash
    assert not audit.ok
    lines = [line for line in audit.problems if not line.startswith("probes: no readable samples")]
    assert len(lines) == len(messages), lines
    for line, message in zip(lines, messages, strict=True):
        assert re.match(message, line), line


def test_what_is_not_there_is_told(tmp_path: Path, data: Path) -> None:
    with pytest.raises(NotBuiltError, match="run `symile-m3 build` first"):
        verify(tmp_path / "nothing")
    (data / ".symile" / "index.json").unlink()
    with pytest.raises(NotBuiltError, match="has not ended"):
        verify(data)


def test_altered_samples_with_right_checksums_are_found(data: Path, short_probes: None) -> None:
    def change(i: int, members: dict[str, bytes]) -> dict[str, bytes]:
        record = json.loads(members["json"])
        if i == 1:
            return edit(members, class_name="dog", extra=1)
        if i == 2:
            return {**members, "txt": "λέξη_word".encode()}
        if i == 3:
            return edit(members, target=1 - record["target"])
        if i == 4:
            return edit(members, word_langs=[record["lang"]] * 2)
        if i == 5:
            return edit(members, words=record["words"][:1])
        if i == 6:
            return edit(members, words=7, clip_attributes=[3], class_id="x")
        if i == 7:
            return {**members, "json": b"[]"}
        if i == 8:
            return edit(members, word_class_ids=[record["class_id"]] * 2)
        return members

    rewrite(data, TEST, change)
    found = problems(data)
    for i, message in (
        (1, "json: class_name, extra not as planned"),
        (2, "txt: not the words of its json"),
        (3, "text: 1 words in the spoken language, and the target is word"),
        (4, "text: 2 words in the spoken language"),
        (5, "text: 1 words where 2 are planned"),
        (6, "json: class_id, words, clip_attributes not as planned"),
        (7, "json: a JSON object is expected"),
        (8, "text: two words of one class"),
    ):
        assert any(line.startswith(f"{TEST}: sample test-{i:08d}: {message}") for line in found), message
    assert not any(f"test-{i:08d}" in line for line in found for i in (0, *range(9, 16)))
    assert not verify(data, workers=1).ok  # the probes cope with it


def test_samples_in_another_order_are_found(data: Path) -> None:
    reader = ShardReader(DatasetLayout(data).shard(TEST))
    last = [reader.read(15 - i) for i in range(16)]
    rewrite(data, TEST, lambda i, _: last[i])
    assert sum("json:" in line for line in problems(data)) >= 14


def test_many_problems_are_counted(data: Path) -> None:
    rewrite(data, TRAIN, lambda _, members: edit(members, class_key="x"))
    found = problems(data)
    assert len(found) == SHOWN + 1
    assert found[-1] == "... and 12 more problems"


@pytest.mark.parametrize("kind", ["clip", "image"])
def test_a_leak_is_found_though_every_checksum_is_right(data: Path, kind: str) -> None:
    """A sample of the test split that has the medium of one of the train split, and says so."""
    train = ShardReader(DatasetLayout(data).shard(TRAIN)).read(0)
    record = json.loads(train["json"])
    member = {"clip": "flac", "image": "jpg"}[kind]
    told = {name: value for name, value in record.items() if name.startswith(f"{kind}_")}

    def change(i: int, members: dict[str, bytes]) -> dict[str, bytes]:
        return {**edit(members, **told), member: train[member]} if i == 5 else members

    rewrite(data, TEST, change)
    found = problems(data)
    leaks = [line for line in found if line.startswith("leak: ")]
    kinds = ["clip", "sentence", "voice"] if kind == "clip" else ["image"]
    assert [line.split()[1] for line in leaks] == kinds
    assert f"leak: {kind} {record[f'{kind}_id']} is in {TRAIN}, sample train-" in leaks[0]
    assert leaks[0].endswith(f"and in {TEST}, sample test-00000005")


def test_a_leak_is_found_though_the_json_denies_it(data: Path) -> None:
    train = ShardReader(DatasetLayout(data).shard(TRAIN)).read(0)
    rewrite(data, TEST, lambda i, members: {**members, "flac": train["flac"]} if i == 5 else members)
    changed, leak = problems(data)
    assert changed.startswith(f"{TEST}: sample test-00000005: clip: its bytes are ")
    assert leak.startswith("leak: clip ")


def small(**changes: Any) -> PlanConfig:
    values: dict[str, Any] = {
        **{"languages": ("el", "en"), "words": 2, "classes": 8, "train": 200, "val": 4, "test": 60},
        **{"clips": (12, 4, 4), **changes},
    }
    return PlanConfig(**values)


def first_is_target(rows: Rows, n: int) -> Rows:
    """The words of each text sorted so that the target comes first."""
    order = np.argsort(np.arange(rows.word_class_ids.shape[1]) != rows.targets[:, None], axis=1, kind="stable")
    return dataclasses.replace(
        rows,
        word_class_ids=np.take_along_axis(rows.word_class_ids, order, axis=1),
        word_language_ids=np.take_along_axis(rows.word_language_ids, order, axis=1),
        targets=np.zeros(n, np.int64),
    )


def few_distractors(rows: Rows, n: int) -> Rows:
    """Distractors of two classes only."""
    place = np.arange(n), 1 - rows.targets
    classes = rows.word_class_ids.copy()
    classes[place] = np.where(rows.class_ids == 0, 1, 0)
    return dataclasses.replace(rows, word_class_ids=classes)


@pytest.mark.parametrize("leak", [first_is_target, few_distractors])
def test_a_text_that_says_too_much_fails_its_probe(
    leak: Callable[[Rows, int], Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan itself leaks, so that nothing but the probe can tell."""
    draw = Plan.rows
    monkeypatch.setattr(
        symile_m3.plan.Plan,
        "rows",
        lambda plan, split, start, stop: leak(draw(plan, split, start, stop), stop - start),
    )
    build(tmp_path / "data", small(), workers=1)
    audit = verify(tmp_path / "data", workers=1)
    assert [line.split(" alone")[0] for line in audit.problems] == [
        "probe: class from text",
        "probe: language from text",
    ]
    for name in ("class from text", "language from text"):
        assert audit.probes[name]["accuracy"] > 0.8 > audit.probes[name]["limit"]


def test_a_voice_that_names_the_class_fails_its_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Plan.rows

    def leak(plan: Plan, split: str, start: int, stop: int) -> Rows:
        """One clip a class and language."""
        rows = draw(plan, split, start, stop)
        per_language = len(plan.clips) // 2
        return dataclasses.replace(rows, clip_rows=rows.language_ids * per_language + rows.class_ids)

    monkeypatch.setattr(symile_m3.plan.Plan, "rows", leak)
    build(tmp_path / "data", small(split_by="sample"), workers=1)
    audit = verify(tmp_path / "data", workers=1)
    (line,) = audit.problems
    assert line.startswith("probe: class from speech alone is right for ")
    assert audit.probes["class from speech"]["accuracy"] > 0.9


def test_other_settings_have_the_limits_that_hold(tmp_path: Path) -> None:
    build(tmp_path / "data", small(text="overlap", words=4, split_by="sample", train=100), workers=1)
    audit = verify(tmp_path / "data", workers=1)
    assert audit.ok
    assert audit.probes["class from text"].keys() == {"accuracy"}
    assert audit.probes["class from speech"]["exact"] == 1 / 8
    assert dict(audit.checks)["splits"].startswith("images and clips recur")


@pytest.mark.parametrize(("p", "n"), [(0.5, 16), (0.1, 2000), (1 / 250, 2000), (0.5, 60)])
def test_the_limit_is_that_of_the_binomial(p: float, n: int) -> None:
    limit = binomial_limit(p, n)
    right = np.random.Generator(np.random.Philox(0)).binomial(n, p, size=200_000) / n
    assert (right > limit).mean() <= 0.0013
    assert (right >= limit).mean() > 0.0007
    assert binomial_limit(1.0, n) == 1.0
