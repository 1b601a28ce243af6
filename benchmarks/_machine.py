"""What a benchmark ran on. Not a benchmark itself: `make bench` leaves out names with an underscore."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(gpu: str = "no GPU") -> str:
    """The processor, how many of the machine's cores this process may use, and the accelerator."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {shown_cores(cores(), os.cpu_count() or 1)}, {gpu}"


def shown_cores(usable: int, there: int) -> str:
    """How many cores may be used of those there are, such as `1 of 4 cores`."""
    return f"{usable} of {there} cores" if usable < there else f"{there} core{'s' if there > 1 else ''}"


def status_bytes(field: str, path: str = "/proc/self/status") -> int:
    """A field of a `/proc` file in bytes, such as VmRSS of this process or MemAvailable of `/proc/meminfo`.

    Raises:
        OSError: the system has no such file.
        ValueError: the file has no such field.
    """
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{path} has no {field}")
