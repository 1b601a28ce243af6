from __future__ import annotations

import itertools
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_samples import flip, keys_and_epoch, write_dataset
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from symile_m3.shards import (
    Blend,
    DamagedSampleError,
    DatasetReader,
    Loader,
    LoaderConfig,
    ShardError,
    ShardIndex,
    StreamingDataset,
)

SIZES = (7, 12, 5, 9, 11, 6)  # 50 samples, 13 batches of 4
CONFIG: dict[str, Any] = {"batch_size": 4, "seed": 5, "window": 20, "drop_last": False}

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("d"), SIZES)


@pytest.fixture(scope="module")
def expected(root: Path) -> list[list[Any]]:
    """Three epochs from a loader, with lists for tuples, as a DataLoader has them."""
    loader = Loader(DatasetReader(root, "train"), LoaderConfig(**CONFIG), transform=keys_and_epoch)
    return [list(batch) for _ in range(3) for batch in loader]


def make(root: Path, **config: Any) -> StreamingDataset[Any]:
    return StreamingDataset(DatasetReader(root, "train"), LoaderConfig(**(CONFIG | config)), transform=keys_and_epoch)


def through(dataset: StreamingDataset[Any], workers: int, **arguments: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, num_workers=workers, **arguments)


def read(loader: DataLoader[Any], batches: int | None = None) -> list[Any]:
    """All batches, or the first few; the workers end at once even if an error keeps the iterator alive."""
    iterator = iter(loader)
    try:
        return list(itertools.islice(iterator, batches))
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


def test_torch_is_imported_only_when_asked_for() -> None:
    script = (
        "import sys, symile_m3.shards as shards\n"
        "assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "shards.StreamingDataset"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: import of torch")


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_any_number_of_workers_gives_what_a_loader_gives(root: Path, expected: Any, workers: int) -> None:
    dataset = make(root)
    assert len(dataset) == 13
    for epoch in range(3):
        assert dataset.epoch == epoch
        assert list(through(dataset, workers)) == expected[13 * epoch : 13 * (epoch + 1)]
    dataset.set_epoch(1)
    assert list(through(dataset, workers)) == expected[13:26]


def test_workers_that_are_kept_follow_the_epoch(root: Path, expected: Any) -> None:
    dataset = make(root)
    batches = through(dataset, 2, persistent_workers=True)
    for epoch in range(2):
        assert list(batches) == expected[13 * epoch : 13 * (epoch + 1)]
    dataset.set_epoch(0)
    assert list(batches) == expected[:13]
    next(iter(batches))  # and left
    dataset.set_epoch(1)
    assert list(batches) == expected[13:26]


def test_an_epoch_that_is_left_begins_anew(root: Path, expected: Any) -> None:
    for workers in (0, 2):
        dataset = make(root)
        read(through(dataset, workers, **({"prefetch_factor": 1} if workers else {})), 1)
        assert dataset.epoch == 0
        assert list(through(dataset, workers)) == expected[:13]


def test_the_state_without_workers_is_that_of_the_loader(root: Path, expected: Any) -> None:
    for steps in (0, 5, 12, 13):
        dataset = make(root)
        batches = iter(through(dataset, 0))
        for _ in range(steps):
            next(batches)
        state = dataset.state_dict()
        assert (state["epoch"], state["consumed"]) == (0, min(50, steps * 4))
        resumed = make(root)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        resumed.set_epoch(0)  # as a training loop does: the position stays
        assert [*through(resumed, 0), *through(resumed, 0)] == expected[steps:26]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_state_with_workers_is_told_by_the_loop(root: Path, expected: Any, workers: int) -> None:
    dataset = make(root)
    assert read(through(dataset, workers), 7) == expected[:7]
    state = dataset.state_dict(epoch=0, batches=7)
    assert state == pickle.loads(pickle.dumps(state))
    resumed = make(root)
    resumed.load_state_dict(state)
    assert [*through(resumed, 2)] == expected[7:13]
    assert resumed.state_dict(epoch=0, batches=2) == state | {"consumed": 36}
    assert [*through(resumed, workers)] == expected[13:26]
    for wrong in ({"epoch": 0}, {"epoch": 0, "batches": 7}, {"epoch": -1, "batches": 0}, {"batches": 1}):
        with pytest.raises(ValueError, match="batches"):
            resumed.state_dict(**wrong)


