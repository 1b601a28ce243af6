"""Manners towards web services: the rate, the pauses, and when to give up."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import symile_m3.web.manners
from symile_m3.errors import ServiceError, UsageError
from symile_m3.web import Answers, Manners
from symile_m3.web.manners import Gate


class Clock:
    """Time that passes where somebody waits, and nowhere else; what a module takes for `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What gates go by."""
    clock = Clock()
    monkeypatch.setattr("symile_m3.web.manners.time", clock)
    return clock


QUICK = Manners(rate=200, timeout_s=0.5, patience_s=2, first_pause_s=0.02)


def gate(directory: Path, manners: Manners = QUICK, **changes: Any) -> Gate:
    since = symile_m3.web.manners.time.time()
    arguments = {"service": "s", "title": "The service", "since": since, **changes}
    return Gate(answers=Answers(directory=directory), manners=manners, **arguments)


def take_turns(directory: Path) -> list[float]:
    own = gate(directory, Manners(rate=50))
    times = []
    for _ in range(15):
        own.turn()
        times.append(time.time())
    return times


def test_the_rate_holds_for_all_processes_together(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as processes:
        times = sorted(at for part in processes.map(take_turns, [tmp_path] * 3) for at in part)
    assert len(times) == 45
    assert times[-1] - times[0] >= 44 / 50 - 0.05


def test_one_gives_up_for_all_and_a_later_run_tries_anew(tmp_path: Path, clock: Clock) -> None:
    hurried = Manners(rate=200, patience_s=0.6, first_pause_s=0.02)
    first, second = gate(tmp_path, hurried), gate(tmp_path, hurried)
    with pytest.raises(ServiceError) as given_up:  # noqa: PT012
        for _ in range(20):
            first.turn()
            first.failed("HTTP 503")
    assert "The service has failed for" in str(given_up.value)
    assert "HTTP 503" in str(given_up.value)
    assert str(tmp_path) in str(given_up.value)
    for action in (second.turn, second.succeeded, lambda: second.rest(0.1), lambda: second.failed("HTTP 500")):
        with pytest.raises(ServiceError) as same:
            action()
        assert str(same.value) == str(given_up.value)
    clock.sleep(0.001)
    gate(tmp_path).turn()


@pytest.mark.usefixtures("clock")
def test_failures_in_a_row_are_counted_and_a_success_ends_the_row(tmp_path: Path) -> None:
    own = gate(tmp_path, Manners(rate=1000, failures=3, first_pause_s=0.001))
    for _ in range(3):
        for _ in range(2):
            own.turn()
            own.failed("HTTP 500")
        own.turn()
        own.succeeded()
    for _ in range(2):
        own.turn()
        own.failed("HTTP 500")
    own.turn()
    with pytest.raises(ServiceError, match="3 times in a row"):
        own.failed("HTTP 500")


def test_failures_that_were_under_way_together_count_as_one(tmp_path: Path) -> None:
    gates = [gate(tmp_path, Manners(rate=1000, failures=3, first_pause_s=0.001)) for _ in range(8)]
    for one in gates:
        one.turn()
    for one in gates:
        one.failed("timeout")  # of eight, none given up


def test_it_gives_up_when_patience_ends_and_not_later(tmp_path: Path, clock: Clock) -> None:
    own = gate(tmp_path, Manners(rate=100, patience_s=0.6, first_pause_s=0.1, failures=100))
    began = clock.now
    with pytest.raises(ServiceError):  # noqa: PT012
        while True:
            own.turn()
            own.failed("HTTP 500")
            own.rest(own.manners.pause_s(1))
    assert 0.1 < clock.now - began < 0.61


def test_a_pause_the_service_asks_for_is_kept_by_all(tmp_path: Path, clock: Clock) -> None:
    first, second = gate(tmp_path), gate(tmp_path)
    first.turn()
    first.failed("HTTP 429", wait_s=0.5)
    began = clock.now
    second.turn()
    assert clock.now - began == pytest.approx(0.5)


def test_a_pause_longer_than_patience_is_not_waited_for_now_nor_by_the_next_run(tmp_path: Path, clock: Clock) -> None:
    own = gate(tmp_path)
    own.turn()
    with pytest.raises(ServiceError, match=r"asks to wait for 3600 s \(HTTP 429\)"):
        own.failed("HTTP 429", wait_s=3600)
    clock.sleep(1)
    began = clock.now
    with pytest.raises(ServiceError, match="asks to wait for 3599 s more"):
        gate(tmp_path).turn()
    assert clock.now == began


def test_a_row_of_failures_of_a_killed_run_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    own = gate(tmp_path, Manners(rate=1000, failures=3, patience_s=0.3, first_pause_s=0.001))
    for _ in range(2):
        own.turn()
        own.failed("HTTP 500")
    clock.sleep(0.35)
    own = gate(tmp_path, own.manners)
    own.turn()
    own.failed("HTTP 500")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"next": "x"}', b"\xff\x00"])
def test_a_state_that_a_killed_process_left_in_pieces_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.state").write_bytes(content)
    gate(tmp_path).turn()


def test_a_clock_that_was_set_back_stops_nobody(tmp_path: Path, clock: Clock) -> None:
    own = gate(tmp_path, Manners(rate=10))
    own.turn()
    clock.now -= 7200
    began = clock.now
    gate(tmp_path, own.manners).turn()
    assert clock.now - began < 1


def test_the_environment_sets_manners(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Manners.from_environment() == Manners()
    monkeypatch.setenv("SYMILE_M3_WEB_RATE", "0.5")
    monkeypatch.setenv("SYMILE_M3_WEB_TIMEOUT", "3")
    monkeypatch.setenv("SYMILE_M3_WEB_PATIENCE", "20")
    assert Manners.from_environment() == Manners(rate=0.5, timeout_s=3, patience_s=20)
    for text in ("0", "-1", "fast", "nan", "inf"):
        monkeypatch.setenv("SYMILE_M3_WEB_RATE", text)
        with pytest.raises(UsageError, match=f"SYMILE_M3_WEB_RATE={text}: give a number above 0"):
            Manners.from_environment()


def test_pauses_grow_and_differ(tmp_path: Path) -> None:
    manners = Manners()
    assert all(0.375 <= manners.pause_s(1) <= 0.625 for _ in range(100))
    assert all(3 <= manners.pause_s(4) <= 5 for _ in range(100))
    assert len({manners.pause_s(1) for _ in range(10)}) > 1
