"""A web service: what it answers to a question, now or earlier."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from symile_m3.errors import SourceError
from symile_m3.web.answers import Answers, Key
from symile_m3.web.manners import Gate, Manners
from symile_m3.web.session import BadAnswerError, lent


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A service, asked through a client library that uses `requests`. Picklable: what it opens is closed again.

    Attributes:
        name: in the cache, such as `gtts`.
        title: for people.
        version: of the client library; another version's answers are not taken.
        answers: the cache.
        manners: see `Manners`; by default as the environment says.
        since: when this run began; see `Gate`.
    """

    name: str
    title: str
    version: str
    answers: Answers = field(default_factory=Answers)
    manners: Manners = field(default_factory=Manners.from_environment)
    since: float = field(default_factory=time.time)

    def ask(self, question: Key, client: ModuleType, request: Callable[[], bytes]) -> bytes:
        """The answer to a question: what is kept, or what `request` returns, which is then kept.

        Args:
            question: all that the answer depends on, but for the service and its version.
            client: the module whose `requests` is lent while `request` runs.
            request: makes the request through the client; raises `BadAnswerError` for what is no answer.

        Raises:
            SourceError: there was no answer, however often it was asked for.
            ServiceError: the service is given up.
        """
        key = {"service": self.name, "version": self.version, **question}
        found = self.answers.get(key)
        if found is not None:
            return found
        with self.answers.asking(key):
            found = self.answers.get(key)  # another process's, while this one waited
            if found is not None:
                return found
            return self._asked(key, client, request)

    def _asked(self, key: Key, client: ModuleType, request: Callable[[], bytes]) -> bytes:
        """What the service answers, asked as often as manners allow, and kept."""
        gate = Gate(service=self.name, title=self.title, answers=self.answers, manners=self.manners, since=self.since)
        attempt = 0
        while True:
            attempt += 1
            try:
                with lent(client, gate):
                    answer = request()
            except BadAnswerError as error:
                others_heard = gate.failed(error.reason, wait_s=error.wait_s, for_good=error.for_good)
                enough = attempt >= self.manners.attempts and (others_heard or not error.any_request)
                if enough or not error.again:
                    times = f", asked {attempt} times" if attempt > 1 else ""
                    raise SourceError(f"{self.title}: {error.reason}{times}") from error
                rest_s = max(self.manners.pause_s(attempt), error.wait_s)
            else:
                self.answers.put(key, answer)  # first: others may have given up meanwhile
                gate.succeeded()
                return answer
            gate.rest(rest_s)
