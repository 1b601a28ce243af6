"""What docs/MODALITIES.md shows runs as it stands there."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from user_shards import DOCS, block, write_user_shards

from symile_m3.modalities.declaration import TOWERS, DataConfig, DeclaredConfig, ModalityConfig, read_declaration


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("docs") / "data")


def test_the_example_in_python_trains(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    found: dict[str, Any] = {}
    exec(block("python"), found)
    assert len(found["losses"]) == 4
    assert all(math.isfinite(loss) for loss in found["losses"])


def test_the_declaration_is_read(root: Path) -> None:
    declaration = read_declaration(root / "my.toml")
    assert declaration.config.modality_names == ("xray", "ecg", "note", "age")
    assert declaration.config.learned == {"ecg"}
    assert declaration.data.train == (str(root / "shards/train-*.tar"),)


@pytest.mark.parametrize("config", [DataConfig, ModalityConfig, DeclaredConfig])
def test_every_setting_is_named(config: type) -> None:
    text = DOCS.read_text()
    for item in fields(config):
        assert item.name in ("name", "modalities") or f"`{item.name}`" in text, item.name


def test_every_tower_is_named() -> None:
    assert all(f"`{tower}`" in DOCS.read_text() for tower in TOWERS)
