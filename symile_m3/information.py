"""The lower bound of the total correlation that a trained Symile model gives on samples it has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from symile_m3.model import Model
from symile_m3.objectives import symile_loss, total_correlation_bound
from symile_m3.questions import Encoded
from symile_m3.seeds import generator, philox_key

_ROWS, _BATCHES = 2048, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """A lower bound of the total correlation of image, audio and text.

    Attributes:
        nats: the mean over some batches.
        rows: of a batch.
        highest: what the bound cannot pass with so many rows, in nats.
    """

    nats: float
    rows: int
    highest: float


@torch.inference_mode()
def unseen_bound(model: Model, encoded: Encoded, seed: int, *, rows: int = _ROWS, batches: int = _BATCHES) -> Bound:
    """The bound from the loss with negatives `n`, whichever the model was trained with: the theorem takes any critic.

    Args:
        encoded: of samples that the model was not trained on.
        seed: of the batches and of the negatives.
        rows: of a batch, at most; no more than there are samples.
        batches: over which the mean is taken.

    Raises:
        ValueError: fewer than three samples.
    """
    samples = len(encoded.queries["text"])
    rows = min(rows, samples)
    scale = model.log_scale.exp()
    order, loss = torch.empty(0, dtype=torch.long), 0.0
    for i in range(batches):
        if len(order) < rows:
            order = torch.from_numpy(generator(seed, "bound", i).permutation(samples))
        reps = [encoded.queries[modality][order[:rows]] for modality in ("image", "audio", "text")]
        order = order[rows:]
        random = torch.Generator().manual_seed(philox_key(seed, "bound-negatives", i) % 2**63)
        loss += symile_loss(reps, scale, generator=random).item() / batches
    return Bound(nats=total_correlation_bound(loss, rows), rows=rows, highest=math.log(rows - 1))
