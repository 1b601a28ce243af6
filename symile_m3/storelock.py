"""The lock of a build into a store: a small file there, renewed as long as the build is at work.

    .symile/lock.json       {"owner": "maria@node7", "machine": "...", "pid": 4711, "since": "...", "beat": 12, ...}

Stores have no locks that go with the process that holds them. So the file is renewed every few seconds; who finds
one watches it. If it changes, another build is at work. If it does not, that build is gone, and its lock is taken
over; at once where it was of this machine. No clocks are compared.

A store that creates a file only where there is none when asked to (S3, Google Cloud Storage) gives the lock to one
build, always. In others two builds that begin within the same second could both get it; the one whose lock was
overwritten notices when it looks again, when it renews it, or at its end at the latest.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_m3.errors import PlanError, ShardError
from symile_m3.shards.atomic import alive
from symile_m3.shards.layout import META
from symile_m3.shards.storage import RemoteStorage

LOCK = f"{META}/lock.json"
_log = logging.getLogger("symile_m3.build")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockConfig:
    """How a lock is kept.

    Attributes:
        renew_s: seconds between renewals.
        watch_s: seconds for which a lock must not have changed to be taken over; several times `renew_s`.
        look_s: seconds between looks at it meanwhile.
        settle_s: seconds after which a lock just taken is looked at again, as a store may have given it to two.
    """

    renew_s: float = 15.0
    watch_s: float = 60.0
    look_s: float = 2.0
    settle_s: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.renew_s <= self.watch_s / 2:
            raise ValueError(f"watch_s must be at least twice renew_s, not {self.watch_s} and {self.renew_s}")


class StoreLock:
    """The lock of one build.

    Args:
        storage: the store.
        config: see `LockConfig`.
    """

    def __init__(self, storage: RemoteStorage, config: LockConfig | None = None) -> None:
        self._storage = storage
        self._config = config or LockConfig()
        self._nonce = secrets.token_hex(8)
        self._since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._beat = 0
        self._held = False
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """Take the lock and keep it until `release`; does nothing where it is held.

        Raises:
            PlanError: another build is at work in the store.
            ShardError: the store cannot be read or written.
        """
        if self._held:
            return
        while True:
            self.wait_for_others()
            if self._storage.create_bytes(LOCK, self._content()):
                time.sleep(self._config.settle_s)
                if self._is_ours(self._read()):
                    break
        self._held = True
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew, name="symile-m3-lock", daemon=True)
        self._thread.start()

    def wait_for_others(self) -> None:
        """Return when no build alone is at work in the store; a lock that nobody renews is removed.

        Raises:
            PlanError: one is at work.
            ShardError: the store cannot be read or written.
        """
        first = self._read()
        if first is None or self._is_ours(first):
            return
        holder = _parsed(first)
        owner, since = holder.get("owner", "somebody"), holder.get("since", "an unknown time")
        if holder.get("machine") != machine() or alive(int(holder.get("pid", 0))):
            place = f"{self._storage.root}/{LOCK}"
            _log.warning("%s: of a build by %s since %s; looking whether it is at work", place, owner, since)
            end = time.monotonic() + self._config.watch_s
            while time.monotonic() < end:
                time.sleep(self._config.look_s)
                now = self._read()
                if now is None:
                    return
                if now != first:
                    raise PlanError(
                        f"{self._storage.root}: another build is at work there, by {owner} since {since}; wait for it "
                        f"to end (if there is none, remove {place})"
                    )
            _log.warning("%s: not renewed for %.0f s, and so taken over", place, self._config.watch_s)
        if self._read() == first:
            self._storage.remove(LOCK)

    def check(self) -> None:
        """Raise PlanError if the lock was held and has been taken over by another build."""
        if self._held and (self._lost or not self._is_ours(self._read())):
            raise PlanError(
                f"{self._storage.root}: another build has taken over there, as this one was not heard of for a "
                "while; let one build at a time work there, and run the same command again"
            )

    def release(self) -> None:
        """Let go of the lock; does nothing where it is not held."""
        if not self._held:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._held = False
        with contextlib.suppress(ShardError):  # left behind, it is taken over by the next build
            if self._is_ours(self._read()):
                self._storage.remove(LOCK)

    def _renew(self) -> None:
        while not self._stop.wait(self._config.renew_s):
            with contextlib.suppress(ShardError):  # the store does not answer: the build meets that itself
                if not self._is_ours(self._read()):
                    self._lost = True
                    return
                self._beat += 1
                self._storage.write_bytes(LOCK, self._content())

    def _content(self) -> bytes:
        user = "somebody"
        with contextlib.suppress(KeyError, OSError, ImportError):  # a container may know no users
            user = getpass.getuser()
        record = {
            "owner": f"{user}@{socket.gethostname()}",
            "machine": machine(),
            "pid": os.getpid(),
            "since": self._since,
            "beat": self._beat,
            "nonce": self._nonce,
        }
        return json.dumps(record).encode()

    def _read(self) -> bytes | None:
        try:
            return self._storage.read_bytes(LOCK)
        except FileNotFoundError:
            return None

    def _is_ours(self, content: bytes | None) -> bool:
        return content is not None and _parsed(content).get("nonce") == self._nonce


def machine() -> str:
    """What tells this machine, since it was started, and the processes that can be seen on it from all others."""
    seen = [socket.gethostname()]
    with contextlib.suppress(OSError):
        seen += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256(" ".join(seen).encode()).hexdigest()[:16]


def _parsed(content: bytes) -> dict[str, Any]:
    """What a lock says; nothing where it is no lock of ours."""
    try:
        record = json.loads(content)
        return record if isinstance(record, dict) and type(record.get("pid", 0)) is int else {}
    except (ValueError, RecursionError):
        return {}
