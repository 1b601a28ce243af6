"""Where a run computes: the device of this process, and the processes of `torchrun` that share its batches.

Lightning Fabric sets up devices, process group (nccl on GPUs, gloo on CPUs), DistributedDataParallel and precision.
Without `torchrun` a run has one process, on a GPU where there is one.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from symile_m3.errors import SymileM3Error, UsageError

T = TypeVar("T")

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}
_PATIENCE = timedelta(hours=12)  # what processes wait for each other: one makes the features of all
_FAREWELL_S = 10  # what a process that ends waits for its collectives, which one that has failed may never join


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run computes.

    Attributes:
        fabric: Lightning's, launched.
        rank, world: which of how many processes this is.
        device: of this process.
        group: the processes that share a batch; None for one.
    """

    fabric: Any
    rank: int
    world: int
    device: torch.device
    group: dist.ProcessGroup | None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def by_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, for all of them; it is done there only.

        Raises:
            SymileM3Error: what it raised there, in every process.
        """
        if self.world == 1:
            return work()
        answer: tuple[T | None, SymileM3Error | None] = (None, None)
        if self.first:
            try:
                answer = work(), None
            except SymileM3Error as error:
                answer = None, error
        result, failure = self.fabric.broadcast(answer)
        if failure is not None:
            raise failure
        done: T = result
        return done

    def fewest(self, rows: int) -> int:
        """The smallest of the numbers that the processes have."""
        if self.world == 1:
            return rows
        number = torch.tensor(rows, device=self.device)
        dist.all_reduce(number, dist.ReduceOp.MIN, group=self.group)
        return int(number)

    def set_up(self, towers: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Move both to the device, and let the processes share the gradients."""
        pair: tuple[nn.Module, torch.optim.Optimizer] = self.fabric.setup(towers, optimizer)
        return pair

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, the mean over the processes."""
        self.fabric.backward(loss)

    def alone(self, towers: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[Any]:
        """While it lasts, gradients are added up in each process and not yet shared."""
        context: contextlib.AbstractContextManager[Any] = self.fabric.no_backward_sync(
            towers, enabled=enabled and self.world > 1
        )
        return context

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Dropout and noise know no generator: while it lasts, they draw by this seed and nothing else changes."""
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices, device_type="cuda"):
            torch.manual_seed(seed)
            yield


def open_place(precision: str = "32") -> Place:
    """Join the processes that `torchrun` has started, or be the only one.

    Raises:
        UsageError: an unknown precision, or more processes on this machine than GPUs.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision}: unknown; known: {', '.join(PRECISIONS)}")
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if not dist.is_torchelastic_launched():
        fabric = Fabric(
            accelerator=accelerator, devices=1, precision=PRECISIONS[precision], plugins=[LightningEnvironment()]
        )
    else:
        here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        if accelerator == "cuda" and here > torch.cuda.device_count():
            raise UsageError(
                f"torchrun has started {here} processes on a machine with {torch.cuda.device_count()} GPUs; "
                f"give --nproc-per-node {torch.cuda.device_count()}, or CUDA_VISIBLE_DEVICES= for the CPU"
            )
        # Embeddings of missing modalities get no gradient where nothing is missing.
        strategy = DDPStrategy(find_unused_parameters=True, timeout=_PATIENCE)
        fabric = Fabric(
            accelerator=accelerator,
            devices=here,
            num_nodes=world // here,
            strategy=strategy,
            precision=PRECISIONS[precision],
        )
    fabric.launch()
    if fabric.world_size > 1 and fabric.device.type == "cpu":
        _leave_at_exit()
    return Place(
        fabric=fabric,
        rank=fabric.global_rank,
        world=fabric.world_size,
        device=fabric.device,
        group=dist.group.WORLD if fabric.world_size > 1 else None,
    )


@cache
def _leave_at_exit() -> None:
    """Leave the process group before the interpreter ends, as Fabric does where the group is one of GPUs.

    A thread of gloo that lets go of its last tensor while the interpreter ends would abort the process, "terminate
    called without an active exception" (github.com/pytorch/pytorch/issues/190489); leaving waits for these threads.
    """
    ending = threading.Event()

    def leave() -> None:
        ending.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
        gc.collect()  # the group ends with what refers to it

    # Begun here: while the interpreter ends, Python 3.12 starts no more threads.
    leaving = threading.Thread(target=leave, name="leave-process-group", daemon=True)
    leaving.start()

    def wait_for_it() -> None:
        ending.set()
        leaving.join(_FAREWELL_S)

    atexit.register(wait_for_it)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU, or of this machine, does not suffice."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        said == "could not create a primitive"  # of a convolution on a CPU, which oneDNN computes
        or any(words in said for words in ("can't allocate memory", "not enough memory", "out of memory"))
    )
