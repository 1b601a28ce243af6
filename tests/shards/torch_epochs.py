"""Run by the tests in processes of their own, as a user would run it."""

from __future__ import annotations

import pathlib
import sys

import torch.distributed
from shard_samples import keys_and_epoch
from torch.utils.data import DataLoader

from symile_m3.shards import DatasetReader, LoaderConfig, StreamingDataset


def one_rank(root: str, rank: int, world: int, store: str) -> None:
    """Print the batches of two epochs as this rank of a real process group reads them."""
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
    reader = DatasetReader(pathlib.Path(root), "train")
    dataset = StreamingDataset(reader, LoaderConfig(batch_size=4, seed=5, window=20), transform=keys_and_epoch)
    for _ in range(2):
        for epoch, keys in DataLoader(dataset, batch_size=None, num_workers=1):
            print(epoch, *keys)
    torch.distributed.destroy_process_group()


def spawned(root: str) -> None:
    """Print the batches of two epochs as a kept, spawned worker makes them."""
    reader = DatasetReader(pathlib.Path(root), "train")
    dataset = StreamingDataset(reader, LoaderConfig(batch_size=4, seed=5, window=20), transform=keys_and_epoch)
    batches = DataLoader(
        dataset, batch_size=None, num_workers=1, persistent_workers=True, multiprocessing_context="spawn"
    )
    for _ in range(2):
        for epoch, keys in batches:
            print(epoch, *keys)


if __name__ == "__main__":
    root, *rest = sys.argv[1:]
    if rest:
        one_rank(root, int(rest[0]), int(rest[1]), rest[2])
    else:
        spawned(root)
