"""Frozen backbones over the distinct media of a dataset: one pass each, in parallel where it pays, resumable.

On a GPU one process runs the backbone while threads decode what comes next. On CPUs small backbones run in a process
a core, each with one thread; large ones, whose weights would be held by each, in one process with all threads.
Suffixes: N media, V views, F features.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.errors import DamagedSampleError, TrainingError
from symile_m3.featurestore import MAIN, Arrays, FeatureStore
from symile_m3.parallel import available_cpus, run_parallel
from symile_m3.progress import Progress
from symile_m3.shards import DatasetReader, decode_audio, decode_image, decode_json
from symile_m3.towers.device import device
from symile_m3.towers.spec import TowerSpec

T = TypeVar("T")

_reading = threading.Lock()  # threads decode side by side, and read one after the other

SAMPLE_RATE_HZ = 16_000
_SMALL_NBYTES = 200 << 20  # weights that every process may hold
_PAYS = 256  # media a process, below which starting it takes longer than it saves


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be encoded; picklable.

    Attributes:
        spec: the tower.
        readers: one a split.
        ids: of the media, by row.
        places: where each medium can be read: a split and a sample number.
        views: of each image.
        most_views: of any image.
        seed: of the augmented views.
        dtype: numpy's, of what is kept.
        store: where it is kept.
    """

    spec: TowerSpec
    readers: Mapping[str, DatasetReader]
    ids: Sequence[str]
    places: Sequence[tuple[str, int]]
    views: Sequence[int]
    most_views: int
    seed: int
    dtype: str
    store: FeatureStore

    def of(self, part: range) -> Job:
        """The job for these rows alone, small enough to be sent to a process."""
        chosen = slice(part.start, part.stop)
        return Job(
            spec=self.spec,
            readers=self.readers,
            ids=self.ids[chosen],
            places=self.places[chosen],
            views=self.views[chosen],
            most_views=self.most_views,
            seed=self.seed,
            dtype=self.dtype,
            store=self.store,
        )


