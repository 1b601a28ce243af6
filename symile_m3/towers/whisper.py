"""Whisper's encoder through transformers: log-mels by its own extractor, means over the frames of the clip.

Whisper pads every clip to 30 s of silence and computes frames for all of it. Only the frames that the clip itself
reaches are averaged. Suffixes: N clips, B batch, M mel bands, T mel frames, E encoder frames, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from symile_m3.errors import TrainingError
from symile_m3.towers.device import autocast, device
from symile_m3.towers.spec import TowerSpec
from symile_m3.towers.weights import Weights, find_weights

_CHUNK = 16


def mean_of_frames(frames_BEF: Tensor, mel_frames_B: Tensor) -> Tensor:
    """Mean over the encoder frames that the clip reaches, (B, F).

    Args:
        frames_BEF: the encoder's output, two mel frames each.
        mel_frames_B: mel frames of each clip, without padding.
    """
    valid_B = (mel_frames_B + 1) // 2
    mask_BE1 = (torch.arange(frames_BEF.shape[1], device=frames_BEF.device) < valid_B[:, None])[:, :, None]
    return (frames_BEF * mask_BE1).sum(dim=1) / valid_B[:, None]


def load_whisper(spec: TowerSpec, weights: Weights) -> Any:
    """The encoder, in evaluation mode.

    Raises:
        TrainingError: the weights are damaged or incomplete.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, report = transformers.WhisperModel.from_pretrained(
            weights.model, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(f"{spec}: {weights.model} cannot be loaded ({reason})") from error
    lacking = [key for key in report["missing_keys"] if key.startswith("encoder")]
    if lacking or report["mismatched_keys"]:
        raise TrainingError(f"{spec}: {weights.model} does not hold the weights of this model (no {lacking[:1] or ''})")
    return model.encoder.eval()


class MelExtractor:
    """Whisper's log-mel features, 80 or 128 bands, of clips padded to 30 s."""

    def __init__(self, spec: TowerSpec, weights: Weights) -> None:
        import transformers

        try:
            self._extract = transformers.WhisperFeatureExtractor.from_pretrained(weights.model)
            config = transformers.WhisperConfig.from_pretrained(weights.model)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise TrainingError(f"{spec}: {weights.model} has no feature extractor to load ({reason})") from error
        if self._extract.feature_size != config.num_mel_bins:
            raise TrainingError(
                f"{spec}: {weights.model} has weights for {config.num_mel_bins} mel bands and a feature extractor for "
                f"{self._extract.feature_size}: they are of two models"
            )
        self.sample_rate_hz = int(self._extract.sampling_rate)
        self.longest_s = float(self._extract.chunk_length)

    def __call__(self, clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Log-mels (N, M, T) of the padded clips, and the (N,) frames that each clip reaches.

        Of a clip that is longer than Whisper hears, the beginning is taken.
        """
        found = self._extract(
            list(clips), sampling_rate=self.sample_rate_hz, return_tensors="pt", return_attention_mask=True
        )
        mask_NT: Tensor = found["attention_mask"]
        return found["input_features"].float(), mask_NT.sum(dim=1)


class WhisperClips:
    """A frozen encoder: clips to features."""

    def __init__(self, spec: TowerSpec) -> None:
        weights = find_weights(spec)
        self.mels = MelExtractor(spec, weights)
        self.net = load_whisper(spec, weights).to(device()).requires_grad_(False)

    @torch.inference_mode()
    def features(self, clips: Sequence[NDArray[np.float32]]) -> Tensor:
        """Features (N, F) float32 of clips at 16 kHz."""
        parts = []
        for start in range(0, len(clips), _CHUNK):
            mels_NMT, lengths_N = self.mels(clips[start : start + _CHUNK])
            with autocast():
                frames_NEF = self.net(mels_NMT.to(device())).last_hidden_state
            parts.append(mean_of_frames(frames_NEF.float(), lengths_N.to(device())).cpu())
        return torch.cat(parts)


class StoredMels:
    """Preprocessing for an encoder that is trained: log-mels as far as the clips reach, and their lengths."""

    def __init__(self, spec: TowerSpec) -> None:
        self.mels = MelExtractor(spec, find_weights(spec))

    def features(self, clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Log-mels (N, M, T) and lengths (N,); frames behind the longest clip all equal the last one kept."""
        mels_NMT, lengths_N = self.mels(clips)
        kept = min(mels_NMT.shape[2], int(lengths_N.max()) + 4)  # windows reach two frames beyond the end
        return mels_NMT[:, :, :kept].clone(), lengths_N


class TrainedWhisper(nn.Module):
    """An encoder that is trained, on stored log-mels: (B, M, T) and the mask of valid frames to features (B, F)."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.net = load_whisper(spec, find_weights(spec)).requires_grad_(True)
        self.net.embed_positions.requires_grad_(False)  # sines, and fixed
        self.width = int(self.net.config.d_model)
        self.frames = 2 * int(self.net.config.max_source_positions)

    def forward(self, mels_BMT: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, F)."""
        rest = self.frames - mels_BMT.shape[2]
        padded_BMT = torch.cat([mels_BMT, mels_BMT[:, :, -1:].expand(-1, -1, rest)], dim=2)
        return mean_of_frames(self.net(padded_BMT).last_hidden_state, mask_BT.sum(dim=1).long())
