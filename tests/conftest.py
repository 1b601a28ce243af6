"""What tests of several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 2 languages and 8 classes, built once; tests that write to it take a copy."""
    from symile_m3.build import build
    from symile_m3.plan import PlanConfig

    root = tmp_path_factory.mktemp("tiny") / "data"
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
    build(root, config, workers=2)
    return root
