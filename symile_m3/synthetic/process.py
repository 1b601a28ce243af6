"""The synthetic process of the paper, for three vectors of bits and for more.

All vectors but the last are uniform and independent. One draw a sample, shared by all its bits, decides about the
last: with probability p it is the exclusive or of all the others, otherwise it is the first. With three vectors that
is section 5.1 of Saporta et al. 2024: c = a xor b where i = 1, else a. With eight, of one bit, and p = 1 it is the
parity of their example.

Suffixes: M vectors, N samples, d bits.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import UsageError
from symile_m3.seeds import generator

PAPER_P = tuple(step / 10 for step in range(11))
MAX_MODALITIES = len(string.ascii_lowercase)
MAX_CANDIDATES_DIM = 12  # 4,096 candidates; the information needs no candidates, and has no limit

Bits = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class XorProcess:
    """The process.

    Attributes:
        p: the probability that the last vector is the exclusive or of the others.
        dim: d, bits of a vector.
        modalities: M, vectors of a sample.
    """

    p: float
    dim: int = 5
    modalities: int = 3

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise UsageError(f"p = {self.p}: a probability is a number from 0 to 1")
        if self.dim < 1:
            raise UsageError(f"{self.dim} bits a vector: give at least 1")
        if not 3 <= self.modalities <= MAX_MODALITIES:
            raise UsageError(f"{self.modalities} vectors a sample: give 3 to {MAX_MODALITIES}")

    @property
    def names(self) -> str:
        """A letter for each vector: `abc`."""
        return string.ascii_lowercase[: self.modalities]

    def index(self, name: str) -> int:
        """Which vector has this letter.

        Raises:
            UsageError: none.
        """
        if len(name) != 1 or name not in self.names:
            raise UsageError(f"vector {name!r}: unknown; the {self.modalities} vectors are {', '.join(self.names)}")
        return self.names.index(name)

    def samples(self, count: int, *stream: object) -> Bits:
        """(M, N, d) samples of the process, 0 or 1; a pure function of the process and the stream.

        Args:
            count: N.
            stream: what the random numbers are for, such as a seed and a split. All p draw from the same numbers.
        """
        random = generator("xor", self.modalities, self.dim, *stream)
        vectors: Bits = random.integers(0, 2, size=(self.modalities, count, self.dim), dtype=np.uint8)
        mixed_N1 = random.random(count)[:, None] < self.p
        vectors[-1] = np.where(mixed_N1, np.bitwise_xor.reduce(vectors[:-1], axis=0), vectors[0])
        return vectors

    def candidates(self) -> Bits:
        """(2^d, d) every vector there is; row k holds the binary digits of k, the lowest first.

        Raises:
            UsageError: there are too many.
        """
        if self.dim > MAX_CANDIDATES_DIM:
            raise UsageError(
                f"{self.dim} bits make 2^{self.dim} candidates to retrieve from: give at most {MAX_CANDIDATES_DIM} bits"
            )
        digits: Bits = ((np.arange(2**self.dim)[:, None] >> np.arange(self.dim)) & 1).astype(np.uint8)
        return digits

    def numbers(self, vectors: Bits) -> NDArray[np.int64]:
        """The row of each vector among the candidates; (..., d) -> (...)."""
        numbers: NDArray[np.int64] = vectors.astype(np.int64) @ (1 << np.arange(self.dim, dtype=np.int64))
        return numbers