def test_batches_stay_lists_of_samples_without_a_transform_and_sources_may_be_blends(root: Path) -> None:
    reader = DatasetReader(root, "train")
    dataset = StreamingDataset(Blend([reader, reader], [1, 2]), LoaderConfig(batch_size=5, seed=0))
    batches = list(through(dataset, 2))
    assert [len(batch) for batch in batches] == [5] * len(dataset) == [5] * 15
    assert batches[0][0].fields.keys() == {"json", "txt"}


def test_own_processes_of_the_loader_are_used_without_workers(root: Path, expected: Any) -> None:
    dataset = make(root, workers=2)
    assert list(through(dataset, 0)) == expected[:13]
    assert list(through(dataset, 1)) == expected[13:26]
    dataset.close()


def test_damaged_samples_are_named_and_counted_wherever_they_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_dataset(tmp_path, (6, 6))
    path = root / "data" / "train-00001-of-00002.tar"
    flip(path, int(ShardIndex.open(path).offsets[2, 0]))
    for workers in (0, 2):
        dataset = make(root, on_bad_sample="skip")
        with caplog.at_level(logging.WARNING):
            batches = list(through(dataset, workers))
        assert sorted(key for _, keys in batches for key in keys) == [f"{i:06d}" for i in range(12) if i != 8]
        assert dataset.bad_sample_count == 1
        # a DataLoader makes the errors of its workers anew, from their text alone
        with pytest.raises(
            ShardError if workers else DamagedSampleError, match=r"train-00001-of-00002\.tar: sample 000008"
        ):
            read(through(make(root), workers))
    assert "left out: train-00001-of-00002.tar: sample 000008" in caplog.text


def test_ranks_may_be_given(root: Path) -> None:
    config = LoaderConfig(**CONFIG)
    reader = DatasetReader(root, "train")
    shares = [
        list(through(StreamingDataset(reader, config, transform=keys_and_epoch, rank=rank, world=3), rank))
        for rank in range(3)
    ]
    taken = [key for share in shares for _, keys in share for key in keys]
    assert sorted(taken) == [f"{i:06d}" for i in range(50)]
    for wrong in ({"rank": 0}, {"world": 2}, {"rank": 2, "world": 2}):
        with pytest.raises(ValueError, match="rank"):
            StreamingDataset(reader, config, **wrong)


def test_ranks_come_from_torch_distributed_and_workers_may_be_spawned(tmp_path: Path, root: Path) -> None:
    script = Path(__file__).with_name("torch_epochs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr

    def printed(name: str) -> list[str]:
        return (tmp_path / f"{name}.txt").read_text().splitlines()

    reader = DatasetReader(root, "train")
    for rank in range(2):
        config = LoaderConfig(batch_size=4, seed=5, window=20, rank=rank, world=2)
        loader = Loader(reader, config, transform=keys_and_epoch)
        assert printed(str(rank)) == [" ".join([str(epoch), *keys]) for _ in range(2) for epoch, keys in loader]
    loader = Loader(reader, LoaderConfig(batch_size=4, seed=5, window=20), transform=keys_and_epoch)
    assert printed("spawned") == [" ".join([str(epoch), *keys]) for _ in range(2) for epoch, keys in loader]


class Asking(StreamingDataset[Any]):
    """Asks for the state where it is read."""

    def __iter__(self) -> Iterator[Any]:
        return (self.state_dict() for _ in super().__iter__())


def test_saying_a_state_draws_no_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make(root)
    monkeypatch.setattr(Loader, "order", None)  # it takes a second for ten million samples
    assert dataset.state_dict(epoch=1, batches=13)["consumed"] == 50
    with pytest.raises(ValueError, match="14 batches cannot"):
        dataset.state_dict(epoch=1, batches=14)


def test_a_worker_refuses_to_say_a_state_it_cannot_know(root: Path) -> None:
    dataset = Asking(DatasetReader(root, "train"), LoaderConfig(**CONFIG))
    assert next(iter(through(dataset, 0)))["consumed"] == 4
    with pytest.raises(RuntimeError, match="a worker knows only its share"):
        read(through(dataset, 1))


def test_memory_for_many_workers_is_shared_as_a_whole(root: Path) -> None:
    dataset = make(root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(through(copy, 0)) == list(through(dataset, 0))
    assert (copy.epoch, dataset.epoch) == (1, 1)
    assert isinstance(copy, torch.utils.data.IterableDataset)
