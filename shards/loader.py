"""Batches of samples, epoch by epoch: ordered, shared between ranks, read ahead, resumable at any batch."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, overload

import numpy as np

from symile_m3.shards.batch import BatchMaker, Made, Sample, T, check_fields
from symile_m3.shards.blend import OrderedSource
from symile_m3.shards.decode import LIMITS, DecodeLimits
from symile_m3.shards.order import WINDOW, Order, epoch_order, rank_share
from symile_m3.shards.reader import Source
from symile_m3.shards.workers import WorkerPool, run_in_thread

_STATE_VERSION = 1
_TELLINGS = 16  # times that a source is told what comes next, while a window of samples is read


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How samples are ordered, shared out and read.

    Attributes:
        batch_size: samples to a batch of one rank.
        seed: of the order, 0 .. 2**64 - 1.
        fields: the members to read, in the order they have in `Sample.fields`.
        decode: whether members are decoded; otherwise they stay bytes.
        rank, world: which of how many training processes.
        shuffle: whether each epoch has its own order; otherwise it is that of the shards.
        drop_last: whether a tail too short for a batch of every rank is dropped (training), or shared
            out so that every sample is read once (evaluation). See `rank_share`.
        workers: processes that read and decode; 0 is a thread of this process. Bytes that are neither
            decoded nor transformed are always read by a thread, which is faster than handing them over.
        prefetch: batches made ahead: by each worker, or by the thread.
        on_bad_sample: `stop` raises for a damaged sample; `skip` leaves it out, so that its batch is
            shorter, and counts it.
        window: samples among which the order is fully random. See `epoch_order`.
        limits: how large what is decoded may be.

    Raises:
        ValueError: a value is out of range.
    """

    batch_size: int
    seed: int
    fields: tuple[str, ...] = ("json", "txt")
    decode: bool = True
    rank: int = 0
    world: int = 1
    shuffle: bool = True
    drop_last: bool = True
    workers: int = 0
    prefetch: int = 2
    on_bad_sample: Literal["stop", "skip"] = "stop"
    window: int = WINDOW
    limits: DecodeLimits = LIMITS

    def __post_init__(self) -> None:
        for name in ("batch_size", "world", "prefetch", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0, not {self.workers}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be from 0 to {self.world - 1}, not {self.rank}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, not {self.seed}")
        if not isinstance(self.fields, tuple) or not self.fields or len(set(self.fields)) != len(self.fields):
            raise ValueError(f"fields must be a tuple of different members, at least one, not {self.fields!r}")
        if self.on_bad_sample not in ("stop", "skip"):
            raise ValueError(f"on_bad_sample must be stop or skip, not {self.on_bad_sample!r}")


class Loader(Generic[T]):
    """Iterates over one epoch at a time, and knows how to go on from any batch.

    `for batch in loader` gives the batches of the current epoch, then moves to the next one. An iteration
    broken off leaves the epoch as it is, and the next iteration begins it anew, unless `load_state_dict`
    says where. Which samples a batch holds depends on seed, epoch, rank and world, never on the number
    of workers.

    Worker processes start with the first iteration and stay for the next ones. They are spawned, so a
    script must guard its entry with `if __name__ == "__main__"`, and source and transform must be picklable.
    The arrays of a batch that a worker made share one block of memory, which is used again when none of them
    is left: copy what is to be kept for long.

    Args:
        source: the samples, such as a `DatasetReader`, a `ForeignReader` or a `Blend` of several.
        config: see `LoaderConfig`.
        transform: applied to (samples, epoch) where the batch is made; what it returns is the batch.

    Attributes:
        bad_samples: damaged samples left out so far, as `shard: sample key: reason`, and how often;
            `bad_samples.total()` is their number.

    Raises:
        ShardError: the first shard cannot be read, or lacks one of the fields. Iterating raises
            DamagedSampleError for a damaged sample unless told to skip, and ShardError for a shard that
            cannot be read or a batch without a whole sample.
    """

    @overload
    def __init__(
        self: Loader[list[Sample]], source: Source, config: LoaderConfig, *, transform: None = None
    ) -> None: ...

    @overload
    def __init__(
        self, source: Source, config: LoaderConfig, *, transform: Callable[[list[Sample], int], T]
    ) -> None: ...

    def __init__(
        self,
        source: Source,
        config: LoaderConfig,
        *,
        transform: Callable[[list[Sample], int], T] | None = None,
    ) -> None:
        check_fields(source, config.fields)
        self.source = source
        self.config = config
        self.bad_samples: Counter[str] = Counter()
        self._make: BatchMaker[T] = BatchMaker(
            source=source,
            fields=config.fields,
            decode=config.decode,
            skip_bad=config.on_bad_sample == "skip",
            transform=transform,
            limits=config.limits,
        )
        self._epoch = 0
        self._consumed = 0
        self._start = 0
        self._iteration = 0
        self._pool: WorkerPool | None = None

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        full, tail = divmod(self._epoch_size, self.config.batch_size * self.config.world)
        return full + (not self.config.drop_last and self.config.rank < tail)

    def __iter__(self) -> Iterator[T]:
        return self.part(0, 1)

    def part(self, part: int, parts: int) -> Iterator[T]:
        """Iterate as `iter(self)` does, but over every `parts`-th batch only, from batch `part` on, counted
        from where the epoch begins or is resumed: for processes that share the batches of one rank.

        Args:
            part: which of the shares, 0 .. parts-1.
            parts: how many there are.
        """
        config = self.config
        self._iteration += 1
        iteration, epoch, start = self._iteration, self._epoch, self._start
        self._start, self._consumed = 0, start
        order = self.order(epoch)
        shares = rank_share(
            order,
            config.rank,
            config.world,
            batch_size=config.batch_size,
            start=start,
            drop_last=config.drop_last,
        )
        tell = self._teller(order) if part == 0 else _tell_nobody
        tell(start)
        results = self._results([(share, epoch) for share in shares[part::parts]])
        try:
            for turn, made in enumerate(results):
                self.bad_samples.update(made.bad)
                step = turn * parts + part + 1
                self._consumed = min(len(order), start + step * config.batch_size * config.world)
                tell(self._consumed)
                yield made.batch
                if iteration != self._iteration:
                    raise RuntimeError("the loader has begun a newer iteration or moved to another epoch")
        finally:
            results.close()
        self._epoch, self._consumed = epoch + 1, 0

    @property
    def epoch(self) -> int:
        """The current epoch: the one being iterated over, or the one that comes next."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the one to iterate over. Where it already is, a loaded position is kept.

        Raises:
            ValueError: it is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}")
        if epoch != self._epoch:
            self._iteration += 1
            self._epoch, self._start, self._consumed = epoch, 0, 0

    def order(self, epoch: int) -> Order:
        """The numbers of all samples in the order of an epoch, before they are shared between ranks."""
        if isinstance(self.source, OrderedSource):
            config = self.config
            return self.source.epoch_order(config.seed, epoch, window=config.window, shuffle=config.shuffle)
        if not self.config.shuffle:
            return np.arange(len(self.source), dtype=np.int64)
        return epoch_order(self.source.shard_sizes, self.config.seed, epoch, window=self.config.window)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, after the last batch it gave; plain values, the same on every rank.

        `consumed` counts the samples of the epoch that all ranks together have been given.
        """
        return {
            "version": _STATE_VERSION,
            "epoch": self._epoch,
            "consumed": self._consumed,
        } | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, with the next iteration, behind the last batch of a saved state.

        Batch size, ranks and workers may differ from those of the run that saved it.

        Raises:
            ValueError: the state is of another version, dataset, seed or order, or is not a state.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"loader state of version {state.get('version')!r}, not {_STATE_VERSION}")
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise ValueError(f"the loader state has {name} {state.get(name)!r}, this loader {own!r}")
        epoch, consumed = state.get("epoch"), state.get("consumed")
        if type(epoch) is not int or type(consumed) is not int:
            raise ValueError("the loader state lacks epoch or consumed")
        if epoch < 0 or not 0 <= consumed <= self._epoch_size:
            raise ValueError(f"the loader state stands at sample {consumed} of epoch {epoch}")
        self._iteration += 1
        self._epoch, self._start, self._consumed = epoch, consumed, consumed

    def close(self) -> None:
        """End the worker processes. They also end with the loader and with the program."""
        if self._pool is not None:
            self._pool.close()

    @property
    def _epoch_size(self) -> int:
        return self.source.epoch_size if isinstance(self.source, OrderedSource) else len(self.source)

    def _identity(self) -> dict[str, Any]:
        """What the order depends on: states are exchangeable where these agree."""
        shuffle = self.config.shuffle
        return {
            "fingerprint": self.source.fingerprint,
            "samples": self._epoch_size,
            "shuffle": shuffle,
            "seed": self.config.seed if shuffle else None,
            "window": self.config.window if shuffle else None,
        }

    def _teller(self, order: Order) -> Callable[[int], None]:
        """Tells the source, where it wants to know, which samples come next: told by a loader how many of an
        order have been consumed, at most once a batch, and `_TELLINGS` times a window."""
        prefetch = getattr(self.source, "prefetch", None)
        if prefetch is None:
            return _tell_nobody
        window = self.config.window
        due = 0

        def tell(consumed: int) -> None:
            nonlocal due
            if due <= consumed < len(order):
                due = consumed + max(1, window // _TELLINGS)
                prefetch(order[consumed : consumed + window])

        return tell

    def _results(self, tasks: list[tuple[Order, int]]) -> Generator[Made[T], None, None]:
        if self.config.workers == 0 or not self._make.computes:
            return run_in_thread(self._make, tasks, self.config.prefetch)
        if self._pool is None or self._pool.closed:
            self._pool = WorkerPool(self._make, self.config.workers)
            weakref.finalize(self, self._pool.close)
        return self._pool.run(tasks, self.config.prefetch)


def _tell_nobody(consumed: int) -> None:
    """For sources that fetch nothing ahead."""
