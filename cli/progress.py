"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

from symile_m3.cli.output import duration
from symile_m3.progress import Progress, Task

LINE_EVERY_S = 10.0


def open_progress() -> Progress:
    """Bars where standard error is a terminal, otherwise lines."""
    console = Console(stderr=True, highlight=False)
    return BarProgress(console) if console.is_terminal else LineProgress()


def _to_stderr(line: str) -> None:
    """With its end at once: `print` writes that apart, and Ctrl-C between the two would glue the next line to it."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class LineProgress:
    """About one line every ten seconds, and one at the end of a task.

    Args:
        write: takes a line; by default standard error.
        clock: seconds, monotonic.
    """

    def __init__(self, write: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write or _to_stderr
        self._clock = clock

    def task(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        return self._task(label, total, unit, done)

    @contextmanager
    def _task(self, label: str, total: int, unit: str, done: int) -> Iterator[Task]:
        task = _LineTask(self._write, self._clock, label, total, unit, done)
        yield task
        task.end()

    def say(self, line: str) -> None:
        self._write(line)


class _LineTask:
    def __init__(
        self,
        write: Callable[[str], None],
        clock: Callable[[], float],
        label: str,
        total: int,
        unit: str,
        done: int,
    ) -> None:
        self._write, self._clock = write, clock
        self._label, self._total, self._unit = label, total, unit
        self._done_before = self._done = done
        self._note = ""
        self._began = self._last = clock()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._note = note or self._note
        now = self._clock()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            self._line(now - self._began, ended=False)

    def end(self) -> None:
        self._line(self._clock() - self._began, ended=True)

    def _line(self, elapsed_s: float, ended: bool) -> None:
        made = self._done - self._done_before
        rate = made / elapsed_s if elapsed_s > 0 else 0.0
        percent = f" ({100 * self._done // self._total}%)" if self._total else ""
        parts = [f"{self._label}: {self._done:,}/{self._total:,} {self._unit}{percent}"]
        if made:
            parts.append(f"{_rate(rate)} {self._unit}/s")
        if ended:
            parts.append(f"in {duration(elapsed_s)}")
        elif rate:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        self._write(", ".join([*parts, self._note] if self._note else parts))


class BarProgress:
    """A live bar for each task under way; a task that has ended leaves its bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichProgress | None = None

    def task(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        return self._task(label, total, unit, done)

    @contextmanager
    def _task(self, label: str, total: int, unit: str, done: int) -> Iterator[Task]:
        if self._bars is not None:  # a task within a task: one more bar, which goes when it ends
            bar = _BarTask(self._bars, self._bars.add_task(label, total=total, completed=done, unit=unit, note=""))
            try:
                yield bar
            finally:
                self._bars.remove_task(bar.id)
            return
        with _bars(self._console) as bars:
            self._bars = bars
            try:
                yield _BarTask(bars, bars.add_task(label, total=total, completed=done, unit=unit, note=""))
            finally:
                self._bars = None

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)


class _BarTask:
    def __init__(self, bars: RichProgress, task_id: TaskID) -> None:
        self._bars = bars
        self.id = task_id

    def advance(self, count: int = 1, note: str = "") -> None:
        self._bars.advance(self.id, count)
        if note:
            self._bars.update(self.id, note=note)


class _RateColumn(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        return Text(f"{_rate(speed)} {unit}/s" if speed else unit, style="progress.data.speed")


class _TimeColumn(ProgressColumn):
    """The time left; once finished, the time it took."""

    def render(self, task: RichTask) -> Text:
        if task.finished:
            return Text(f"in {duration(task.finished_time or 0.0)}", style="progress.elapsed")
        left_s = task.time_remaining
        return Text("" if left_s is None else f"{duration(left_s)} left", style="progress.remaining")


def _bars(console: Console) -> RichProgress:
    return RichProgress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        _RateColumn(),
        _TimeColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        speed_estimate_period=10.0,
        refresh_per_second=5,
    )


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"
