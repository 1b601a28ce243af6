"""Run by the tests in processes of their own, as a user would run it: `torch_epochs.py ROOT FOLDER`."""

from __future__ import annotations

import os
import pathlib
import sys
import traceback
from collections.abc import Callable

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


def fork(output: pathlib.Path, function: Callable[..., None], *arguments: object) -> int:
    """Start a process that runs a function and prints to a file; importing torch once is enough for all."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY), 1)
        function(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    root, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    processes = [fork(folder / f"{rank}.txt", one_rank, root, rank, 2, str(folder / "store")) for rank in range(2)]
    processes.append(fork(folder / "spawned.txt", spawned, root))
    sys.exit(max([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes], key=abs))
