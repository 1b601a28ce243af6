"""The loader against bare decoders, webdataset and Hugging Face datasets; and its memory over five epochs.

    python benchmarks/loader.py             everything; about six minutes on two cores
    python benchmarks/loader.py --table     the table of what has been measured

The dataset is built by the tool itself, in a temporary folder: 2,000 triples in ten languages. Every reader takes
turns of whole epochs, so that a machine that slows down slows all of them; rates are medians of the turns, ratios
the medians of the rounds' ratios, with the least and the greatest. What starts workers or fills caches happens in an
epoch that is not counted. Figures go to benchmarks/results/loader/cpu.json, the table to benchmarks/results/loader.md.

All readers shuffle (webdataset and datasets through a buffer of 1,000 samples, ours over the whole epoch) and give
every sample of an epoch once, in batches of 64 where they have batches. All decode with the functions of
`symile_m3.shards`, except datasets, whose own Image feature decodes the images.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import soundfile
import webdataset
from _machine import hardware
from PIL import Image

from symile_m3.shards import (
    MEMBERS,
    DatasetIndex,
    DatasetLayout,
    DatasetReader,
    Loader,
    LoaderConfig,
    RawSample,
    decode_audio,
    decode_member,
    shard_name,
    write_shard,
)

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("webdataset", "datasets", "torch", "pillow", "soundfile")
BUILD = ("--langs", "10", "--train", "2000", "--val", "16", "--test", "16", "--clips", "100,10,10")
BATCH = 64
BUFFER = 1000
ROUNDS = 4
DECODED_S, RAW_S = 2.0, 1.0  # a turn is as many whole epochs as it takes to reach this
MEMORY_SAMPLES, MEMORY_SHARDS, EPOCHS = 100_000, 10, 5

Epoch = Callable[[], int]  # reads one epoch, returns its samples

# (title, reader, what it is compared with, the least ratio asked for); readers are named as in `readers`
CLAIMS = (
    ("decoded, one process, over the bare decoders", "ours, no worker", "bare decoders", 0.9),
    ("decoded, 1 worker, over the bare decoders", "ours, 1 worker", "bare decoders", None),
    ("decoded, 1 worker, over webdataset", "ours, 1 worker", "webdataset, 1 worker", 1.3),
    ("decoded, 2 workers, over webdataset", "ours, 2 workers", "webdataset, 2 workers", 1.3),
    ("decoded, one process, over webdataset", "ours, no worker", "webdataset, no worker", None),
    ("decoded, one process, over datasets", "ours, no worker", "datasets", 1.3),
    ("undecoded, 1 worker, over webdataset", "ours, raw, 1 worker", "webdataset, raw, 1 worker", 10.0),
    ("undecoded, 2 workers, over webdataset", "ours, raw, 2 workers", "webdataset, raw, 2 workers", 10.0),
    ("unchecked, 1 worker, over webdataset", "ours, unchecked, 1 worker", "webdataset, raw, 1 worker", None),
    ("unchecked, 2 workers, over webdataset", "ours, unchecked, 2 workers", "webdataset, raw, 2 workers", None),
    ("undecoded, one process, over webdataset", "ours, raw, no worker", "webdataset, raw, no worker", None),
)


def build(folder: Path) -> Path:
    """A dataset made by the tool."""
    command = [sys.executable, "-m", "symile_m3.cli", "build", "--data", str(folder), *BUILD]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def bare(reader: DatasetReader) -> Epoch:
    """Nothing but the decoders, over bytes that lie in memory in the order of an epoch."""
    order = np.random.default_rng(0).permutation(len(reader))
    samples = [reader.read(int(i), MEMBERS) for i in order]

    def epoch() -> int:
        for sample in samples:
            for member, data in sample.items():
                decode_member(member, data)
        return len(samples)

    return epoch


def ours(reader: DatasetReader, stack: ExitStack, *, decode: bool, workers: int) -> Epoch:
    config = LoaderConfig(batch_size=BATCH, seed=0, fields=MEMBERS, decode=decode, workers=workers, drop_last=False)
    loader = Loader(reader, config)
    stack.callback(loader.close)
    return partial(count, loader)


def count(batches: Any) -> int:
    return sum(len(batch) for batch in batches)


def decoded(sample: dict[str, Any]) -> dict[str, Any]:
    return {member: decode_member(member, sample[member]) for member in MEMBERS}


def as_it_is(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return samples


def web(tars: Sequence[str], *, decode: bool, workers: int) -> Epoch:
    """webdataset's pipeline; batches are made in the workers, as its documentation advises."""
    pipeline = webdataset.WebDataset(list(tars), shardshuffle=len(tars)).shuffle(BUFFER)
    if decode:
        pipeline = pipeline.map(decoded)
    pipeline = pipeline.batched(BATCH, collation_fn=as_it_is)
    if workers == 0:
        return partial(count, pipeline)
    loader = webdataset.WebLoader(
        pipeline,
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    return partial(count, loader)


def hugging_face(tars: Sequence[str]) -> Epoch:
    """Streaming by `datasets`: its Image feature, and soundfile in place of torchcodec for the audio."""
    load = partial(datasets.load_dataset, "webdataset", data_files={"train": list(tars)}, split="train", streaming=True)
    # Its Audio feature does not even pass bytes on without torchcodec.
    stream = load(features=datasets.Features(load().features | {"flac": datasets.Value("binary")}))
    stream = stream.shuffle(seed=0, buffer_size=BUFFER)

    def epoch() -> int:
        samples = 0
        for sample in stream:
            decode_audio(sample["flac"])
            samples += 1
        return samples

    return epoch


def readers(data: Path, stack: ExitStack) -> tuple[dict[str, Epoch], dict[str, Epoch]]:
    """All readers by name: those that decode, and those that do not."""
    reader = DatasetReader(data, "train")
    unchecked = DatasetReader(data, "train", check=False)
    tars = [str(reader.layout.shard(shard.name)) for shard in reader.shards]
    names = {0: "no worker", 1: "1 worker", 2: "2 workers"}
    decoding: dict[str, Epoch] = {"bare decoders": bare(reader)}
    raw: dict[str, Epoch] = {}
    for workers, name in names.items():
        decoding[f"webdataset, {name}"] = web(tars, decode=True, workers=workers)
        decoding[f"ours, {name}"] = ours(reader, stack, decode=True, workers=workers)
        raw[f"webdataset, raw, {name}"] = web(tars, decode=False, workers=workers)
        raw[f"ours, raw, {name}"] = ours(reader, stack, decode=False, workers=workers)
        raw[f"ours, unchecked, {name}"] = ours(unchecked, stack, decode=False, workers=workers)
    decoding["datasets"] = hugging_face(tars)
    return decoding, raw


def rate(epoch: Epoch, least_s: float) -> float:
    """Samples a second over as many whole epochs as it takes."""
    samples, start = 0, time.perf_counter()
    while time.perf_counter() - start < least_s:
        samples += epoch()
    return samples / (time.perf_counter() - start)


def take_turns(data: Path) -> dict[str, list[float]]:
    """Samples a second of every reader in every round."""
    with ExitStack() as stack:
        groups = [(group, s) for group, s in zip(readers(data, stack), (DECODED_S, RAW_S), strict=True)]
        rates: dict[str, list[float]] = {name: [] for group, _ in groups for name in group}
        for turn in range(-1, ROUNDS):
            for group, least_s in groups:
                for name, epoch in group.items():
                    value = rate(epoch, least_s if turn >= 0 else 0.0)
                    if turn >= 0:
                        rates[name].append(value)
            print(f"round {turn + 1} of {ROUNDS}", flush=True)
    return rates


def small_samples(count: int, start: int) -> Iterator[RawSample]:
    """Real members of little size: a JPEG of 24 pixels, a FLAC of 20 ms, a text and a JSON."""
    rng = np.random.default_rng(0)
    images, clips = [], []
    for _ in range(64):
        image, clip = io.BytesIO(), io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(image, "JPEG")
        soundfile.write(clip, rng.uniform(-0.5, 0.5, 320), 16_000, format="FLAC")
        images.append(image.getvalue())
        clips.append(clip.getvalue())
    for i in range(start, start + count):
        content = json.dumps({"class_id": i % 250, "lang": "el", "words": ["λέξη", "word"]}).encode()
        members = {"jpg": images[i % 64], "flac": clips[i // 64 % 64], "txt": f"λέξη_{i}".encode(), "json": content}
        yield RawSample(f"{i:06d}", members)


def many_samples(folder: Path) -> Path:
    """A dataset of many small samples."""
    layout = DatasetLayout(folder)
    size = MEMORY_SAMPLES // MEMORY_SHARDS
    shards = [
        write_shard(layout.shard(name), small_samples(size, s * size), sidecar=layout.sidecar(name))
        for s, name in enumerate(shard_name("train", s, MEMORY_SHARDS) for s in range(MEMORY_SHARDS))
    ]
    DatasetIndex(name="small", fingerprint="0" * 16, shards=tuple(shards)).save(layout.index)
    return folder


def memory(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Resident bytes by number of workers, measured in processes of their own at the same time."""
    script, data = str(Path(__file__).with_name("_resident.py")), str(many_samples(folder))
    running = {}
    for workers in ("0", "2"):
        command = [sys.executable, script, data, workers, str(BATCH), str(EPOCHS)]
        running[workers] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = {}
    for workers, process in running.items():
        output, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        found[workers] = json.loads(output)
        print(
            f"memory with {workers} workers: {[round(value / 1e6) for value in found[workers]['all']]} MB", flush=True
        )
    return found


def ratio(rates: dict[str, list[float]], reader: str, peer: str) -> list[float]:
    return [own / other for own, other in zip(rates[reader], rates[peer], strict=True)]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def table(record: dict[str, Any]) -> str:
    """The Markdown of what was measured."""
    rates, claims, rows = record["rates"], [], []
    for title, reader, peer, least in CLAIMS:
        rounds = ratio(rates, reader, peer)
        asked = "" if least is None else f"{least:g}"
        claims.append([title, f"**{median(rounds):.2f}**", f"{min(rounds):.2f} to {max(rounds):.2f}", asked])
    for workers, values in record["memory"].items():
        growth = {name: value[-1] / value[0] - 1 if value[0] else 0.0 for name, value in values.items()}
        megabytes = ", ".join(f"{value / 1e6:,.0f}" for value in values["all"])
        split = ", ".join(f"{name} {values[name][-1] / 1e6:,.0f} MB" for name in values if name != "all")
        rows.append([workers, megabytes, f"**{growth['all']:+.1%}**", f"{growth['anonymous']:+.1%}", split])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"### {record['hardware']}",
        "",
        f"{record['date']}, {versions}; {record['seconds']} s in all. {record['samples']:,} samples of "
        f"{record['bytes_a_sample'] / 1e3:.0f} KB (JPEG, FLAC, text, JSON); {len(rates['datasets'])} rounds.",
        "",
        *markdown(["samples/s", "ratio", "rounds", "at least"], claims),
        "datasets decodes images with its own Image feature; the audio, for which it needs torchcodec and a system's "
        "FFmpeg, is decoded as by the others. Ours compares every member with its checksum unless *unchecked*; "
        "webdataset and datasets check nothing. What is neither decoded nor transformed ours reads in a thread, "
        "whatever the number of workers.",
        "",
        *markdown(
            ["reader", "samples/s", "rounds"],
            [[name, f"{median(v):,.0f}", f"{min(v):,.0f} to {max(v):,.0f}"] for name, v in rates.items()],
        ),
        f"Resident memory at the end of each of {EPOCHS} epochs of {MEMORY_SAMPLES:,} small samples, of the process "
        "and its workers together, in MB; less than 5% growth is asked for:",
        "",
        *markdown(["workers", "all", "growth", "growth without files", "at the end"], rows),
    ]
    return "\n".join(lines)


def measure() -> dict[str, Any]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="symile-m3-loader-") as folder:
        data = build(Path(folder) / "data")
        split = DatasetReader(data, "train")
        return {
            "hardware": hardware(),
            "date": datetime.date.today().isoformat(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "samples": len(split),
            "bytes_a_sample": sum(shard.filesize for shard in split.shards) / len(split),
            "rates": take_turns(data),
            "memory": memory(Path(folder) / "small"),
            "seconds": round(time.perf_counter() - start),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    path = RESULTS / "loader" / "cpu.json"
    if not arguments.table:
        record = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = table(json.loads(path.read_text(encoding="utf-8")))
    (RESULTS / "loader.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
