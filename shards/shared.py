"""Large results passed between two processes through memory that both see, instead of through a pipe.

A sender writes a result into a block of memory, the receiver maps it, and what has a buffer of its own, such as an
array, stays there. A block is used again once the receiver holds nothing that lies in it. Blocks are files without a
name, so nothing is left behind however either process ends. Small results go through the connection itself.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

MAX_BLOCKS = 16
"""Blocks of a sender; where all of them are in use, results go through the connection."""

_SMALL = 32_768  # bytes for which a block is not worth it
_ALIGN = 64
_SPARE = 4  # unused blocks that keep their memory


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pickled result on its way.

    Attributes:
        tag: the sender's, by which the receiver knows what it waits for.
        block: number of the block that holds it; None where `body` does.
        new: whether the receiver does not know the block yet.
        spans: (first byte, length) of each buffer in the block, and of the pickle behind them.
        body: the pickle, where there is no block.
    """

    tag: int
    block: int | None = None
    new: bool = False
    spans: tuple[tuple[int, int], ...] = ()
    body: bytes = b""


class Sender:
    """The end that makes results. Its blocks are known by their numbers, 0 .. `MAX_BLOCKS` - 1.

    Args:
        connection: a duplex one, whose other end is a `Receiver`'s.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._files: list[int] = []
        self._known = 0  # blocks that the receiver has been given
        self._free: list[int] = []

    def release(self, blocks: Iterable[int]) -> None:
        """Use blocks again that the receiver says it is done with; of those to spare the memory is given back."""
        self._free.extend(blocks)
        for block in self._free[:-_SPARE]:
            os.ftruncate(self._files[block], 0)

    def pack(self, tag: int, value: Any) -> Parcel:
        """Pickle a value, into a block where it is large and there is memory for one.

        Raises:
            Exception: whatever pickling raises.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        pieces = [buffer.raw() for buffer in buffers]
        if len(body) + sum(map(len, pieces)) >= _SMALL:
            try:
                return self._fill(tag, [*pieces, memoryview(body)])
            except OSError:  # no memory, or too many open files: the connection takes it as well
                pass
        return Parcel(tag, body=pickle.dumps(value, pickle.HIGHEST_PROTOCOL) if buffers else body)

    def send(self, parcel: Parcel) -> None:
        """Send what `pack` made.

        Raises:
            OSError: the receiver is gone.
        """
        self._connection.send_bytes(pickle.dumps(parcel, pickle.HIGHEST_PROTOCOL))
        if parcel.new and parcel.block is not None:
            reduction.send_handle(self._connection, self._files[parcel.block], os.getppid())
            self._known += 1

    def _fill(self, tag: int, pieces: list[memoryview]) -> Parcel:
        if not self._free:
            if len(self._files) == MAX_BLOCKS:
                raise OSError("all blocks are in use")
            self._files.append(_make_file())
            self._free.append(len(self._files) - 1)
        block = self._free[-1]
        spans, at = [], 0
        for piece in pieces:
            spans.append((at, len(piece)))
            _write(self._files[block], piece, at)
            at += -(-len(piece) // _ALIGN) * _ALIGN
        self._free.pop()
        return Parcel(tag, block, block >= self._known, tuple(spans))


class Receiver:
    """The end that takes results.

    Args:
        connection: a duplex one, whose other end is a `Sender`'s.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._files: dict[int, int] = {}
        self._maps: dict[int, mmap.mmap] = {}
        self._done: deque[int] = deque()

    def done(self) -> list[int]:
        """The blocks in which nothing lies any more that is held here; each is named once."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def receive(self, tag: int) -> Any:
        """The next value with this tag; values with another one are let go.

        Raises:
            EOFError, OSError: the sender is gone.
        """
        while True:
            parcel = pickle.loads(self._connection.recv_bytes())
            if parcel.new:
                self._files[parcel.block] = reduction.recv_handle(self._connection)
            if parcel.tag == tag:
                return pickle.loads(parcel.body) if parcel.block is None else self._open(parcel)
            if parcel.block is not None:
                self._done.append(parcel.block)

    def close(self) -> None:
        """Close the connection and let go of the blocks; values that were received stay as they are."""
        self._connection.close()
        self._maps.clear()
        while self._files:
            os.close(self._files.popitem()[1])

    def _open(self, parcel: Parcel) -> Any:
        block, end = parcel.block, sum(parcel.spans[-1])
        assert block is not None
        view = self._maps.get(block)
        if view is None or len(view) < end:
            try:
                view = self._maps[block] = mmap.mmap(self._files[block], end)
            except OSError as error:
                raise MemoryError(f"no room for a batch of {end:,} bytes: {error.strerror}") from error
        # Every buffer refers to this array, so it is gone when the last of them is.
        base_B = np.frombuffer(view, np.uint8)
        weakref.finalize(base_B, self._done.append, block).atexit = False
        *pieces, body = [base_B.data[at : at + size] for at, size in parcel.spans]
        return pickle.loads(body, buffers=pieces)


def _make_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("symile-m3-results")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(file: int, piece: memoryview, at: int) -> None:
    while len(piece):
        written = os.pwrite(file, piece, at)
        piece, at = piece[written:], at + written
