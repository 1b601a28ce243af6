"""Which modalities of a sample are missing: a hash, not a draw, so it is not baked into the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def missing_mask(keys: Iterable[str], modality: str, p: float, seed: int) -> npt.NDArray[np.bool_]:
    """Whether `modality` is missing from each sample, with probability `p`, independently.

    A number in [0, 1) is hashed from (seed, modality, key) and compared with `p`. So a sample's fate depends
    on nothing but these, and what is missing at some p is missing at every greater p too.

    Args:
        keys: keys of the samples, N of them.
        modality: its name, such as `image`.
        p: probability, 0 <= p < 1.
        seed: 0 .. 2**64 - 1.

    Returns:
        True where missing, shape (N,).

    Raises:
        ValueError: p or seed is out of range.
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(f"p must be at least 0 and less than 1, not {p}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, not {seed}")
    stem = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little"), person=b"symile-missing")
    stem.update(modality.encode() + b"\0")
    digests = []
    for key in keys:
        own = stem.copy()
        own.update(key.encode())
        digests.append(own.digest())
    uniform_N = (np.frombuffer(b"".join(digests), "<u8") >> np.uint64(11)) * 2.0**-53
    return np.asarray(uniform_N < p, np.bool_)
