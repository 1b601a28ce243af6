"""A batch spread over two processes that really run, against the same batch in one process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import rival_rank as worker
import torch
from rank_worker import loopback
from rival_cases import NAMES

LIMIT_S = 120


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, worker.Result]]:
    folder = tmp_path_factory.mktemp("rivals")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback()}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", worker.__file__, str(rank), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(worker.WORLD)
    ]
    try:
        errors = [process.communicate(timeout=LIMIT_S)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * worker.WORLD, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(worker.WORLD)]


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_one_process(name: str, ranks: list[dict[str, worker.Result]]) -> None:
    """Those of a rank's rows are `world` times as large, and the mean over the ranks is right for what is shared."""
    alone = worker.evaluate(name, slice(None), None)
    found = [rank[name] for rank in ranks]
    for rank in found:
        torch.testing.assert_close(rank["loss"], alone["loss"], rtol=1e-10, atol=0)
        assert list(rank) == list(alone)
    both = torch.cat([rank["reps"] for rank in found], dim=1)
    torch.testing.assert_close(both, worker.WORLD * alone["reps"], rtol=1e-8, atol=1e-12)
    for key in set(alone) - {"loss", "reps"}:
        mean = torch.stack([rank[key] for rank in found]).mean(dim=0)
        torch.testing.assert_close(mean, alone[key], rtol=1e-8, atol=1e-12)
