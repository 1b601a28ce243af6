"""Measured ceilings: how much of the image and of the language the frozen features let anyone tell.

Both are supervised readings of the same features that the towers get, trained on the training media and
tested on the test media, so a result can be judged against what was possible.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symile_m3.features import Dataset, Features
from symile_m3.seeds import philox_key
from symile_m3.shards import write_bytes, write_text

_VERSION = 2  # of what this module computes


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What supervised readings of the features reach.

    Attributes:
        image: share of classes for which the test image that a classifier thinks most likely of the class
            is of the class: retrieval by a perfect user of audio and text.
            `None` where the image backbone is trained.
        language: share of test clips whose language is told; `None` where the audio net is trained from
            scratch, so that there are no frozen features to read.
    """

    image: float | None
    language: float | None


def measure_ceilings(dataset: Dataset, features: Features, key: str, *, seed: int = 0) -> Ceilings:
    """The ceilings of a dataset's features, cached beside them.

    Args:
        key: of the cache entry: the fingerprint of the features.
    """
    path = dataset.layout.features / key / f"ceilings-{_VERSION}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # a damaged cache is made anew
        return Ceilings(**json.loads(path.read_text(encoding="utf-8")))
    ceilings = Ceilings(
        image=None if features.image_NVF.dim() > 3 else _image_ceiling(dataset, features, seed),
        language=None if features.clip_mask_NT is not None else _language_ceiling(dataset, features, seed),
    )
    write_text(path, json.dumps({"image": ceilings.image, "language": ceilings.language}) + "\n")
    return ceilings


def measure_readings(
    dataset: Dataset, features: Features, key: str, images: Tensor, clips: Tensor, *, seed: int = 0
) -> tuple[Tensor, Tensor] | None:
    """What the same classifiers say of single images and clips, cached beside the features.

    Args:
        key: of the cache entry: the fingerprint of the features.
        images, clips: (N,) and (M,) rows of those to read, always the same for one key.

    Returns:
        (N, K) probability of each class and (M, L) of each language; None where the image or audio backbone is
        trained, so that there are no features to read.
    """
    if features.clip_mask_NT is not None or features.image_NVF.dim() > 3:
        return None
    path = dataset.layout.features / key / f"readings-{_VERSION}.npz"
    with (
        contextlib.suppress(OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile),  # damaged: made anew
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        return torch.from_numpy(stored["images"]).float(), torch.from_numpy(stored["clips"]).float()
    found = (
        _image_logits(dataset, features, images, seed).softmax(dim=1).half(),
        _language_logits(dataset, features, clips, seed).softmax(dim=1).half(),
    )
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, images=found[0].numpy(), clips=found[1].numpy())
    write_bytes(path, buffer.getvalue())
    return found[0].float(), found[1].float()


def _image_ceiling(dataset: Dataset, features: Features, seed: int) -> float:
    test = dataset.candidates("test")
    logits = _image_logits(dataset, features, test, seed)
    classes = torch.unique(dataset.images.group_ids[test])
    best = logits[:, classes].log_softmax(dim=1).argmax(dim=0)
    return float((dataset.images.group_ids[test][best] == classes).float().mean())


def _language_ceiling(dataset: Dataset, features: Features, seed: int) -> float:
    test = dataset.clips.of_split("test")
    logits = _language_logits(dataset, features, test, seed)
    return float((logits.argmax(dim=1) == dataset.clips.group_ids[test]).float().mean())


def _image_logits(dataset: Dataset, features: Features, rows: Tensor, seed: int) -> Tensor:
    train = dataset.images.of_split("train")
    views = features.image_NVF.shape[1]
    inputs = features.image_NVF[train].float().flatten(0, 1)
    labels = dataset.images.group_ids[train].repeat_interleave(views)
    return _classify(inputs, labels, features.image_NVF[rows, 0].float(), hidden=512, steps=300, seed=seed)


def _language_logits(dataset: Dataset, features: Features, rows: Tensor, seed: int) -> Tensor:
    train = dataset.clips.of_split("train")
    labels = dataset.clips.group_ids[train]
    known = features.clip_NF[train].float()
    return _classify(known, labels, features.clip_NF[rows].float(), hidden=0, steps=200, seed=seed)


def _classify(inputs: Tensor, labels: Tensor, test: Tensor, *, hidden: int, steps: int, seed: int) -> Tensor:
    """Logits on `test` of a small regularised classifier of standardised features."""
    mean, std = inputs.mean(dim=0), inputs.std(dim=0).clamp_min(1e-5)
    inputs, test = (inputs - mean) / std, (test - mean) / std
    classes = int(labels.max()) + 1
    random = torch.Generator().manual_seed(philox_key(seed, "ceiling") % 2**63)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(philox_key(seed, "ceiling-init") % 2**63)
        width = inputs.shape[1]
        layers: list[nn.Module] = [nn.Dropout(0.3)]
        if hidden:
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()]
        net = nn.Sequential(*layers, nn.Linear(hidden or width, classes))
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        batch = min(512, len(inputs))
        for _ in range(steps):
            rows = torch.randint(len(inputs), (batch,), generator=random)
            noisy = inputs[rows] + 0.3 * torch.randn(batch, width, generator=random)
            loss = F.cross_entropy(net(noisy), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        logits: Tensor = net(test)
    return logits
