"""From an image as it was found to the JPEG that is stored."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from image_files import encoded, photograph
from numpy.typing import NDArray
from PIL import Image

from symile_m3.images.prepare import MAX_PIXELS, MIN_PX, prepare
from symile_m3.media import ImageOptions, NotedBytes

OPTIONS = ImageOptions()
WHOLE = ImageOptions(crop="whole")
LOSSLESS = ImageOptions(quality=100)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


def pixels(data: bytes) -> NDArray[np.float64]:
    return np.asarray(opened(data)).astype(np.float64)


def psnr_db(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one - other) ** 2)))


def ssim(one: NDArray[np.float64], other: NDArray[np.float64], window: int = 8) -> float:
    """Mean structural similarity (Wang et al. 2004) of grey levels over disjoint windows."""
    x, y = (
        image.mean(axis=2)[: len(image) // window * window, : image.shape[1] // window * window]
        .reshape(len(image) // window, window, -1, window)
        .swapaxes(1, 2)
        .reshape(-1, window * window)
        for image in (one, other)
    )
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    both = ((x - mean_x[:, None]) * (y - mean_y[:, None])).mean(axis=1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    values /= (mean_x**2 + mean_y**2 + c1) * (x.var(axis=1) + y.var(axis=1) + c2)
    return float(values.mean())


def plainly(image: Image.Image, size: int = 224, filter_: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """What Pillow makes of a decoded image: the middle square, resized."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.convert("RGB").crop((left, top, left + side, top + side)).resize((size, size), filter_)


@pytest.mark.parametrize(
    ("width", "height", "square", "whole"),
    [
        (500, 375, (224, 224), (299, 224)),
        (375, 500, (224, 224), (224, 299)),
        (1200, 900, (224, 224), (299, 224)),
        (4000, 300, (224, 224), (2987, 224)),
        (224, 224, (224, 224), (224, 224)),
        (225, 224, (224, 224), (225, 224)),
        (100, 80, (80, 80), (100, 80)),  # never enlarged
        (300, 80, (80, 80), (300, 80)),
        (MIN_PX, 900, (32, 32), (32, 900)),
    ],
)
def test_the_shorter_side_is_as_asked_and_nothing_is_enlarged(
    width: int, height: int, square: tuple[int, int], whole: tuple[int, int]
) -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(photograph(1, width, height), kind)
        assert opened(prepare(data, OPTIONS)).size == square
        assert opened(prepare(data, WHOLE)).size == whole


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (640, 480), (1000, 750), (1600, 1200)])
def test_it_looks_as_if_decoded_and_resized_in_full(width: int, height: int) -> None:
    for seed in range(3):
        data = encoded(photograph(seed, width, height))
        full = Image.open(io.BytesIO(data))
        ours = pixels(prepare(data, LOSSLESS))
        for filter_ in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
            stored = pixels(encoded(plainly(full, filter_=filter_), quality=100))
            assert psnr_db(ours, stored) > 38
            assert ssim(ours, stored) > 0.98
        # As stored by default, too, it is hardly further from the original than the plain way is.
        best = np.asarray(plainly(full, filter_=Image.Resampling.LANCZOS)).astype(np.float64)
        plain = pixels(encoded(plainly(full), quality=90))
        assert psnr_db(pixels(prepare(data, OPTIONS)), best) > psnr_db(plain, best) - 2


def test_the_same_bytes_come_out_whatever_the_processor_can() -> None:
    """Where there is no AVX2, torch computes otherwise, to the same end."""
    code = """
import hashlib, torch
from image_files import encoded, photograph
from symile_m3.images.prepare import prepare
from symile_m3.media import ImageOptions
out = [prepare(encoded(photograph(i, 300 + 50 * i, 250), kind), ImageOptions(size_px=96)) for i in range(6)
       for kind in ("JPEG", "PNG")]
print(torch.backends.cpu.get_cpu_capability(), hashlib.sha256(b"".join(out)).hexdigest())
"""
    out = [
        prepare(encoded(photograph(i, 300 + 50 * i, 250), kind), ImageOptions(size_px=96))
        for i in range(6)
        for kind in ("JPEG", "PNG")
    ]
    path = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["DEFAULT", hashlib.sha256(b"".join(out)).hexdigest()]


