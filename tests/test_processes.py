"""What becomes of a process of several when it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from torchrun import gloo_environment

LEAVES = """
import sys
import torch
import torch.distributed as dist
from symile_m3 import processes

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
processes._FAREWELL_S = 0.5
processes._leave_at_exit()
dist.all_reduce(torch.ones(3))
if rank == 0:
    work = dist.all_reduce(torch.ones(3), async_op=True)
    sys.exit("failed in the midst of a step")
sys.stdin.read()
"""


def start(rank: int, store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LEAVES, str(rank), str(store)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=gloo_environment(),
    )


def test_a_process_that_fails_does_not_wait_for_what_others_never_join(tmp_path: Path) -> None:
    failing, other = (start(rank, tmp_path / "store") for rank in range(2))
    try:
        _, said = failing.communicate(timeout=240)
        assert other.poll() is None
        assert failing.returncode == 1
        assert said.strip().splitlines()[-1] == "failed in the midst of a step"
    finally:
        other.kill()
        other.communicate()
