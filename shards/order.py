"""The order of samples: a pure function of (shard sizes, seed, epoch), cut into steps and ranks.

Nothing is drawn while reading, so any process can say which sample comes when, and to resume is to skip.
Only the raw 64-bit outputs of Philox and a stable sort are used: unlike numpy's own shuffles these are the
same in every version of numpy and on every platform.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]

WINDOW = 65_536
"""Samples among which the order is fully random, by default."""

_STREAM = 0x0DE2  # keeps this use of Philox apart from others under the same seed


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, *, window: int = WINDOW) -> Order:
    """The samples of one epoch, shuffled in blocks.

    The shards are permuted, consecutive ones are joined to windows of at most `window` samples (a longer
    shard is a window of its own), and the samples of each window are permuted. So a reader has only the
    shards of one window open at a time. Where all samples fit one window this is a plain permutation.

    Args:
        shard_sizes: number of samples in each shard; the samples are numbered through in this order.
        seed, epoch: what the order depends on; each 0 .. 2**64 - 1.
        window: samples to a window.

    Returns:
        A permutation of 0 .. N-1, shape (N,).

    Raises:
        ValueError: an argument is out of range.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
        raise ValueError(f"seed and epoch must be from 0 to 2**64 - 1, not {seed} and {epoch}")
    sizes_S = np.asarray(shard_sizes, np.int64)
    if sizes_S.ndim != 1 or (len(sizes_S) and sizes_S.min() < 0):
        raise ValueError("shard sizes must be counts")
    starts_S = np.cumsum(sizes_S) - sizes_S
    total = int(sizes_S.sum())
    draw = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, 0, 0, _STREAM])
    if total <= window:
        return _shuffled(draw, np.arange(total, dtype=np.int64))
    windows: list[Order] = []
    block: list[Order] = []
    held = 0
    for shard in _shuffled(draw, np.arange(len(sizes_S), dtype=np.int64)):
        size = int(sizes_S[shard])
        if block and held + size > window:
            windows.append(_shuffled(draw, np.concatenate(block)))
            block, held = [], 0
        block.append(np.arange(starts_S[shard], starts_S[shard] + size, dtype=np.int64))
        held += size
    windows.append(_shuffled(draw, np.concatenate(block)))
    return np.concatenate(windows)


def rank_share(
    order: Order, rank: int, world: int, *, batch_size: int, start: int = 0, drop_last: bool = True
) -> list[Order]:
    """The batches of one rank: step by step, the world takes the next `batch_size * world` samples of the
    order, and rank r the r-th `batch_size` of them.

    So what all ranks together have consumed is always a prefix of the order, and `start`, the length of
    that prefix, is all that a resumed run needs, with any other number of ranks or batch size too.

    The tail, shorter than a step of the world, is dropped for training (`drop_last`), so that all ranks
    take the same number of steps with full batches; as the order changes, so does what is dropped. For
    evaluation (`drop_last=False`) it is shared out, as evenly as it goes: every sample is taken once, the
    last batch is shorter, and where there are fewer samples than ranks some ranks take one step less.

    Args:
        order: the whole epoch's order, shape (N,).
        rank, world: which of how many processes.
        batch_size: samples to a batch of one rank.
        start: samples of the order already consumed by all ranks together.
        drop_last: whether to drop the tail.

    Returns:
        One array of sample numbers a step.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to {world - 1}, not {rank}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= start <= len(order):
        raise ValueError(f"start must be from 0 to {len(order)}, not {start}")
    left = order[start:]
    step = batch_size * world
    full = len(left) // step
    shares = list(left[: full * step].reshape(full, world, batch_size)[:, rank])
    if not drop_last:
        tail = np.array_split(left[full * step :], world)[rank]
        if len(tail):
            shares.append(tail)
    return shares


def _shuffled(draw: np.random.Philox, items: Order) -> Order:
    keys: npt.NDArray[np.uint64] = np.asarray(draw.random_raw(len(items)), np.uint64)
    return items[np.argsort(keys, kind="stable")]
