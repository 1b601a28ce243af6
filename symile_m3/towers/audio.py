"""The audio tower: log-mels, a small convolutional net over them, and a trained head.

The net is fitted once to tell the languages of the training clips, then frozen: it stands in for the
pretrained multilingual speech encoder (Whisper) of the paper, whose own training named the language of every
clip. Both objectives see the same frozen features. With the spec `conv:scratch` nothing is pretrained and
the objective trains the net itself.

Suffixes: N clips, S samples, T frames, M mel bands, F features, B batch, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symile_m3.seeds import philox_key
from symile_m3.towers.head import Head

SAMPLE_RATE_HZ = 16_000
FFT = 512
WINDOW = 400  # 25 ms
HOP = 320  # 20 ms
MELS = 64
MIN_HZ, MAX_HZ = 60.0, 7600.0


def mel_filters() -> Tensor:
    """Triangular filters, evenly spaced on the mel scale (HTK's formula), (M, FFT / 2 + 1)."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (MIN_HZ, MAX_HZ))
    edges_hz = 700 * (10 ** (torch.linspace(low, high, MELS + 2, dtype=torch.float64) / 2595) - 1)
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, FFT // 2 + 1, dtype=torch.float64)
    rising = (bins_hz - edges_hz[:-2, None]) / (edges_hz[1:-1] - edges_hz[:-2])[:, None]
    falling = (edges_hz[2:, None] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0).float()


def log_mel(samples_NS: Tensor) -> Tensor:
    """Log-mel energies of 16 kHz clips, (N, M, T) with T = S // HOP + 1.

    What lies outside a clip is silence, so that zeros behind its end change none of its frames.
    """
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(samples_NS, FFT, HOP, WINDOW, window, pad_mode="constant", return_complex=True)
    return torch.log(mel_filters() @ spectrum.abs().square() + 1e-6)


def frames(samples: int) -> int:
    """Frames of a clip of this many samples."""
    return samples // HOP + 1


def normalise(mels_NMT: Tensor, lengths_N: Tensor) -> tuple[Tensor, Tensor]:
    """Take each band's mean over the clip away; zero what lies behind its end.

    Returns:
        Normalised log-mels (N, M, T) and the mask of valid frames (N, T) as float.
    """
    mask_NT = (torch.arange(mels_NMT.shape[2]) < lengths_N[:, None]).float()
    mean_NM = (mels_NMT * mask_NT[:, None]).sum(2) / lengths_N[:, None]
    return (mels_NMT - mean_NM[:, :, None]) / 3 * mask_NT[:, None], mask_NT


class ConvNet(nn.Module):
    """Four convolutions over time, then mean and deviation over the valid frames: (B, M, T) -> (B, F).

    What lies behind a clip's end is zeroed after each of them, so that padding changes nothing.
    """

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        widths = [MELS, channels, channels * 3 // 2, channels * 2, channels * 2]
        self.strides = (2, 2, 1, 1)
        kernels = (5, 5, 3, 3)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], kernels[i], self.strides[i], kernels[i] // 2) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.features = 2 * widths[-1]

    def forward(self, mels_BMT: Tensor, mask_BT: Tensor) -> Tensor:
        """Normalised log-mels and the mask of their valid frames to features (B, F)."""
        x, mask_B1T = mels_BMT, mask_BT[:, None]
        for convolution, norm, stride in zip(self.convolutions, self.norms, self.strides, strict=True):
            y = F.relu(norm(convolution(x)))
            mask_B1T = mask_B1T[:, :, ::stride]
            x = (x + y if x.shape == y.shape else y) * mask_B1T
        count_B1 = mask_B1T.sum(dim=2)
        mean_BF = x.sum(dim=2) / count_B1
        variance_BF = ((x - mean_BF[:, :, None]).square() * mask_B1T).sum(dim=2) / count_B1
        return torch.cat([mean_BF, (variance_BF + 1e-5).sqrt()], dim=1)


def augment(mels_BMT: Tensor, mask_BT: Tensor, generator: torch.Generator, *, crop: int = 100) -> tuple[Tensor, Tensor]:
    """Crops of `crop` frames, faster or slower, moved along the mel axis, with bands and times masked.

    The moves along the mel axis stand for shorter and longer vocal tracts, the masks are SpecAugment's
    (Park et al. 2019). The generator is one of the CPU, wherever the clips are: the draws are the same everywhere.
    """
    batch, mels, _ = mels_BMT.shape
    device = mels_BMT.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, generator=generator).to(device)

    lengths_B1 = mask_BT.sum(dim=1, keepdim=True)
    speed_B1 = uniform(0.85, 1.15)
    start_B1 = uniform(0, 1) * (lengths_B1 - crop * speed_B1).clamp_min(0)
    frames_BT = (start_B1 + torch.arange(crop, device=device) * speed_B1).round().long()
    frames_BT = frames_BT.clamp_max(mels_BMT.shape[2] - 1)
    x = mels_BMT.gather(2, frames_BT[:, None].expand(-1, mels, -1))
    mask = mask_BT.gather(1, frames_BT)
    bands_M = torch.arange(mels, device=device)
    moved_BM = (bands_M + uniform(-4.5, 4.5).round().long()).clamp(0, mels - 1)
    x = x.gather(1, moved_BM[:, :, None].expand(-1, -1, crop))
    for _ in range(2):
        first_B1 = uniform(0, mels - 8).long()
        x = x.masked_fill(((bands_M >= first_B1) & (bands_M < first_B1 + 8))[:, :, None], 0)
    first_B1 = uniform(0, crop - 15).long()
    times_T = torch.arange(crop, device=device)
    x = x.masked_fill(((times_T >= first_B1) & (times_T < first_B1 + 15))[:, None], 0)
    return x * (1 + 0.1 * torch.randn(batch, mels, 1, generator=generator).to(device)), mask


