"""A declaration as TOML again, for whoever trains or evaluates what was exported; without the places of the samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from symile_m3.modalities.declaration import DeclaredConfig

_HEAD = """\
# The modalities and the recipe of the model beside it. To train or evaluate with it, say where your samples are:
# train, val and test, or all, or arrays.
"""


def declaration_text(config: DeclaredConfig, dataset: Mapping[str, Any]) -> str:
    """The TOML of a declaration.

    Args:
        dataset: facts of the samples: their label, the number of candidates, and what validation retrieves.
    """
    tables = [_table("data", {name: dataset[name] for name in ("label", "candidates", "retrieve")})]
    for modality in config.modalities:
        settings = {item.name: getattr(modality, item.name) for item in fields(modality) if item.name != "name"}
        tables.append(_table(f"modalities.{modality.name}", settings))
    recipe = {item.name: getattr(config, item.name) for item in fields(config) if item.name != "modalities"}
    return _HEAD + "\n".join([*tables, _table("train", recipe)])


def _table(name: str, settings: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in settings.items() if value not in ("", ())]
    return "\n".join([f"[{name}]", *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # as TOML writes strings, numbers and truth values too
