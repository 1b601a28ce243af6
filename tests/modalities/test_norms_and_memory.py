"""What does not fit into memory; and batch norms, for whole batches only, in one process or on GPUs that share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from starved_training import starved
from user_shards import write_user_shards

from symile_m3.errors import TrainingError, UsageError
from symile_m3.modalities.declaration import DeclaredConfig, ModalityConfig, read_declaration
from symile_m3.modalities.towers import new_model
from symile_m3.modalities.training import train_declared
from symile_m3.objectives import get_objective
from symile_m3.processes import open_place
from symile_m3.recipe import RunOptions

CONFIG = DeclaredConfig(
    dim=8,
    modalities=(
        ModalityConfig(name="ecg", member=("ecg.npy",), tower="conv-signal", shape=(64, 2)),
        ModalityConfig(name="labs", member=("labs.npy",), tower="mlp", shape=(4,), hidden=(8,)),
    ),
)


def test_gpus_share_batch_norms_whose_weights_and_names_stay() -> None:
    """What becomes of the model only: there is no GPU to compute with it."""
    model = new_model(CONFIG, get_objective("symile"))
    signal, before = torch.randn(3, 64, 2), list(model.state_dict())
    expected = model.eval().towers["ecg"](signal)
    parameters = list(model.parameters())

    def norms() -> list[type]:
        return [type(part) for part in model.modules() if "BatchNorm" in type(part).__name__]

    cpus = replace(open_place(), world=2)
    gpus = replace(cpus, device=torch.device("cuda"))
    for place in (cpus, replace(gpus, world=1)):
        place.share_norms(model)
        assert norms() == [torch.nn.BatchNorm1d] * 3
    gpus.share_norms(model)
    assert norms() == [torch.nn.SyncBatchNorm] * 3
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == before
    assert torch.equal(model.towers["ecg"](signal), expected)
    assert [place.normalises_whole(0) for place in (open_place(), cpus, gpus)] == [True, False, True]
    assert not gpus.normalises_whole(4)


def test_no_micro_batch_is_advised_where_a_tower_normalises_over_the_batch(tmp_path: Path) -> None:
    declaration = write_user_shards(tmp_path) / "my.toml"
    assert starved(declaration, tmp_path / "runs") == (
        "symile: out of memory with 16 samples at a time and D 64; lower --batch-size (now 16) or --set dim (now 64), "
        "and train again with --overwrite\n"
    )
    with pytest.raises(UsageError, match=r"^xray: a tower that is trained and normalises over the batch: .* on GPUs$"):
        train_declared(read_declaration(declaration), tmp_path / "cut", options=RunOptions(micro_batch=8))


def test_a_model_that_has_no_place_in_memory_is_told_to_be_smaller(tmp_path: Path) -> None:
    declaration = read_declaration(write_user_shards(tmp_path) / "my.toml")
    beyond = replace(declaration, config=replace(declaration.config, dim=1 << 44))  # of any address space
    with pytest.raises(
        TrainingError,
        match=r"^clip: out of memory for a model of D 17592186044416; lower --set dim, and train again with --overwr",
    ):
        train_declared(beyond, tmp_path / "runs", objectives=["clip"])
