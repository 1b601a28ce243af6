from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symile_m3.shards.shared import MAX_BLOCKS, Parcel, Receiver, Sender

LARGE = 100_000


@pytest.fixture
def ends() -> Iterator[tuple[Sender, Receiver]]:
    """Both ends in one process."""
    one, other = multiprocessing.get_context("spawn").Pipe(duplex=True)
    receiver = Receiver(other)
    yield Sender(one), receiver
    receiver.close()
    one.close()


def pass_on(ends: tuple[Sender, Receiver], value: Any, tag: int = 0) -> tuple[Parcel, Any]:
    """What was sent for a value, and what arrives."""
    sender, receiver = ends
    parcel = sender.pack(tag, value)
    thread = threading.Thread(target=sender.send, args=(parcel,))
    thread.start()
    received = receiver.receive(tag)
    thread.join()
    return parcel, received


def arrays(size: int, fill: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(fill)
    return {
        "float": rng.random(size, np.float32),
        "odd": rng.integers(0, 255, (7, 3, size // 7), np.uint8),
        "empty": np.zeros((0, 3)),
        "strided": np.arange(size)[::3],
        "transposed": np.arange(12.0).reshape(3, 4).T,
        "text": "λέξη" * size,
        "bytes": os.urandom(size),
    }


@pytest.mark.parametrize("size", [10, LARGE])
def test_values_arrive_equal_and_can_be_written_to(ends: tuple[Sender, Receiver], size: int) -> None:
    for fill in range(3):
        value = arrays(size, fill)
        parcel, received = pass_on(ends, value)
        assert (parcel.block is None) == (size == 10)
        assert received.keys() == value.keys()
        for name in ("float", "odd", "empty", "strided", "transposed"):
            np.testing.assert_array_equal(received[name], value[name])
            assert received[name].flags.writeable
            assert received[name].flags.aligned
        assert (received["text"], received["bytes"]) == (value["text"], value["bytes"])


def test_a_block_is_used_again_when_nothing_in_it_is_held(ends: tuple[Sender, Receiver]) -> None:
    sender, receiver = ends
    parcel, received = pass_on(ends, np.zeros(LARGE))
    assert (parcel.block, parcel.new) == (0, True)
    part = received[10:20]
    del received
    gc.collect()
    assert receiver.done() == []
    other, received = pass_on(ends, np.ones(LARGE))
    assert (other.block, other.new) == (1, True)
    del received
    assert receiver.done() == [1]
    assert (part == 0).all()
    del part
    done = receiver.done()
    assert done == [0]
    sender.release(done)
    for size in (LARGE, 3 * LARGE, LARGE // 2):  # it grows where it must
        again, received = pass_on(ends, np.full(size, size))
        assert (again.block, again.new) == (0, False)
        assert (received == size).all()
        assert len(received) == size
        del received
        sender.release(receiver.done())


def test_bytes_leave_their_block_at_once(ends: tuple[Sender, Receiver]) -> None:
    value = {"jpg": os.urandom(LARGE)}
    parcel, received = pass_on(ends, value)
    assert parcel.block == 0
    assert received == value
    assert ends[1].done() == [0]


def test_when_all_blocks_are_held_the_connection_takes_over(ends: tuple[Sender, Receiver]) -> None:
    held = []
    for i in range(MAX_BLOCKS + 3):
        parcel, received = pass_on(ends, np.full(LARGE, i))
        assert parcel.block == (i if i < MAX_BLOCKS else None)
        held.append(received)
    assert all((array == i).all() for i, array in enumerate(held))
    held[-1][0] = 1
    held.clear()
    sender, receiver = ends
    done = receiver.done()
    assert sorted(done) == list(range(MAX_BLOCKS))
    sender.release(done)
    kept = [os.fstat(file).st_size for file in sender._files]
    assert sum(size > 0 for size in kept) == 4  # the memory of the others is given back
    for i in range(MAX_BLOCKS):
        held.append(pass_on(ends, np.full(LARGE, i))[1])
    assert all((array == i).all() for i, array in enumerate(held))


def test_what_has_another_tag_is_let_go(ends: tuple[Sender, Receiver]) -> None:
    sender, receiver = ends
    for tag, size in ((1, LARGE), (1, 5), (1, LARGE), (2, LARGE)):
        sender.send(sender.pack(tag, np.full(size, tag)))
    assert (receiver.receive(2) == 2).all()
    assert sorted(receiver.done()) == [0, 1, 2]


def test_values_outlive_their_receiver(ends: tuple[Sender, Receiver]) -> None:
    _, received = pass_on(ends, np.arange(LARGE))
    files = len(list(Path("/dev/fd").iterdir()))
    ends[1].close()
    assert received.sum() == LARGE * (LARGE - 1) // 2
    assert len(list(Path("/dev/fd").iterdir())) < files


def test_what_cannot_be_pickled_is_refused_before_anything_is_sent(ends: tuple[Sender, Receiver]) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        ends[0].pack(0, [np.zeros(LARGE), lambda: None])
    parcel, received = pass_on(ends, np.ones(LARGE))
    assert parcel.block == 0
    assert (received == 1).all()
