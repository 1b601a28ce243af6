"""What web services answered, kept for good in the user's cache directory.

    ~/.cache/symile-m3/web/
        answers/gtts/0c/0c1f8a52...         one answer: a line of JSON that says to what, then its bytes
        gtts.state, google.state            see `symile_m3.web.manners`
        locks/

An answer appears whole or not at all and is checked against its SHA-256 when it is read. Many processes may
read and write at once; of several that want the same answer one asks for it and the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from symile_m3.errors import SourceError
from symile_m3.shards.atomic import write_bytes
from symile_m3.shards.layout import cache_directory

Key = Mapping[str, str]


def _default_directory() -> Path:
    return cache_directory() / "web"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """A cache of answers. A key says everything that an answer depends on.

    Attributes:
        directory: by default `symile-m3/web` under `$XDG_CACHE_HOME`, or `~/.cache`.
    """

    directory: Path = field(default_factory=_default_directory)

    def get(self, key: Key) -> bytes | None:
        """The answer kept under a key; None if there is none, or it is damaged.

        Args:
            key: with `service` among its names.

        Raises:
            SourceError: the cache cannot be read.
        """
        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        head, _, answer = content.partition(b"\n")
        return answer if head == _head(key, answer) else None

    def put(self, key: Key, answer: bytes) -> None:
        """Keep an answer.

        Raises:
            ShardError: the cache cannot be written.
        """
        write_bytes(self.path(key), _head(key, answer) + b"\n" + answer)

    def path(self, key: Key) -> Path:
        """The file that an answer is kept in."""
        name = hashlib.sha256(_text(key)).hexdigest()
        return self.directory / "answers" / key["service"] / name[:2] / name

    @contextlib.contextmanager
    def asking(self, key: Key) -> Iterator[None]:
        """Be the only one who asks for this answer while the block lasts.

        Raises:
            SourceError: the cache cannot be written.
        """
        # One of 4096 files, so that they need not be removed; two answers that share one wait for each other.
        path = self.directory / "locks" / hashlib.sha256(_text(key)).hexdigest()[:3]
        with self.locked(path):
            yield

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Hold the lock that a file of the cache stands for; it ends with the process at the latest.

        Raises:
            SourceError: the file cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        except OSError as error:
            raise self._unusable(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise self._unusable(error) from error
            yield

    def _unusable(self, error: OSError) -> SourceError:
        return SourceError(
            f"{self.directory}: the cache of answers cannot be used: {error.strerror or error} "
            "(set XDG_CACHE_HOME to a directory that can be written)"
        )


def _text(key: Key) -> bytes:
    return json.dumps(dict(key), sort_keys=True, ensure_ascii=False).encode()


def _head(key: Key, answer: bytes) -> bytes:
    """The first line of an answer's file."""
    said = {"key": dict(key), "sha256": hashlib.sha256(answer).hexdigest()}
    return json.dumps(said, sort_keys=True, ensure_ascii=False).encode()
