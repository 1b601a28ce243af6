"""From sample numbers to a batch: read, decode, set aside what is damaged, transform."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from symile_m3.shards.blend import Blend
from symile_m3.shards.decode import LIMITS, DecodeLimits, decode_member
from symile_m3.shards.errors import DamagedSampleError, ShardError
from symile_m3.shards.order import Order
from symile_m3.shards.reader import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as a loader gives it.

    Attributes:
        key: its key.
        index: its number in the split.
        fields: what each member holds, decoded, or its bytes.
    """

    key: str
    index: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """A batch, and the damaged samples that are missing from it.

    Attributes:
        batch: the samples, or what the transform made of them.
        bad: `shard: sample key: reason` of each sample left out.
    """

    batch: T
    bad: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchMaker(Generic[T]):
    """Makes batches; picklable where source and transform are.

    Attributes:
        source: where the samples lie.
        fields: members to read.
        decode: whether to decode them.
        skip_bad: whether damaged samples are left out instead of raised.
        transform: applied to (samples, epoch); None leaves the list of samples.
        limits: how large what is decoded may be.
    """

    source: Source
    fields: tuple[str, ...]
    decode: bool
    skip_bad: bool
    transform: Callable[[list[Sample], int], T] | None
    limits: DecodeLimits = LIMITS

    @property
    def computes(self) -> bool:
        """Whether there is more to do than to read."""
        return self.decode or self.transform is not None

    def __call__(self, task: tuple[Order, int]) -> Made[T]:
        """Make the batch of a task, which is (sample numbers, epoch).

        Raises:
            DamagedSampleError: a sample is damaged and `skip_bad` is off.
            ShardError: a shard cannot be read, or no sample of the batch is whole.
        """
        numbers, epoch = task
        prefetch = getattr(self.source, "prefetch", None)
        if prefetch is not None:
            prefetch(numbers)  # the shards of a remote dataset come several at a time
        samples: list[Sample] = []
        bad: list[str] = []
        for i in numbers.tolist():
            try:
                samples.append(self._sample(i))
            except DamagedSampleError as error:
                if not self.skip_bad:
                    raise
                bad.append(f"{error.shard}: sample {error.key}: {error.reason}")
        if not samples:
            raise ShardError(f"all {len(bad)} samples of a batch are damaged, the first: {bad[0]}")
        batch: Any = samples if self.transform is None else self.transform(samples, epoch)
        return Made(batch, tuple(bad))

    def _sample(self, i: int) -> Sample:
        members = self.source.read(i, self.fields)
        key = self.source.key(i)
        return Sample(key, i, self._decoded(members, i, key) if self.decode else members)

    def _decoded(self, members: Mapping[str, bytes], i: int, key: str) -> dict[str, Any]:
        fields = {}
        for member, data in members.items():
            try:
                fields[member] = decode_member(member, data, self.limits)
            except ValueError as error:
                raise DamagedSampleError(self.source.shard(i), key, f"{member}: {error}") from error
        return fields


def check_fields(source: Source, fields: Sequence[str]) -> None:
    """Read one sample, of each source of a blend, so that a member no shard has is refused before any
    worker starts.

    Raises:
        ShardError: there is no such member, or the shard cannot be read.
    """
    for each in source.sources if isinstance(source, Blend) else (source,):
        with contextlib.suppress(DamagedSampleError):  # damage is reported when its turn comes
            each.read(0, fields)
