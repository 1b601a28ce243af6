"""Progress as lines and as bars."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from symile_m3.cli.progress import BarProgress, LineProgress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = LineProgress(lines.append, clock)
    with progress.task("Training", 100, "steps", done=20) as task:
        for _ in range(8):
            clock.now_s += 4
            task.advance(10, note="loss 1.5")
    progress.say("done")
    assert lines == [
        "Training: 50/100 steps (50%), 2.5 steps/s, 20.0 s left, loss 1.5",
        "Training: 80/100 steps (80%), 2.5 steps/s, 8.0 s left, loss 1.5",
        "Training: 100/100 steps (100%), 2.5 steps/s, in 32.0 s, loss 1.5",
        "done",
    ]


def test_a_task_that_fails_claims_no_end() -> None:
    lines: list[str] = []
    try:
        with LineProgress(lines.append, Clock()).task("Training", 2, "steps"):
            raise ValueError
    except ValueError:
        pass
    assert lines == []


def test_a_task_without_work() -> None:
    lines: list[str] = []
    with LineProgress(lines.append, Clock()).task("Nothing", 0, "steps"):
        pass
    assert lines == ["Nothing: 0/0 steps, in 0.0 s"]


def test_a_line_is_written_with_its_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Recorder(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Recorder())
    LineProgress().say("one")
    assert written == ["one\n"]


def test_bars_nest_and_keep_their_text_as_it_is() -> None:
    out = io.StringIO()
    progress = BarProgress(Console(file=out, force_terminal=True, width=120, color_system=None))
    with progress.task("Training [x]", 2, "steps") as task:
        with progress.task("Validating", 1, "queries") as inner:
            inner.advance()
        progress.say("kept [bold]")
        task.advance(2, note="loss 0.5 [x]")
    text = out.getvalue()
    assert "Training [x]" in text
    assert "Validating" in text
    assert "kept [bold]" in text
    assert "loss 0.5 [x]" in text
    assert "100%" in text
