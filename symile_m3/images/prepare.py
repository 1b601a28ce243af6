"""From an image file as it was found to the JPEG that a dataset stores.

A JPEG is decoded by simplejpeg, a large one at one of libjpeg's scales. Whatever simplejpeg does not take is Pillow's:
other formats, CMYK, and damaged files, which are then refused. torch resizes: its kernel for bytes gives what Pillow's
gives, to one step of 255, in a quarter of the time where the processor has AVX2, and the same bytes where it has not.

Array suffixes: H W pixels, C colours.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from symile_m3.media import ImageOptions, NotedBytes

MIN_PX = 32
MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns of decompression bombs
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
SUBSAMPLING = "420"
_BACKGROUND = (255, 255, 255)
_ORIENTATION = 0x0112
# What brings pixels stored with an EXIF orientation upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """A decoded image.

    Attributes:
        rgb_HWC: its pixels, perhaps of a smaller scale.
        width, height: its size in pixels as it is stored.
        orientation: EXIF's, 1 to 8.
        note: what is out of the ordinary; empty if nothing is.
    """

    rgb_HWC: NDArray[np.uint8]
    width: int
    height: int
    orientation: int = 1
    note: str = ""


def prepare(data: bytes, options: ImageOptions) -> bytes:
    """The JPEG that a dataset stores: upright, RGB, its shorter side `options.size_px`.

    A square is cut from the middle unless `options.crop` is `whole`. An image that is smaller is not enlarged: it keeps
    its pixels, cut to a square all the same. Transparency becomes white, 16 bits a channel become 8, and of an
    animation the first frame counts. Colour profiles are not applied, and no metadata is kept. The same bytes in give
    the same bytes out.

    Returns:
        A JPEG of quality `options.quality` with 4:2:0 chroma; `NotedBytes` where it was CMYK, animated, 16-bit or had
        transparency.

    Raises:
        ValueError: it is no image, is damaged, has a side under `MIN_PX` or more than `MAX_PIXELS`.
    """
    pixels = decode(data, options.size_px)
    rgb_HWC = fit(pixels, options)
    encoded: bytes = simplejpeg.encode_jpeg(
        rgb_HWC, quality=options.quality, colorspace="RGB", colorsubsampling=SUBSAMPLING
    )
    return NotedBytes(encoded, pixels.note) if pixels.note else encoded


def fit(pixels: Pixels, options: ImageOptions) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) that `prepare` writes as a JPEG: upright, cut and resized."""
    rgb_HWC = _resize(pixels, options.size_px, square=options.crop == "centre")
    if pixels.orientation in _UPRIGHT:
        rgb_HWC = np.array(Image.fromarray(rgb_HWC).transpose(_UPRIGHT[pixels.orientation]))
    return rgb_HWC


def of_pillow(image: Image.Image) -> Pixels:
    """An image that Pillow has opened or made, as RGB pixels.

    Raises:
        ValueError: it is damaged, or see `prepare`.
    """
    _check_size(*image.size)
    try:
        return Pixels(
            rgb_HWC=np.array(_to_rgb(image)), width=image.width, height=image.height, orientation=_orientation(image)
        )
    except OSError as error:
        raise ValueError(f"not an image that can be decoded: {error}") from error


def of_array(rgb_HWC: NDArray[np.uint8]) -> Pixels:
    """Pixels that are there already.

    Raises:
        ValueError: they are not (H, W, 3) bytes, or see `prepare`.
    """
    if rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3 or rgb_HWC.dtype != np.uint8:
        raise ValueError(f"an array of {rgb_HWC.dtype} {rgb_HWC.shape}, where uint8 (height, width, 3) is expected")
    _check_size(rgb_HWC.shape[1], rgb_HWC.shape[0])
    return Pixels(rgb_HWC=rgb_HWC, width=rgb_HWC.shape[1], height=rgb_HWC.shape[0])


def decode(data: bytes, size_px: int) -> Pixels:
    """An image as RGB pixels, its shorter side at least `size_px` where it has as many.

    Raises:
        ValueError: see `prepare`.
    """
    return _decode_jpeg(data, size_px) or _decode_other(data, size_px)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_PX:
        raise ValueError(f"{width} x {height} pixels, and a side has to have {MIN_PX} at least")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} are more than the {MAX_PIXELS:,} pixels allowed")


