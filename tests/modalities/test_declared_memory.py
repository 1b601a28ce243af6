"""What does not fit into memory, and what is advised where a batch cannot be cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starved_training import starved
from user_shards import write_user_shards

from symile_m3.errors import TrainingError, UsageError
from symile_m3.modalities.declaration import read_declaration
from symile_m3.modalities.training import train_declared
from symile_m3.recipe import RunOptions


def test_no_micro_batch_is_advised_where_a_tower_normalises_over_the_batch(tmp_path: Path) -> None:
    declaration = write_user_shards(tmp_path) / "my.toml"
    assert starved(declaration, tmp_path / "runs") == (
        "symile: out of memory with 16 samples at a time and D 64; lower --batch-size (now 16) or --set dim (now 64), "
        "and train again with --overwrite\n"
    )
    with pytest.raises(UsageError, match=r"^xray: a tower that is trained and normalises over the batch: train"):
        train_declared(read_declaration(declaration), tmp_path / "cut", options=RunOptions(micro_batch=8))


def test_a_model_that_has_no_place_in_memory_is_told_to_be_smaller(tmp_path: Path) -> None:
    declaration = read_declaration(write_user_shards(tmp_path) / "my.toml")
    beyond = replace(declaration, config=replace(declaration.config, dim=1 << 44))  # of any address space
    with pytest.raises(
        TrainingError,
        match=r"^clip: out of memory for a model of D 17592186044416; lower --set dim, and train again with --overwr",
    ):
        train_declared(beyond, tmp_path / "runs", objectives=["clip"])
