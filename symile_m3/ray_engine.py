"""Tasks on a Ray cluster. Ray is an extra of its own and imported here alone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from symile_m3.errors import MissingDependencyError, SymileM3Error
from symile_m3.parallel import Outcome, attempt

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Tasks of one CPU each on a cluster that this process is connected to.

    symile-m3 must be installed, in the same version, on the machines of the cluster, and what the tasks
    read and write be on a file system that they share.

    Attributes:
        workers: tasks at a time.
    """

    workers: int

    def attempt(
        self, function: Callable[[T], R], tasks: Sequence[T], *, apart: bool = False
    ) -> Generator[Outcome[T, R], None, None]:
        """See `Engine.attempt`; every task has a process of its own, so `apart` changes nothing."""
        import ray

        run: Any = ray.remote(num_cpus=1, max_retries=0)(attempt)
        shared = ray.put(function)  # once, not with every task
        waiting, pending = deque(tasks), dict[Any, T]()
        try:
            while waiting or pending:
                while waiting and len(pending) < 2 * self.workers:
                    task = waiting.popleft()
                    pending[run.remote(shared, task)] = task
                done, _ = ray.wait(list(pending))
                for reference in done:
                    task = pending.pop(reference)
                    yield _outcome(ray, reference, task)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)

    def blind(self, path: Path) -> list[str]:
        """See `Engine.blind`. A machine that cannot be asked counts as blind."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        exists: Any = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
        remote = ray.util.client.ray.is_connected()  # this machine is not of the cluster
        here = None if remote else ray.get_runtime_context().get_node_id()
        others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
        asked = [
            exists.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(path.absolute())
            )
            for node in others
        ]
        blind = []
        for node, reference in zip(others, asked, strict=True):
            try:
                seen = bool(ray.get(reference, timeout=60))
            except ray.exceptions.RayError:
                seen = False
            if not seen:
                blind.append(str(node["NodeManagerHostname"]))
        return blind


def _outcome(ray: Any, reference: Any, task: T) -> Outcome[T, Any]:
    try:
        outcome: Outcome[T, Any] = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(task=task, error=SymileM3Error(f"Ray could not run it: {_line(error)}"), died=True)
    return outcome


def _line(error: Exception) -> str:
    """The line of an error that says most: the last of a traceback, otherwise the first; without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[-1 if any("Traceback" in line for line in lines) else 0].strip()


def _check_listening(address: str | None) -> None:
    """Raise SymileM3Error where nobody listens at HOST:PORT; Ray itself tries for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SymileM3Error(
            f"--engine ray: the cluster at RAY_ADDRESS={address} cannot be reached ({reason}); "
            "check it, or use --engine local"
        ) from error


@contextlib.contextmanager
def open_ray(workers: int | None) -> Iterator[RayEngine]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine; leave it at the end.

    A connection that this process has already is used and left open.

    Args:
        workers: tasks at a time, and CPUs of a cluster that is started; by default all there are.

    Raises:
        MissingDependencyError: Ray is not installed.
        SymileM3Error: the cluster cannot be reached or started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends nothing anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do; says so otherwise
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "--engine ray: Ray is not installed; install it with `pip install 'symile-m3[ray]'`, or use --engine local"
        ) from error
    address = os.environ.get("RAY_ADDRESS")
    ours = not ray.is_initialized()
    if ours:
        _check_listening(address)
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "num_cpus": workers}
        try:
            ray.init(
                **options,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises of many kinds here, its own and Python's
            where = (
                f"the cluster at RAY_ADDRESS={address} cannot be reached" if address else "it cannot be started here"
            )
            token = ", set RAY_AUTH_MODE=token if it asks for one" if address else ""
            raise SymileM3Error(
                f"--engine ray: {where} ({_line(error)}); check it{token}, or use --engine local"
            ) from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        yield RayEngine(workers or max(1, cpus))
    finally:
        if ours:
            ray.shutdown()
