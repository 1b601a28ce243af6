"""Preparing images: one core against loops of Pillow and others, and what a build from a folder spends its time on.

    python benchmarks/images.py                  every part
    python benchmarks/images.py prepare folder   some of them: prepare, folder
    python benchmarks/images.py --table          the table of what has been measured

Figures go to benchmarks/results/images/<part>.json with the hardware and the date; the table is
benchmarks/results/images.md. What is compared runs in one process, alternating, in processor time.
pyvips is among it where it is installed. To take no more than two cores: `taskset -c 0,1 python benchmarks/images.py`.
Needs about three minutes.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from _machine import cores, hardware
from numpy.typing import NDArray
from PIL import Image

from symile_m3 import mediastore
from symile_m3.build import build
from symile_m3.engines import LocalEngine, WorkConfig
from symile_m3.images import folder as folder_source
from symile_m3.images import open_image_pool, prepare
from symile_m3.images.prepare import prepare as ours
from symile_m3.lexicon import builtin_lexicon
from symile_m3.media import ImageOptions
from symile_m3.mediastore import make_media
from symile_m3.plan import PlanConfig
from symile_m3.progress import NoProgress

RESULTS = Path(__file__).parent / "results"
SIZE, QUALITY = 224, 90
SHAPES = {"500 x 375": (500, 375), "1600 x 1200": (1600, 1200)}
ROUNDS = 15
LEAST_RATIO, LEAST_SHARE, MOST_REST = 1.5, 0.8, 0.15
OPTIONS = ImageOptions(size_px=SIZE, quality=QUALITY)


def photograph(seed: int, width: int, height: int) -> Image.Image:
    """Shapes and grain at every scale, so that a JPEG of it is as large as a photograph's."""
    rng = np.random.default_rng(seed)
    pixels_HWC = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48, 96, 192, 384):
        for colour in range(3):
            coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
            pixels_HWC[..., colour] += (
                np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.45
            )
    pixels_HWC = 120 + 55 * (pixels_HWC - pixels_HWC.mean()) / pixels_HWC.std()
    return Image.fromarray(np.clip(pixels_HWC, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 95) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def plain(data: bytes, resampling: Image.Resampling) -> bytes:
    """The loop that everyone writes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resampling)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return jpeg(image.crop((left, top, left + SIZE, top + SIZE)), QUALITY)


def careful(data: bytes) -> bytes:
    """Pillow with what it has for this: draft decoding, only the square resized, in two steps where that helps."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE, SIZE))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.convert("RGB").resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=2.0
    )
    return jpeg(square, QUALITY)


def simplejpeg_and_pillow(data: bytes) -> bytes:
    """Decoded by simplejpeg at the smallest scale of n/8 that has the pixels, resized by Pillow."""
    image = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=SIZE, min_width=SIZE))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    encoded: bytes = simplejpeg.encode_jpeg(np.asarray(square), quality=QUALITY, colorsubsampling="420")
    return encoded


def vips(data: bytes) -> bytes:
    import pyvips

    image = pyvips.Image.thumbnail_buffer(data, SIZE, height=SIZE, crop="centre")
    encoded: bytes = image.jpegsave_buffer(Q=QUALITY)
    return encoded


def contenders() -> dict[str, Callable[[bytes], bytes]]:
    found: dict[str, Callable[[bytes], bytes]] = {
        "ours": lambda data: ours(data, OPTIONS),
        "Pillow, BICUBIC": lambda data: plain(data, Image.Resampling.BICUBIC),
        "Pillow, LANCZOS": lambda data: plain(data, Image.Resampling.LANCZOS),
        "Pillow with draft, box and reducing_gap": careful,
        "simplejpeg at n/8, Pillow's BICUBIC": simplejpeg_and_pillow,
    }
    if importlib.util.find_spec("pyvips") is not None:
        import pyvips

        pyvips.cache_set_max(0)
        found["pyvips thumbnail"] = vips
    return found


def psnr_db(data: bytes, reference_HWC: NDArray[np.float64]) -> float:
    """How near a stored image is to the reference, in decibels."""
    pixels_HWC = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64)
    return float(10 * np.log10(255**2 / np.mean((pixels_HWC - reference_HWC) ** 2)))


def reference(data: bytes) -> NDArray[np.float64]:
    """Decoded in full, the middle square resized with LANCZOS, not coded again."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(square).astype(np.float64)


def measure_prepare() -> dict[str, Any]:
    """Processor time an image, of every contender, on one thread."""
    torch.set_num_threads(1)
    record: dict[str, Any] = {"size_px": SIZE, "quality": QUALITY, "rounds": ROUNDS, "shapes": {}}
    for name, (width, height) in SHAPES.items():
        files = [jpeg(photograph(seed, width, height)) for seed in range(48 if width < 1000 else 12)]
        ms: dict[str, list[float]] = {key: [] for key in contenders()}
        for round_ in range(ROUNDS + 1):
            for key, run in contenders().items():
                began = time.process_time()
                for data in files:
                    run(data)
                if round_:  # the first warms up
                    ms[key].append(1e3 * (time.process_time() - began) / len(files))
        references = [reference(data) for data in files]
        record["shapes"][name] = {
            "kilobytes": sum(map(len, files)) / len(files) / 1e3,
            "contenders": {
                key: {
                    "ms": statistics.median(times),
                    "ours_is_faster_by": statistics.median(t / o for t, o in zip(times, ms["ours"], strict=True)),
                    "psnr_db": statistics.mean(
                        psnr_db(contenders()[key](data), whole) for data, whole in zip(files, references, strict=True)
                    ),
                }
                for key, times in ms.items()
            },
        }
    return record


class Clock:
    """Wraps a function and adds up the processor time spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.process_time() - began


