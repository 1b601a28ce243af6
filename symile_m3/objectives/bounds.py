"""What a Symile loss says of the information that the modalities share."""

from __future__ import annotations

import math

from symile_m3.objectives.negatives import Negatives


def bounds_total_correlation(negatives: str, modalities: int = 3) -> bool:
    """Whether `total_correlation_bound` has a bound for these negatives.

    Raises:
        ValueError: unknown negatives.
    """
    return modalities == 2 or Negatives.parse(negatives) == Negatives("n")


def total_correlation_bound(loss_nats: float, batch: int, *, modalities: int = 3, negatives: str = "n") -> float:
    """Lower bound of the total correlation in nats: ln(candidates) - loss (theorem 3.1 of Saporta et al. 2024).

    The theorem takes an anchor's negatives from the product of the marginals. Of the B - 1 negatives `n`, that is
    true of the B - M + 1 that hold no row of the anchor's own sample; the other M - 2 can only raise the loss. So
    the candidates are these and the positive, B - M + 2. The bound is one of expectations, for samples drawn
    independently, complete and unmasked: a mean over a few batches, or the loss of what was trained on, may lie
    above the total correlation.

    For other negatives no bound is given. The theorem does not cover them: `faces` and `n2` keep rows of the anchor's
    sample, `n:k` uses the same B rows k times over, and the logarithm of k (B - 1) + 1 less that loss does exceed
    the total correlation (with x = y of K values and B < K < k B, say). What holds for all of them is
    ln(B - M + 2) - loss, as they include the negatives of `n`; it is below the bound of `n`.

    Args:
        loss_nats: mean loss.
        batch: B, rows that are contrasted with each other, on all ranks together.
        modalities: M.
        negatives: that the loss was computed with.

    Raises:
        ValueError: no bound is known for these negatives, or the batch is smaller than the number of modalities.
    """
    if not bounds_total_correlation(negatives, modalities):
        raise ValueError(
            f"negatives {negatives!r} of {modalities} modalities give no bound of the total correlation: "
            "they are not drawn from the product of the marginals; those of 'n' are"
        )
    if not 2 <= modalities <= batch:
        raise ValueError(f"{modalities} modalities and {batch} rows: at least two, and as many rows")
    return math.log(batch - modalities + 2) - loss_nats