def fit_languages(
    mels_NMT: Tensor,
    mask_NT: Tensor,
    language_ids_N: Tensor,
    *,
    steps: int,
    seed: int,
    batch_size: int = 128,
    on_step: Callable[[], object] = lambda: None,
) -> ConvNet:
    """A net fitted to tell the language of these (training) clips, in evaluation mode.

    Args:
        mels_NMT, mask_NT: normalised log-mels and their valid frames.
        language_ids_N: (N,) what to tell.
        steps, batch_size: of AdamW with a one-cycle rate.
        seed: of the initial weights, the batches and the augmentation.
        on_step: called after every step.
    """
    languages = int(language_ids_N.max()) + 1
    random = torch.Generator().manual_seed(philox_key(seed, "audio-backbone") % 2**63)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(seed, "audio-init") % 2**63)
        net = ConvNet()
        head = nn.Sequential(nn.Dropout(0.3), nn.Linear(net.features, languages))
        parameters = [*net.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(mels_NMT), (batch_size,), generator=random)
            logits = head(net(*augment(mels_NMT[rows].float(), mask_NT[rows], random)))
            loss = F.cross_entropy(logits, language_ids_N[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            on_step()
    return net.eval()


class AudioHead(Head):
    """From frozen features to representations, through a narrow middle.

    Linear to a few dimensions, LayerNorm, GELU, Linear, LayerNorm. The narrow middle holds the language but
    not the clip: with a direct linear map the model memorises which clips go with which images in a small
    dataset (docs/LAB.md). Without a middle, Linear, LayerNorm.
    """

    def __init__(self, features: int, hidden: int, dim: int, *, noise: float, indicator: int = 0) -> None:
        width = features + indicator
        layers = nn.Sequential(
            *([nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()] if hidden else []),
            nn.Linear(hidden or width, dim),
            nn.LayerNorm(dim),
        )
        super().__init__(features, layers, noise=noise, indicator=indicator)


class ScratchAudioTower(nn.Module):
    """The net and its head, both trained by the objective: (B, M, T) log-mels -> (B, D)."""

    def __init__(self, hidden: int, dim: int, *, indicator: int = 0) -> None:
        super().__init__()
        self.net = ConvNet()
        self.head = AudioHead(self.net.features, hidden, dim, noise=0.0, indicator=indicator)
        self.learns_missing = self.head.learns_missing

    @property
    def trained_net(self) -> nn.Module:
        """What wants a rate of its own."""
        return self.net

    def forward(self, mels_BMT: Tensor, mask_BT: Tensor, missing: Tensor | None = None) -> Tensor:
        """Representations; crops are augmented while training."""
        mels, mask = mels_BMT.float(), mask_BT.float()
        if self.training:
            mels, mask = augment(mels, mask, torch.default_generator)
        rep_BD: Tensor = self.head(self.net(mels, mask), missing)
        return rep_BD
