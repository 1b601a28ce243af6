"""One shard of a dataset against the plan of the dataset, sample by sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from symile_m3.audit_facts import FactList, Facts, Lines
from symile_m3.errors import DamagedSampleError, ShardError
from symile_m3.media import content_id
from symile_m3.plan import SPLITS, Plan, load_plan
from symile_m3.shardjob import describe
from symile_m3.shards import (
    MEMBERS,
    DatasetLayout,
    ShardCache,
    ShardIndex,
    ShardInfo,
    ShardReader,
    shard_place,
    verify_shard,
)

_REBUILD = "delete the shard and run the same build again"


@dataclass(kw_only=True, slots=True)
class FoundShard:
    """What one shard gave: what is wrong with it, and the facts of its readable samples."""

    name: str
    split: str
    problems: Lines
    samples: int
    facts: Facts


@lru_cache(maxsize=1)
def _plan_of(path: Path) -> Plan:
    return load_plan(path)


def _nothing_found(info: ShardInfo) -> FoundShard:
    return FoundShard(name=info.name, split=str(info.split), problems=Lines(), samples=info.nsamples, facts=Facts())


def check_shard(layout: DatasetLayout, with_plan: bool, probes: bool, info: ShardInfo) -> FoundShard:
    """Everything that can be said of one shard by itself.

    Args:
        with_plan: whether there is a plan to compare it with.
        probes: whether to keep what the probes need of its samples.
    """
    path, sidecar = layout.shard(info.name), layout.sidecar(info.name)
    found = _nothing_found(info)
    faults = verify_shard(path, info, sidecar=sidecar)
    # A fault that names its sample says more than that of the file it makes.
    named = [fault for fault in faults if fault.key is not None]
    found.problems.extend(str(fault) for fault in named or faults)
    if not sidecar.exists():
        found.problems.append(f"{info.name}: its index {sidecar.name} is missing (run the same build again)")
    if not with_plan:
        return found
    try:
        reader = ShardReader(path, ShardIndex.load(sidecar, path.name) if sidecar.exists() else ShardIndex.scan(path))
        if set(reader.index.members) != set(MEMBERS):
            found.problems.append(f"{info.name}: has the members {', '.join(reader.index.members)}")
            return found
        bad = {fault.key for fault in named}
        plan = _plan_of(layout.plan)
        facts = FactList(
            plan,
            firsts=plan.config.split_by == "media" and info.split in SPLITS,
            samples=probes and info.split in ("train", "test"),
        )
        found.problems.extend(_samples(plan, info, reader, bad, facts))
        found.facts = facts.facts()
        reader.close()
    except ShardError as error:
        if not faults:
            found.problems.append(str(error))
    return found


def check_remote_shard(cache: ShardCache, with_plan: bool, probes: bool, info: ShardInfo) -> FoundShard:
    """The same of a shard of a remote dataset, once it has come."""
    found = _nothing_found(info)
    try:
        cache.file(cache.layout.sidecar(info.name).relative_to(cache.layout.root).as_posix())
        lease = cache.shard(info)
    except ShardError as error:
        found.problems.append(str(error))
        return found
    try:
        return check_shard(cache.layout, with_plan, probes, info)
    finally:
        lease.close()


def _samples(plan: Plan, info: ShardInfo, reader: ShardReader, bad: set[str | None], facts: FactList) -> Iterator[str]:
    """Compare the undamaged samples with the plan; what they are is added to `facts`."""
    split = str(info.split)
    place = shard_place(info.name)
    planned = place is not None and place[0] == split and place[2] == plan.shard_count(split)
    start, stop = plan.shard_range(split, place[1]) if place is not None and planned else (0, 0)
    rows = plan.rows(split, start, stop) if stop else None
    words = {
        name: (class_id, language_id)
        for class_id, row in enumerate(plan.lexicon.names)
        for language_id, name in enumerate(row)
    }
    ids: dict[bytes, str] = {}
    for n in range(len(reader)):
        key = reader.key(n)
        if key in bad:
            continue
        at = f"{info.name}: sample {key}"
        try:
            members = reader.read(n)
            record = json.loads(members["json"])
            text = members["txt"].decode()
            if not isinstance(record, dict):
                raise ValueError("json: not an object")
        except DamagedSampleError as error:
            yield str(error)
            continue
        except ValueError as error:
            yield f"{at}: {error}"
            continue
        image_id, clip_id = (_content_id(members[member], ids) for member in ("jpg", "flac"))
        if rows is None or n >= stop - start or key != f"{split}-{start + n:08d}":
            yield f"{at}: is not planned there ({_REBUILD})"
        else:
            expected = describe(plan, rows, n)
            if record != expected:
                differing = [name for name in expected if record.get(name) != expected[name]]
                differing += sorted(record.keys() - expected.keys())
                yield f"{at}: json: {', '.join(differing)} not as planned ({_REBUILD})"
        if text != "_".join(map(str, _list(record, "words"))):
            yield f"{at}: txt: not the words of its json ({_REBUILD})"
        for kind, found in (("image", image_id), ("clip", clip_id)):
            if record.get(f"{kind}_id") != found:
                yield f"{at}: {kind}: its bytes are {found}, not {record.get(f'{kind}_id')} ({_REBUILD})"
        fault = _text_fault(plan, record)
        if fault:
            yield f"{at}: text: {fault} ({_REBUILD})"
        spoken = [words.get(word) for word in text.split("_")]
        facts.add(n, key, record, [word for word in spoken if word is not None], image_id, clip_id)


def _content_id(data: bytes, ids: dict[bytes, str]) -> str:
    """`content_id`, kept for media that recur in a shard."""
    if data not in ids:
        ids[data] = content_id(data)
    return ids[data]


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return value if isinstance(value, list) else []


def _text_fault(plan: Plan, record: Mapping[str, Any]) -> str | None:
    """What is wrong with a text, whatever the plan says of it; None if nothing is."""
    words, langs, classes = (_list(record, name) for name in ("words", "word_langs", "word_class_ids"))
    target = record.get("target")
    if not len(words) == len(langs) == len(classes) == plan.config.words:
        return f"{len(words)} words where {plan.config.words} are planned"
    spoken = [i for i, lang in enumerate(langs) if lang == record.get("lang")]
    if spoken != [target]:
        return f"{len(spoken)} words in the spoken language, and the target is word {target}"
    if classes[spoken[0]] != record.get("class_id"):
        return "the word in the spoken language names another class"
    if plan.config.text == "disjoint":
        for what, values in (("language", langs), ("class", classes)):
            if len(set(map(str, values))) != len(values):
                return f"two words of one {what}"
    return None
