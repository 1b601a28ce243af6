"""Work done ahead, in a thread or in processes, whose results come in the order of the tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from symile_m3.shards.errors import ShardError
from symile_m3.shards.shared import Parcel, Receiver, Sender

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE_S = 2.0


def run_in_thread(
    function: Callable[[Task], Result], tasks: Sequence[Task], ahead: int
) -> Generator[Result, None, None]:
    """Yield `function(task)` for each task in order, made in a background thread up to `ahead` in advance.

    What `function` raises is raised here, in its turn. The thread ends with the iterator.
    """
    results: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
    room = threading.Semaphore(ahead)
    stop = threading.Event()

    def produce() -> None:
        for task in tasks:
            room.acquire()
            if stop.is_set():
                return
            try:
                results.put((function(task), None))
            except BaseException as error:
                results.put((None, error))
                return

    thread = threading.Thread(target=produce, name="symile-m3-prefetch", daemon=True)
    thread.start()
    try:
        for _ in tasks:
            result, error = results.get()
            if error is not None:
                raise error
            room.release()
            yield result  # type: ignore[misc]
    finally:
        stop.set()
        room.release()
        thread.join()


class WorkerPool:
    """Processes that each hold one function and apply it to tasks.

    Task k goes to worker k mod `workers`, and results are taken in the order of the tasks, so neither the
    number of workers nor their pace shows in what comes out. Workers are spawned, not forked: the parent
    may have threads and a GPU. They ignore Ctrl-C, which is the parent's to handle, and end when the parent
    closes the pool, exits, or dies. The arrays of a large result lie together in one block of memory shared
    with the worker, until none of them is left.

    Args:
        function: applied to each task; must be picklable.
        workers: number of processes, at least 1.

    Raises:
        ValueError: the function cannot be pickled.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        try:
            job = pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"cannot be sent to worker processes: {error} (use functions and classes defined at the top "
                "level of a module, or workers=0)"
            ) from error
        self._run = 0
        self._processes: list[BaseProcess] = []
        self._tasks: list[Connection] = []
        self._results: list[Receiver] = []
        context = multiprocessing.get_context("spawn")
        # A child inherits the mask, so Ctrl-C cannot reach it before it has learnt to ignore it. The first
        # start of a process would also start the resource tracker, which unblocks the signal.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for w in range(workers):
                task_end, tasks = context.Pipe(duplex=False)
                results, result_end = context.Pipe(duplex=True)
                self._tasks.append(tasks)
                self._results.append(Receiver(results))
                process = context.Process(
                    target=_work, args=(job, task_end, result_end), name=f"symile-m3-worker-{w}", daemon=True
                )
                process.start()
                self._processes.append(process)
                task_end.close()
                result_end.close()
        except BaseException:
            self.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def closed(self) -> bool:
        """Whether the workers are gone."""
        return not self._tasks

    def run(self, tasks: Sequence[Any], ahead: int) -> Generator[Any, None, None]:
        """Yield the result of each task in order, with up to `ahead` tasks in advance for each worker.

        One run at a time: a new one puts an end to the one before. If anything is raised here, what the
        function raised or Ctrl-C, the pool is closed.

        Raises:
            ShardError: a worker died.
        """
        self._run += 1
        run, sent, workers = self._run, 0, len(self._tasks)
        for k in range(len(tasks)):
            if run != self._run or self.closed:
                raise RuntimeError("the workers have been closed or given to a newer iteration")
            try:
                while sent < min(len(tasks), k + ahead * workers):
                    self._send(sent % workers, run, tasks[sent])
                    sent += 1
                result = self._receive(k % workers, run)
            except BaseException:
                self.close()
                raise
            yield result

    def close(self) -> None:
        """End the workers: by closing their pipes, and by force those that do not heed it within seconds."""
        for tasks in self._tasks:
            tasks.close()
        for results in self._results:
            results.close()
        self._tasks, self._results = [], []
        for end in (None, BaseProcess.terminate, BaseProcess.kill):
            for process in self._processes:
                if end is not None and process.is_alive():
                    end(process)
            for process in self._processes:
                process.join(_PATIENCE_S)
        self._processes = []

    def _send(self, w: int, run: int, task: Any) -> None:
        message = (self._results[w].done(), run, task)
        try:
            self._tasks[w].send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:
            raise self._died(w) from None

    def _receive(self, w: int, run: int) -> Any:
        try:
            value, error, trace = self._results[w].receive(run)  # leaves out what is left of a run broken off
        except (EOFError, OSError):
            raise self._died(w) from None
        if error is not None:
            error.add_note(f"in worker process {w}:\n{trace}")
            raise error
        return value

    def _died(self, w: int) -> ShardError:
        self._processes[w].join(_PATIENCE_S)
        return ShardError(
            f"worker process {w} died (exit code {self._processes[w].exitcode}; -9 often means that memory "
            "ran out: use fewer workers or smaller batches)"
        )


def _work(job: bytes, tasks: Connection, results: Connection) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sender = Sender(results)
    inbox: queue.SimpleQueue[tuple[list[int], int, Any] | None] = queue.SimpleQueue()
    # Tasks are taken in all the time: were they left in the pipe while a result waits to be taken,
    # this process and its parent could wait for each other.
    threading.Thread(target=_listen, args=(tasks, inbox), daemon=True).start()
    function: Callable[[Any], Any] | None = None
    while (message := inbox.get()) is not None:
        done, run, task = message
        sender.release(done)
        try:
            if function is None:
                function = pickle.loads(job)
            parcel = sender.pack(run, (function(task), None, ""))
        except Exception as error:
            parcel = Parcel(run, body=_failure(error))
        try:
            sender.send(parcel)
        except OSError:
            return


def _listen(tasks: Connection, inbox: queue.SimpleQueue[tuple[list[int], int, Any] | None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pickle.loads(tasks.recv_bytes()))
    inbox.put(None)


def _failure(error: Exception) -> bytes:
    trace = traceback.format_exc()
    try:
        answer = pickle.dumps((None, error, trace))
        pickle.loads(answer)
    except Exception:  # not every exception survives pickling
        answer = pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return answer