def write_folder(root: Path, images: int, classes: int) -> list[str]:
    """Directories called by emoji, which have names, of 500 x 375 JPEGs; each of 200 photographs recurs with a mark of
    its own, since a medium is its content."""
    keys = builtin_lexicon("emoji").select_languages(("el", "en")).without_clashes()[0].class_keys[:classes]
    photographs = [np.asarray(photograph(seed, 500, 375)) for seed in range(200)]
    for number in range(images):
        pixels_HWC = photographs[number % 200].copy()
        pixels_HWC[150:220, 150:350] = np.random.default_rng(number).integers(0, 256, 3)
        pixels_HWC[number // 200 * 5 :][:5] = 255
        directory = root / keys[number % classes]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06d}.jpg").write_bytes(
            simplejpeg.encode_jpeg(pixels_HWC, quality=95, colorsubsampling="420")
        )
    return list(keys)


def _prepare_all(paths: list[Path]) -> int:
    """Read and prepare files, and do nothing else."""
    for path in paths:
        ours(path.read_bytes(), OPTIONS)
    return len(paths)


def measure_folder() -> dict[str, Any]:
    """10,000 images of a folder: where one process spends its time; then two workers, and a whole build."""
    with tempfile.TemporaryDirectory(prefix="symile-m3-images-") as folder:
        root, images = Path(folder) / "photos", 10_000
        keys = write_folder(root, images, classes=100)
        return {
            "images": images,
            "profile": profile(root, keys, Path(folder)),
            "workers": two_workers(root, keys, Path(folder)),
            "build": whole_build(root, Path(folder)),
        }


def profile(root: Path, keys: list[str], folder: Path) -> dict[str, Any]:
    """Shares of the processor time of making all media in this process."""
    pool = open_image_pool(f"folder:{root}", OPTIONS)
    recipes = pool.recipes(keys)
    pool.make(recipes[0])
    places: dict[str, tuple[Any, str]] = {
        "decoding": (simplejpeg, "decode_jpeg"),
        "resizing": (prepare, "_resize"),
        "encoding": (simplejpeg, "encode_jpeg"),
        "reading files": (folder_source, "read_file"),
        "writing packs": (mediastore, "write_shard"),
    }
    clocks = {name: Clock(getattr(module, function)) for name, (module, function) in places.items()}
    for name, (module, function) in places.items():
        setattr(module, function, clocks[name])
    try:
        began = time.process_time()
        make_media(pool, "images", keys, folder / "pool", engine=LocalEngine(1), progress=NoProgress())
        seconds = time.process_time() - began
    finally:
        for name, (module, function) in places.items():
            setattr(module, function, clocks[name].function)
    shares = {name: clock.seconds / seconds for name, clock in clocks.items()}
    return {"cpu_ms_an_image": 1e3 * seconds / len(recipes), "shares": shares, "rest": 1 - sum(shares.values())}


