"""One of two ranks of a process group: `rival_rank.py RANK FOLDER` writes its results to FOLDER/RANK.pt."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from rival_cases import NAMES, SHUFFLED, head_of, library_loss, random_reps, shuffles_of
from torch import Tensor

WORLD, ROWS, DIM, SCALE = 2, 3, 4, 0.75
Result = dict[str, Tensor]


def arguments() -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Of both ranks: representations, what is observed, and ids that rows of both share."""
    rows = WORLD * ROWS
    observed = [(torch.arange(rows) + modality) % 3 != 1 for modality in range(3)]
    return random_reps(3, rows, DIM), observed, torch.tensor([0, 1, 2, 1, 3, 3])


def evaluate(name: str, own: slice, group: dist.ProcessGroup | None) -> Result:
    """The loss of the whole batch, and its gradients with respect to some of its rows and to the head."""
    reps, observed, ids = arguments()
    leaves = [rep[own].clone().requires_grad_() for rep in reps]
    head = {key: value.requires_grad_() for key, value in head_of(name, 3, DIM).items()}
    loss = library_loss(
        name,
        leaves,
        SCALE,
        head,
        observed=[mask[own] for mask in observed],
        ids=ids[own],
        group=group,
        own=own,
        shuffles=shuffles_of(name, 3, WORLD * ROWS) if name in SHUFFLED else None,
    )
    gradients = torch.autograd.grad(loss, [*leaves, *head.values()])
    found = {"loss": loss.detach(), "reps": torch.stack(gradients[:3])}
    return found | dict(zip(head, gradients[3:], strict=True))


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=60))
    own = slice(rank * ROWS, (rank + 1) * ROWS)
    torch.save({name: evaluate(name, own, dist.group.WORLD) for name in NAMES}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
