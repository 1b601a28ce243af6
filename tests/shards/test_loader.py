from __future__ import annotations

import contextlib
import functools
import multiprocessing
import operator
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shard_samples import dying, failing, flip, full_sample, keys_and_epoch, small_sample, write_dataset

from symile_m3.shards import (
    DamagedSampleError,
    DatasetReader,
    Loader,
    LoaderConfig,
    RawSample,
    Sample,
    ShardError,
    ShardIndex,
)

SIZES = (7, 12, 5, 9, 11, 6)  # 50 samples


@pytest.fixture
def reader(tmp_path: Path) -> DatasetReader:
    return DatasetReader(write_dataset(tmp_path, SIZES), "train")


@pytest.fixture
def make(reader: DatasetReader) -> Iterator[Callable[..., Loader[Any]]]:
    """Makes loaders, and ends their workers."""
    with contextlib.ExitStack() as stack:

        def make(transform: Any = None, **config: Any) -> Loader[Any]:
            config = {"batch_size": 4, "seed": 5, "window": 20} | config
            loader: Loader[Any] = Loader(reader, LoaderConfig(**config), transform=transform)
            stack.callback(loader.close)
            return loader

        yield make


def numbers(batches: Any) -> list[list[int]]:
    return [[sample.index for sample in batch] for batch in batches]


def test_a_batch_holds_decoded_samples(tmp_path: Path) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (3,), full_sample), "train")
    config = LoaderConfig(batch_size=3, seed=0, shuffle=False, fields=("jpg", "flac", "txt", "json"))
    loader = Loader(reader, config)
    ((first, second, third),) = list(loader)
    assert isinstance(first, Sample)
    assert (first.key, first.index) == ("000000", 0)
    assert list(second.fields) == ["jpg", "flac", "txt", "json"]
    assert second.fields["jpg"].shape == (16, 16, 3)
    assert second.fields["flac"][1] == 16_000
    assert third.fields["txt"] == "λέξη_2"
    assert third.fields["json"] == {"class_id": 2, "lang": "el"}
    ((raw, *_),) = list(Loader(reader, LoaderConfig(batch_size=3, seed=0, shuffle=False, decode=False)))
    assert raw.fields == small_sample(0).members


def test_an_epoch_takes_every_sample_once_and_the_next_differs(make: Callable[..., Loader[Any]]) -> None:
    loader = make(drop_last=False)
    assert len(loader) == 13
    assert loader.epoch == 0
    first = numbers(loader)
    assert sorted(functools.reduce(operator.iadd, first, [])) == list(range(50))
    assert [len(b) for b in first] == [4] * 12 + [2]
    assert loader.epoch == 1
    second = numbers(loader)
    assert sorted(functools.reduce(operator.iadd, second, [])) == list(range(50))
    assert first != second
    loader.set_epoch(0)
    assert numbers(loader) == first
    assert numbers(make(drop_last=False, seed=6)) != first
    assert numbers(make(shuffle=False)) == [list(range(i, i + 4)) for i in range(0, 48, 4)]


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_an_epoch(make: Callable[..., Loader[Any]], drop_last: bool) -> None:
    loaders = [make(rank=rank, world=3, drop_last=drop_last) for rank in range(3)]
    shares = [numbers(loader) for loader in loaders]
    assert [len(share) for share in shares] == [len(loader) for loader in loaders]
    taken = functools.reduce(operator.iadd, (batch for share in shares for batch in share), [])
    assert len(taken) == len(set(taken)) == (48 if drop_last else 50)
    assert [len(share) for share in shares] == ([4, 4, 4] if drop_last else [5, 5, 4])


def test_workers_do_not_show_in_what_comes_out(make: Callable[..., Loader[Any]]) -> None:
    expected = make(keys_and_epoch, drop_last=False)
    two = make(keys_and_epoch, drop_last=False, workers=2, prefetch=1)
    three = make(keys_and_epoch, drop_last=False, workers=3, prefetch=5)
    for epoch in range(2):
        batches = list(expected)
        assert {batch[0] for batch in batches} == {epoch}
        assert list(two) == batches
        assert list(three) == batches


