"""The on-disk format of Symile-M3: WebDataset tars, written, indexed, verified and read.

A dataset is a directory of plain tars that any reader of WebDataset tars can read. A sample is
consecutive files with one key and different suffixes:

    data/train-00000-of-00016.tar
        000000.jpg     the image
        000000.flac    the speech
        000000.txt     the text, words joined by "_"
        000000.json    what the sample is made of; the same keys in every sample

Beside them, in the folder `.symile`, lie the list of shards with their checksums (`index.json`) and, for
each shard, where every member begins, how long it is and its CRC-32 (`*.idx.npz`). With these, samples are
read in any order by offset, checked as they are read, and iteration resumes exactly at any batch.

This package knows the format and nothing else: no class names, no models, no torch; but for
`StreamingDataset`, a dataset for PyTorch's DataLoader, which imports torch when it is first asked for.
A dataset may also be a URL (`s3://bucket/m3`, `https://host/m3`): its shards then come through a cache on
the local disk, whole and checked, and everything else is as before. So may the tars of a `ForeignReader`.
"""

from typing import TYPE_CHECKING, Any

from symile_m3.shards.atomic import AtomicFile, replacing, sweep, write_bytes, write_text
from symile_m3.shards.batch import Sample
from symile_m3.shards.blend import Blend, OrderedSource
from symile_m3.shards.cache import ShardCache, open_layout
from symile_m3.shards.cache_folder import CacheConfig
from symile_m3.shards.decode import (
    DecodeLimits,
    decode_array,
    decode_audio,
    decode_image,
    decode_json,
    decode_member,
    decode_text,
)
from symile_m3.shards.errors import DamagedSampleError, ShardError, SymileM3Error
from symile_m3.shards.foreign import ALIASES, ForeignReader
from symile_m3.shards.foreign_index import default_index_dir
from symile_m3.shards.index import DatasetIndex, ShardIndex, ShardInfo
from symile_m3.shards.layout import MEMBERS, SPLITS, DatasetLayout, shard_name, shard_place, sidecar_path, split_of
from symile_m3.shards.loader import Loader, LoaderConfig
from symile_m3.shards.missing import missing_mask
from symile_m3.shards.order import epoch_order, rank_share
from symile_m3.shards.reader import DatasetReader, Source
from symile_m3.shards.retry import RetryConfig
from symile_m3.shards.shard_reader import ShardReader
from symile_m3.shards.storage import Storage, open_storage
from symile_m3.shards.urls import is_url, local_path
from symile_m3.shards.verify import Problem, verify_shard
from symile_m3.shards.writer import RawSample, write_shard

if TYPE_CHECKING:
    from symile_m3.shards.torch_dataset import StreamingDataset as StreamingDataset

__all__ = [
    "ALIASES",
    "MEMBERS",
    "SPLITS",
    "AtomicFile",
    "Blend",
    "CacheConfig",
    "DamagedSampleError",
    "DatasetIndex",
    "DatasetLayout",
    "DatasetReader",
    "DecodeLimits",
    "ForeignReader",
    "Loader",
    "LoaderConfig",
    "OrderedSource",
    "Problem",
    "RawSample",
    "RetryConfig",
    "Sample",
    "ShardCache",
    "ShardError",
    "ShardIndex",
    "ShardInfo",
    "ShardReader",
    "Source",
    "Storage",
    "SymileM3Error",
    "decode_array",
    "decode_audio",
    "decode_image",
    "decode_json",
    "decode_member",
    "decode_text",
    "default_index_dir",
    "epoch_order",
    "is_url",
    "local_path",
    "missing_mask",
    "open_layout",
    "open_storage",
    "rank_share",
    "replacing",
    "shard_name",
    "shard_place",
    "sidecar_path",
    "split_of",
    "sweep",
    "verify_shard",
    "write_bytes",
    "write_shard",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name == "StreamingDataset":
        from symile_m3.shards.torch_dataset import StreamingDataset

        return StreamingDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
