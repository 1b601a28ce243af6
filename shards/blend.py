"""Several sources read as one, each with its share."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from symile_m3.shards.order import Order, epoch_order
from symile_m3.shards.reader import Source

_STREAM = 0xB1E0  # keeps this use of Philox apart from others under the same seed


@runtime_checkable
class OrderedSource(Source, Protocol):
    """A source that says itself which of its samples an epoch takes, and in which order.

    An epoch may take a sample several times, or not at all.
    """

    @property
    def epoch_size(self) -> int: ...

    def epoch_order(self, seed: int, epoch: int, *, window: int, shuffle: bool) -> Order: ...


class Blend:
    """Several sources as one, drawn from by weight.

    Every epoch takes the same number of samples from a source, its share of the epoch by weight, rounded so
    that the shares add up (largest remainders first). Each source is an endless row of passes over all its
    samples, each pass in an order of its own, and an epoch goes on in that row where the one before it ended.
    So a source smaller than its share repeats, one larger spreads over several epochs, and two samples of
    one source have never been taken more than one time more or less often than each other.

    Within an epoch the sources are mixed evenly, not by lot: of m samples of a source one falls into each
    m-th part of the epoch, at a random place of it. So any stretch of the epoch holds the shares by weight,
    give or take two samples for every source there is. Without shuffling, sources and samples come at even distances
    and in the order of their shards.

    The order is a pure function of (seed, epoch); each source is shuffled as `epoch_order` does, in windows
    of its own.

    Args:
        sources: at least one, none of them empty or a blend.
        weights: the share of each, positive; they need not add up to 1.
        epoch_size: samples to an epoch, or `first`: as many as can be had before a source repeats,
            or `all`: as many as it takes until every source has been read through.

    Raises:
        ValueError: an argument is not as said above, or `first` leaves an epoch without samples.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        *,
        epoch_size: int | Literal["first", "all"] = "first",
    ) -> None:
        if not sources or len(sources) != len(weights):
            raise ValueError(f"{len(sources)} sources and {len(weights)} weights: give each source one weight")
        if not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"weights must be positive, not {list(weights)}")
        if any(isinstance(source, OrderedSource) for source in sources):
            raise ValueError("a blend cannot be blended again (blend all sources at once)")
        if not all(len(source) for source in sources):
            raise ValueError("a source without samples cannot be blended")
        self.sources = tuple(sources)
        total = sum(Fraction(weight) for weight in weights)
        parts = [Fraction(weight) / total for weight in weights]
        size = _epoch_size(epoch_size, [len(source) for source in sources], parts)
        self._shares = _apportion(size, parts)
        self._ends = list(itertools.accumulate(len(source) for source in sources))
        identity = [[source.fingerprint, len(source)] for source in sources], list(map(float, weights)), size
        self._fingerprint = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the sources, their weights and the length of an epoch."""
        return self._fingerprint

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each shard of all sources, one source after the other."""
        return [size for source in self.sources for size in source.shard_sizes]

    @property
    def epoch_size(self) -> int:
        """Samples that an epoch takes."""
        return sum(self._shares)

    @property
    def shares(self) -> tuple[int, ...]:
        """Samples that an epoch takes from each source."""
        return tuple(self._shares)

    def __len__(self) -> int:
        """Number of different samples: those of all sources, numbered through."""
        return self._ends[-1]

    def source_of(self, i: int) -> int:
        """Which source sample `i` belongs to.

        Raises:
            IndexError: there is no such sample.
        """
        return self._locate(i)[0]

    def key(self, i: int) -> str:
        """The key of sample `i`, which two sources may use for different samples."""
        s, j = self._locate(i)
        return self.sources[s].key(j)

    def shard(self, i: int) -> str:
        """The shard that holds sample `i`."""
        s, j = self._locate(i)
        return self.sources[s].shard(j)

    def read(self, i: int, fields: Sequence[str] | None = None) -> dict[str, bytes]:
        """The members of sample `i`, as its source gives them."""
        s, j = self._locate(i)
        return self.sources[s].read(j, fields)

    def prefetch(self, numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Have those sources that can fetch their part of these samples ahead, each in this order."""
        fetching = [(s, source.prefetch) for s, source in enumerate(self.sources) if hasattr(source, "prefetch")]
        if not fetching:
            return
        numbers_N = np.asarray(numbers, np.int64)
        source_N = np.searchsorted(self._ends, numbers_N, side="right")
        for s, prefetch in fetching:
            own = numbers_N[source_N == s] - (self._ends[s] - len(self.sources[s]))
            if len(own):
                prefetch(own)

    def epoch_order(self, seed: int, epoch: int, *, window: int, shuffle: bool) -> Order:
        """The samples of an epoch in order, shape (epoch_size,).

        Raises:
            ValueError: an argument is out of range.
        """
        if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
            raise ValueError(f"seed and epoch must be from 0 to 2**64 - 1, not {seed} and {epoch}")
        draw = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, 0, 0, _STREAM])
        places: list[npt.NDArray[np.float64]] = []
        taken: list[Order] = []
        for s, (source, share) in enumerate(zip(self.sources, self._shares, strict=True)):
            if share == 0:
                continue
            raw = np.asarray(draw.random_raw(share), np.uint64)
            inside = (raw >> np.uint64(11)) * 2.0**-53 if shuffle else np.full(share, 0.5)
            places.append((np.arange(share) + inside) / share)
            first = self._ends[s] - len(source)
            taken.append(first + _draws(source, _source_seed(seed, s), epoch * share, share, window, shuffle))
        return np.concatenate(taken)[np.argsort(np.concatenate(places), kind="stable")]

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        s = bisect.bisect_right(self._ends, i)
        return s, i - self._ends[s] + len(self.sources[s])


def _draws(source: Source, seed: int, start: int, count: int, window: int, shuffle: bool) -> Order:
    """Samples `start` .. `start + count` of the endless row of passes over a source."""
    n = len(source)
    taken: list[Order] = []
    for number in range(start // n, (start + count - 1) // n + 1):
        if shuffle:
            order = epoch_order(source.shard_sizes, seed, number, window=window)
        else:
            order = np.arange(n, dtype=np.int64)
        taken.append(order[max(0, start - number * n) : start + count - number * n])
    return np.concatenate(taken)


def _epoch_size(wish: int | Literal["first", "all"], sizes: Sequence[int], parts: Sequence[Fraction]) -> int:
    lengths = [size / part for size, part in zip(sizes, parts, strict=True)]
    if wish == "all":
        return -(-max(lengths) // 1)
    size = min(lengths) // 1 if wish == "first" else wish
    if type(size) is not int or size < 1:
        raise ValueError(f"epoch_size must be first, all or a positive number, not {wish!r} ({size} samples)")
    return size


def _apportion(total: int, parts: Sequence[Fraction]) -> list[int]:
    """Whole numbers that add up to `total`, each within 1 of its part of it."""
    shares = [total * part // 1 for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda s: shares[s] - total * parts[s])
    for s in by_remainder[: total - sum(shares)]:
        shares[s] += 1
    return shares


def _source_seed(seed: int, s: int) -> int:
    """A seed of its own for each source, so that sources of one size do not run in step."""
    digest = hashlib.blake2b(f"{seed} {s}".encode(), digest_size=8, person=b"symile-blend").digest()
    return int.from_bytes(digest, "little")
