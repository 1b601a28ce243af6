"""What goes wrong on the way to a remote store: what is tried again, after how long, and what is not."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from symile_m3.shards.errors import ShardError

T = TypeVar("T")

_AGAIN = {408, 425, 429}  # and every 5xx but
_NOT_IMPLEMENTED = 501
_FINAL_ERRNO = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EINVAL,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
}
_FINAL = (
    ShardError,
    FileNotFoundError,
    PermissionError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    NotImplementedError,
)
_NOBODY_ERRNO = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
_NOBODY_NAMES = {"EndpointConnectionError", "ClientConnectorDNSError", "ConnectTimeoutError", "ConnectionTimeoutError"}
_FINAL_WORDS = ("Credential", "ParamValidation", "NoRegion", "ProfileNotFound")
_LONGEST_REASON = 300
_SAY_AGAIN_S = 5.0
_random = random.SystemRandom()
_log = logging.getLogger("symile_m3.shards")
_said: dict[str, float] = {}  # place and reason -> when it was last said


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """How long a remote store is given to answer.

    The wait after the k-th failure in a row is `first_wait_s * 2**(k - 1)`, at most `max_wait_s`, times a
    random number from 0.5 to 1, so that many processes do not come back at once. Where the store says how
    long to wait (`Retry-After`), that is kept to, up to `max_wait_s`.

    What is tried again is said as a warning of the logger `symile_m3.shards`, at most every five seconds.

    Attributes:
        attempts: failures in a row, without a byte in between, before giving up.
        first_wait_s, max_wait_s: seconds.
        give_up_s: seconds since the first failure of the row after which no more is tried.
        unreachable_s: the same where nobody has ever answered: no host of that name, a refused connection.

    Raises:
        ValueError: a value is out of range.
    """

    attempts: int = 8
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    give_up_s: float = 120.0
    unreachable_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.first_wait_s <= self.max_wait_s:
            raise ValueError(f"0 <= first_wait_s <= max_wait_s must hold, not {self.first_wait_s}, {self.max_wait_s}")
        for name in ("give_up_s", "unreachable_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")

    def wait_s(self, failures: int, error: BaseException) -> float:
        """Seconds to wait after so many failures in a row, the last of which was `error`."""
        wait_s = min(self.max_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60)) * _random.uniform(0.5, 1.0)
        return max(wait_s, min(self.max_wait_s, _asked_wait_s(error)))


class Patience:
    """Failures in a row of one thing, and how long to wait after each.

    Args:
        config: see `RetryConfig`.
        what: is tried, for messages.
        known: whether the store has answered before, so that it is more than a mistyped name.
        shown: takes what must not be shown out of a message.
    """

    def __init__(
        self, config: RetryConfig, what: str, *, known: bool = False, shown: Callable[[str], str] = str
    ) -> None:
        self._config = config
        self._what = what
        self._known = known
        self._shown = shown
        self._failures = 0
        self._first_s = 0.0

    def progressed(self) -> None:
        """Begin to count anew."""
        self._failures = 0
        self._known = True

    def wait(self, error: BaseException) -> bool:
        """Wait as is due after this failure; False, at once, where it should not be tried again."""
        config = self._config
        self._failures += 1
        if self._failures == 1:
            self._first_s = time.monotonic()
        if is_final(error) or self._failures >= config.attempts:
            return False
        wait_s = config.wait_s(self._failures, error)
        limit_s = config.unreachable_s if not self._known and is_unreachable(error) else config.give_up_s
        if time.monotonic() - self._first_s + wait_s > limit_s:
            return False
        self._say(error, wait_s, limit_s)
        time.sleep(wait_s)
        return True

    def _say(self, error: BaseException, wait_s: float, limit_s: float) -> None:
        reason, now = self._shown(reason_of(error)), time.monotonic()
        place = f"{self._what.rpartition('/')[0]} {reason}"  # many files fail in one way at a time
        if now - _said.get(place, -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return
        if len(_said) > 1000:
            _said.clear()
        _said[place] = now
        _log.warning(
            "%s: %s; trying again in %.1f s (failure %d of at most %d, for %.0f s at most)",
            *(self._what, reason, wait_s, self._failures, self._config.attempts, limit_s),
        )


def retrying(
    action: Callable[[], T],
    config: RetryConfig,
    what: str = "",
    *,
    known: bool = False,
    shown: Callable[[str], str] = str,
) -> T:
    """The result of `action`, tried again after what may pass; the last error is raised as it is.

    Args:
        what, known, shown: as for `Patience`.
    """
    patience = Patience(config, what, known=known, shown=shown)
    while True:
        try:
            return action()
        except Exception as error:  # a file system may raise anything: each brings the errors of its own library
            if not patience.wait(error):
                raise


def is_unreachable(error: BaseException) -> bool:
    """Whether nobody answered at all: the name is not known, the connection was refused or led nowhere."""
    at: BaseException | None = error
    for _ in range(8):  # a library's error has the system's behind it
        if at is None:
            return False
        if isinstance(at, socket.gaierror) or getattr(at, "errno", None) in _NOBODY_ERRNO:
            return True
        if type(at).__name__ in _NOBODY_NAMES or isinstance(getattr(at, "os_error", None), socket.gaierror):
            return True
        at = at.__cause__ or at.__context__
    return False


def is_final(error: BaseException) -> bool:
    """Whether trying again cannot help: no such file, no right to it, no such setting."""
    status = http_status(error)
    if status is not None:
        return (status < 500 and status not in _AGAIN) or status == _NOT_IMPLEMENTED
    if isinstance(error, TimeoutError):
        return False
    if isinstance(error, _FINAL) or any(word in type(error).__name__ for word in _FINAL_WORDS):
        return True
    return isinstance(error, OSError) and error.errno in _FINAL_ERRNO


def http_status(error: BaseException) -> int | None:
    """The HTTP status an error stands for, where it says so."""
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def reason_of(error: BaseException) -> str:
    """An error of a store as a few words on one line."""
    status = http_status(error)
    if status is not None:
        return f"HTTP {status} {getattr(error, 'message', '') or ''}".strip()
    text = " ".join(str(getattr(error, "strerror", None) or error).split())[:_LONGEST_REASON]
    name = type(error).__name__
    return text if text and isinstance(error, OSError) else f"{name}: {text}" if text else name


def _asked_wait_s(error: BaseException) -> float:
    """What `Retry-After` says, in seconds; the rare form with a date is not understood."""
    headers = getattr(error, "headers", None)
    try:
        value = float(headers["Retry-After"]) if headers else 0.0
    except (KeyError, TypeError, ValueError):
        return 0.0
    return value if value > 0 else 0.0


def no_retries(protocol: str) -> dict[str, Any]:
    """What a file system is told that its user has not told it: not to try again by itself and say nothing."""
    from fsspec.config import conf  # type: ignore[import-untyped]

    if protocol in ("s3", "s3a") and "AWS_MAX_ATTEMPTS" not in os.environ and "config_kwargs" not in conf.get("s3", {}):
        return {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    return {}
