"""A loader as a PyTorch dataset, for those who read through `torch.utils.data.DataLoader`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from symile_m3.shards.batch import Sample
from symile_m3.shards.errors import DamagedSampleError, ShardError
from symile_m3.shards.loader import Loader, LoaderConfig
from symile_m3.shards.reader import Source

T = TypeVar("T")

_MAX_WORKERS = 256
_log = logging.getLogger(__name__)


class StreamingDataset(IterableDataset[T], Generic[T]):
    """The batches of a `Loader` as an `IterableDataset`.

        dataset = StreamingDataset(DatasetReader(root, "train"), LoaderConfig(batch_size=256, seed=0))
        for batch in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2):

    Items are whole batches, so the `DataLoader` takes `batch_size=None`. Its workers share the batches of an
    epoch in turn, worker w taking each W-th from the w-th on, so that with any number of workers the same
    batches come in the same order as from a `Loader`.

    The epoch moves on once all its batches have been made, and `set_epoch` sets it, for workers that are kept
    (`persistent_workers`) too. An epoch left unfinished begins anew, behind a loaded position if there is
    one. Workers run ahead, so a training loop that leaves an epoch near its end should call `set_epoch`.

    As it does with all it is given, a `DataLoader` makes arrays to tensors and tuples to lists, unless it is
    given a `collate_fn` of its own.

    Args:
        source, config, transform: as for a `Loader`. `config.workers` is used only without workers of a
            `DataLoader`.
        rank, world: which of how many training processes; by default those of `torch.distributed` where it
            is initialised and `config.world` is 1, else those of `config`.

    Raises:
        ShardError: as for a `Loader`.
        ValueError: rank and world do not fit, or only one is given.
    """

    def __init__(
        self,
        source: Source,
        config: LoaderConfig,
        *,
        transform: Callable[[list[Sample], int], T] | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        if (rank is None) != (world is None):
            raise ValueError("give both rank and world, or none")
        if rank is not None and world is not None:
            config = replace(config, rank=rank, world=world)
        elif config.world == 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
            config = replace(config, rank=torch.distributed.get_rank(), world=torch.distributed.get_world_size())
        self.config = config
        self._source = source
        self._transform = transform
        self._loader = self._make_loader(config.workers)
        self._iterations = 0
        # What processes of a DataLoader must know of each other lies in memory they share.
        self._place = _shared_zeros(3)  # epoch; epoch resumed, and samples of it consumed
        self._done = _shared_zeros(_MAX_WORKERS)  # last iteration of each worker
        self._bad = _shared_zeros(_MAX_WORKERS)  # damaged samples it left out

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return len(self._loader)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loader"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loader = self._make_loader(self.config.workers)

    def __iter__(self) -> Iterator[T]:
        self._iterations += 1
        info = get_worker_info()
        return self._alone() if info is None else self._shared(info.id, info.num_workers, info.seed - info.id)

    @property
    def epoch(self) -> int:
        """The epoch that comes next or is being read, which workers may have left already."""
        return int(self._place[0])

    @property
    def bad_sample_count(self) -> int:
        """Damaged samples left out so far, here and in workers; each is named in a warning of the log."""
        return self._loader.bad_samples.total() + int(self._bad.sum())

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the one to iterate over. Where it already is, a loaded position is kept.

        Raises:
            ValueError: it is negative.
        """
        self._loader.set_epoch(epoch)
        if epoch != self.epoch:
            self._place.copy_(torch.tensor([epoch, -1, 0]))

    def state_dict(self, *, epoch: int | None = None, batches: int | None = None) -> dict[str, Any]:
        """Where the dataset stands, as `Loader.state_dict` says it.

        Args:
            epoch, batches: the epoch, and how many of its batches have been taken since it began or was
                resumed. Needed where a `DataLoader` has workers, which only the training loop can see
                through; else they are known.

        Raises:
            ValueError: the epoch does not have so many batches, or only one of the two is given.
            RuntimeError: a worker process is asked, which knows only its share.
        """
        if get_worker_info() is not None:
            raise RuntimeError("a worker knows only its share: use num_workers=0, or state_dict(epoch=, batches=)")
        if epoch is None and batches is None:
            return self._loader.state_dict()
        if epoch is None or batches is None or epoch < 0:
            raise ValueError(f"give both an epoch and a number of batches, not {epoch} and {batches}")
        step = self.config.batch_size * self.config.world
        start, size = self._start(epoch), int(self._loader.state_dict()["samples"])
        if not 0 <= batches <= -(-(size - start) // step):
            raise ValueError(f"{batches} batches cannot have been taken of the {size - start} samples from {start} on")
        return self._loader.state_dict() | {"epoch": epoch, "consumed": min(size, start + batches * step)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, with the next iteration, behind the last batch of a saved state.

        Raises:
            ValueError: as `Loader.load_state_dict`.
        """
        self._loader.load_state_dict(state)
        self._place.copy_(torch.tensor([state["epoch"], state["epoch"], state["consumed"]]))

    def close(self) -> None:
        """End the processes of the loader, where it has its own."""
        self._loader.close()

    def _make_loader(self, workers: int) -> Loader[Any]:
        config = replace(self.config, workers=workers)
        if self._transform is None:
            return Loader(self._source, config)
        return Loader(self._source, config, transform=self._transform)

    def _start(self, epoch: int) -> int:
        """Samples of the epoch that were consumed before it was resumed."""
        return int(self._place[2]) if int(self._place[1]) == epoch else 0

    def _alone(self) -> Iterator[T]:
        loader, epoch = self._loader, self.epoch
        loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "consumed": self._start(epoch)})
        named = Counter(loader.bad_samples)
        for batch in loader:
            _report(loader, named)
            yield batch
        self._place[0] = epoch + 1

    def _shared(self, worker: int, workers: int, base_seed: int) -> Iterator[T]:
        if workers > _MAX_WORKERS:
            raise ValueError(f"num_workers must be at most {_MAX_WORKERS}, not {workers}")
        epoch = self.epoch
        # The same number in all workers of one iteration, and another in each iteration.
        iteration = (base_seed + 1_000_003 * self._iterations) % (1 << 62) + 1
        loader = self._make_loader(0)
        loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "consumed": self._start(epoch)})
        named: Counter[str] = Counter()
        try:
            for batch in loader.part(worker, workers):
                self._bad[worker] += _report(loader, named)
                yield batch
        except DamagedSampleError as error:
            raise ShardError(str(error)) from error  # a DataLoader makes errors anew, from their text alone
        self._done[worker] = iteration
        if bool((self._done[:workers] == iteration).all()):
            self._place[0] = epoch + 1


def _shared_zeros(n: int) -> Tensor:
    zeros = torch.zeros(n, dtype=torch.int64)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros


def _report(loader: Loader[Any], named: Counter[str]) -> int:
    """Name the damaged samples left out since the last call, and count them."""
    new = loader.bad_samples - named
    for sample in new:
        _log.warning("left out: %s", sample)
    named.update(new)
    return new.total()
