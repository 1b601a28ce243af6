"""The ranks of process groups, and what one process gets alone: `rank_worker.py FOLDER PART WORLD...`.

The ranks of each WORLD are forks of this process, which saves importing torch in each. A rank goes through all of its
`cases` on its part of the batch, trains, and writes what it got to FOLDER/WORLD/RANK.pt. The tests call the same
functions on the whole batch. Suffixes: B rows of a rank, N rows of all ranks, M modalities.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from symile_m3.objectives import clip_loss, draw_shuffles, symile_loss

Case = tuple[str, int, str, torch.dtype]  # negatives or clip, modalities, variant, dtype
Result = dict[str, Tensor]  # loss (), reps (M, B, D) and scale () gradients

DIM = 6
ROWS = {2: 5, 4: 3}  # of a rank
OBJECTIVES = [(kind, modalities) for kind in ("n", "n:3", "faces", "n2") for modalities in (2, 3, 4)]
OBJECTIVES += [("clip", 2), ("clip", 3)]
DTYPES = [torch.float32, torch.float64]
VARIANTS = {
    "plain": {},
    "observed": {},  # rank 1 has nothing observed, and no rank has anything of the last modality
    "same": {},  # ids that several samples have, on one rank and on several
    "least memory": {"memory_budget": 1},
    "little memory": {"memory_budget": 4000},  # some chunks are kept for the gradients, the others are not
    "large scale": {},  # the cells of each rank lie too far apart for sums of their exponentials
    "one row": {},  # of each rank
    "all at once": {"memory_budget": 4000},  # observed and same
}
# Time goes into collectives, milliseconds each with 4 ranks, so the tests are in two parts: `quick` and `slow`.
QUICK = {
    (2, torch.float64): list(VARIANTS),
    (2, torch.float32): ["plain", "large scale", "all at once"],
    (4, torch.float64): ["plain", "large scale", "one row", "all at once"],
    (4, torch.float32): ["all at once"],
}
GROUPS = [(0, 2), (1, 3)]
LEARNING_RATES = {"n": 0.05, "faces": 0.05, "n2": 0.05, "clip": 2.0}
STEPS = 3


def cases(world: int, part: str) -> list[Case]:
    return [
        (*objective, variant, dtype)
        for objective in OBJECTIVES
        for variant in VARIANTS
        for dtype in DTYPES
        if (variant in QUICK[world, dtype]) == (part == "quick")
    ]


def group_cases() -> list[Case]:
    return [(*objective, "all at once", torch.float64) for objective in OBJECTIVES]


def name(case: Case) -> str:
    kind, modalities, variant, dtype = case
    return f"{kind} of {modalities}, {variant}, {str(dtype).removeprefix('torch.')}"


def seeded(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def shuffling(rank: int) -> torch.Generator:
    """The generator that a rank hands to the loss: of another seed on every rank."""
    return seeded("shuffles", rank)


def scale_of(case: Case) -> float:
    kind, _, variant, dtype = case
    if variant != "large scale":
        return 1.5 if kind == "clip" else 0.3
    return (130.0 if kind == "clip" else 40.0) * (1 if dtype == torch.float32 else 10)


def whole_batch(case: Case, world: int, salt: int = 0) -> dict[str, Tensor]:
    """Arguments of all ranks together, by name; their rows are the first dimension but one of reps, and the last of
    the rest."""
    _, modalities, variant, dtype = case
    rows = 1 if variant == "one row" else ROWS[world]
    generator = seeded("batch", modalities, world * rows, salt)
    batch = {"reps": torch.randn(modalities, world * rows, DIM, generator=generator, dtype=torch.float64).to(dtype)}
    if variant in ("observed", "all at once"):
        number_N = torch.arange(world * rows)
        rank_N, place_N = number_N // rows, number_N % rows
        masks = [(place_N <= (rank_N + modality) % rows) & (rank_N != 1) for modality in range(modalities)]
        masks[-1] = torch.zeros_like(masks[-1])
        batch["observed"] = torch.stack(masks)
    if variant in ("same", "all at once"):
        batch["mask_same"] = torch.randint(-3, 3, (world * rows,), generator=generator)
    return batch


def part_of(batch: dict[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """The rows of one rank."""
    return {key: value.chunk(world, dim=1 if key in ("reps", "observed") else 0)[rank] for key, value in batch.items()}


def evaluate(case: Case, batch: dict[str, Tensor], group: dist.ProcessGroup | None, **options: Any) -> Result:
    """The loss and its gradients."""
    kind, _, variant, dtype = case
    reps = [rep.clone().requires_grad_() for rep in batch["reps"]]
    scale = torch.tensor(scale_of(case), dtype=dtype, requires_grad=True)
    options |= {"mask_same": batch.get("mask_same"), "group": group}
    options["observed"] = list(batch["observed"]) if "observed" in batch else None
    if group is not None:
        options |= VARIANTS[variant]
    try:
        if kind == "clip":
            loss = clip_loss(reps, scale, **options)
        else:
            loss = symile_loss(reps, scale, negatives=kind, **options)
        *gradients, scale_gradient = torch.autograd.grad(loss, [*reps, scale])
    except Exception as error:
        error.add_note(f"in case: {name(case)}")
        raise
    return {"loss": loss.detach(), "reps": torch.stack(gradients), "scale": scale_gradient}


def drawing(case: Case, rank: int) -> dict[str, torch.Generator]:
    return {} if case[0] == "clip" else {"generator": shuffling(rank)}


def alone(case: Case, world: int, first: int = 0, salt: int = 0) -> Result:
    """What one process gets for the whole batch, with the shuffles of rank `first`."""
    return evaluate(case, whole_batch(case, world, salt), None, **drawing(case, first))


class Towers(nn.Module):
    """A linear layer a modality, and the logarithm of the scale."""

    def __init__(self, modalities: int, generator: torch.Generator) -> None:
        super().__init__()
        self.towers = nn.ModuleList(nn.Linear(4, DIM) for _ in range(modalities))
        self.log_scale = nn.Parameter(torch.tensor(-0.5))
        for parameter in self.towers.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        return [tower(one) for tower, one in zip(self.towers, inputs, strict=True)], self.log_scale.exp()


def train(kind: str, world: int, rank: int | None = None, steps: int = STEPS) -> Result:
    """Parameters after some steps; without a rank those of one process on the whole batch."""
    group = None if rank is None else dist.group.WORLD
    towers = Towers(3, seeded("towers", rank or 0))  # DistributedDataParallel takes those of the first rank
    model = towers if rank is None else DistributedDataParallel(towers)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATES[kind])
    data, shuffles = seeded("inputs"), shuffling(rank or 0)
    for _ in range(steps):
        inputs = torch.randn(3, world * ROWS[world], 4, generator=data)
        reps, scale = model(inputs if rank is None else inputs.chunk(world, dim=1)[rank])
        if kind == "clip":
            loss = clip_loss(reps, scale, group=group)
        else:
            loss = symile_loss(reps, scale, negatives=kind, generator=shuffles, group=group)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {key: value.detach().clone() for key, value in towers.named_parameters()}


def given_shuffles(case: Case, world: int, rank: int) -> Tensor:
    kind, modalities, _, _ = case
    return draw_shuffles(kind, modalities, world * ROWS[world], shuffling(rank))


def all_results(rank: int, world: int, part: str) -> dict[str, Any]:
    """By section, and there by case."""
    every = dist.group.WORLD
    results: dict[str, Any] = {"shared": {}, "given": {}, "trained": {}, "pairs": {}, "alone": {}}
    for case in cases(world, part):
        rows = part_of(whole_batch(case, world), rank, world)
        results["shared"][name(case)] = evaluate(case, rows, every, **drawing(case, rank))
    if part == "slow":
        return results
    for kind in ("n", "n:3", "faces"):
        case = (kind, 3, "plain", torch.float64)
        shuffles = given_shuffles(case, world, rank)
        rows = part_of(whole_batch(case, world), rank, world)
        results["given"][name(case)] = evaluate(case, rows, every, shuffles=shuffles) | {"shuffles": shuffles}
    for kind in LEARNING_RATES:
        results["trained"][kind] = train(kind, world, rank)
    if world == 4:
        pairs = [dist.new_group(list(pair)) for pair in GROUPS]
        own = [dist.new_group([one]) for one in range(world)][rank]
        number = next(number for number, pair in enumerate(GROUPS) if rank in pair)
        for case in group_cases():
            rows = part_of(whole_batch(case, 2, salt=number), GROUPS[number].index(rank), 2)
            results["pairs"][name(case)] = evaluate(case, rows, pairs[number], **drawing(case, rank))
            results["alone"][name(case)] = [
                evaluate(case, rows, group, **VARIANTS[case[2]], **drawing(case, rank)) for group in (None, own)
            ]
    return results


def run_rank(rank: int, world: int, folder: Path, part: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=30))
    torch.save(all_results(rank, world, part), folder / f"{rank}.pt")
    dist.destroy_process_group()


def fork_rank(rank: int, world: int, folder: Path, part: str) -> int:
    """Start a rank, with what it prints in FOLDER/RANK.txt; its process."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        output = os.open(folder / f"{rank}.txt", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run_rank(rank, world, folder, part)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(root: Path, part: str, worlds: list[int]) -> None:
    """Run all ranks of all worlds at once, as they mostly wait for each other, and note how each of them ends."""
    ranks = {}
    for world in worlds:
        folder = root / str(world)
        folder.mkdir()
        ranks |= {fork_rank(rank, world, folder, part): folder / f"{rank}.status" for rank in range(world)}
    while ranks:
        process, status = os.wait()
        ranks.pop(process).write_text(str(os.waitstatus_to_exitcode(status)))


def loopback() -> str:
    """The network interface of 127.0.0.1."""
    return next(interface for _, interface in socket.if_nameindex() if interface.startswith("lo"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(world) for world in sys.argv[3:]])