def _decode_jpeg(data: bytes, size_px: int) -> Pixels | None:
    """None for what is left to Pillow."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in ("YCbCr", "Gray", "RGB"):
        return None
    _check_size(width, height)
    least = min(size_px, height, width)
    try:
        # Scales between 1/2 and 1 take longer to decode than none.
        rgb_HWC = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least, min_factor=2)
    except ValueError:
        return None
    orientation = 1
    if _has_exif(data):
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
            orientation = _orientation(file)
    return Pixels(rgb_HWC=rgb_HWC, width=width, height=height, orientation=orientation)


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has EXIF before its pixels begin; a walk from segment to segment, of which there are a few."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xda":
            return False
        if marker == b"\xe1" and data.startswith(b"Exif\0\0", at + 4):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _orientation(file: Image.Image) -> int:
    try:
        value = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata makes Pillow raise anything, and says nothing about the pixels
        return 1
    return value if isinstance(value, int) else 1


def _decode_other(data: bytes, size_px: int) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, and of sizes, which are checked here
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as file:
                width, height = file.size
                _check_size(width, height)
                note = _note(file)
                file.draft(None, (size_px, size_px))  # a smaller scale of CMYK JPEGs
                rgb_HWC = np.array(_to_rgb(file))
                orientation = _orientation(file)
                if file.format == "TIFF":  # which Pillow turns upright itself
                    width, height = file.size
        except UnidentifiedImageError:
            raise ValueError("not an image") from None
        except Image.DecompressionBombError:
            raise ValueError(f"more than the {MAX_PIXELS:,} pixels allowed") from None
        except ValueError:
            raise
        except MemoryError:
            raise ValueError("not an image that fits into memory") from None
        except Exception as error:  # damaged bytes make a decoder raise anything
            raise ValueError(f"not an image that can be decoded: {error}") from error
    return Pixels(rgb_HWC=rgb_HWC, width=width, height=height, orientation=orientation, note=note)


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _note(file: Image.Image) -> str:
    notes = []
    if file.mode == "CMYK":
        notes.append("CMYK")
    if file.mode.startswith("I"):
        notes.append("16-bit")
    if file.has_transparency_data:
        notes.append("transparent")
    # A telephone's JPEG may carry further pictures (MPO), which are no animation.
    if file.format != "MPO" and getattr(file, "n_frames", 1) > 1:
        notes.append("animated, the first frame taken")
    return ", ".join(notes)


def _to_rgb(file: Image.Image) -> Image.Image:
    if file.mode.startswith("I"):
        values_HW = np.asarray(file)
        if values_HW.size and not 0 <= values_HW.min() <= values_HW.max() < 65_536:
            raise ValueError("more than 16 bits a channel")
        return Image.fromarray((values_HW >> 8).astype(np.uint8)).convert("RGB")
    if file.mode == "F":
        raise ValueError("32-bit numbers in place of colours")
    if file.has_transparency_data:
        drawing = file.convert("RGBA")
        canvas = Image.new("RGBA", drawing.size, _BACKGROUND)
        canvas.alpha_composite(drawing)
        return canvas.convert("RGB")
    return file.convert("RGB")


def _resize(pixels: Pixels, size_px: int, *, square: bool) -> NDArray[np.uint8]:
    """What is to be kept, at the size at which it is kept."""
    rgb_HWC = pixels.rgb_HWC
    ratio = min(1.0, size_px / min(pixels.width, pixels.height))
    target_HW = max(1, round(pixels.height * ratio)), max(1, round(pixels.width * ratio))
    if square:
        height, width = rgb_HWC.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        rgb_HWC = rgb_HWC[top : top + side, left : left + side]
        target_HW = min(target_HW), min(target_HW)
    if rgb_HWC.shape[:2] == target_HW:
        return np.ascontiguousarray(rgb_HWC)
    import torch

    # In this layout the kernel takes colours together, and nothing has to be put in another order behind it.
    pixels_1CHW = torch.from_numpy(rgb_HWC).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # images are prepared in as many processes as there are processors
    try:
        resized_1CHW = torch.nn.functional.interpolate(pixels_1CHW, target_HW, mode="bicubic", antialias=True)
    finally:
        torch.set_num_threads(threads)
    return np.ascontiguousarray(resized_1CHW[0].permute(1, 2, 0).numpy())
