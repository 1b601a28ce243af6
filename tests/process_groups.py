"""Waiting for processes that a killed one leaves behind."""

from __future__ import annotations

import os
import time


def wait_until_gone(group: int) -> None:
    """Wait until all processes of the group have ended; a minute at most."""
    deadline = time.monotonic() + 60
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "workers outlive the build"
        time.sleep(0.01)
