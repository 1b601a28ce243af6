"""A batch spread over processes that really run, against the same batch in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import rank_worker as worker
import torch
from rank_worker import Case, Result
from torch import Tensor

Finished = tuple[list[dict[str, Any]], list[str]]  # results of the ranks, and a report if there are none

LIMIT_S = 60
WORLDS = [2, 4]
GIVEN: list[Case] = [(kind, 3, "plain", torch.float64) for kind in ("n", "n:3", "faces")]

every_case = pytest.mark.parametrize(
    ("ranks", "case"),
    [
        pytest.param(world, case, id=f"{world} ranks, {worker.name(case)}")
        for world in WORLDS
        for case in worker.cases(world)
    ],
    indirect=["ranks"],
)
every_group_case = pytest.mark.parametrize("case", worker.group_cases(), ids=worker.name)


def start(rank: int, world: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", worker.__file__, str(rank), str(world), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": worker.loopback()}
    with (folder / f"{rank}.txt").open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def wait_for(processes: list[subprocess.Popen[bytes]], folder: Path, deadline: float) -> Finished:
    """What each rank wrote; if one of them fails or hangs nothing, and a report with what they printed."""
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if any(process.poll() for process in processes):  # the others wait for it; let them say where
            deadline = min(deadline, time.monotonic() + 3)
        time.sleep(0.05)
    codes = [process.poll() for process in processes]
    if all(code == 0 for code in codes):
        return [torch.load(folder / f"{rank}.pt") for rank in range(len(codes))], []
    stop(processes)
    outputs = [(folder / f"{rank}.txt").read_text(errors="replace")[-3000:] for rank in range(len(codes))]
    states = ["killed, as it still ran" if code is None else f"exit status {code}" for code in codes]
    return [], [f"rank {rank} of {len(codes)}: {states[rank]}\n{outputs[rank]}" for rank in range(len(codes))]


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Callable[[], Finished]]]:
    """For each world size how to wait for its ranks; they all run at once, as they mostly wait for each other."""
    folders = {world: tmp_path_factory.mktemp("ranks") for world in WORLDS}
    processes = {world: [start(rank, world, folders[world]) for rank in range(world)] for world in WORLDS}
    deadline = time.monotonic() + LIMIT_S
    yield {world: cache(partial(wait_for, processes[world], folders[world], deadline)) for world in WORLDS}
    for world in WORLDS:
        stop(processes[world])


@pytest.fixture(params=WORLDS, ids=lambda world: f"{world} ranks")
def ranks(request: pytest.FixtureRequest, started: dict[int, Callable[[], Finished]]) -> list[dict[str, Any]]:
    """The results of each of 2 and of 4 ranks."""
    results, report = started[request.param]()
    if not results:
        text = "\n".join(report) or "the ranks did not come to an end: see the first of these failures"
        report.clear()  # not once more for every case
        pytest.fail(text, pytrace=False)
    return results


four_ranks = pytest.mark.parametrize("ranks", [4], indirect=True, ids=["4 ranks"])
alone = cache(worker.alone)


def shared(ranks: list[dict[str, Any]], case: Case) -> list[Result]:
    return [rank["shared"][worker.name(case)] for rank in ranks]


def assert_same(actual: Tensor, expected: Tensor, case: Case) -> None:
    """Equal up to rounding, relative to the largest entry."""
    tolerance = 1e-5 if case[3] == torch.float32 else 1e-10
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


@every_case
def test_the_loss_is_that_of_one_process_on_every_rank(ranks: list[dict[str, Any]], case: Case) -> None:
    losses = [result["loss"] for result in shared(ranks, case)]
    assert losses[0].isfinite()
    assert all(torch.equal(losses[0], loss) for loss in losses)
    assert_same(losses[0], alone(case, len(ranks))["loss"], case)


@every_case
def test_gradients_of_a_ranks_rows_are_world_times_those_of_one_process(
    ranks: list[dict[str, Any]], case: Case
) -> None:
    gradients_MND = torch.cat([result["reps"] for result in shared(ranks, case)], dim=1)
    assert_same(gradients_MND, len(ranks) * alone(case, len(ranks))["reps"], case)


@every_case
def test_the_mean_gradient_of_the_scale_is_that_of_one_process(ranks: list[dict[str, Any]], case: Case) -> None:
    gradients = torch.stack([result["scale"] for result in shared(ranks, case)])
    assert_same(gradients.mean(), alone(case, len(ranks))["scale"], case)


@pytest.mark.parametrize("kind", ["n", "n:3", "faces"])
@pytest.mark.parametrize("world", WORLDS)
def test_another_ranks_generator_would_give_another_loss(kind: str, world: int) -> None:
    case = (kind, 3, "plain", torch.float64)
    first, second = (alone(case, world, rank)["loss"] for rank in (0, 1))
    assert abs(first - second) > 1e-4


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_the_masks_are_as_uneven_as_they_are_meant_to_be(world: int, modalities: int) -> None:
    observed = worker.whole_batch(("n", modalities, "observed", torch.float32), world)["observed"]
    counts = [[int(mask.sum()) for mask in mask_N.chunk(world)] for mask_N in observed]
    assert all(count[1] == 0 and len(set(count)) > 1 for count in counts[:-1])
    assert sum(counts[-1]) == 0


@pytest.mark.parametrize("world", WORLDS)
def test_same_ids_are_on_one_rank_and_on_several_and_some_are_negative(world: int) -> None:
    ids = worker.whole_batch(("n", 3, "same", torch.float32), world)["mask_same"]
    parts = [set(part.tolist()) for part in ids.chunk(world)]
    assert ids.min() < 0 < ids.max()
    assert any(len(part) < worker.ROWS[world] for part in parts)
    assert parts[0] & parts[1]


@pytest.mark.parametrize("dtype", worker.DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "modalities"), [pair for pair in worker.OBJECTIVES if pair[0] in ("n2", "clip")])
@pytest.mark.parametrize("world", WORLDS)
def test_a_large_scale_spreads_the_cells_of_every_rank(
    world: int, kind: str, modalities: int, dtype: torch.dtype
) -> None:
    case = (kind, modalities, "large scale", dtype)
    reps = list(worker.whole_batch(case, world)["reps"])
    if kind == "clip":
        reps = [torch.nn.functional.normalize(rep, dim=-1) for rep in reps]
    cubes = [reps] if kind == "n2" else [[a, b] for number, a in enumerate(reps) for b in reps[number + 1 :]]
    for first_ND, *rest in cubes:
        for products in first_ND.chunk(world):
            for rep_ND in rest:
                products = products[..., None, :] * rep_ND
            cells = worker.scale_of(case) * products.sum(dim=-1)
            assert cells.max() - cells.min() > torch.tensor(torch.finfo(dtype).max, dtype=torch.float64).log()


@pytest.mark.parametrize("case", GIVEN, ids=worker.name)
def test_the_first_ranks_shuffles_count_where_they_are_given(ranks: list[dict[str, Any]], case: Case) -> None:
    world = len(ranks)
    expected = worker.evaluate(
        case, worker.whole_batch(case, world), None, shuffles=worker.given_shuffles(case, world, 0)
    )
    results = [rank["given"][worker.name(case)] for rank in ranks]
    assert all(torch.equal(results[0]["loss"], result["loss"]) for result in results)
    assert_same(results[0]["loss"], expected["loss"], case)
    assert_same(torch.cat([result["reps"] for result in results], dim=1), world * expected["reps"], case)


@pytest.mark.parametrize("case", GIVEN, ids=worker.name)
def test_given_shuffles_are_left_as_they_are(ranks: list[dict[str, Any]], case: Case) -> None:
    for rank, results in enumerate(ranks):
        left = results["given"][worker.name(case)]["shuffles"]
        assert torch.equal(left, worker.given_shuffles(case, len(ranks), rank)), f"rank {rank}"


@pytest.mark.parametrize("kind", worker.LEARNING_RATES)
def test_distributed_data_parallel_trains_as_one_process_does(ranks: list[dict[str, Any]], kind: str) -> None:
    expected = worker.train(kind, len(ranks))
    before = worker.train(kind, len(ranks), steps=0)
    for key, value in expected.items():
        assert (value - before[key]).abs().max() > 0.01, f"{key}: nothing was learned"
        for rank in ranks:
            torch.testing.assert_close(rank["trained"][kind][key], value, rtol=1e-5, atol=1e-5, msg=key)


@four_ranks
@every_group_case
def test_each_group_contrasts_within_itself(ranks: list[dict[str, Any]], case: Case) -> None:
    for number, pair in enumerate(worker.GROUPS):
        expected = alone(case, 2, first=pair[0], salt=number)
        results = [ranks[rank]["pairs"][worker.name(case)] for rank in pair]
        assert torch.equal(results[0]["loss"], results[1]["loss"])
        assert_same(results[0]["loss"], expected["loss"], case)
        assert_same(torch.cat([result["reps"] for result in results], dim=1), 2 * expected["reps"], case)
        assert_same((results[0]["scale"] + results[1]["scale"]) / 2, expected["scale"], case)


@four_ranks
@every_group_case
def test_a_group_of_one_is_no_group(ranks: list[dict[str, Any]], case: Case) -> None:
    for rank in ranks:
        without, within = rank["alone"][worker.name(case)]
        assert all(torch.equal(without[key], within[key]) for key in ("loss", "reps", "scale"))
