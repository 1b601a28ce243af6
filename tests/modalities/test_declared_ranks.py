"""Several processes train on declared modalities as one does, batch norms and missing ones included."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchrun import torchrun
from user_shards import write_user_shards

from symile_m3.modalities.declaration import read_declaration
from symile_m3.modalities.training import train_declared
from symile_m3.recipe import RunOptions

STEPS = 8


def losses(run: Path) -> list[float]:
    with (run / "steps.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_processes_give_the_losses_and_weights_of_one(tmp_path: Path) -> None:
    root = write_user_shards(tmp_path / "data")
    words = ("--objective", "symile", "--steps", STEPS, "--set", "dim=16", "--log-to", "csv")
    done = torchrun(2, ["train", "--modalities", root / "my.toml", "--runs", root / "shared", *map(str, words)])
    assert done.returncode == 0, done.stderr
    declaration = read_declaration(root / "my.toml")
    config = replace(declaration.config, steps=STEPS, dim=16)
    options = RunOptions(logs=("csv",))
    train_declared(replace(declaration, config=config), root / "alone", objectives=["symile"], options=options)
    shared, alone = root / "shared" / "symile", root / "alone" / "symile"
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-4)
    assert len(losses(shared)) == STEPS
    weights, expected = (safetensors.torch.load_file(path / "last.safetensors") for path in (shared, alone))
    assert weights.keys() == expected.keys()
    assert "towers.xray.net.1.running_mean" in weights
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], atol=1e-3, rtol=1e-3, msg=name)
    assert json.loads((shared / "run.json").read_text())["sessions"][0]["processes"] == 2
    assert (shared / "model.json").exists()
