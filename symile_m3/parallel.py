"""Independent tasks over worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Generic, TypeVar

from symile_m3.errors import SymileM3Error

T = TypeVar("T")
R = TypeVar("R")

DIED = "a worker process died, perhaps for want of memory; run the same command again, with fewer --workers"
DEATHS_IN_A_ROW = 3  # worker processes dead one after the other, with no task done in between


def available_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome(Generic[T, R]):
    """What became of a task.

    Attributes:
        task: as it was given.
        result: what the function returned; None where it failed.
        error: why it failed, in one line; its notes hold the traceback.
        died: the worker process ended during the task, which need not be the one that ended it.
    """

    task: T
    result: R | None = None
    error: SymileM3Error | None = None
    died: bool = False


def attempt(function: Callable[[T], R], task: T) -> Outcome[T, R]:
    """Run a task; an error of whatever kind becomes a part of the outcome."""
    try:
        return Outcome(task=task, result=function(task))
    except Exception as error:
        known = error if isinstance(error, SymileM3Error) else SymileM3Error(f"{type(error).__name__}: {error}")
        known.add_note(traceback.format_exc())
        return Outcome(task=task, error=known.with_traceback(None))


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and ends the workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # A parent killed by force ends nobody: its workers would go on writing, and then wait for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes: at the end of the block they end what they are at; Ctrl-C ends them at once."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield executor
    except (KeyboardInterrupt, GeneratorExit):
        for process in list((executor._processes or {}).values()):
            process.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(executor: ProcessPoolExecutor, function: Callable[[T], R], task: T) -> Future[R]:
    """Submitting may start a worker, which inherits the mask: Ctrl-C cannot reach it before it has learnt to
    ignore it. (Starting the resource tracker would unblock the signal.)"""
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(function, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_parallel(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Generator[R, None, None]:
    """Results of `function` over `tasks`, in order of completion.

    With one worker everything runs in this process. A task that fails raises here, after the tasks under
    way have ended, so that what they made is kept; Ctrl-C ends the workers at once.

    Args:
        function: a module-level function; it and its results are picklable.

    Raises:
        SymileM3Error: a worker process died.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    pending: set[Future[R]] = set()
    try:
        with _pool(min(workers, len(tasks))) as executor:
            for task in tasks:
                pending.add(_submit(executor, function, task))
                if len(pending) < 2 * workers:
                    continue
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise SymileM3Error(DIED) from error


def attempt_parallel(
    function: Callable[[T], R], tasks: Sequence[T], workers: int, *, apart: bool = False
) -> Generator[Outcome[T, R], None, None]:
    """The outcome of every task, in order of completion: one that fails stops no other.

    When a worker process dies, the tasks submitted with it have died too as far as can be told, and the
    rest go on in new processes.

    Args:
        function: a module-level function; it and its results are picklable.
        apart: run one task at a time, never in this process, so that one that kills its process is known
            for it and takes nothing along.

    Raises:
        SymileM3Error: worker processes die one after the other.
    """
    if not apart and (workers <= 1 or len(tasks) <= 1):
        yield from (attempt(function, task) for task in tasks)
        return
    limit = 1 if apart else 2 * workers
    waiting = deque(tasks)
    deaths = 0  # since a task was done
    while waiting:
        pending: dict[Future[Outcome[T, R]], T] = {}
        broken = False
        with _pool(min(limit, workers, len(waiting))) as executor:
            while pending or (waiting and not broken):
                while waiting and not broken and len(pending) < limit:
                    try:
                        pending[_submit(executor, _Attempt(function), waiting[0])] = waiting[0]
                        waiting.popleft()
                    except BrokenProcessPool:
                        broken = True
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    task = pending.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        broken = True
                        yield Outcome(task=task, error=SymileM3Error(DIED), died=True)
                    else:
                        deaths = 0
                        yield future.result()
        deaths += broken
        if deaths >= DEATHS_IN_A_ROW:
            raise SymileM3Error(DIED)


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[T, R]):
    """`attempt` of one function; picklable."""

    function: Callable[[T], R]

    def __call__(self, task: T) -> Outcome[T, R]:
        return attempt(self.function, task)
