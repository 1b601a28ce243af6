"""Frozen backbones, run once for every distinct image and clip of a dataset, and cached beside it.

A dataset repeats its media over many samples; the backbones see each of them once. Caches live in
`.symile/features/<fingerprint>/`, of a remote dataset in its folder of the local cache. The fingerprint
covers the media, the weights and the settings; of the small net that is fitted to the clips here, the whole dataset.
Suffixes: N media, V views, F features, M mel bands, T frames, H W pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.dataset import Dataset, open_dataset
from symile_m3.encode import SAMPLE_RATE_HZ, Job, encode, read_medium
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.featurestore import MAIN, Arrays, FeatureStore, rows_a_part
from symile_m3.progress import Progress
from symile_m3.shards import decode_audio, write_bytes
from symile_m3.towers import audio as audio_tower
from symile_m3.towers.image import weights_file
from symile_m3.towers.spec import TowerSpec, parse_tower
from symile_m3.towers.weights import Weights, find_weights
from symile_m3.used_media import Media

__all__ = ["Dataset", "FeatureConfig", "Features", "Media", "feature_key", "load_features", "open_dataset"]

_VERSION = 3  # of what this module computes: raise it when the same settings give other features
_CHUNK = 32
_NET = "net."  # before the names of the fitted net's weights, which are cached with the features made by it
_DTYPES = {"half": "float16", "full": "float32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig:
    """What shapes the features.

    Attributes:
        image, audio: tower specs.
        image_views: views of each training image: as it is, then augmented ones.
        audio_steps: steps that the audio net `conv` is fitted for.
        feature_seed: of the augmented views and of the audio net.
        precision: of what is kept: half or full. Set as `features.precision`, beside the `precision` of the towers.
    """

    image: str = "efficientnet-lite0"
    audio: str = "conv"
    image_views: int = 3
    audio_steps: int = 1000
    feature_seed: int = 0
    precision: str = "half"

    def __post_init__(self) -> None:
        parse_tower("image", self.image)
        parse_tower("audio", self.audio)
        if self.precision not in _DTYPES:
            raise UsageError(f"features.precision={self.precision}: give half or full")
        if self.image_views < 1 or self.audio_steps < 1:
            raise UsageError("image_views and audio_steps must be at least 1")

    @property
    def image_tower(self) -> TowerSpec:
        """The spec of the image tower, taken apart."""
        return parse_tower("image", self.image)

    @property
    def audio_tower(self) -> TowerSpec:
        """The spec of the audio tower, taken apart."""
        return parse_tower("audio", self.audio)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a dataset's media, mapped into memory from their cache.

    Attributes:
        image_NVF: (N, V, F) float16; media that are in no training sample have view 0 only, the rest zero.
            For a backbone that is trained (N, V, 3, H, W) uint8 pixels.
        clip_NF: (N, F) float16 features of the frozen net, or (N, M, T) float16 normalised log-mels for
            a net that is trained.
        clip_mask_NT: (N, T) valid frames; None for frozen features.
    """

    image_NVF: Tensor
    clip_NF: Tensor
    clip_mask_NT: Tensor | None

    def image_inputs(self, rows: Tensor, views: Tensor | int = 0) -> tuple[Tensor]:
        """What the image tower takes for some images, by default of the images as they are."""
        return (self.image_NVF[rows, views].float(),)

    def clip_inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What the audio tower takes for some clips."""
        clips = self.clip_NF[rows].float()
        return (clips,) if self.clip_mask_NT is None else (clips, self.clip_mask_NT[rows])


def load_features(
    dataset: Dataset, config: FeatureConfig, progress: Progress, *, workers: int | None = None
) -> Features:
    """The features of every medium: from the cache, or made now.

    Args:
        workers: processes that run the backbones; by default as many as pay.

    Raises:
        DamagedSampleError: an image or clip cannot be read.
        UsageError: there are no such weights.
        TrainingError: the weights or the cache cannot be used, or a clip is not what the tower takes.
    """
    return make_features(dataset, config, progress, workers=workers)[0]


def make_features(
    dataset: Dataset, config: FeatureConfig, progress: Progress, *, workers: int | None = None
) -> tuple[Features, dict[str, int]]:
    """The features, and how many images and clips went through their backbones for them; see `load_features`."""
    if config.audio_tower.pretrained:
        tower_weights(config.audio_tower)  # sought before the images take their time
    image, image_passes = _encoded(dataset, config.image_tower, config, progress, workers)
    if config.audio_tower.kind == "conv":
        clip, clip_passes = _cached(dataset, config, progress)
        mask = clip.get("mask")
    else:
        clip, clip_passes = _encoded(dataset, config.audio_tower, config, progress, workers)
        lengths = clip.get("lengths")
        mask = None if lengths is None else np.arange(clip[MAIN].shape[-1]) < lengths[:, None]
    features = Features(
        image_NVF=torch.from_numpy(image[MAIN]),
        clip_NF=torch.from_numpy(clip[MAIN]),
        clip_mask_NT=None if mask is None else torch.from_numpy(mask),
    )
    return features, {"images": image_passes, "clips": clip_passes}


def feature_folders(dataset: Dataset, config: FeatureConfig) -> dict[str, Path]:
    """The folder of the cache for images and for clips."""
    return {kind: dataset.layout.features / _fingerprint(dataset, kind, config) for kind in ("images", "clips")}


def feature_key(dataset: Dataset, config: FeatureConfig) -> str:
    """Fingerprint of all features of a dataset under a configuration."""
    both = _fingerprint(dataset, "images", config) + _fingerprint(dataset, "clips", config)
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def _fingerprint(dataset: Dataset, kind: str, config: FeatureConfig) -> str:
    if kind == "clips" and config.audio_tower.kind == "conv":
        own = ("audio", "audio_steps", "feature_seed", "precision")
        settings = {name: value for name, value in asdict(config).items() if name in own}
        media = dataset.clips  # fewer where damaged samples are left out
        rows = [[media_id, *sorted(splits)] for media_id, splits in zip(media.row_of, media.splits, strict=True)]
        text = json.dumps([_VERSION, kind, dataset.plan.fingerprint, settings, rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    spec = config.image_tower if kind == "images" else config.audio_tower
    return _folder_name(_facts(dataset, spec, config, tower_weights(spec)))


def tower_weights(spec: TowerSpec) -> Weights:
    """The weights of a frozen or pretrained tower; see `find_weights`."""
    if spec.pretrained:
        return find_weights(spec)
    return Weights(model=spec.kind, checkpoint=None, files=(weights_file(),))


def _facts(dataset: Dataset, spec: TowerSpec, config: FeatureConfig, weights: Weights) -> dict[str, str]:
    images = spec.modality == "image"
    media = dataset.images if images else dataset.clips
    rows = [
        [media_id, images and "train" in splits] for media_id, splits in zip(media.row_of, media.splits, strict=True)
    ]
    settings = [_VERSION, spec.kind, spec.trained, config.precision]
    settings += [config.image_views, config.feature_seed] if images else []
    return {
        "media": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
        "weights": weights.fingerprint(),
        "settings": json.dumps(settings),
    }


def _folder_name(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _encoded(
    dataset: Dataset, spec: TowerSpec, config: FeatureConfig, progress: Progress, workers: int | None
) -> tuple[Arrays, int]:
    """What a backbone gives for each image or clip, and how many went through it for that now."""
    weights = tower_weights(spec)
    images = spec.modality == "image"
    media = dataset.images if images else dataset.clips
    facts = _facts(dataset, spec, config, weights)
    store = FeatureStore(
        directory=dataset.layout.features / _folder_name(facts),
        kind="images" if images else "clips",
        rows=len(media.row_of),
        facts=facts,
        part_rows=rows_a_part(len(media.row_of)),
    )
    stored = store.open()
    if stored is not None:
        return stored, 0
    _prefetch(dataset, media)
    job = Job(
        spec=spec,
        readers=dataset.readers,
        ids=list(media.row_of),
        places=media.first,
        views=[config.image_views if images and "train" in splits else 1 for splits in media.splits],
        most_views=config.image_views,
        seed=config.feature_seed,
        dtype=_DTYPES[config.precision],
        store=store,
    )
    label = "Image features" if images else "Clip features"
    passes = encode(job, label, progress, weights_nbytes=weights.nbytes, workers=workers)
    arrays = store.open()
    if arrays is None:
        raise TrainingError(f"{store.directory}: the features were removed while they were made; run it again")
    return arrays, passes


def _cached(dataset: Dataset, config: FeatureConfig, progress: Progress) -> tuple[Arrays, int]:
    """The features of the clips by the net that is fitted to them, and how many went through it for that now."""
    path = _clips_cache(dataset, config)
    stored = _read_cache(path, config)
    if stored is not None:
        return stored, 0
    arrays = _clip_features(dataset, config, progress)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())
    return arrays, len(dataset.clips.row_of)


def _clips_cache(dataset: Dataset, config: FeatureConfig) -> Path:
    return dataset.layout.features / _fingerprint(dataset, "clips", config) / "clips.npz"


def _read_cache(path: Path, config: FeatureConfig) -> Arrays | None:
    """What is cached of the clips; None where it is absent, damaged, or without the net that was fitted to them."""
    with (
        contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as stored,
    ):
        arrays: Arrays = dict(stored)
        if config.audio == "conv:scratch" or any(name.startswith(_NET) for name in arrays):
            return arrays
    return None


def _chunks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _prefetch(dataset: Dataset, media: Media) -> None:
    """Begin to fetch the shards that these media are read from, where they are remote."""
    for split, reader in dataset.readers.items():
        reader.prefetch(sorted(i for place, i in media.first if place == split))


def _clip_features(dataset: Dataset, config: FeatureConfig, progress: Progress) -> Arrays:
    media = dataset.clips
    ids = list(media.row_of)
    mels: list[Tensor] = []
    lengths: list[int] = []
    _prefetch(dataset, media)
    with progress.task("Log-mels", len(ids), "clips") as task:
        for chunk in _chunks(range(len(ids))):
            places = [(dataset.readers[media.first[row][0]], media.first[row][1], ids[row]) for row in chunk]
            clips = [read_medium(reader, i, clip_id, "flac", decode_audio) for reader, i, clip_id in places]
            for row, (_, rate_hz) in zip(chunk, clips, strict=True):
                if rate_hz != SAMPLE_RATE_HZ:
                    split, i = media.first[row]
                    raise TrainingError(
                        f"{dataset.readers[split].key(i)}: clip at {rate_hz} Hz; the audio tower takes "
                        f"{SAMPLE_RATE_HZ} Hz"
                    )
            found_NMT, found_N = log_mels([samples for samples, _ in clips])
            mels.append(found_NMT)
            lengths += found_N
            task.advance(len(chunk))
    longest = max(lengths)
    mels_NMT = torch.cat([torch.nn.functional.pad(mel, (0, longest - mel.shape[2])) for mel in mels])
    mels_NMT, mask_NT = audio_tower.normalise(mels_NMT, torch.tensor(lengths))
    if config.audio == "conv:scratch":
        return {MAIN: mels_NMT.numpy().astype(_DTYPES[config.precision]), "mask": mask_NT.bool().numpy()}
    net = _fitted_net(dataset, config, mels_NMT, mask_NT, progress)
    found_NF = net_features(net, mels_NMT, mask_NT)
    weights = {_NET + name: value.numpy() for name, value in net.state_dict().items()}
    return {MAIN: found_NF.numpy().astype(_DTYPES[config.precision]), **weights}


def log_mels(clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, list[int]]:
    """Log-mels (N, M, T) of clips at 16 kHz, not normalised yet, and the frames of each."""
    padded = np.zeros((len(clips), max(map(len, clips))), dtype=np.float32)
    for line, samples in zip(padded, clips, strict=True):
        line[: len(samples)] = samples
    return audio_tower.log_mel(torch.from_numpy(padded)), [audio_tower.frames(len(samples)) for samples in clips]


@torch.inference_mode()
def net_features(net: audio_tower.ConvNet, mels_NMT: Tensor, mask_NT: Tensor) -> Tensor:
    """Features (N, F) of normalised log-mels and their valid frames."""
    batches = torch.split(torch.arange(len(mels_NMT)), 256)
    return torch.cat([net(mels_NMT[rows], mask_NT[rows]) for rows in batches])


def _fitted_net(
    dataset: Dataset, config: FeatureConfig, mels_NMT: Tensor, mask_NT: Tensor, progress: Progress
) -> audio_tower.ConvNet:
    train = dataset.clips.of_split("train")
    with progress.task("Fitting the audio net", config.audio_steps, "steps") as task:
        return audio_tower.fit_languages(
            mels_NMT[train],
            mask_NT[train],
            dataset.clips.group_ids[train],
            steps=config.audio_steps,
            seed=config.feature_seed,
            on_step=task.advance,
        )


def fitted_audio_net(dataset: Dataset, config: FeatureConfig) -> dict[str, Tensor]:
    """The weights, by name, of the net `conv` that the features of a dataset's clips are made with.

    Raises:
        NotBuiltError: the features have not been made yet.
    """
    path = _clips_cache(dataset, config)
    stored = _read_cache(path, config)
    if stored is None:
        raise NotBuiltError(f"{path}: there are no features of the clips yet; run `symile-m3 encode` first")
    return {name.removeprefix(_NET): torch.from_numpy(value) for name, value in stored.items() if name.startswith(_NET)}