def children_s() -> float:
    """Processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare(paths: list[Path]) -> tuple[float, float]:
    """Two processes that only read and prepare files: seconds, and their processor time."""
    began, cpu_began = time.perf_counter(), children_s()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as two:
        list(two.map(_prepare_all, [paths[::2], paths[1::2]]))
    return time.perf_counter() - began, children_s() - cpu_began


def two_workers(root: Path, keys: list[str], folder: Path) -> dict[str, Any]:
    """The media made by two processes, against two processes that only read and prepare the same files."""
    paths = sorted(root.rglob("*.jpg"))
    pool = open_image_pool(f"folder:{root}", OPTIONS)
    times: dict[str, list[float]] = {"bare": [], "bare_cpu": [], "media": [], "media_cpu": [], "parent_cpu": []}
    start_cpu = bare(paths[:2])[1]
    for round_ in range(3):
        seconds, cpu = bare(paths)
        times["bare"].append(seconds)
        times["bare_cpu"].append(cpu - start_cpu)
        began, cpu_began, parent_began = time.perf_counter(), children_s(), time.process_time()
        place = folder / f"pool-{round_}"
        make_media(pool, "images", keys, place, engine=LocalEngine(2), progress=NoProgress())
        times["media"].append(time.perf_counter() - began)
        times["media_cpu"].append(children_s() - cpu_began - start_cpu)
        times["parent_cpu"].append(time.process_time() - parent_began)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "images_per_s": {name: len(paths) / median[name] for name in ("media", "bare")},
        "cpu_ms_an_image": {name: 1e3 * median[f"{name}_cpu"] / len(paths) for name in ("media", "bare")},
        "of_bare": statistics.median(b / m for b, m in zip(times["bare"], times["media"], strict=True)),
        "of_bare_cpu": statistics.median(b / m for b, m in zip(times["bare_cpu"], times["media_cpu"], strict=True)),
        "start_cpu_s": start_cpu,
        "parent_cpu_s": median["parent_cpu"],
    }


def whole_build(root: Path, folder: Path) -> dict[str, Any]:
    """The build of a data set of these images and 2,000 clips, by two workers."""
    config = PlanConfig(
        languages=("el", "en"),
        words=2,
        classes=100,
        images=f"folder:{root}",
        names="emoji",
        clips=(800, 100, 100),
        train=20_000,
        val=2_000,
        test=2_000,
    )
    began, cpu_began, parent_began = time.perf_counter(), children_s(), time.process_time()
    build(folder / "data", config, work=WorkConfig(workers=2))
    return {
        "seconds": time.perf_counter() - began,
        "workers_cpu_s": children_s() - cpu_began,
        "parent_cpu_s": time.process_time() - parent_began,
        "samples": sum(config.sizes.values()),
    }


PARTS = {"prepare": measure_prepare, "folder": measure_folder}


def table() -> str:
    """Everything measured as Markdown."""
    lines: list[str] = []
    where = set()
    records = {}
    for part in PARTS:
        with suppress(FileNotFoundError):
            records[part] = json.loads((RESULTS / "images" / f"{part}.json").read_text(encoding="utf-8"))
            where.add(f"{records[part]['hardware']}, {records[part]['date']}")
    if "prepare" in records:
        record = records["prepare"]
        for name, shape in record["shapes"].items():
            lines += [
                f"A JPEG of {name} pixels, {shape['kilobytes']:.0f} KB, to {record['size_px']} x {record['size_px']} "
                f"as a JPEG of quality {record['quality']}, on one core:",
                "",
                "| | ms an image | ours is faster by | at least | PSNR |",
                "|---|---|---|---|---|",
            ]
            for key, row in shape["contenders"].items():
                ratio = "" if key == "ours" else f"**{row['ours_is_faster_by']:.2f}**"
                least = f"{LEAST_RATIO}" if name == "500 x 375" and key.startswith("Pillow, ") else ""
                lines.append(f"| {key} | {row['ms']:.2f} | {ratio} | {least} | {row['psnr_db']:.1f} dB |")
            lines.append("")
        lines += [
            "Processor time, medians of "
            f"{record['rounds']} alternating rounds. PSNR: of the stored JPEG against the image decoded in full and "
            "resized with LANCZOS, before coding.",
            "",
        ]
    if "folder" in records:
        record = records["folder"]
        one, two, whole = record["profile"], record["workers"], record["build"]
        shares = [f"| of it: {name} | {share:.0%} | |" for name, share in one["shares"].items()]
        rates, cpu = two["images_per_s"], two["cpu_ms_an_image"]
        lines += [
            f"A folder of {record['images']:,} JPEGs of 500 x 375 in 100 classes:",
            "",
            "| figure | measured | asked for |",
            "|---|---|---|",
            f"| media made, processor time in one process | {one['cpu_ms_an_image']:.2f} ms an image | |",
            *shares,
            f"| of it: all the rest, which is Python | **{one['rest']:.0%}** | at most {MOST_REST:.0%} |",
            f"| two workers, without their start | {cpu['media']:.2f} ms an image | |",
            f"| two processes that only read and prepare the files | {cpu['bare']:.2f} ms an image | |",
            f"| the one over the other | **{two['of_bare_cpu']:.2f}** | at least {LEAST_SHARE} |",
            f"| the same by the clock, start included | {rates['media']:,.0f} and {rates['bare']:,.0f} images/s: "
            f"{two['of_bare']:.2f} | |",
            f"| processor time of the parent, and of the start of both workers | {two['parent_cpu_s']:.1f} s, "
            f"{two['start_cpu_s']:.1f} s | |",
            f"| the whole build with 2,000 clips and {whole['samples']:,} samples | {whole['seconds']:.0f} s | |",
            f"| its processor time, in the workers and in the parent | {whole['workers_cpu_s']:.0f} s, "
            f"{whole['parent_cpu_s']:.1f} s | |",
            "",
        ]
    return "\n".join([*lines, *(f"Measured on {place}." for place in sorted(where))]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to measure; by default all")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    (RESULTS / "images").mkdir(parents=True, exist_ok=True)
    for part in [] if arguments.table else arguments.parts or list(PARTS):
        record = {**PARTS[part](), "hardware": hardware(), "cores": cores(), "date": datetime.date.today().isoformat()}
        (RESULTS / "images" / f"{part}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = table()
    (RESULTS / "images.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
