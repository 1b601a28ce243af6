"""Samples as pages show them: read whole, and checked for what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from symile_m3.errors import DamagedSampleError
from symile_m3.plan import Plan
from symile_m3.shards import DatasetReader, decode_json, decode_text

_STRINGS = ("class_key", "class_name", "lang", "image_source", "image_licence", "clip_source", "clip_licence")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSample:
    """One sample, as the shard has it."""

    key: str
    jpg: bytes
    flac: bytes
    text: str
    record: Mapping[str, Any]


def read_shown(reader: DatasetReader, i: int) -> ShownSample:
    """Sample `i`.

    Raises:
        DamagedSampleError: something that pages show of it is not there.
    """
    members = reader.read(i, ("jpg", "flac", "txt", "json"))
    try:
        record, text = decode_json(members["json"]), decode_text(members["txt"])
        words, langs, target = record.get("words"), record.get("word_langs"), record.get("target")
        if not (isinstance(words, list) and isinstance(langs, list) and len(words) == len(langs)):
            raise ValueError("json: words and word_langs are not two lists of one length")
        if type(target) is not int or not 0 <= target < len(words):
            raise ValueError(f"json: target {target!r} is not the position of a word")
        wrong = [name for name in _STRINGS if not isinstance(record.get(name), str)]
        if wrong:
            raise ValueError(f"json: {', '.join(wrong)} missing or no text")
    except ValueError as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), str(error)) from error
    return ShownSample(key=reader.key(i), jpg=members["jpg"], flac=members["flac"], text=text, record=record)


def attributes(record: Mapping[str, Any], name: str) -> dict[str, str]:
    """What a source says of a medium beside its name; empty where it says nothing."""
    value = record.get(name)
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def label_language(plan: Plan) -> str:
    """The language that `class_name` is in; see `symile_m3.build.describe`."""
    return "en" if "en" in plan.lexicon.languages else plan.lexicon.languages[0]
