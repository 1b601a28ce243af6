"""A batch spread over processes that really run, against the same batch in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import rank_worker as worker
import torch
from making_once import MadeOnce
from rank_worker import Case, Result
from torch import Tensor

LIMIT_S = 90
WORLDS = [2, 4]
GIVEN: list[Case] = [(kind, 3, "plain", torch.float64) for kind in ("n", "n:3", "faces")]

every_case = pytest.mark.parametrize(
    ("ranks", "case"),
    [
        pytest.param((world, part), case, id=f"{world} ranks, {worker.name(case)}", marks=marks)
        for part, marks in (("quick", ()), ("slow", pytest.mark.slow))
        for world in WORLDS
        for case in worker.cases(world, part)
    ],
    indirect=["ranks"],
)
every_group_case = pytest.mark.parametrize("case", worker.group_cases(), ids=worker.name)


def run_ranks(folder: Path, part: str) -> None:
    """Let all ranks run to their end, and end them where they hang or one of them fails."""
    command = [sys.executable, "-W", "error", worker.__file__, str(folder), part, *map(str, WORLDS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": worker.loopback()}
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + LIMIT_S
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if any(path.read_text().strip("0") for path in folder.glob("*/*.status")):
                deadline = min(deadline, time.monotonic() + 3)  # the others wait for it; let them say where
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def results_of(folder: Path, world: int) -> tuple[list[dict[str, Any]], list[str]]:
    """What each rank wrote; if one of them failed or hung nothing, and a report with what they printed."""
    states = [folder / str(world) / f"{rank}.status" for rank in range(world)]
    if all(path.exists() and path.read_text() == "0" for path in states):
        return [torch.load(path.with_suffix(".pt")) for path in states], []
    report = [(folder / "output.txt").read_text(errors="replace")[-3000:]]
    for rank, path in enumerate(states):
        state = f"exit status {path.read_text()}" if path.exists() else "killed, as it still ran"
        printed = path.with_suffix(".txt").read_text(errors="replace")[-3000:] if path.parent.exists() else ""
        report.append(f"rank {rank} of {world}: {state}\n{printed}")
    return [], report


@pytest.fixture(scope="session")
def finished(made_once: MadeOnce) -> Callable[[int, str], tuple[list[dict[str, Any]], list[str]]]:
    """By world size and part the results of its ranks."""

    @cache
    def results(world: int, part: str) -> tuple[list[dict[str, Any]], list[str]]:
        return results_of(made_once(f"ranks-{part}", partial(run_ranks, part=part)), world)

    return results


@pytest.fixture(params=[(world, "quick") for world in WORLDS], ids=lambda param: f"{param[0]} ranks")
def ranks(
    request: pytest.FixtureRequest, finished: Callable[[int, str], tuple[list[dict[str, Any]], list[str]]]
) -> list[dict[str, Any]]:
    """The results of each of 2 and of 4 ranks."""
    results, report = finished(*request.param)
    if not results:
        text = "\n".join(report) or "the ranks did not come to an end: see the first of these failures"
        report.clear()  # not once more for every case
        pytest.fail(text, pytrace=False)
    return results


four_ranks = pytest.mark.parametrize("ranks", [(4, "quick")], indirect=True, ids=["4 ranks"])
alone = cache(worker.alone)


def shared(ranks: list[dict[str, Any]], case: Case) -> list[Result]:
    return [rank["shared"][worker.name(case)] for rank in ranks]


def assert_same(actual: Tensor, expected: Tensor, case: Case) -> None:
    """Equal up to rounding, relative to the largest entry."""
    tolerance = 1e-5 if case[3] == torch.float32 else 1e-10
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


@every_case
def test_loss_and_gradients_are_those_of_one_process(ranks: list[dict[str, Any]], case: Case) -> None:
    """Each rank has the loss of the whole batch. The gradients of its rows are as many times those of one process as
    there are ranks, and that of the scale is so on average, as DistributedDataParallel takes the mean."""
    world, results, expected = len(ranks), shared(ranks, case), alone(case, len(ranks))
    losses = [result["loss"] for result in results]
    assert losses[0].isfinite()
    assert all(torch.equal(losses[0], loss) for loss in losses)
    assert_same(losses[0], expected["loss"], case)
    assert_same(torch.cat([result["reps"] for result in results], dim=1), world * expected["reps"], case)
    assert_same(torch.stack([result["scale"] for result in results]).mean(), expected["scale"], case)


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
