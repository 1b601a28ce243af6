"""One run in a process of its own: what it is, and the messages that it sends while it trains."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch

from symile_m3.checkpoints import BEST, FILES
from symile_m3.errors import SymileM3Error
from symile_m3.modalities.declaration import DataConfig, Declaration, DeclaredConfig
from symile_m3.modalities.training import train_declared
from symile_m3.portable import BESIDE, MODEL
from symile_m3.processes import is_out_of_memory
from symile_m3.progress import Progress, Task
from symile_m3.recipe import RunOptions, TrainConfig
from symile_m3.rundir import RunSummary, read_summary
from symile_m3.shards import write_text
from symile_m3.train import train

LOCK = ".lock"
_TOLD_EVERY_S = 0.5

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

Message = (
    tuple[Literal["steps"], int] | tuple[Literal["say", "failed", "starved"], str] | tuple[Literal["done"], RunSummary]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run to be trained.

    Attributes:
        name: for people, such as `symile, langs10, seed 0`.
        data: directory or URL of its dataset, with its features; of declared modalities, where the samples are.
        directory: where `train` makes a subdirectory named after the objective.
        objective: its name.
        config: its recipe, with steps and not epochs.
        keep_weights: whether the best weights are kept once it is finished; those to go on from never are.
    """

    name: str
    data: Path | str | DataConfig
    directory: Path
    objective: str
    config: TrainConfig | DeclaredConfig
    keep_weights: bool = True

    @property
    def run(self) -> Path:
        """The directory of the run itself."""
        return self.directory / self.objective

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.run / "summary.json").exists()


def work(job: Job, threads: int, connection: Connection) -> None:
    """Train the run of a job, or go on with it; the body of a worker process.

    What ends it early by SIGTERM, or by the end of the process that started it, ends it at a save.

    Args:
        threads: of PyTorch.
        connection: takes steps and lines, and at the end the summary, or why there is none: "failed" where that is
            the run's own doing, "starved" where the machine lacked something.
    """
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and ends its workers
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()
        torch.set_num_threads(threads)
        try:
            connection.send(_outcome(job, connection))
        except BrokenPipeError:  # the parent has ended
            os._exit(1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:
        os._exit(1)


def _outcome(job: Job, connection: Connection) -> tuple[str, RunSummary | str]:
    """What is said of a job at its end, once that is reached."""
    try:
        with _locked(job.directory):
            if job.finished:  # by the process that had the lock
                summary = read_summary(job.run)
            else:
                [summary] = _train(job, _Telling(connection))
            tidy(job)
        return "done", summary
    except BrokenPipeError:
        raise
    except Exception as error:
        if wanting := _wanting(error, job):
            return "starved", wanting
        if isinstance(error, SymileM3Error):
            return "failed", str(error)
        trace = job.directory / "error.txt"
        write_text(trace, traceback.format_exc())
        return "failed", f"{type(error).__name__}: {error}; {trace} has the traceback"


def _train(job: Job, progress: Progress) -> list[RunSummary]:
    options = RunOptions(portable=job.keep_weights)
    if isinstance(job.data, DataConfig):
        assert isinstance(job.config, DeclaredConfig)
        declaration = Declaration(data=job.data, config=job.config)
        return train_declared(
            declaration, job.directory, objectives=[job.objective], options=options, progress=progress
        )
    assert isinstance(job.config, TrainConfig)
    return train(
        job.data, job.directory, objectives=[job.objective], config=job.config, options=options, progress=progress
    )


def _wanting(error: BaseException | None, job: Job) -> str:
    """What to do where an error, or one that it came from, says that memory or the disk do not suffice; else nothing.

    Such an error depends on what else runs on the machine, and says nothing of the recipe.
    """
    while error is not None:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            config = job.config
            samples, dim = config.batch_size, config.dim if isinstance(config, DeclaredConfig) else config.model.dim
            return (
                f"out of memory with {samples} samples at a time and D {dim}; give fewer --jobs, and run the same "
                "command again"
            )
        if isinstance(error, OSError) and error.errno in _DISK:
            return f"{job.directory}: {error.strerror}; make room, and run the same command again"
        error = error.__cause__ or error.__context__
    return ""


def tidy(job: Job) -> None:
    """Remove the checkpoints that a finished run has no more use for, and what only goes with the best of them."""
    unused = [name for name in FILES if name != BEST] if job.keep_weights else [*FILES, MODEL, *BESIDE]
    for name in unused:
        (job.run / name).unlink(missing_ok=True)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough, and a second would escape what handles the first
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Wait until no other process trains what is in the directory: of a killed comparison, or of one beside this."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Telling:
    """Progress that goes to another process, a few times a second at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        task = _TellingTask(self, done if unit == "steps" else 0, counts=unit == "steps")
        yield task
        task.tell()

    def say(self, line: str) -> None:
        self.send(("say", line))

    def send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise KeyboardInterrupt from error  # nobody listens any more: save, and end


class _TellingTask:
    def __init__(self, owner: _Telling, steps: int, *, counts: bool) -> None:
        self._owner = owner
        self._untold = steps
        self._counts = counts
        self._last = 0.0

    def advance(self, count: int = 1, note: str = "") -> None:
        self._untold += count
        if time.monotonic() - self._last >= _TOLD_EVERY_S:
            self.tell()

    def tell(self) -> None:
        if self._counts and self._untold:
            self._owner.send(("steps", self._untold))
            self._untold = 0
        self._last = time.monotonic()