def encode(job: Job, label: str, progress: Progress, *, weights_nbytes: int, workers: int | None = None) -> int:
    """Make the parts that the store lacks, and put all together; the number of media that a backbone has seen.

    Args:
        label: of the progress.
        weights_nbytes: size of the weights.
        workers: processes; by default as many as pay.

    Raises:
        DamagedSampleError: a medium cannot be read.
        TrainingError: one is not what the tower takes.
    """
    waiting = job.store.waiting()
    media = sum(map(len, waiting))
    processes = _processes(media, weights_nbytes) if workers is None else workers
    unit = job.store.kind
    with progress.task(label, job.store.rows, unit, done=job.store.rows - media) as task:
        if processes > 1 and len(waiting) > 1:
            threads = max(1, available_cpus() // processes)
            tasks = [(part, job.of(part), threads) for part in waiting]
            for done in run_parallel(_encode_part, tasks, processes):
                task.advance(done)
        elif waiting:
            _backbone(job.spec)  # before threads ask for it
            for part, loaded in _ahead(partial(_load, job), waiting):
                job.store.write(part, _arrays(job, loaded))
                task.advance(len(part))
    _backbone.cache_clear()
    job.store.finish()
    return media


def _processes(media: int, weights_nbytes: int) -> int:
    if device().type != "cpu" or weights_nbytes > _SMALL_NBYTES:
        return 1
    return max(1, min(available_cpus(), media // _PAYS))


def _encode_part(task: tuple[range, Job, int]) -> int:
    part, job, threads = task
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(threads)
    _backbone(job.spec)
    job.store.write(part, _arrays(job, _load(job, range(len(job.ids)))))
    return len(part)


def _ahead(load: Callable[[range], T], parts: Sequence[range]) -> Iterator[tuple[range, T]]:
    """Each part with what is loaded for it, the next one loading meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(load, parts[0]) if parts else None
        for number, part in enumerate(parts):
            assert coming is not None
            loaded = coming.result()
            coming = executor.submit(load, parts[number + 1]) if number + 1 < len(parts) else None
            yield part, loaded


def _load(job: Job, part: range) -> list[Any]:
    """The decoded media of a part: views (V, 3, H, W) of images, samples of clips."""
    # On CPUs every thread would bring PyTorch's own threads along, and all would wait for each other.
    threads = 1 if device().type == "cpu" else min(8, available_cpus())
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(partial(_load_one, job), part))


def _load_one(job: Job, row: int) -> Any:
    image = job.store.kind == "images"
    split, i = job.places[row]
    reader = job.readers[split]
    if image:
        pixels = read_medium(reader, i, job.ids[row], "jpg", decode_image)
        return _backbone(job.spec).views(pixels, job.views[row], job.seed, job.ids[row])
    samples, rate_hz = read_medium(reader, i, job.ids[row], "flac", decode_audio)
    if rate_hz != SAMPLE_RATE_HZ:
        raise TrainingError(f"{reader.key(i)}: clip at {rate_hz} Hz; the audio tower takes {SAMPLE_RATE_HZ} Hz")
    return samples


def read_medium(reader: DatasetReader, i: int, media_id: str, member: str, decode: Callable[[bytes], T]) -> T:
    """One medium, from a sample with it.

    Raises:
        DamagedSampleError: it cannot be read, or is another.
    """
    with _reading:
        members = reader.read(i, ("json", member))
    try:
        try:
            found = decode_json(members["json"])["image_id" if member == "jpg" else "clip_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedSampleError(reader.shard(i), reader.key(i), f"json: {error}") from error
        if found != media_id:
            raise ValueError(f"is {found} by its json, where {media_id} is planned")
        return decode(members[member])
    except ValueError as error:
        raise DamagedSampleError(reader.shard(i), reader.key(i), f"{member}: {error}") from error


def _arrays(job: Job, loaded: list[Any]) -> Arrays:
    backbone = _backbone(job.spec)
    if job.store.kind == "images":
        found: Tensor = backbone.features(torch.cat(loaded))
        kept = np.dtype("uint8" if found.dtype == torch.uint8 else job.dtype)
        features = np.zeros((len(loaded), job.most_views, *found.shape[1:]), dtype=kept)
        for row, rows in enumerate(torch.split(found, [len(views) for views in loaded])):
            features[row, : len(rows)] = _kept(job, rows, kept)
        return {MAIN: features}
    result = backbone.features(loaded)
    if isinstance(result, tuple):
        mels_NMT, lengths_N = result
        return {MAIN: _kept(job, mels_NMT, np.dtype(job.dtype)), "lengths": lengths_N.numpy().astype(np.int32)}
    return {MAIN: _kept(job, result, np.dtype(job.dtype))}


def _kept(job: Job, found: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """As it is kept.

    Raises:
        TrainingError: that does not hold it.
    """
    with np.errstate(over="ignore"):
        kept = found.numpy().astype(dtype)
    if dtype.kind == "f" and not np.isfinite(kept).all():
        too_large = bool(found.isfinite().all())
        advice = "give --set features.precision=full" if too_large else "its weights or a medium are at fault"
        raise TrainingError(f"{job.spec}: a feature is not finite as {dtype}; {advice}")
    return kept


@lru_cache(maxsize=1)
def _backbone(spec: TowerSpec) -> Any:
    """The frozen backbone of a process."""
    return open_encoder(spec)


def open_encoder(spec: TowerSpec) -> Any:
    """The frozen backbone of an image or audio tower; for a tower that is trained, what prepares its media.

    It has `features`, of a batch, and for images `views`, of one.
    """
    if spec.kind == "clip":
        from symile_m3.towers.clip import ClipImages, StoredPixels

        return StoredPixels(spec) if spec.trained else ClipImages(spec)
    if spec.kind == "whisper":
        from symile_m3.towers.whisper import StoredMels, WhisperClips

        return StoredMels(spec) if spec.trained else WhisperClips(spec)
    from symile_m3.towers.image import open_image_backbone

    return open_image_backbone(spec.text)
