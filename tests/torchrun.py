"""Training in several processes, started by the real `torchrun`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS_IN_TURN = Path(__file__).with_name("commands_in_turn.py")


def gloo_environment() -> dict[str, str]:
    """For processes of this machine that make a group over its loopback, with a thread each."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "CUDA_VISIBLE_DEVICES": ""}


def torchrun(processes: int, *commands: Sequence[str | Path], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run commands of `symile-m3`, one after the other, in so many processes of this machine, and wait for them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    words = [word for command in commands for word in ("+", *map(str, command))]
    return subprocess.run(
        [*launcher, *rendezvous, COMMANDS_IN_TURN, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=gloo_environment(),
    )