def test_the_number_of_threads_of_torch_stays() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        prepare(encoded(photograph(1)), OPTIONS)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_honoured(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(3, 300, 200), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    made = opened(prepare(data, ImageOptions(crop="whole", size_px=200, quality=100)))
    assert made.size == upright.size == ((300, 200) if orientation < 5 else (200, 300))
    assert psnr_db(np.asarray(made).astype(float), np.asarray(upright).astype(float)) > 30
    assert not made.getexif()


def test_cmyk_grey_palette_and_16_bits_become_rgb_and_are_noted() -> None:
    photo = photograph(4, 300, 240)
    grey = photo.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    expected = np.asarray(plainly(photo)).astype(float)
    levels = np.asarray(plainly(grey)).astype(float)
    for data, note, wanted in (
        (encoded(photo.convert("CMYK")), "CMYK", expected),
        (encoded(grey), "", levels),
        (encoded(grey, "PNG"), "", levels),
        (encoded(photo.quantize(256), "PNG"), "", expected),
        (encoded(deep, "PNG"), "16-bit", levels),
        (encoded(deep, "TIFF"), "16-bit", levels),
        (encoded(photo, "WEBP", lossless=True), "", expected),
        (encoded(photo, "BMP"), "", expected),
        (encoded(photo, "PNG"), "", expected),
    ):
        made = prepare(data, LOSSLESS)
        assert getattr(made, "note", "") == note
        assert psnr_db(pixels(made), wanted) > 26, note


def test_transparency_becomes_white() -> None:
    drawing = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    drawing.paste((0, 0, 255, 255), (0, 0, 50, 100))
    for data in (
        encoded(drawing, "PNG"),
        encoded(drawing.quantize(8), "PNG"),
        encoded(drawing.convert("LA"), "PNG"),
        encoded(drawing, "WEBP", lossless=True),
    ):
        made = prepare(data, OPTIONS)
        assert isinstance(made, NotedBytes)
        assert made.note == "transparent"
        assert pixels(made)[:, 60:].min() > 245


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        made = prepare(data, OPTIONS)
        assert isinstance(made, NotedBytes)
        assert made.note == "animated, the first frame taken"
        assert np.abs(pixels(made) - (255, 0, 0)).max() < 12


def test_a_telephone_s_jpeg_with_a_second_picture_is_no_animation() -> None:
    photo = photograph(5, 120, 100)
    data = encoded(photo, "MPO", save_all=True, append_images=[photograph(6, 120, 100)])
    made = prepare(data, OPTIONS)
    assert type(made) is bytes
    assert psnr_db(pixels(made), np.asarray(plainly(photo, 100)).astype(float)) > 26


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be larger than its bytes are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    data = bytearray(encoded(photograph(1, 64, 64)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


PHOTO = encoded(photograph(2, 300, 240))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an image"),
        (b"GIF89a", "not an image"),
        (b"<html>404 Not Found</html>", "not an image"),
        (b"\xff\xd8\xff" + bytes(1000), "not an image"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (encoded(photograph(2, 300, 240), "PNG")[:-2000], "not an image that can be decoded"),
        (encoded(photograph(2, 31, 240)), "31 x 240 pixels, and a side has to have 32"),
        (encoded(photograph(2, 240, 31), "PNG"), "240 x 31 pixels"),
        (encoded(Image.new("CMYK", (20, 20))), "20 x 20 pixels"),
        (bomb(60_000, 60_000), f"more than the {MAX_PIXELS:,} pixels allowed"),
        (bomb(10_000, 10_000), f"more than the {MAX_PIXELS:,} pixels allowed"),
        (huge_jpeg(), f"more than the {MAX_PIXELS:,} pixels allowed"),
        (encoded(Image.fromarray(np.full((50, 50), 1e9, np.float32)), "TIFF"), "32-bit"),
        (encoded(Image.fromarray(np.full((50, 50), 10**6, np.int32)), "TIFF"), "more than 16 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        prepare(data, OPTIONS)
    assert "\n" not in str(refused.value)


def test_damage_anywhere_is_refused_or_survived_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    sources = [PHOTO, encoded(photograph(2, 80, 64), "PNG"), encoded(photograph(2, 80, 64), "WEBP")]
    outcomes = {True: 0, False: 0}
    for i in range(300):
        data = bytearray(sources[i % 3])
        for at in rng.integers(0, len(data), 1 + i % 5):
            data[at] = rng.integers(256)
        if i % 4 == 0:
            del data[rng.integers(len(data)) :]
        try:
            made = prepare(bytes(data), OPTIONS)
        except ValueError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert min(opened(made).size) <= 224
    assert min(outcomes.values()) > 10
