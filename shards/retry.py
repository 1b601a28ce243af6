"""What goes wrong on the way to a remote store: what is tried again, after how long, and what is not."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from symile_m3.shards.errors import ShardError

T = TypeVar("T")

_AGAIN = {408, 425, 429}  # and every 5xx
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
_FINAL_WORDS = ("Credential", "ParamValidation", "NoRegion", "ProfileNotFound")
_LONGEST_REASON = 300
_random = random.SystemRandom()


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """How long a remote store is given to answer.

    The wait after the k-th failure in a row is `first_wait_s * 2**(k - 1)`, at most `max_wait_s`, times a
    random number from 0.5 to 1, so that many processes do not come back at once. Where the store says how
    long to wait (`Retry-After`), that is kept to, up to `max_wait_s`.

    Attributes:
        attempts: failures in a row, without a byte in between, before giving up.
        first_wait_s, max_wait_s: seconds.

    Raises:
        ValueError: a value is out of range.
    """

    attempts: int = 8
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.first_wait_s <= self.max_wait_s:
            raise ValueError(f"0 <= first_wait_s <= max_wait_s must hold, not {self.first_wait_s}, {self.max_wait_s}")

    def wait_s(self, failures: int, error: BaseException) -> float:
        """Seconds to wait after so many failures in a row, the last of which was `error`."""
        wait_s = min(self.max_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60)) * _random.uniform(0.5, 1.0)
        return max(wait_s, min(self.max_wait_s, _asked_wait_s(error)))


def retrying(action: Callable[[], T], config: RetryConfig) -> T:
    """The result of `action`, tried again after what may pass; the last error is raised as it is."""
    failures = 0
    while True:
        try:
            return action()
        except Exception as error:  # a file system may raise anything: each brings the errors of its own library
            failures += 1
            if is_final(error) or failures >= config.attempts:
                raise
            time.sleep(config.wait_s(failures, error))


def is_final(error: BaseException) -> bool:
    """Whether trying again cannot help: no such file, no right to it, no such setting."""
    status = http_status(error)
    if status is not None:
        return status < 500 and status not in _AGAIN
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