def test_resume_is_exact_anywhere_and_with_other_workers(make: Callable[..., Loader[Any]]) -> None:
    loader = make(drop_last=False)
    whole = numbers(loader) + numbers(loader)
    resumed = {workers: make(drop_last=False, workers=workers) for workers in (0, 2)}
    generator = random.Random(1)
    for workers, steps in [(0, 0), (0, 13), (2, 12)] + [
        (generator.choice((0, 2)), generator.randrange(14)) for _ in range(8)
    ]:
        source = make(drop_last=False)
        running = iter(source)
        for _ in range(steps):
            next(running)
        state = source.state_dict()
        assert (state["epoch"], state["consumed"]) == (0, min(50, 4 * steps))
        target = resumed[workers]
        target.load_state_dict(state)
        assert target.state_dict() == state
        target.set_epoch(0)  # as a training loop does: the position stays
        assert numbers(target) + numbers(target) == whole[steps:]


@pytest.mark.parametrize(("worlds", "sizes"), [((1, 3), (4, 2)), ((3, 1), (2, 5)), ((2, 4), (3, 3))])
def test_resume_with_other_ranks_goes_on_with_the_rest(
    make: Callable[..., Loader[Any]], worlds: tuple[int, int], sizes: tuple[int, int]
) -> None:
    before: list[int] = []
    states = []
    for rank in range(worlds[0]):
        loader = make(rank=rank, world=worlds[0], batch_size=sizes[0])
        running = iter(loader)
        for _ in range(3):
            before += [sample.index for sample in next(running)]
        states.append(loader.state_dict())
    assert all(state == states[0] for state in states)
    after: list[int] = []
    for rank in range(worlds[1]):
        loader = make(rank=rank, world=worlds[1], batch_size=sizes[1], drop_last=False)
        loader.load_state_dict(states[0])
        after += functools.reduce(operator.iadd, numbers(loader), [])
    order = make().order(0).tolist()
    assert sorted(before) == sorted(order[: len(before)])
    assert sorted(after) == sorted(order[len(before) :])


def test_a_broken_iteration_begins_anew(make: Callable[..., Loader[Any]]) -> None:
    for workers in (0, 2):
        loader = make(workers=workers)
        expected = numbers(make())
        for _ in range(3):
            for batch in loader:
                assert numbers([batch]) == expected[:1]
                break
        assert loader.epoch == 0
        assert numbers(loader) == expected
        stale = iter(loader)
        next(stale)
        loader.set_epoch(7)
        with pytest.raises(RuntimeError, match="newer iteration or moved to another epoch"):
            next(stale)


@pytest.mark.parametrize(
    "change",
    [
        *({"version": 2}, {"seed": 6}, {"fingerprint": "other"}, {"samples": 51}, {"window": 21}),
        *({"shuffle": False}, {"epoch": -1}, {"consumed": 51}, {"consumed": None}),
    ],
)
def test_a_state_that_does_not_fit_is_refused(make: Callable[..., Loader[Any]], change: dict[str, object]) -> None:
    loader = make()
    with pytest.raises(ValueError, match="loader state"):
        loader.load_state_dict(loader.state_dict() | change)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_samples_stop_or_are_skipped_and_counted(tmp_path: Path, workers: int) -> None:
    root = write_dataset(tmp_path, (6, 6))
    path = root / "data" / "train-00001-of-00002.tar"
    flip(path, int(ShardIndex.open(path).offsets[2, 0]))
    reader = DatasetReader(root, "train")
    config = {"batch_size": 4, "seed": 0, "shuffle": False, "workers": workers}
    stopping = Loader(reader, LoaderConfig(**config))
    got = []
    with pytest.raises(DamagedSampleError, match=r"^train-00001-of-00002\.tar: sample 000008: ") as caught:
        got.extend(stopping)
    stopping.close()
    assert (caught.value.key, len(got)) == ("000008", 2)
    assert (stopping.state_dict()["epoch"], stopping.state_dict()["consumed"]) == (0, 8)
    skipping = Loader(reader, LoaderConfig(**config, on_bad_sample="skip"))
    for epoch in (1, 2):
        assert numbers(skipping) == [[0, 1, 2, 3], [4, 5, 6, 7], [9, 10, 11]]
        assert skipping.bad_samples.total() == epoch
    (name,) = skipping.bad_samples
    assert name == "train-00001-of-00002.tar: sample 000008: the bytes of its txt were altered"
    skipping.close()


