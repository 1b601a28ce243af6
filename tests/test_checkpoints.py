"""Checkpoints: whole or not at all, weights and state of one save, nothing unpickled, no older form."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from symile_m3.checkpoints import (
    about_weights,
    check_age,
    load_last,
    load_weights,
    remove_checkpoints,
    save_last,
    save_weights,
)
from symile_m3.errors import TrainingError

WEIGHTS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(1.5), "half": torch.ones(2, dtype=torch.bfloat16)}


def test_weights_come_back_with_their_facts_and_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "best.safetensors"
    digests = [save_weights(path, WEIGHTS, {"step": 7, "objective": "symile"}) for _ in range(5)]
    assert len(set(digests)) == 1
    assert about_weights(path) == {"step": 7, "objective": "symile"}
    for found in (load_weights(path), safetensors.torch.load_file(path)):
        assert found.keys() == WEIGHTS.keys()
        assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
        assert all(found[name].dtype == WEIGHTS[name].dtype for name in WEIGHTS)


def test_a_view_of_other_weights_is_saved_as_it_is(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", {"turned": WEIGHTS["b"].T, "row": WEIGHTS["b"][1]}, {})
    found = load_weights(tmp_path / "w")
    assert torch.equal(found["turned"], WEIGHTS["b"].T)
    assert torch.equal(found["row"], WEIGHTS["b"][1])


def test_whenever_it_is_killed_a_save_leaves_weights_and_state_of_one_step(tmp_path: Path) -> None:
    """Every state of the disk between two saves, made of the files before and after."""
    before, after = tmp_path / "before", tmp_path / "after"
    for directory, step in ((before, 1), (after, 2)):
        save_last(directory, {"w": torch.tensor(float(step))}, {"step": step})
    weights_before, state_before = (before / name for name in ("last.safetensors", "last.state"))
    weights_after, state_after = (after / name for name in ("last.safetensors", "last.state"))
    moments = [
        {"last.safetensors": weights_before, "last.state": state_before},
        {"last.safetensors": weights_before, "last.state": state_before, "last.next.safetensors": weights_after},
        {"last.safetensors": weights_before, "last.state": state_after, "last.next.safetensors": weights_after},
        {"last.safetensors": weights_after, "last.state": state_after},
        {"last.state": state_after, "last.next.safetensors": weights_after},  # the first save
    ]
    steps = []
    for number, files in enumerate(moments):
        run = tmp_path / str(number)
        run.mkdir()
        for name, content in files.items():
            shutil.copy(content, run / name)
        found = load_last(run)
        assert found is not None
        weights, state = found
        assert weights["w"].item() == state["step"]
        steps.append(state["step"])
        save_last(run, {"w": torch.tensor(3.0)}, {"step": 3})
        assert sorted(path.name for path in run.iterdir()) == ["last.safetensors", "last.state"]
    assert steps == [1, 1, 2, 2, 2]
    assert load_last(tmp_path / "nothing") is None


def test_weights_of_another_save_are_refused(tmp_path: Path) -> None:
    save_last(tmp_path, {"w": torch.zeros(1)}, {"step": 1})
    save_weights(tmp_path / "last.safetensors", {"w": torch.ones(1)}, {"step": 1})
    with pytest.raises(TrainingError, match=r"last\.safetensors: unreadable \(not the weights .*--overwrite"):
        load_last(tmp_path)
    (tmp_path / "last.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"last\.safetensors: unreadable \(FileNotFoundError\)"):
        load_last(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), b"", b"PK\3\4", b"{"], ids=["code", "empty", "zip", "json"])
def test_a_state_that_is_none_is_named_and_runs_no_code(content: bytes, tmp_path: Path) -> None:
    save_last(tmp_path, {"w": torch.zeros(1)}, {"step": 1})
    (tmp_path / "last.state").write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.state: unreadable .*--overwrite"):
        load_last(tmp_path)
    torch.save({"step": 1, "weights": Evil()}, tmp_path / "last.state")
    with pytest.raises(TrainingError, match=r"last\.state: unreadable \(UnpicklingError\)"):
        load_last(tmp_path)


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
def test_damaged_weights_are_named(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, WEIGHTS, {"step": 1})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TrainingError, match=r"best\.safetensors: unreadable .*--overwrite"):
        load_weights(path)


def test_checkpoints_of_older_versions_are_named_and_can_be_removed(tmp_path: Path) -> None:
    check_age(tmp_path)
    torch.save({"model": {}}, tmp_path / "best.pt")
    with pytest.raises(TrainingError, match=r"best\.pt: a checkpoint of an older symile-m3, .*--overwrite"):
        check_age(tmp_path)
    remove_checkpoints(tmp_path)
    check_age(tmp_path)
    assert list(tmp_path.iterdir()) == []
