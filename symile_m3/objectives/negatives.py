"""Which combinations of rows an anchor is contrasted with, by name, and the shuffles that draw them.

| name | negatives of an anchor | how many, M = 3 |
|---|---|---|
| `n` | every other row, with the further modalities' rows shuffled against it | N - 1 |
| `n:k` | the same with k independent shuffles | k (N - 1) |
| `faces` | all but one or two modalities keep the positive's row; and those of `n` | 3 (N - 1) |
| `n2` | every combination of rows | N^2 - 1 |

Suffixes: B rows, S shuffles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

KNOWN = "n, n:k (k shuffles, such as n:4), faces, n2"


@dataclass(frozen=True, slots=True)
class Negatives:
    """A choice of negatives.

    Attributes:
        kind: n, faces or n2.
        shuffles: independent shuffles an anchor modality, for n.
    """

    kind: str
    shuffles: int = 1

    @classmethod
    def parse(cls, name: str) -> Negatives:
        """The negatives of this name.

        Raises:
            ValueError: there are none.
        """
        found = re.fullmatch(r"(n|faces|n2)|n:([1-9][0-9]{0,5})", name)
        if not found:
            raise ValueError(f"negatives {name!r}: unknown; known: {KNOWN}")
        return cls(found[1] or "n", int(found[2] or 1))

    def __str__(self) -> str:
        return self.kind if self.shuffles == 1 else f"{self.kind}:{self.shuffles}"


@dataclass(frozen=True, slots=True)
class Block:
    """Negatives that keep the positive's row in some modalities and take those of other samples in the rest.

    One block serves every modality that it keeps as an anchor: sum over d of kept row i and varied row j, j != i.

    Attributes:
        kept, varied: the modalities, every one in one of the two.
    """

    kept: tuple[int, ...]
    varied: tuple[int, ...]

    @property
    def shuffled(self) -> bool:
        """Whether rows of several modalities have to be combined anew."""
        return len(self.varied) > 1


def blocks(negatives: Negatives, modalities: int) -> list[Block]:
    """The blocks of O(N) negatives; none for n2.

    With two modalities there is nothing to shuffle: all names give every other row once.
    """
    everything = range(modalities)
    if negatives.kind == "n2":
        return []

    def varying(*varied: int) -> Block:
        return Block(tuple(kept for kept in everything if kept not in varied), varied)

    diagonals = [varying(*(other for other in everything if other != anchor)) for anchor in everything]
    if modalities == 2:
        return diagonals
    if negatives.kind == "n":
        return diagonals * negatives.shuffles
    faces = [varying(one) for one in everything]
    if modalities > 3:  # with three, all but two are the diagonal's
        faces += [varying(*pair) for pair in combinations(everything, 2)]
    return faces + diagonals


def derangement(size: int, generator: torch.Generator | None = None) -> Tensor:
    """A random permutation of one cycle: no row stays, every row is followed by another; for size 1 the identity.

    Drawn on the generator's device, (B,) int64.
    """
    order = torch.randperm(size, generator=generator, device=None if generator is None else generator.device)
    result = torch.empty_like(order)
    result[order] = order.roll(1)
    return result


def draw_shuffles(negatives: str, modalities: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """The shuffles of one step, (S, B) int64: a derangement for each block that combines rows of several modalities.

    `torch.compile` takes no generator, so draw them with one outside of what is compiled.

    Args:
        negatives: by name.
        modalities: M.
        size: B, rows that are contrasted with each other, on all ranks together.

    Raises:
        ValueError: unknown negatives.
    """
    shuffled = [block for block in blocks(Negatives.parse(negatives), modalities) if block.shuffled]
    drawn = [derangement(size, generator) for _ in shuffled]
    return torch.stack(drawn) if drawn else torch.empty(0, size, dtype=torch.int64)


def combined_rows(varied: int, successor_B: Tensor | None) -> list[Tensor | None]:
    """For candidate j of a block, the row of each varied modality; None for row j itself.

    The first takes row j and each further one the row that follows in the cycle, so a candidate's rows are all
    of different samples (while there are enough), and only candidate i holds row i of the first: with that one
    left out, no negative of anchor i can be its positive.
    """
    rows: list[Tensor | None] = [None]
    for _ in range(varied - 1):
        assert successor_B is not None
        last = rows[-1]
        rows.append(successor_B if last is None else successor_B[last])
    return rows
