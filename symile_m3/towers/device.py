"""Where frozen backbones run: the GPU where there is one."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """Half precision on a GPU, with float32 where it matters; as it is on a CPU."""
    return torch.autocast(device().type, torch.float16, enabled=device().type == "cuda")
