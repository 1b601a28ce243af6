"""Where the tasks of a build run: processes of this machine, or a Ray cluster; and what becomes of failures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from symile_m3.errors import PlanError, ServiceError, UsageError
from symile_m3.parallel import Outcome, attempt_parallel, available_cpus

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray")
FAILURES_IN_A_ROW = 20  # failures one after the other, with no task done in between


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkConfig:
    """How a build is worked off; none of it shapes a byte of the dataset.

    Attributes:
        engine: "local" (processes of this machine) or "ray" (the cluster that RAY_ADDRESS names; without
            it, one that is started on this machine for the build).
        workers: tasks at a time; by default one a CPU of the machine or the cluster.
        retries: attempts that a failed shard gets after the first, once all others have been made.
        retry_wait_s: seconds before the first of them; twice as long before each further one.
        rank, world: this process makes every `world`-th shard, from number `rank` on; together with
            processes of all other ranks, on machines that share the directory, it makes the dataset.
    """

    engine: str = "local"
    workers: int | None = None
    retries: int = 2
    retry_wait_s: float = 1.0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine}: give {' or '.join(ENGINES)}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least one is needed")
        if self.retries < 0 or self.retry_wait_s < 0:
            raise UsageError(f"{self.retries} retries after {self.retry_wait_s:g} s: neither is negative")
        if not 0 <= self.rank < self.world:
            raise UsageError(
                f"--rank {self.rank} --world {self.world}: with --world N, ranks are from 0 to N - 1; give both"
            )


class Engine(Protocol):
    """Runs tasks that need nothing of each other."""

    def attempt(
        self, function: Callable[[T], R], tasks: Sequence[T], *, apart: bool = False
    ) -> Generator[Outcome[T, R], None, None]:
        """The outcome of every task, in order of completion; one that fails stops no other.

        Args:
            function: module-level; it, the tasks and the results are picklable.
            apart: the tasks may kill their processes; let none take others along.
        """
        ...

    def blind(self, path: Path) -> list[str]:
        """The machines on which a file or directory of this machine is not to be seen."""
        ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Processes of this machine; with one worker, this process.

    Attributes:
        workers: how many.
    """

    workers: int

    def attempt(
        self, function: Callable[[T], R], tasks: Sequence[T], *, apart: bool = False
    ) -> Generator[Outcome[T, R], None, None]:
        return attempt_parallel(function, tasks, self.workers, apart=apart)

    def blind(self, path: Path) -> list[str]:
        """None: there is one machine."""
        return []


@contextlib.contextmanager
def open_engine(config: WorkConfig) -> Iterator[Engine]:
    """The engine of a build, ready for work; closed at the end of the block.

    Raises:
        MissingDependencyError: Ray is asked for and not installed.
        SymileM3Error: the cluster cannot be reached.
    """
    if config.engine == "ray":
        from symile_m3.ray_engine import open_ray

        with open_ray(config.workers) as engine:
            yield engine
    else:
        yield LocalEngine(config.workers or available_cpus())


def settle(
    engine: Engine,
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    retries: int = 0,
    wait_s: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> Generator[Outcome[T, R], None, None]:
    """One outcome a task: what it made, or its error when all further attempts failed too.

    Failed tasks are tried again after all others. A plan or an argument that is wrong stays so and is not
    tried again. After many failures in a row with nothing made in between, as on a full disk, the rest is
    not tried and has no outcome; so it is at once when a web service has stopped answering.

    Args:
        retries: further attempts a task.
        wait_s: seconds before the first of them; twice as long before each further one.
        say: told how many are tried again, and why the first of them failed.
    """
    left, risky = list(tasks), [False] * len(tasks)
    for round_ in range(retries + 1):
        failed: list[Outcome[T, R]] = []
        in_a_row = 0
        for apart in (False, True):
            chosen = [task for task, risk in zip(left, risky, strict=True) if risk is apart]
            if not chosen or in_a_row >= FAILURES_IN_A_ROW:
                continue
            with contextlib.closing(engine.attempt(function, chosen, apart=apart)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome.error, ServiceError):
                        yield outcome
                        return
                    in_a_row = 0 if outcome.error is None else in_a_row + 1
                    if outcome.error is None or isinstance(outcome.error, PlanError | UsageError):
                        yield outcome
                    else:
                        failed.append(outcome)
                    if in_a_row >= FAILURES_IN_A_ROW:
                        break
        if round_ == retries or in_a_row >= FAILURES_IN_A_ROW or not failed:
            yield from failed
            return
        if say is not None:
            say(f"{len(failed)} failed and will be tried again; the first for this: {failed[0].error}")
        time.sleep(wait_s * 2**round_)
        left, risky = [outcome.task for outcome in failed], [outcome.died for outcome in failed]