def test_what_does_not_decode_is_damage_with_a_name(tmp_path: Path) -> None:
    def make_sample(i: int) -> RawSample:
        return RawSample(f"{i}", {"txt": b"\xff" if i == 3 else b"x", "json": b"{}"})

    reader = DatasetReader(write_dataset(tmp_path, (4,), make_sample), "train")
    with pytest.raises(DamagedSampleError, match=r"^train-00000-of-00001\.tar: sample 3: txt: .*utf-8"):
        list(Loader(reader, LoaderConfig(batch_size=2, seed=0)))
    alone = LoaderConfig(batch_size=1, seed=0, on_bad_sample="skip")
    with pytest.raises(ShardError, match="all 1 samples of a batch are damaged, the first: train-00000"):
        list(Loader(reader, alone))


def test_a_field_that_is_not_there_is_refused_at_once(make: Callable[..., Loader[Any]]) -> None:
    with pytest.raises(ShardError, match=r"no member 'jpg' \(it has txt, json\)"):
        make(fields=("jpg",))


@pytest.mark.parametrize(
    "change",
    [
        *({"batch_size": 0}, {"world": 0}, {"rank": 1}, {"rank": -1}, {"workers": -1}, {"prefetch": 0}),
        *({"window": 0}, {"seed": -1}, {"seed": 2**64}, {"fields": ()}, {"fields": "json"}),
        *({"fields": ("txt", "txt")}, {"on_bad_sample": "ignore"}),
    ],
)
def test_configurations_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(change))}"):
        LoaderConfig(**({"batch_size": 4, "seed": 0} | change))


def test_errors_of_a_transform_reach_the_caller(make: Callable[..., Loader[Any]]) -> None:
    from shard_samples import OddError

    with pytest.raises(OddError):
        list(make(failing))
    with pytest.raises(RuntimeError, match="OddError: no good") as caught:
        list(make(failing, workers=1))
    assert "in worker process 0" in caught.value.__notes__[0]
    assert "failing" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="cannot be sent to worker processes"):
        list(make(lambda samples, epoch: samples, workers=1))
    with pytest.raises(ShardError, match=r"worker process 0 died \(exit code 7"):
        list(make(dying, workers=1))


def test_results_larger_than_a_pipe_do_not_block(tmp_path: Path) -> None:
    """Both the tasks and the results of these batches are far larger than the buffer of a pipe."""
    reader = DatasetReader(write_dataset(tmp_path, (20_000,)), "train")
    loader = Loader(reader, LoaderConfig(batch_size=10_000, seed=0, workers=1, prefetch=2))
    assert [len(batch) for batch in loader] == [10_000, 10_000]
    loader.close()


def test_closing_and_dropping_loaders_leaves_no_thread_and_no_process(
    make: Callable[..., Loader[Any]],
) -> None:
    def prefetchers() -> int:
        return sum(thread.name == "symile-m3-prefetch" for thread in threading.enumerate())

    running = iter(make())
    next(running)
    assert prefetchers() == 1
    running.close()  # type: ignore[attr-defined]
    assert prefetchers() == 0
    loader = make(workers=2)
    next(iter(loader))
    children = multiprocessing.active_children()
    assert len(children) == 2
    loader.close()
    assert multiprocessing.active_children() == []
    assert len(numbers(loader)) == 12  # and starts anew when used again


