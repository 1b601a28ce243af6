"""Runs side by side, each in a process of its own: one that fails or is killed is named, and the rest goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from symile_m3.comparison.worker import Job, tidy, work
from symile_m3.errors import UsageError
from symile_m3.parallel import available_cpus
from symile_m3.progress import Progress, Task
from symile_m3.rundir import RunSummary, read_summary

_PATIENCE_S = 30.0  # for a worker to save what it is at
_IMPORTED = (
    *("symile_m3.comparison.worker", "symile_m3.curves"),
    *("lightning_fabric", "matplotlib.figure", "torch._dynamo"),
)
"""What every worker needs, some of it only once it trains: imported by the server, so that no worker has to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """How runs are spread over this machine; none of it changes what they come to.

    Attributes:
        jobs: runs at a time; by default as many as the CPUs have room for.
        threads: of each. Sums are rounded in another order with another number of threads, so this is the one
            figure here that shows in the last digits of a loss.
    """

    jobs: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: at least one")
        if self.threads < 1:
            raise UsageError(f"--threads {self.threads}: at least one")

    @property
    def at_once(self) -> int:
        """Runs at a time."""
        return self.jobs or max(1, available_cpus() // self.threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What became of a job.

    Attributes:
        job: as it was given.
        summary: of the finished run; None where it failed.
        error: why it failed, in one line.
        killed: it failed by no fault of the recipe: its process ended without a word, or for want of memory or disk.
    """

    job: Job
    summary: RunSummary | None = None
    error: str = ""
    killed: bool = False


@dataclass(kw_only=True, slots=True)
class _Worker:
    job: Job
    process: BaseProcess
    steps: int = 0  # that it has told of
    ended: Ended | None = field(default=None)


def run_jobs(label: str, jobs: Sequence[Job], config: JobConfig, progress: Progress) -> list[Ended]:
    """Train every run that is not finished; what became of each, in the order given.

    Ctrl-C lets the runs under way save, and ends them; the same call then goes on with them.

    Args:
        label: of the one bar for all of them, which counts steps.

    Raises:
        TrainingError: the summary of a finished run is unreadable.
    """
    ended: dict[int, Ended] = {}
    for i, job in enumerate(jobs):
        if job.finished:
            ended[i] = Ended(job=job, summary=read_summary(job.run))
            tidy(job)
    waiting = deque(i for i in range(len(jobs)) if i not in ended)
    total = sum(job.config.steps for job in jobs)
    done = total - sum(jobs[i].config.steps for i in waiting)
    with progress.task(label, total, "steps", done=done) as task, _workers() as workers:
        numbers: dict[Connection, int] = {}
        while waiting or workers:
            while waiting and len(workers) < config.at_once:
                i = waiting.popleft()
                connection, worker = _start(jobs[i], config.threads)
                workers[connection], numbers[connection] = worker, i
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                if not _heard(ready, workers[ready], task, progress):
                    end = _settled(workers.pop(ready))
                    ready.close()
                    ended[numbers.pop(ready)] = end
                    note = f"{len(ended)} of {len(jobs)} runs"
                    if end.error:
                        progress.say(f"{end.job.name}: {end.error}")
                    task.advance(0, note)
    return [ended[i] for i in range(len(jobs))]


def _start(job: Job, threads: int) -> tuple[Connection, _Worker]:
    """A worker on the job.

    Workers are forks of a server that has imported what they need and done nothing else. It and they inherit the
    mask: Ctrl-C cannot reach them before they have learnt to ignore it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED])
    resource_tracker.ensure_running()  # starting it would unblock the signals
    reader, writer = context.Pipe(duplex=False)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = context.Process(target=work, args=(job, threads, writer), name=job.name, daemon=True)
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    writer.close()  # the worker has its own: its end is the end of what can be read
    return reader, _Worker(job=job, process=process)


def _heard(connection: Connection, worker: _Worker, task: Task, progress: Progress) -> bool:
    """Take one message of a worker; False where it has ended."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        # What a run that failed had done counts as done with: the bar is to reach its end.
        task.advance(worker.job.config.steps - worker.steps)
        return False
    if message[0] == "steps":
        worker.steps += message[1]
        task.advance(message[1])
    elif message[0] == "say":
        progress.say(f"{worker.job.name}: {message[1]}")
    elif message[0] == "done":
        worker.ended = Ended(job=worker.job, summary=message[1])
    else:
        worker.ended = Ended(job=worker.job, error=message[1], killed=message[0] == "starved")
    return True


def _settled(worker: _Worker) -> Ended:
    worker.process.join()
    if worker.ended is not None:
        return worker.ended
    code = worker.process.exitcode or 0
    how = f"was killed by signal {-code}, perhaps for want of memory" if code < 0 else f"exited with status {code}"
    return Ended(job=worker.job, error=f"its process {how}", killed=True)


@contextlib.contextmanager
def _workers() -> Iterator[dict[Connection, _Worker]]:
    """The workers under way; whatever ends the block early lets them save and ends them."""
    workers: dict[Connection, _Worker] = {}
    try:
        yield workers
    finally:
        left = [worker.process for worker in workers.values()]
        try:
            for process in left:
                process.terminate()
            deadline = time.monotonic() + _PATIENCE_S
            for process in left:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in left:
                process.kill()
