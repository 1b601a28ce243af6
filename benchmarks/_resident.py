"""Memory of a loader over epochs, alone in a process that imports nothing else. Run by `loader.py`.

    python benchmarks/_resident.py DATA WORKERS BATCH EPOCHS

prints, as JSON, the bytes resident at the end of each epoch, of the process and its workers together.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

from _machine import status_bytes

from symile_m3.shards import MEMBERS, DatasetReader, Loader, LoaderConfig

FIELDS = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "of files", "RssShmem": "shared"}


def main() -> None:
    data, workers, batch, epochs = Path(sys.argv[1]), *map(int, sys.argv[2:])
    reader = DatasetReader(data, "train")
    loader = Loader(reader, LoaderConfig(batch_size=batch, seed=0, fields=MEMBERS, workers=workers, drop_last=False))
    found: dict[str, list[int]] = {name: [] for name in FIELDS.values()}
    for _ in range(epochs):
        if sum(len(samples) for samples in loader) != len(reader):
            sys.exit("an epoch lacks samples")
        pids = ["self", *(str(child.pid) for child in multiprocessing.active_children())]
        for field, name in FIELDS.items():
            found[name].append(sum(status_bytes(field, f"/proc/{pid}/status") for pid in pids))
    loader.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
