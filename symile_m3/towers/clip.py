"""CLIP towers through open_clip: image encoders, text encoders and their preprocessing.

Image features are the pooled ones before the projection to CLIP's own space where the architecture has them apart
(1,024 for ViT-L/14, as in the paper), text features are those of that space. Suffixes: N images, B batch, V views,
H W pixels, T tokens, F features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from symile_m3.errors import TrainingError
from symile_m3.towers.device import autocast, device
from symile_m3.towers.image import view_of
from symile_m3.towers.spec import TowerSpec
from symile_m3.towers.tokens import Tokens
from symile_m3.towers.weights import Weights, find_weights

_CHUNK = 32


def load_clip(spec: TowerSpec, weights: Weights) -> Any:
    """The model, in evaluation mode.

    Raises:
        TrainingError: the weights are damaged or of another architecture.
    """
    import open_clip

    try:
        with contextlib.redirect_stdout(None):
            return open_clip.create_model(
                weights.model,
                pretrained=None if weights.checkpoint is None else str(weights.checkpoint),
                force_quick_gelu=weights.quick_gelu,
            ).eval()
    except Exception as error:  # of torch, safetensors and open_clip, for files of many kinds
        where = weights.checkpoint or weights.files[0].parent
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(f"{spec}: {where} does not hold the weights of this model ({reason})") from error


class ClipPixels:
    """CLIP's own preprocessing: resized, cropped and normalised as the model was trained."""

    def __init__(self, model: Any) -> None:
        from open_clip.model import get_model_preprocess_cfg
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(**get_model_preprocess_cfg(model))
        self._transform = image_transform_v2(config, is_train=False)
        self.mean_3 = torch.tensor(config.mean)
        self.std_3 = torch.tensor(config.std)

    def views(self, image_HW3: NDArray[np.uint8], views: int, *key: object) -> Tensor:
        """The image as the model takes it, then augmented views of it, (V, 3, H, W); see `view_of`."""
        mean, std = self.mean_3[:, None, None], self.std_3[:, None, None]
        clean: Tensor = self._transform(Image.fromarray(np.ascontiguousarray(image_HW3)))
        if views == 1:
            return clean[None]
        scaled = (clean * std + mean) * 2 - 1
        return torch.stack([clean, *(((view_of(scaled, v, *key) + 1) / 2 - mean) / std for v in range(1, views))])


class ClipVision(nn.Module):
    """The image encoder: normalised pixels (B, 3, H, W) to features (B, F)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual
        if isinstance(getattr(self.visual, "proj", None), Tensor):
            self.width = len(self.visual.proj)
            self.visual.proj = None
        else:
            self.width = int(model.visual.output_dim) if hasattr(model.visual, "output_dim") else _embed_dim(model)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, F)."""
        found = self.visual(pixels_B3HW)
        features_BF: Tensor = found[0] if isinstance(found, tuple) else found
        return features_BF


def _embed_dim(model: Any) -> int:
    projection = getattr(model, "text_projection", None)
    return int(projection.shape[-1]) if isinstance(projection, Tensor) else int(model.text.output_dim)


class ClipImages:
    """A frozen image encoder."""

    def __init__(self, spec: TowerSpec) -> None:
        model = load_clip(spec, find_weights(spec))
        self._pixels = ClipPixels(model)
        self.net = ClipVision(model).to(device()).requires_grad_(False).eval()

    def views(self, image_HW3: NDArray[np.uint8], views: int, *key: object) -> Tensor:
        """See `ClipPixels.views`."""
        return self._pixels.views(image_HW3, views, *key)

    @torch.inference_mode()
    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Features (N, F) float32 of preprocessed images."""
        with autocast():
            parts = [self.net(pixels.to(device())) for pixels in torch.split(pixels_N3HW, _CHUNK)]
        return torch.cat(parts).float().cpu()


class StoredPixels:
    """Preprocessing for an image encoder that is trained: pixels are kept as bytes, and normalised by the tower."""

    def __init__(self, spec: TowerSpec) -> None:
        self._pixels = ClipPixels(load_clip(spec, find_weights(spec)))

    def views(self, image_HW3: NDArray[np.uint8], views: int, *key: object) -> Tensor:
        """The views, normalised."""
        return self._pixels.views(image_HW3, views, *key)

    def features(self, pixels_N3HW: Tensor) -> Tensor:
        """Bytes (N, 3, H, W)."""
        mean, std = self._pixels.mean_3[:, None, None], self._pixels.std_3[:, None, None]
        return ((pixels_N3HW * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


class TrainedClipVision(nn.Module):
    """An image encoder that is trained, on stored pixels: (B, 3, H, W) from 0 to 255 to features (B, F)."""

    mean_3: Tensor
    std_3: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        model = load_clip(spec, find_weights(spec))
        pixels = ClipPixels(model)
        self.register_buffer("mean_3", pixels.mean_3)
        self.register_buffer("std_3", pixels.std_3)
        self.net = ClipVision(model)
        self.width = self.net.width

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """(B, F); many images at once where no gradients are asked for go a few at a time."""
        mean, std = self.mean_3[:, None, None], self.std_3[:, None, None]
        parts = torch.split(pixels_B3HW, len(pixels_B3HW) if torch.is_grad_enabled() else _CHUNK)
        return torch.cat([self.net((part / 255 - mean) / std) for part in parts])


class ClipTokeniser:
    """The tokeniser of a CLIP model. A text that it would cut off is refused: the word that counts may be lost."""

    def __init__(self, spec: TowerSpec) -> None:
        import open_clip

        self._spec = spec
        self._tokenise = open_clip.get_tokenizer(find_weights(spec).model)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens (B, T), T the context length of the model.

        Raises:
            TrainingError: a text is longer than that.
        """
        ids_BT: Tensor = self._tokenise([text.replace("_", " ") for text in texts])
        full = (ids_BT[:, -1] != 0).nonzero()[:, 0].tolist()  # none that is padded with zeros is cut off
        for row in full:
            text = texts[row].replace("_", " ")
            longer: Tensor = self._tokenise([text], context_length=2 * ids_BT.shape[1])
            if not torch.equal(longer[0, : ids_BT.shape[1]], ids_BT[row]):  # it ends earlier in the shorter one
                raise TrainingError(
                    f"{self._spec}: a text takes more than the {ids_BT.shape[1]} tokens ({text[:60]}...); "
                    "build with fewer --words, or take another text tower"
                )
        return Tokens(ids_BT=ids_BT, mask_BT=ids_BT != 0)


class ClipText(nn.Module):
    """A CLIP text encoder: tokens to features (B, F) of CLIP's space."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.model = load_clip(spec, find_weights(spec))
        self.width = _embed_dim(self.model)
        self.model.visual = None  # the images have a tower of their own
        self.model.logit_scale.requires_grad_(False)

    def forward(self, tokens: Tokens) -> Tensor:
        """(B, F)."""
        features_BF: Tensor = self.model.encode_text(tokens.ids_BT)
        return features_BF


@lru_cache(maxsize=2)
def clip_tokeniser(spec: TowerSpec) -> ClipTokeniser:
    """The tokeniser of a spec, made once."""
    return ClipTokeniser(spec)
