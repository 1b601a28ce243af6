"""Independent tasks over worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from symile_m3.errors import SymileM3Error

T = TypeVar("T")
R = TypeVar("R")


def available_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and ends the workers


def run_parallel(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
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
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_ignore_interrupts)
    queue = iter(tasks)
    pending: set[Future[R]] = set()
    try:
        for task in queue:
            pending.add(executor.submit(function, task))
            if len(pending) < 2 * workers:
                continue
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        executor.shutdown()
    except BrokenProcessPool as error:
        raise SymileM3Error(
            "a worker process died, perhaps for want of memory; run the same command again, with fewer --workers"
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        for process in list((executor._processes or {}).values()):
            process.kill()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
