"""The objectives that Symile is compared with, called alike: the library's, and what their definitions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import naive_rivals as naive
import torch
from naive_losses import Rep
from torch import Tensor
from torch.distributed import ProcessGroup

from symile_m3.objectives import (
    cliplite_loss,
    confu_loss,
    draw_shuffles,
    gated_loss,
    gram_loss,
    sigmoid_loss,
    soft_loss,
    triangle_loss,
)
from symile_m3.objectives.confu import new_fusions
from symile_m3.objectives.gated import new_gates
from symile_m3.objectives.sigmoid import new_bias

Head = Mapping[str, Tensor]

SIGMOIDS = {"sigmoid": "n", "sigmoid n:2": "n:2", "sigmoid faces": "faces"}
SHUFFLED = (*SIGMOIDS, "cliplite")
NAMES = ["gram", "triangle", "gated", "confu", *SIGMOIDS, "soft", "soft labels", "soft similarity", "cliplite"]
SHAPES = [(2, 1, 3), (2, 4, 3), (3, 1, 2), (3, 2, 3), (3, 4, 3), (3, 3, 1), (4, 3, 4)]


def cases() -> list[tuple[str, tuple[int, int, int]]]:
    """Each objective with the modalities, rows and dimensions that it is defined for.

    A volume of more vectors than dimensions is 0, and rounding decides on which side; gates turn vectors, which one
    dimension has no room for.
    """
    found = [(name, shape) for name in NAMES for shape in SHAPES if name != "triangle" or shape[0] == 3]
    least = {"gram": lambda shape: shape[0], "triangle": lambda shape: 3, "gated": lambda shape: 2}
    return [(name, shape) for name, shape in found if name not in least or shape[2] >= least[name](shape)]


def random_reps(modalities: int, rows: int, dim: int, seed: int = 0) -> list[Tensor]:
    """Exact in float32."""
    generator = torch.Generator().manual_seed(seed + 100 * modalities + 10 * rows + dim)
    return [torch.randn(rows, dim, generator=generator).double() for _ in range(modalities)]


def head_of(name: str, modalities: int, dim: int) -> dict[str, Tensor]:
    """Exact in float32, and away from where it starts."""
    factories = {"gated": new_gates, "confu": new_fusions}
    factory = factories.get(name, new_bias if name in SIGMOIDS else None)
    if factory is None:
        return {}
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = factory(modalities, dim)
    head = {key: value.detach() + 0.3 * torch.randn(value.shape, generator=generator) for key, value in made.items()}
    if "strength" in head:
        head["strength"] = torch.tensor(0.5)  # gates that do something
    if "bias" in head:
        head["bias"] = torch.tensor(-0.75)
    return {key: value.double() for key, value in head.items()}


def shuffles_of(name: str, modalities: int, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    if name == "cliplite":
        pairs = list(combinations(range(modalities), 2))
        drawn = [draw_shuffles("n", 3, rows, generator)[0] for _ in pairs]
        return torch.stack(drawn) if drawn else torch.empty(0, rows, dtype=torch.int64)
    return draw_shuffles(SIGMOIDS.get(name, "n"), modalities, rows, generator)


def labels_of(modalities: int, rows: int) -> list[Tensor]:
    return [torch.arange(rows) * (modality + 2) % 3 for modality in range(modalities)]


def similarity_of(modalities: int, rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(rows, rows, generator=generator).double() * 0.4 for _ in range(modalities)]


def library_loss(
    name: str,
    reps: Sequence[Tensor],
    scale: Tensor | float,
    head: Head | None = None,
    *,
    observed: Sequence[Tensor] | None = None,
    ids: Tensor | None = None,
    memory_budget: int = 2**28,
    group: ProcessGroup | None = None,
    own: slice = slice(None),
    shuffles: Tensor | None = None,
) -> Tensor:
    """`own`: of all rows, those that are this rank's, where labels and similarities are of all."""
    modalities, rows = len(reps), len(reps[0])
    options = {"observed": observed, "mask_same": ids, "memory_budget": memory_budget, "group": group}
    if head is None:
        head = head_of(name, modalities, reps[0].shape[1])
    if name in SHUFFLED and shuffles is None:
        shuffles = shuffles_of(name, modalities, rows)
    if name == "gram":
        return gram_loss(reps, scale, **options)
    if name == "triangle":
        return triangle_loss(reps, scale, **options)
    if name == "gated":
        return gated_loss(reps, scale, head=head, **options)
    if name == "confu":
        return confu_loss(reps, scale, head=head, **options)
    if name in SIGMOIDS:
        return sigmoid_loss(reps, scale, head=head, negatives=SIGMOIDS[name], shuffles=shuffles, **options)
    if name == "cliplite":
        return cliplite_loss(reps, scale, shuffles=shuffles, **options)
    total = rows if group is None else rows * group.size()
    if name == "soft labels":
        return soft_loss(reps, scale, labels=[label[own] for label in labels_of(modalities, total)], **options)
    if name == "soft similarity":
        return soft_loss(reps, scale, similarity=[one[own] for one in similarity_of(modalities, total)], **options)
    return soft_loss(reps, scale, **options)


def definition(
    name: str,
    reps: Sequence[Rep],
    scale: Tensor,
    head: Head,
    observed: Sequence[Tensor] | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    modalities, rows = len(reps), len(reps[0])
    masks = None if observed is None else [mask.tolist() for mask in observed]
    same = None if ids is None else ids.tolist()
    shuffles = shuffles_of(name, modalities, rows).tolist()
    if name == "gram":
        return naive.naive_gram(reps, scale, masks, same)
    if name == "triangle":
        return naive.naive_triangle(reps, scale, masks, same)
    if name == "gated":
        return naive.naive_gated(reps, scale, head, masks, same)
    if name == "confu":
        return naive.naive_confu(reps, scale, head, masks, same)
    if name in SIGMOIDS:
        return naive.naive_sigmoid(reps, scale, head, SIGMOIDS[name], shuffles, masks, same)
    if name == "cliplite":
        return naive.naive_cliplite(reps, scale, shuffles, masks, same)
    if name == "soft labels":
        alike = [[[float(a == b) for b in label] for a in label] for label in labels_of(modalities, rows)]
    elif name == "soft similarity":
        alike = [one.tolist() for one in similarity_of(modalities, rows)]
    else:
        alike = [[[0.0 if i == j else -1e9 for j in range(rows)] for i in range(rows)]] * modalities
    return naive.naive_soft(reps, scale, alike, masks, same)
