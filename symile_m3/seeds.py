"""Randomness by name: every stream is a Philox generator keyed by a seed and what it is for.

No stream carries state from one use to the next, so anything drawn can be drawn again alone, in any
order, on any machine.
"""

from __future__ import annotations

import hashlib

import numpy as np


def philox_key(*parts: object) -> int:
    """A 128-bit Philox key from any parts with a stable `str`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(*parts: object) -> np.random.Generator:
    """A generator for what `parts` name, for example `generator(seed, "emoji-vendors", class_key)`."""
    return np.random.Generator(np.random.Philox(key=philox_key(*parts)))
