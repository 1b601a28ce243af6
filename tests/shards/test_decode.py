from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from shard_samples import flac, jpeg

from symile_m3.shards import decode_array, decode_audio, decode_image, decode_json, decode_member, decode_text


def test_image() -> None:
    image_HWC = decode_image(jpeg(200, side=24))
    assert image_HWC.shape == (24, 24, 3)
    assert image_HWC.dtype == np.uint8
    assert np.abs(image_HWC.reshape(-1, 3).mean(axis=0) - [200, 128, 55]).max() < 4


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("how", [{"subsampling": 0}, {"subsampling": 2, "progressive": True}, {"quality": 20}])
def test_jpegs_of_every_kind_have_the_pixels_that_pillow_gives_them(mode: str, how: dict[str, Any]) -> None:
    noise_HWC = np.random.default_rng(1).integers(0, 256, (37, 51, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise_HWC).convert(mode).save(buffer, "JPEG", **how)
    image_HWC = decode_image(buffer.getvalue())
    np.testing.assert_array_equal(image_HWC, np.asarray(Image.open(buffer).convert("RGB")))
    image_HWC[0, 0] = 0  # and may be written to


def test_damaged_jpegs_are_taken_or_refused_as_by_pillow() -> None:
    rng = np.random.default_rng(2)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "JPEG")
    taken = 0
    for _ in range(200):
        data = bytearray(buffer.getvalue())
        data[rng.integers(650)] ^= 1 << rng.integers(8)  # mostly in the headers
        try:
            expected_HWC = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except OSError:
            with pytest.raises(ValueError, match="not an image that can be decoded"):
                decode_image(bytes(data))
        else:
            np.testing.assert_array_equal(decode_image(bytes(data)), expected_HWC)
            taken += 1
    assert 20 < taken < 180


def test_grey_png_becomes_rgb() -> None:
    buffer = io.BytesIO()
    Image.new("L", (3, 2), 77).save(buffer, "PNG")
    image_HWC = decode_member("png", buffer.getvalue())
    assert image_HWC.shape == (2, 3, 3)
    assert (image_HWC == 77).all()


def test_image_pixels_are_capped_before_they_are_decoded() -> None:
    assert decode_image(jpeg(side=20), max_pixels=400).shape == (20, 20, 3)
    with pytest.raises(ValueError, match="20 x 20 pixels are more than the 399 allowed"):
        decode_image(jpeg(side=20), max_pixels=399)
    # 40,000 x 40,000 pixels claimed in a header of a few bytes
    bomb = bytearray(jpeg(side=20))
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = (40_000).to_bytes(2, "big") * 2
    with pytest.raises(ValueError, match=r"decompression bomb|pixels are more"):
        decode_image(bytes(bomb))


@pytest.mark.parametrize("data", [b"", b"no image", jpeg()[:-300], b"GIF89a" + bytes(100)])
def test_damaged_images(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an image that can be decoded"):
        decode_image(data)


def test_audio() -> None:
    wave_T, rate_hz = decode_audio(flac(seconds=0.5, rate_hz=8000))
    assert wave_T.shape == (4000,)
    assert wave_T.dtype == np.float32
    assert rate_hz == 8000
    assert 0.49 < np.abs(wave_T).max() < 0.51


def test_channels_are_averaged() -> None:
    buffer = io.BytesIO()
    wave_TC = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    soundfile.write(buffer, wave_TC, 16_000, format="FLAC")
    wave_T, _ = decode_audio(buffer.getvalue())
    np.testing.assert_allclose(wave_T, np.full(100, 0.125), atol=1e-4)


def test_audio_seconds_are_capped() -> None:
    data = flac(seconds=1.0)
    assert len(decode_audio(data, max_seconds=1.0)[0]) == 16_000
    with pytest.raises(ValueError, match=r"longer than the 0\.9 s allowed"):
        decode_audio(data, max_seconds=0.9)


@pytest.mark.parametrize("data", [b"", b"fLaC", flac(seconds=1.0)[:-2000], flac(seconds=0.0)])
def test_damaged_audio(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not audio that can be decoded|cut off after"):
        decode_audio(data)


def test_text_and_json() -> None:
    assert decode_text("λέξη_词".encode()) == "λέξη_词"
    assert decode_json(b'{"a": [1, 2.5, "x"]}') == {"a": [1, 2.5, "x"]}
    with pytest.raises(ValueError, match="5 bytes of text are more than the 4 allowed"):
        decode_text(b"abcde", max_bytes=4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"[1]", "a JSON object is expected, not list"),
        (b"{", "Expecting property name"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff", "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 2_000_000, "2,000,000 bytes of text are more than"),
    ],
)
def test_damaged_json(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_json(data)


@pytest.mark.parametrize("member", ["pkl", "pyd", "pth", "npz", "cls"])
def test_what_is_not_known_stays_bytes(member: str) -> None:
    data = pickle.dumps({"a": 1})
    assert decode_member(member, data) is data


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "i1", "<u2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_it_was(dtype: str, order: str) -> None:
    array = np.array(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)  # type: ignore[call-overload]
    found = decode_member("xray.npy", npy(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an array that can be decoded"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not an array that can be decoded"),
        (b"\x93NUMPY\x03\x00\x00\x00\x00\x00", "version 3.0"),
        (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "only numbers"),
        (npy(np.array(["text"])), "only numbers"),
        (npy(np.zeros(2, dtype=[("a", "f4")])), "only numbers"),
        (npy(np.zeros(10))[:-1], "79 bytes follow the header, which promises 80"),
        (npy(np.zeros(10)) + b"!", "81 bytes follow"),
        (npy(np.zeros(10)).replace(b"(10,)", b"(-1,)"), "shape"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_array(data)


def test_the_size_of_an_array_is_capped_by_what_its_header_claims() -> None:
    claimed = npy(np.zeros(10)).replace(b"(10,), }   ", b"(1000000,),}")
    with pytest.raises(ValueError, match="8,000,000 bytes of an array are more than the 1,000 allowed"):
        decode_array(claimed, max_bytes=1000)
