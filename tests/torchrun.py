"""Training in several processes, started by the real `torchrun`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def torchrun(processes: int, *words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `symile-m3` in so many processes of this machine, and wait for them."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    return subprocess.run(
        [*launcher, *rendezvous, "-m", "symile_m3.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, "CUDA_VISIBLE_DEVICES": ""},
    )
