"""What each kind of exception becomes."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from symile_m3.cli.main import explain
from symile_m3.errors import DamagedSampleError, NotBuiltError, UsageError


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (UsageError("--langs 7:\n no such set"), 2, "--langs 7: no such set"),
        (NotBuiltError("no dataset in data/m3"), 1, "no dataset in data/m3"),
        (DamagedSampleError("a.tar", "k1", "cut off"), 1, "a.tar: sample k1: cut off"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.tar"),
            1,
            "x.tar: No space left on device (make room",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "x"),
            1,
            "x: Read-only file system (choose a directory",
        ),
        (OSError("odd"), 1, "OSError: odd (unexpected; run again with --debug"),
        (MemoryError(), 1, "out of memory"),
        (
            ModuleNotFoundError("No module named 'soxr'", name="soxr"),
            1,
            "Python package soxr is not installed",
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            "ZeroDivisionError: division by zero (unexpected; run again",
        ),
        (KeyError(), 1, "KeyError (unexpected"),
    ],
)
def test_one_line(error: Exception, status: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYMILE_M3_DEBUG", raising=False)
    got, line = explain(error)
    assert got == status
    assert says in line
    assert "\n" not in line


DROPPED = """
import os
import signal
import time
import weakref

from symile_m3.cli import main

class Lock:
    pass

def work():
    lock = Lock()
    reference = weakref.ref(lock, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del lock
    time.sleep(120)
    return 0

main._status = work
main.run()
"""


def test_ctrl_c_where_nothing_can_be_raised_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], stderr=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 130
    assert done.stderr == "interrupted; run the same command again to go on\n"
