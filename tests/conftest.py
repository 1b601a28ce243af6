"""What tests of several parts share."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from making_once import MadeOnce, make_once


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """For what takes long: `made_once(name, make)` is a directory that one test process makes for all of them."""
    base = tmp_path_factory.getbasetemp()
    return partial(make_once, base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def tiny_dataset(made_once: MadeOnce) -> Path:
    """A dataset of 2 languages and 8 classes, built once; tests that write to it take a copy."""
    return made_once("tiny", build_tiny) / "data"


def build_tiny(folder: Path) -> None:
    from symile_m3.build import build
    from symile_m3.plan import PlanConfig

    config = PlanConfig(
        languages=("el", "en"),
        words=2,
        classes=8,
        train=64,
        val=16,
        test=16,
        clips=(24, 6, 6),
        shard_samples=32,
    )
    build(folder / "data", config, workers=2)
