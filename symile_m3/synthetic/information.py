"""What the synthetic process is exactly worth: information in nats, and the best accuracies there can be.

Closed forms, for any number of bits and vectors. Write q = 2^-d and h for the entropy of a yes or no. Let a be the
first vector, c the last, and b those between, together; their exclusive or, x, is uniform, and whatever is true of b
with three vectors is true of x with more.

- c is a where i = 0, and where i = 1 and x = 0; so P(c = a) = (1 - p) + p q, and every other c has p q.
  I(a;c) = d ln 2 - H(c|a), with H(c|a) from these 2^d probabilities.
- Whatever b is, c is uniform, as a is: I(b;c) = 0 for every p. So is I(a;b) = 0.
- Given a and b, c is known where x = 0, and is one of two otherwise: H(c|a,b) = (1 - q) h(p).
  TC = I(a,b;c) = d ln 2 - (1 - q) h(p).
- TC = I(a;c) + I(b;c) + I(a;b|c), and I(b;c|a) = I(a,b;c) - I(a;c): both are TC - I(a;c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from symile_m3.synthetic.process import XorProcess

FORMULAS = (  # field, what it is
    ("first_last", "I(a;c)"),
    ("between_last", "I(b;c)"),
    ("first_between_given_last", "I(a;b|c)"),
    ("between_last_given_first", "I(b;c|a)"),
    ("total_correlation", "TC"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Information:
    """Exact values in nats; a is the first vector, c the last, b those between together.

    Attributes:
        first_last: I(a;c).
        between_last: I(b;c).
        first_between_given_last: I(a;b|c).
        between_last_given_first: I(b;c|a).
        total_correlation: TC of all vectors.
    """

    first_last: float
    between_last: float
    first_between_given_last: float
    between_last_given_first: float
    total_correlation: float

    @classmethod
    def of(cls, process: XorProcess) -> Information:
        """The values of a process."""
        p, d, q = process.p, process.dim, 2.0**-process.dim
        same = (1 - p) + p * q
        # The 2^d - 1 others have p q each: their share of the entropy is p (1 - q) (d ln 2 - ln p).
        entropy = _term(same) + (p * (1 - q) * (d * math.log(2) - math.log(p)) if p > 0 else 0.0)
        shared = max(0.0, d * math.log(2) - entropy)  # rounding may leave -1e-16
        total = d * math.log(2) - (1 - q) * (_term(p) + _term(1 - p))
        conditional = max(0.0, total - shared)
        return cls(
            first_last=shared,
            between_last=0.0,
            first_between_given_last=conditional,
            between_last_given_first=conditional,
            total_correlation=total,
        )


def best_accuracy(process: XorProcess, predicted: str, given: str) -> float:
    """The best accuracy of predicting one vector from some of the others.

    For a and c: all others leave two candidates, one of them with probability max(p, 1 - p), or one where
    both are the same; with one of those between missing, a and c are each other's best guess; without the other of
    a and c there is nothing. For one between: where a and c differ, it follows from all others; where they are the
    same, the best guess is what makes x zero; with anything missing there is nothing.

    Args:
        predicted: the letter of a vector.
        given: letters of others.

    Raises:
        UsageError: an unknown letter.
    """
    known = {process.index(name) for name in given}
    target = process.index(predicted)
    if target in known:
        return 1.0
    p, q = process.p, 2.0**-process.dim
    ends = (0, process.modalities - 1)
    everything = len(known) == process.modalities - 1
    if target not in ends:
        return q + (1 - q) * p if everything else q
    if everything:
        return q + (1 - q) * max(p, 1 - p)
    partner = ends[1] if target == ends[0] else ends[0]
    return (1 - p) + p * q if partner in known else q


def best_from_one(process: XorProcess, predicted: str) -> float:
    """The best accuracy from any one other vector, which is the best that the pairs of vectors allow.

    Who knows how the vectors of each pair are distributed and no more has to take what the pairs do not say as
    independent; only a and c depend on each other, so that a and c are each other's best guess, and for a vector
    between every candidate is as good as any: chance.
    """
    others = process.names.replace(predicted, "")
    return max(best_accuracy(process, predicted, other) for other in others)


def best_with_missing(process: XorProcess, predicted: str, missing: int) -> float:
    """The best accuracy when so many of the other vectors are missing, all choices of them equally likely."""
    others = process.modalities - 1
    if not 0 <= missing <= others:
        raise ValueError(f"{missing} of {others} vectors missing")
    names = process.names.replace(predicted, "")
    if missing == 0:
        return best_accuracy(process, predicted, names)
    q = 2.0**-process.dim
    share = 1 - missing / others  # of the choices, in which any one vector is there
    return share * best_from_one(process, predicted) + (1 - share) * q


def _term(probability: float) -> float:
    return -probability * math.log(probability) if probability > 0 else 0.0
