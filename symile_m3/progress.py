"""How long work reports its progress, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` is shown beside the bar, such as a loss."""
        ...


class Progress(Protocol):
    """Shows tasks."""

    def task(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        """A task of `total` units of which `done` were done before."""
        ...

    def say(self, line: str) -> None:
        """One line for the user: a warning, or what was decided."""
        ...


class TasksOnly:
    """Shows tasks and says nothing: for what is done once more, later."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def task(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        return self._progress.task(label, total, unit, done)

    def say(self, line: str) -> None:
        return


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        return


class NoProgress:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        yield _Silent()

    def say(self, line: str) -> None:
        return