def test_bytes_that_are_left_alone_are_read_without_workers(make: Callable[..., Loader[Any]]) -> None:
    loader = make(decode=False, workers=2)
    batches = numbers(loader)
    assert batches == numbers(make())
    assert multiprocessing.active_children() == []
    transformed = make(keys_and_epoch, decode=False, workers=1)
    next(iter(transformed))
    assert len(multiprocessing.active_children()) == 1


def test_arrays_from_workers_stay_as_they_are_and_may_be_written_to(tmp_path: Path) -> None:
    reader = DatasetReader(write_dataset(tmp_path, (60,), full_sample), "train")
    config = {"batch_size": 20, "seed": 0, "fields": ("jpg", "flac")}
    expected = [
        [sample.fields["flac"][0].copy() for sample in batch] for batch in Loader(reader, LoaderConfig(**config))
    ]
    loader = Loader(reader, LoaderConfig(**config, workers=1, prefetch=1))
    kept = list(loader)
    for _ in range(3):  # the worker goes on, in other memory than what is kept
        for batch in loader:
            batch[0].fields["flac"][0][:] = 7
    loader.close()
    assert loader.epoch == 4
    for batch, waves in zip(kept, expected, strict=True):
        for sample, wave_T in zip(batch, waves, strict=True):
            assert (sample.fields["flac"][0] == wave_T).all()
            assert sample.fields["jpg"].shape == (16, 16, 3)


SCRIPT = """
import multiprocessing, pathlib, sys, time
from symile_m3.shards import DatasetReader, Loader, LoaderConfig

if __name__ == "__main__":
    reader = DatasetReader(pathlib.Path(sys.argv[1]), "train")
    for batch in Loader(reader, LoaderConfig(batch_size=2, seed=0, workers=2)):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, which a terminal sends to the whole process group, and the sudden death of the parent."""
    write_dataset(tmp_path, (40,))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    _, errors = process.communicate(timeout=240)
    deadline = time.monotonic() + 60
    while any(_running(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.02)
    assert errors.count("Traceback") == (number == signal.SIGINT)  # the parent's KeyboardInterrupt alone


def _running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


class Told(DatasetReader):
    """A reader that writes down what it is told comes next, by whom."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "train")
        self.told: list[list[int]] = []

    def prefetch(self, numbers: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # the thread that makes batches tells of its own
            self.told.append([int(i) for i in numbers])


@pytest.mark.parametrize(("window", "every"), [(20, 4), (64, 4), (640, 40)])
def test_a_source_is_told_the_next_window_at_most_once_a_batch(tmp_path: Path, window: int, every: int) -> None:
    reader = Told(write_dataset(tmp_path, SIZES))
    loader: Loader[Any] = Loader(reader, LoaderConfig(batch_size=4, seed=5, window=window, drop_last=False))
    order = [int(i) for i in loader.order(0)]
    for batches, batch in enumerate(loader, start=1):
        ahead = {i for told in reader.told for i in told}
        assert {sample.index for sample in batch} <= ahead
        assert len(reader.told) <= batches + 1
    assert reader.told == [order[at : at + window] for at in range(0, 50, every)]


def test_a_resumed_epoch_is_told_from_where_it_goes_on_and_by_one_part_only(tmp_path: Path) -> None:
    reader = Told(write_dataset(tmp_path, SIZES))
    loader: Loader[Any] = Loader(reader, LoaderConfig(batch_size=4, seed=5, window=20))
    order = [int(i) for i in loader.order(0)]
    loader.load_state_dict(loader.state_dict() | {"consumed": 12})
    next(iter(loader))
    assert reader.told == [order[12:32], order[16:36]]
    next(loader.part(1, 2))
    assert len(reader.told) == 2
