"""A plan as JSON, some media at a time, so that a million of them are not held twice."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from symile_m3.media import Medium, Recipe

_MEDIA_A_PART = 1000
_FIELDS = {"id", "name", "group", "split", "source", "licence", "synthetic", "attributes"}


def json_parts(fields: Mapping[str, Any], media: Mapping[str, Sequence[Medium]]) -> Iterator[bytes]:
    """An object of these fields and lists of media, with sorted keys, as UTF-8 text in parts.

    Together they are what `json.dumps` gives with `sort_keys` and without `ensure_ascii`.
    """
    encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
    between = "{"
    for name in sorted({*fields, *media}):
        yield f"{between}{encode(name)}: ".encode()
        if name in media:
            yield b"["
            for start in range(0, len(media[name]), _MEDIA_A_PART):
                part = [medium_to_json(medium) for medium in media[name][start : start + _MEDIA_A_PART]]
                yield f"{', ' if start else ''}{encode(part)[1:-1]}".encode()
            yield b"]"
        else:
            yield encode(fields[name]).encode()
        between = ", "
    yield b"}"


def medium_to_json(medium: Medium) -> dict[str, Any]:
    """One medium."""
    return {"id": medium.id, **recipe_to_json(medium.recipe)}


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """One recipe."""
    return {
        "name": recipe.name,
        "group": recipe.group,
        "split": recipe.split,
        "source": recipe.source,
        "licence": recipe.licence,
        "synthetic": recipe.synthetic,
        "attributes": dict(recipe.attributes),
    }


def plan_from_text(text: str) -> Any:
    """What JSON text says, with a `Medium` in place of each record of one, made while the text is being read.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    shared: dict[str, str] = {}  # most strings recur: one of each is kept

    def one(value: Any) -> Any:
        return shared.setdefault(value, value) if isinstance(value, str) else value

    def medium(record: dict[str, Any]) -> Any:
        if record.keys() != _FIELDS or not isinstance(record["attributes"], dict):
            return record
        fields = {name: value if name in ("id", "name") else one(value) for name, value in record.items()}
        fields["attributes"] = {name: one(value) for name, value in fields["attributes"].items()}
        return Medium(id=fields.pop("id"), recipe=Recipe(**fields))

    collecting = gc.isenabled()
    gc.disable()  # it would look through what has been read again and again, and find nothing
    try:
        return json.loads(text, object_hook=medium)
    finally:
        if collecting:
            gc.enable()


def media_of(records: Any) -> tuple[Medium, ...]:
    """A list of media, as `plan_from_text` gives it.

    Raises:
        TypeError: something else is among them.
    """
    for record in records:
        if not isinstance(record, Medium):
            raise TypeError("an image or clip without what belongs to one")
    return tuple(records)
