"""From the members of samples to what the towers take. Suffixes: B batch, T frames or times, M mel bands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from symile_m3.errors import TrainingError
from symile_m3.modalities.declaration import TOWERS, DataConfig, DeclaredConfig, ModalityConfig
from symile_m3.shards import Loader, LoaderConfig, Sample, Source, missing_mask
from symile_m3.towers.audio import SAMPLE_RATE_HZ, frames, log_mel, normalise
from symile_m3.towers.text import Tokeniser
from symile_m3.towers.tokens import Tokens
from symile_m3.wordbags import word_numbers

_WORD = re.compile(r"\w+")
_IMAGE_SIDE = 224
_TEXT_BYTES = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredBatch:
    """B samples.

    Attributes:
        keys: of the samples.
        given: modality -> the arguments of its tower.
        missing: modality -> (B,) True where the sample lacks it, for those that may be missing.
        labels: of the samples, where there are any.
        words: (B, W) see `symile_m3.wordbags`: of all texts of a sample that are not hidden. None where not asked for.
    """

    keys: tuple[str, ...]
    given: Mapping[str, tuple[Any, ...]]
    missing: Mapping[str, Tensor]
    labels: tuple[str, ...]
    words: Tensor | None = None


class Prepared:
    """Makes the inputs of one modality's tower from its members.

    Args:
        config: of the modality.
    """

    def __init__(self, config: ModalityConfig) -> None:
        self.config = config
        self._tokeniser = Tokeniser((), buckets=config.buckets)

    def find(self, fields: Mapping[str, Any]) -> list[Any] | None:
        """The values of a sample, one a member; None where it lacks any of them."""
        found = []
        for member in self.config.member:
            if member.startswith("json:"):
                value = fields.get("json", {}).get(member.removeprefix("json:"))
            else:
                value = fields.get(member)
            if value is None:
                return None
            found.append(value)
        return found

    def __call__(self, keys: Sequence[str], values: Sequence[list[Any] | None]) -> tuple[Any, ...]:
        """The arguments of the tower; those of what is missing are zeros or empty.

        Raises:
            TrainingError: a sample holds something else than is declared.
        """
        made = []
        for key, value in zip(keys, values, strict=True):
            try:
                made.append(None if value is None else self.made(value))
            except ValueError as error:
                raise TrainingError(f"sample {key}: {self.config.name}: {error}") from error
        return self.together(made)

    def made(self, values: list[Any]) -> Any:
        """What one sample's values, one a member, become before they are put together with those of others.

        Raises:
            ValueError: they are not as declared.
        """
        make = {"array": self._array, "image": self._image, "audio": self._wave, "text": _text}[self.config.kind]
        return make(values)

    def together(self, made: Sequence[Any | None]) -> tuple[Any, ...]:
        """The arguments of the tower for samples that have been made, None for what is missing."""
        kind = self.config.kind
        if kind == "text":
            texts = ["" if one is None else one for one in made]
            if self.config.tower in TOWERS:
                return (self._tokeniser(["_".join(words_of(text)) for text in texts]),)
            return (_bytes_of(texts),)
        if kind == "audio":
            return self._mels(made)
        shape = self.config.shape or (3, _IMAGE_SIDE, _IMAGE_SIDE)
        return (torch.stack([torch.zeros(shape) if one is None else torch.from_numpy(one) for one in made]),)

    def _array(self, values: list[Any]) -> npt.NDArray[np.float32]:
        config = self.config
        parts = []
        for member, value in zip(config.member, values, strict=True):
            try:
                array = np.asarray(value)
            except ValueError:
                array = np.asarray(None)
            if array.dtype.kind not in "biuf":
                raise ValueError(f"{member} holds no numbers")
            if config.dtype and array.dtype.name != config.dtype:
                raise ValueError(f"{member} is of {array.dtype.name}, declared is {config.dtype}")
            parts.append(array.astype(np.float32))
        joined = parts[0] if len(parts) == 1 else np.concatenate([part.reshape(-1) for part in parts])
        if joined.ndim == 0:
            joined = joined[None]
        if joined.shape != config.shape:
            what = " and ".join(config.member)
            raise ValueError(f"{what} has shape {list(joined.shape)}, declared is {list(config.shape)}")
        if not np.isfinite(joined).all():
            raise ValueError(f"{' and '.join(config.member)} holds NaN or infinities")
        return np.asarray((joined - config.mean) / config.std, np.float32)

    def _image(self, values: list[Any]) -> npt.NDArray[np.float32]:
        shape = self.config.shape or (3, _IMAGE_SIDE, _IMAGE_SIDE)
        pixels = torch.from_numpy(np.ascontiguousarray(values[0])).permute(2, 0, 1)[None].float()
        if pixels.shape[2:] != shape[1:]:
            pixels = F.interpolate(pixels, size=tuple(shape[1:]), mode="bicubic", antialias=True)
        scaled: npt.NDArray[np.float32] = pixels[0].clamp_(0, 255).div_(127.5).sub_(1).numpy()
        return scaled

    def _wave(self, values: list[Any]) -> npt.NDArray[np.float32]:
        wave_T, rate_hz = values[0]
        if rate_hz != SAMPLE_RATE_HZ:
            import soxr

            wave_T = soxr.resample(wave_T, rate_hz, SAMPLE_RATE_HZ)
        length = int(self.config.seconds * SAMPLE_RATE_HZ)
        return np.asarray(wave_T[:length], np.float32)

    def _mels(self, waves: Sequence[npt.NDArray[np.float32] | None]) -> tuple[Tensor, Tensor]:
        """Normalised log-mels (B, M, T) and the mask of valid frames (B, T)."""
        length = int(self.config.seconds * SAMPLE_RATE_HZ)
        samples = torch.zeros(len(waves), length)
        valid = torch.ones(len(waves), dtype=torch.long)
        for row, wave in enumerate(waves):
            if wave is not None:
                samples[row, : len(wave)] = torch.from_numpy(wave)
                valid[row] = frames(len(wave))
        return normalise(log_mel(samples), valid)


def _text(values: list[Any]) -> str:
    return str(values[0])


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return _WORD.findall(text.lower())


def _bytes_of(texts: Sequence[str]) -> Tokens:
    """UTF-8 bytes, at most 512 a text; one zero for an empty one."""
    rows = [(text.encode()[:_TEXT_BYTES] or b"\0") for text in texts]
    ids_BT = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = torch.tensor(list(row))
        mask_BT[i, : len(row)] = True
    return Tokens(ids_BT=ids_BT, mask_BT=mask_BT)


class Collate:
    """The loader's transform: samples to a `DeclaredBatch`.

    Args:
        config: the recipe.
        data: says where labels are.
        hide: whether modalities are hidden with the recipe's probabilities, the same in every epoch.
    """

    def __init__(self, config: DeclaredConfig, data: DataConfig, *, hide: bool) -> None:
        self._config = config
        self._data = data
        self._hide = {name: p for name, p in config.missing.items() if p and hide}
        self._prepared = {modality.name: Prepared(modality) for modality in config.modalities}

    def __call__(self, samples: list[Sample], epoch: int) -> DeclaredBatch:
        keys = tuple(sample.key for sample in samples)
        given: dict[str, tuple[Any, ...]] = {}
        missing: dict[str, Tensor] = {}
        learned = self._config.learned
        words: list[list[str]] = [[] for _ in keys]
        for name, prepared in self._prepared.items():
            values = [prepared.find(sample.fields) for sample in samples]
            absent_B = np.array([value is None for value in values])
            if absent_B.any() and not prepared.config.missing:
                key = keys[int(absent_B.argmax())]
                raise TrainingError(
                    f"sample {key} lacks {' and '.join(prepared.config.member)}; where that means that {name} is "
                    f"missing, declare it: missing = true"
                )
            if name in self._hide:
                absent_B = absent_B | missing_mask(keys, name, self._hide[name], self._config.seed)
                values = [None if absent else value for absent, value in zip(absent_B, values, strict=True)]
            given[name] = prepared(keys, values)
            if prepared.config.kind == "text":
                for of_sample, value in zip(words, values, strict=True):
                    of_sample += [] if value is None else words_of(str(value[0]))
            if name in learned:
                missing[name] = torch.from_numpy(absent_B)
        labels = tuple(self._label(sample) for sample in samples) if self._data.label else ()
        numbers = word_numbers(words) if self._config.soft_targets == "texts" else None
        return DeclaredBatch(keys=keys, given=given, missing=missing, labels=labels, words=numbers)

    def _label(self, sample: Sample) -> str:
        label, field = self._data.label, self._data.label_field
        value = sample.fields.get(field)
        if label.startswith("json:") and value is not None:
            value = value.get(label.removeprefix("json:"))
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if value is None or isinstance(value, dict | list):
            raise TrainingError(f"sample {sample.key}: has no label {label}")
        return str(value).strip()


def open_loader(
    source: Source,
    config: DeclaredConfig,
    data: DataConfig,
    *,
    batch_size: int,
    training: bool,
    on_bad_sample: str = "stop",
    rank: int = 0,
    world: int = 1,
) -> Loader[DeclaredBatch]:
    """Batches of a split: shuffled and full for training, with what the recipe hides; all in order otherwise."""
    fields = dict.fromkeys(field for modality in config.modalities for field in modality.fields)
    if data.label:
        fields[data.label_field] = None
    loader_config = LoaderConfig(
        batch_size=batch_size,
        rank=rank,
        world=world,
        seed=config.seed,
        fields=tuple(fields),
        shuffle=training,
        drop_last=training,
        workers=data.workers if training else 0,
        on_bad_sample="skip" if on_bad_sample == "skip" else "stop",
    )
    return Loader(source, loader_config, transform=Collate(config, data, hide=training))
