"""The HTTP session that client libraries are lent, in place of those they would open.

gTTS and deep-translator both use `requests`, the one without checking certificates, the other without a
timeout. Within `lent` the module of a client sees a `requests` whose sessions are well-mannered: certificates
are checked, every request waits for its turn, no answer takes longer than it may, and what is no answer is a
`BadAnswerError`.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError, SSLError
from urllib3.util import Retry

from symile_m3.web.manners import Gate

_MAX_BYTES = 32 << 20  # of an answer
_CHUNK_BYTES = 1 << 16
_LONGEST_REASON = 200
_AGAIN = {408, 425, 429}  # and every 5xx
_BUSY = {429, 502, 503, 504}
_lending = threading.RLock()


class BadAnswerError(Exception):
    """A request that brought no answer, or not one that can be used.

    Attributes:
        reason: why, in a few words.
        wait_s: how long the service asks to wait.
        again: whether the same request may succeed later.
        any_request: whether it has nothing to do with what was asked: others would have failed too.
        for_good: whether no request to the service can succeed.
    """

    def __init__(
        self,
        reason: str,
        *,
        wait_s: float = 0.0,
        again: bool = True,
        any_request: bool = False,
        for_good: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.again = again
        self.any_request = any_request
        self.for_good = for_good


class PoliteSession(requests.Session):
    """A session whose every request, those of redirections included, goes through a gate.

    Args:
        gate: see `Gate`.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The whole answer to a request.

        Certificates are checked and proxies chosen as the environment says, whatever `kwargs` asks for.

        Raises:
            BadAnswerError: there is none, or its status is not one of success.
            ServiceError: the service is given up.
        """
        self._gate.turn()
        allowed_s = self._gate.allowed_s()
        until = time.monotonic() + allowed_s
        settings = self.merge_environment_settings(request.url or "", {}, True, None, None)
        kwargs = {**kwargs, **settings, "stream": True, "timeout": allowed_s}
        try:
            with super().send(request, **kwargs) as response:
                content = _read(response, until, allowed_s)
            response._content, response._content_consumed = content, True
        except (requests.exceptions.SSLError, SSLError) as error:
            untrusted = isinstance(_innermost(error), ssl.SSLCertVerificationError)
            why = "no trusted connection" if untrusted else "no connection"
            raise BadAnswerError(f"{why}: {_words(error)}", any_request=True, for_good=untrusted) from error
        except (requests.exceptions.Timeout, TimeoutError, ReadTimeoutError) as error:
            raise BadAnswerError(f"no answer within {allowed_s:g} s", any_request=True) from error
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise BadAnswerError(f"no connection: {_words(error)}", any_request=True) from error
        except HTTPError as error:
            raise BadAnswerError(f"a broken answer: {_words(error)}") from error
        except requests.exceptions.RequestException as error:
            raise BadAnswerError(f"{type(error).__name__}: {_words(error)}", again=False) from error
        if not response.ok:
            status = response.status_code
            raise BadAnswerError(
                f"HTTP {status} {response.reason or ''}".strip(),
                wait_s=_retry_after_s(response.headers.get("Retry-After")),
                again=status >= 500 or status in _AGAIN,
                any_request=status in _BUSY,
            )
        return response


@contextlib.contextmanager
def lent(client: ModuleType, gate: Gate) -> Iterator[None]:
    """Let a module that has imported `requests` use well-mannered sessions while the block lasts.

    Args:
        client: such as `gtts.tts`.
        gate: see `Gate`.
    """
    with _lending:
        own = client.requests
        client.__dict__["requests"] = _Requests(gate)
        try:
            yield
        finally:
            client.__dict__["requests"] = own


class _Requests:
    """What `import requests` gives a client, but for the sessions."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def Session(self) -> PoliteSession:  # noqa: N802 - the name that clients use
        return PoliteSession(self._gate)

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        with self.Session() as session:
            return session.get(url, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(requests, name)


def _read(response: requests.Response, until: float, allowed_s: float) -> bytes:
    """The whole content; in pieces, as they come: a timeout is for each piece, and the deadline for all.

    Raises:
        BadAnswerError: it takes too long, or is too long.
    """
    if response.history:  # the end of a redirection: read already
        return response.content
    content = bytearray()
    while piece := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        content += piece
        if time.monotonic() > until:
            raise BadAnswerError(f"no whole answer within {allowed_s:g} s")
        if len(content) > _MAX_BYTES:
            raise BadAnswerError(f"an answer of more than {_MAX_BYTES >> 20} MB")
    return bytes(content)


def _retry_after_s(value: str | None) -> float:
    """Seconds that a `Retry-After` asks to wait, in either of its forms."""
    if not value:
        return 0.0
    try:
        return max(0.0, Retry().parse_retry_after(value))
    except (InvalidHeader, OverflowError):
        return 0.0


def _innermost(error: BaseException) -> BaseException:
    """The error that others are wrapped around."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((one for one in error.args if isinstance(one, BaseException)), error)
        error = inner
    return error


def _words(error: BaseException) -> str:
    """What it came down to, on one line."""
    inner = _innermost(error)
    text = getattr(inner, "verify_message", None) or getattr(inner, "strerror", None) or str(inner)
    return " ".join(str(text).split())[:_LONGEST_REASON] or type(inner).__name__
