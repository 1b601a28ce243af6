"""Manners towards a web service: how often it is asked, how long to wait for it, and when to stop asking.

What the processes of a machine have in common is in one small file a service: when the next request may be
made, how many have failed in a row, and whether to stop. So the rate holds for all of them together, a pause
that the service asks for is kept by all, and when one gives up all do.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from symile_m3.errors import ServiceError, UsageError
from symile_m3.web.answers import Answers

_LOOK_S = 0.25  # while waiting, how often to look whether others have given up
_LONGEST_WAIT_S = 8.0  # after a failure, unless the service asks for more
_LONGEST_PAUSE_S = 86_400.0  # a longer one is a clock that was set back
_random = random.SystemRandom()


@dataclass(frozen=True, kw_only=True, slots=True)
class Manners:
    """How a service is treated.

    A request that fails is made again after a pause, twice as long each further time, with chance so that many do
    not come back at once, or as long as the service asks for (`Retry-After`). A service of which nothing is heard
    but failures is given up.

    Attributes:
        rate: requests a second, of all processes of a machine together; `$SYMILE_M3_WEB_RATE`.
        timeout_s: for a connection, for each part of an answer, and for the whole of it; `$SYMILE_M3_WEB_TIMEOUT`.
        patience_s: of nothing but failures, before giving up; a longer pause that the service asks for is not
            waited for; `$SYMILE_M3_WEB_PATIENCE`.
        first_pause_s: after the first failure of a request.
        failures: in a row, before giving up; those that were under way at the same time count as one.
        attempts: of one request, where others succeed meanwhile or what has come back may be due to what was asked.

    Raises:
        UsageError: a value is out of range.
    """

    rate: float = 2.0
    timeout_s: float = 10.0
    patience_s: float = 45.0
    first_pause_s: float = 0.5
    failures: int = 12
    attempts: int = 7

    def __post_init__(self) -> None:
        for name in ("rate", "timeout_s", "patience_s", "first_pause_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"web services: {name} must be above 0, not {value:g}")
        for name in ("failures", "attempts"):
            if getattr(self, name) < 1:
                raise UsageError(f"web services: {name} must be at least 1, not {getattr(self, name)}")

    @classmethod
    def from_environment(cls) -> Manners:
        """The default ones, but for what the environment sets.

        Raises:
            UsageError: a variable is not a number above 0.
        """
        ours: dict[str, Any] = {}
        for name, variable in (("rate", "RATE"), ("timeout_s", "TIMEOUT"), ("patience_s", "PATIENCE")):
            text = os.environ.get(f"SYMILE_M3_WEB_{variable}", "").strip()
            if not text:
                continue
            try:
                ours[name] = float(text)
                cls(**ours)
            except (ValueError, UsageError):
                raise UsageError(f"SYMILE_M3_WEB_{variable}={text}: give a number above 0, such as 2") from None
        return cls(**ours)

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest_s = max(_LONGEST_WAIT_S, self.first_pause_s)
        return min(longest_s, self.first_pause_s * 2.0 ** min(failures - 1, 20)) * _random.uniform(0.75, 1.25)


@dataclass(kw_only=True)
class Gate:
    """The way to a service, for one request and its repetitions; one for each, and for one thread.

    Attributes:
        service: its name in the cache.
        title: its name for people.
        answers: the cache, whose directory the processes have in common.
        manners: see `Manners`.
        since: when this run began, in seconds of the epoch; what was given up earlier is tried anew.
    """

    service: str
    title: str
    answers: Answers
    manners: Manners
    since: float
    _started: float = 0.0  # the last attempt
    _first: float = 0.0  # the first one

    def turn(self) -> None:
        """Wait until a request may be made, and take the turn.

        Raises:
            ServiceError: the service is given up.
        """
        while True:
            with self._state() as state:
                now = time.time()
                asked_s = state["until"] - now
                if self.manners.patience_s < asked_s < _LONGEST_PAUSE_S:
                    self._give_up(state, f"{self.title} asks to wait for {math.ceil(asked_s)} s more")
                wait_s = state["next"] - now
                if wait_s > self._longest_s:  # never asked for: a clock has been set back
                    wait_s = 0.0
                self._give_up_if_late(state, now + max(0.0, wait_s))
                if wait_s <= 0:
                    pause_s = self.manners.pause_s(state["failures"]) if state["failures"] > 1 else 0.0
                    state["next"] = now + min(max(1 / self.manners.rate, pause_s), self._longest_s)
                    self._started = now
                    self._first = self._first or now
                    return
            time.sleep(min(wait_s, _LOOK_S))

    @property
    def _longest_s(self) -> float:
        """Between two requests."""
        return max(self.manners.patience_s, 1 / self.manners.rate)

    def rest(self, seconds: float) -> None:
        """Wait before the same request is made again.

        Raises:
            ServiceError: the service is given up meanwhile.
        """
        until = time.monotonic() + seconds
        while True:
            left_s = until - time.monotonic()
            with self._state() as state:
                self._give_up_if_late(state, time.time() + left_s)
            if left_s <= 0:
                return
            time.sleep(min(left_s, _LOOK_S))

    def allowed_s(self) -> float:
        """How long the request may take."""
        with self._state() as state:
            end = state["first"] + self.manners.patience_s if state["failures"] else math.inf
        return max(0.1, min(self.manners.timeout_s, end - time.time()))

    def failed(self, reason: str, *, wait_s: float = 0.0, for_good: bool = False) -> bool:
        """Say that the request has failed; whether another one has been answered since it was first made.

        Args:
            reason: why, in a few words.
            wait_s: how long the service asks to wait.
            for_good: no request can succeed, as where its certificate is not to be trusted.

        Raises:
            ServiceError: this makes it enough, and the service is given up.
        """
        with self._state() as state:
            now = time.time()
            if not state["failures"]:
                state["first"], state["round"] = self._started, 0.0
            if self._started >= state["round"]:
                state["failures"] += 1
                state["round"] = now
            state["reason"] = reason
            state["next"] = max(state["next"], now + min(wait_s, self.manners.patience_s))
            state["until"] = max(state["until"], now + wait_s)
            if for_good:
                self._give_up(state, f"{self.title} cannot be used: {reason}")
            if wait_s > self.manners.patience_s:
                self._give_up(state, f"{self.title} asks to wait for {math.ceil(wait_s)} s ({reason})")
            if state["failures"] >= self.manners.failures:
                self._give_up_after(state, now)
            self._give_up_if_late(state, now)
            return bool(state["heard"] > self._first)

    def succeeded(self) -> None:
        """Say that the request has been answered."""
        with self._state() as state:
            state["failures"] = 0
            state["heard"] = time.time()

    def _give_up_if_late(self, state: dict[str, Any], until: float) -> None:
        """Give up if the service has been failing for too long at that time."""
        if state["failures"] and until - state["first"] >= self.manners.patience_s:
            self._give_up_after(state, time.time())

    def _give_up_after(self, state: dict[str, Any], now: float) -> None:
        times = f"{state['failures']} times" if state["failures"] > 1 else "once"
        self._give_up(
            state, f"{self.title} has failed for {now - state['first']:.0f} s, {times} in a row ({state['reason']})"
        )

    def _give_up(self, state: dict[str, Any], what: str) -> None:
        line = (
            f"{what}; everything it has answered is kept in {self.answers.directory}: "
            "run the same command again later, and it goes on from there"
        )
        state.update(given_up=time.time(), line=line, failures=0)
        raise ServiceError(line)

    @contextlib.contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """What all processes know, to read and change.

        Raises:
            ServiceError: one of them has given the service up since this run began.
        """
        path = self.answers.directory / f"{self.service}.state"
        with self.answers.locked(path), path.open("r+b") as file:
            content = file.read()
            state = _parsed(content)
            if state["given_up"] > self.since:
                raise ServiceError(state["line"])
            if state["first"] < self.since:  # of a run that was killed
                state["failures"] = 0
            try:
                yield state
            finally:
                new = json.dumps(state).encode()
                if new != content:
                    file.seek(0)
                    file.write(new)
                    file.truncate()


def _parsed(content: bytes) -> dict[str, Any]:
    """A state; a new one where a killed process left none that can be read."""
    new: dict[str, Any] = {
        "next": 0.0,  # when the next request may be made
        "until": 0.0,  # until when the service asks to wait
        "failures": 0,  # in a row, those that were under way together counted once
        "first": 0.0,  # when the first of them began
        "heard": 0.0,  # when a request was last answered
        "round": 0.0,  # when the last of them was counted
        "reason": "",  # of the last of them
        "given_up": 0.0,
        "line": "",
    }
    try:
        found = json.loads(content)
        return {name: type(value)(found[name]) for name, value in new.items()}
    except (ValueError, TypeError, KeyError, OverflowError):
        return new
