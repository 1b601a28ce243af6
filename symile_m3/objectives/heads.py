"""What an objective learns beside the representations and their scale: named tensors, a part of the model.

An objective that has such parameters makes them with a factory of the number of modalities and of D, as an
`nn.ParameterDict`, so that a model saves and optimises them with the rest. Its loss and scores read them by name, and
take any mapping of these names: on several ranks the tensors that have passed through DistributedDataParallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class HeadValues(Protocol):
    """Tensors by name; an `nn.ParameterDict` is one, and so is a dictionary."""

    def __getitem__(self, key: str, /) -> Tensor: ...

    def __iter__(self) -> Iterator[str]: ...


def wide_values(head: HeadValues, like: Tensor) -> dict[str, Tensor]:
    """The tensors in the dtype of `like`."""
    return {name: head[name].to(like.dtype) for name in head}
