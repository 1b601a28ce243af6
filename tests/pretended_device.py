"""An accelerator that is not there: its tensors are computed on the CPU, and refuse to be mixed with those of the CPU.

It takes part where a test looks at what is moved when, on machines that have no accelerator. PyTorch allows what is not
on the device in two places, and so does this: numbers (tensors without dimensions) and the rows of an index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_MOVES = {torch.ops.aten.to, torch.ops.aten._to_copy, torch.ops.aten.copy_}
_INDEXES = {torch.ops.aten.index, torch.ops.aten.index_put_}


class Pretended(Tensor):
    """A tensor that says it is on the device; `own` has its values."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> Pretended:
        make: Any = Tensor._make_wrapper_subclass
        found: Pretended = make(cls, own.shape, strides=own.stride(), dtype=own.dtype, device=DEVICE)
        found.own = own.detach()
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    """What makes tensors of no others, or moves those of the CPU, asks for the device by its name."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = tree_leaves((args, kwargs))
    tensors = [value for value in given if isinstance(value, Tensor)]
    there = any(isinstance(value, Pretended) for value in tensors)
    if there and func.overloadpacket not in _MOVES:
        same = tensors[:1] if func.overloadpacket in _INDEXES else [value for value in tensors if value.ndim]
        if not all(isinstance(value, Pretended) for value in same):
            raise AssertionError(f"{func}: tensors of the device and of the CPU together")
    if func is torch.ops.aten.to.other:
        there = isinstance(args[1], Pretended)
    for value in given:
        if isinstance(value, torch.device):
            there = value.type == DEVICE.type
    args, kwargs = tree_map(_own, (args, {**kwargs, **({"non_blocking": False} if "non_blocking" in kwargs else {})}))
    found = func(*args, **kwargs)
    return tree_map(_pretended, found) if there else found


def _own(value: Any) -> Any:
    """As it is computed on the CPU."""
    if isinstance(value, torch.device):
        return _CPU
    return value.own if isinstance(value, Pretended) else value


def _pretended(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) and not isinstance(value, Pretended) else value


@contextlib.contextmanager
def pretended_device() -> Iterator[None]:
    """While it lasts, `DEVICE` can be named, and tensors and modules be moved to it."""
    torch._C._ensureCUDADeviceGuardSet()  # as PyTorch's own tracing does without a GPU
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch, _Pretending():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
