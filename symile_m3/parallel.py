"""Independent tasks over worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import TypeVar

from symile_m3.errors import SymileM3Error

T = TypeVar("T")
R = TypeVar("R")


def available_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_start_worker)
    queue = iter(tasks)
    pending: set[Future[R]] = set()
    # The first task starts the workers, and they inherit the mask: Ctrl-C cannot reach them before they have
    # learnt to ignore it. (Starting the resource tracker would unblock the signal.)
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pending.add(executor.submit(function, next(queue)))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
