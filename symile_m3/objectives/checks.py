"""What every objective asks of its arguments, and the precision it works in.

Suffixes: B rows (samples), D dimensions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import reduce, wraps
from typing import Any

import torch
from torch import Tensor

MEMORY_BUDGET = 256 * 2**20  # bytes that a loss or a score may hold beside its arguments and results


def check_reps(reps: Sequence[Tensor]) -> tuple[int, int]:
    """The (B, D) that all representations share.

    Raises:
        ValueError: fewer than two modalities, integers, or shapes that differ or are not (B, D) with B, D >= 1.
    """
    if len(reps) < 2:
        raise ValueError(f"{len(reps)} modality given: at least two are needed")
    shapes = [tuple(rep.shape) for rep in reps]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"representations must all be (B, D) with one B and one D, not {shapes}")
    if 0 in shapes[0]:
        raise ValueError(
            f"representations of shape {shapes[0]} are empty: at least one row and one dimension are needed"
        )
    if not all(rep.is_floating_point() for rep in reps):
        raise ValueError(f"representations must be floating point, not {[str(rep.dtype) for rep in reps]}")
    return shapes[0][0], shapes[0][1]


def check_scale(scale: Tensor | float, like: Tensor) -> Tensor:
    """The scale as a () tensor of the dtype and device of `like`.

    A scale on an accelerator is not read, which would make the host wait for the device; there the loss
    becomes nan. Nor is it read while a graph is being compiled.

    Raises:
        ValueError: more than one number, or not finite.
    """
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(f"the scale is one number, not a tensor of shape {tuple(scale.shape)}")
        readable = scale.device.type == "cpu" and not torch.compiler.is_compiling()
        if readable and not math.isfinite(scale.item()):
            raise ValueError(f"scale {scale.item()}: a finite number is needed")
        return scale.reshape(()).to(like)
    if not math.isfinite(scale):
        raise ValueError(f"scale {scale}: a finite number is needed")
    return torch.tensor(scale, dtype=like.dtype, device=like.device)


def check_rows(name: str, rows: Tensor, batch: int) -> Tensor:
    """`rows`, if it is one entry a sample.

    Raises:
        ValueError: it is not of shape (B,).
    """
    if tuple(rows.shape) != (batch,):
        raise ValueError(f"{name} must have one entry for each of the {batch} samples, not shape {tuple(rows.shape)}")
    return rows


def check_observed(observed: Sequence[Tensor] | None, modalities: int, batch: int) -> None:
    """Nothing, if there is one (B,) mask a modality or none at all.

    Raises:
        ValueError: otherwise.
    """
    if observed is None:
        return
    if len(observed) != modalities:
        raise ValueError(f"{len(observed)} masks of what is observed for {modalities} modalities: give one a modality")
    for mask in observed:
        check_rows("observed", mask, batch)


def widened(reps: Sequence[Tensor]) -> list[Tensor]:
    """The representations in the widest of their dtypes, and at least in float32.

    Half-precision products and sums of D terms lose the digits that tell logits apart, and exponentials overflow.
    """
    dtype = reduce(torch.promote_types, (rep.dtype for rep in reps), torch.float32)
    return [rep.to(dtype) for rep in reps]


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The backward pass of a function that has no second derivative, and says so instead of leaving it out."""

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("the loss cannot be differentiated twice (create_graph=True)")
        return backward(ctx, *gradients)

    return checked


def full_precision(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocasting on the device of `like`: what `widened` gave stays so, in matrix products too."""
    return torch.autocast(like.device.type, enabled=False)


def check_ids(ids: Tensor, batch: int) -> Tensor:
    """The ids, (B,) int64.

    Raises:
        ValueError: not of shape (B,), or not integers.
    """
    check_rows("mask_same", ids, batch)
    if ids.is_floating_point() or ids.is_complex():
        raise ValueError(f"mask_same must hold integers, not {ids.dtype}")
    return ids.long()
