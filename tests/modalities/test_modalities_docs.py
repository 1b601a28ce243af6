"""What docs/MODALITIES.md shows runs as it stands there."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from user_shards import DOCS, block, write_user_shards

from symile_m3.modalities.declaration import TOWERS, DataConfig, DeclaredConfig, ModalityConfig, read_declaration
from symile_m3.modalities.training import train_declared


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_user_shards(tmp_path_factory.mktemp("docs") / "data")


def test_the_example_in_python_trains(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    found: dict[str, Any] = {}
    exec(block("python", 1), found)
    assert len(found["losses"]) == 4
    assert all(math.isfinite(loss) for loss in found["losses"])


def test_the_example_of_use_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, steps=2, dim=8, evaluations=1)
    train_declared(replace(declaration, config=config), root / "runs" / "mine", objectives=["symile"])
    for name in ("a", "b", "c"):
        np.save(f"{name}.npy", np.zeros((1, 32, 32)))
    np.save("ecg.npy", np.zeros((64, 2)))
    found: dict[str, Any] = {}
    exec(block("python"), found)
    assert found["scores"].shape == (2, 3)
    assert found["rows"].shape == (1, 2)
    assert "'ecg': 'what was learned for it'" in capsys.readouterr().out


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
