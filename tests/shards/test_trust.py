"""What bytes from anywhere can do to a reader: nothing but be named."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from shard_samples import flac, full_sample, jpeg, small_sample, write_dataset

from symile_m3.shards import (
    DamagedSampleError,
    DatasetIndex,
    DatasetLayout,
    DatasetReader,
    DecodeLimits,
    ForeignReader,
    Loader,
    LoaderConfig,
    RawSample,
    ShardError,
    ShardIndex,
    ShardReader,
    decode_audio,
    decode_image,
    decode_member,
    sidecar_path,
    verify_shard,
    write_shard,
)
from symile_m3.shards.tar import make_header, padded, parse_header, usual_header

FIELDS = ("jpg", "flac", "txt", "json")
PLACES = 200


def entry(name: str, data: bytes = b"x", kind: bytes = b"0", size: bytes | None = None) -> bytes:
    """A header, with any size field, and its data."""
    block = bytearray(make_header(name, len(data)))
    block[156:157] = kind
    if size is not None:
        block[124:136] = size
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 0x20)
    return bytes(block) + data + bytes(padded(len(data)) - len(data))


END = bytes(1024)


def foreign(path: Path, content: bytes, **arguments: Any) -> ForeignReader:
    path.write_bytes(content)
    shutil.rmtree(path.parent / "index", ignore_errors=True)
    return ForeignReader(path, **({"fields": ["txt"], "index_dir": path.parent / "index"} | arguments))


def found(reader: ForeignReader) -> dict[str, bytes]:
    return {reader.key(i): reader.read(i)["txt"] for i in range(len(reader))}


# --- damage at random places ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("small"), (5,), full_sample)


def damages(content: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Bit flips and truncations at 200 random places: where, whether cut off there, and the bytes."""
    generator = random.Random(4)
    for _ in range(PLACES):
        at = generator.randrange(len(content))
        flipped = bytearray(content)
        flipped[at] ^= 1 << generator.randrange(8)
        yield at, False, bytes(flipped)
        yield at, True, content[:at]


def epoch(source: Any, **config: Any) -> list[list[Any]]:
    return list(Loader(source, LoaderConfig(**({"batch_size": 2, "seed": 0, "fields": FIELDS} | config))))


def failure(attempt: Callable[[], object]) -> str | None:
    """The message of the named error that it ends with, if it does; any other error is the test's."""
    try:
        attempt()
    except ShardError as error:
        return str(error)
    return None


def test_damage_anywhere_is_found_by_verify_and_crashes_no_loader(small: Path, tmp_path: Path) -> None:
    root = shutil.copytree(small, tmp_path / "d")
    layout = DatasetLayout(root)
    (info,) = DatasetIndex.load(layout.index).shards
    path = layout.shard(info.name)
    whole = path.read_bytes()
    index = ShardIndex.open(path)
    silent = 0
    for at, cut, content in damages(whole):
        path.write_bytes(content)
        assert verify_shard(path, info, decode=FIELDS), at
        message = failure(lambda: epoch(DatasetReader(root, "train"), drop_last=False))
        inside = bool(((index.offsets <= at) & (at < index.offsets + index.sizes)).any())
        if message is None:  # what no loader reads: headers but the first, filling, the end
            assert not cut
            assert not inside
            reader = DatasetReader(root, "train")
            assert all(reader.read(i) == full_sample(i).members for i in range(5))
            silent += 1
        else:
            assert info.name in message
            assert "\n" not in message
    assert 0 < silent < PLACES


def test_damage_anywhere_crashes_no_reader_without_an_index(small: Path, tmp_path: Path) -> None:
    whole = next((small / "data").iterdir()).read_bytes()
    path = tmp_path / "x.tar"
    read = 0

    def attempt(content: bytes, choice: Literal["stop", "skip"]) -> None:
        # an index that cannot be kept is not flushed to the disk eight hundred times
        reader = foreign(path, content, fields=FIELDS, on_missing=choice, on_damage=choice, index_dir=path / "no")
        for batch in epoch(reader, drop_last=False, batch_size=5, on_bad_sample=choice):
            assert 1 <= len(batch) <= 5

    for _, _, content in damages(whole):
        for choice in ("stop", "skip"):
            message = failure(functools.partial(attempt, content, choice))
            assert message is None or ("x.tar" in message and "\n" not in message)
            read += message is None
    assert PLACES < read < 3 * PLACES


def test_a_tar_cut_off_under_its_reader_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [full_sample(i) for i in range(9)])
    reader = ShardReader(path)
    reader.read(0)
    os.truncate(path, 4096)
    with pytest.raises(ShardError, match=r"a\.tar"):
        reader.read(8)


# --- tars that are odd or hostile -------------------------------------------------------------------------


def test_duplicates_and_members_that_lie_apart_are_named(tmp_path: Path) -> None:
    content = b"".join(
        [
            *[entry("a.txt", b"a1"), entry("a.json"), entry("a.txt", b"a2"), entry("a.json")],
            *[entry("b.txt", b"b"), entry("c.txt", b"c"), entry("b.json"), entry("c.json")],
            *[entry("d.txt", b"d1"), entry("d.json"), entry("e.txt", b"e"), entry("e.json"), entry("d.TXT", b"d2")],
            END,
        ]
    )
    with pytest.raises(ShardError, match=r"^x\.tar: sample a: occurs again; .* \(and 1 more\) \(on_damage=\"skip\""):
        foreign(tmp_path / "x.tar", content)
    reader = foreign(tmp_path / "x.tar", content, fields=("txt", "json"), on_damage="skip")
    assert found(reader) == {"a": b"a1", "b": b"b", "c": b"c", "d": b"d1", "e": b"e"}
    assert reader.counts == {"duplicate": 2, "interleaved": 2}
    assert [(p.shard, p.key, p.kind) for p in reader.problems] == [
        ("x.tar", "a", "duplicate"),
        ("x.tar", "b", "interleaved"),
        ("x.tar", "c", "interleaved"),
        ("x.tar", "d", "duplicate"),
    ]


def test_the_parts_of_two_samples_with_one_key_are_never_mixed(tmp_path: Path) -> None:
    content = entry("a.txt", b"1") + entry("b.txt") + entry("a.txt", b"2") + entry("a.json") + END
    reader = foreign(tmp_path / "x.tar", content, on_damage="skip")
    assert found(reader) == {"a": b"1", "b": b"x"}
    with pytest.raises(ShardError, match="no sample in 1 tars has all of"):
        foreign(tmp_path / "x.tar", content, fields=("txt", "json"), on_damage="skip", on_missing="skip")


def test_names_that_lead_elsewhere_are_passed_over_and_counted(tmp_path: Path) -> None:
    bad = ["../up.txt", "/etc/passwd.txt", "a/../../b.txt", "new\nline.txt", "esc\x1b[31m.txt", "no_suffix", ".hid.txt"]
    content = b"".join(entry(name) for name in [*bad, "__meta__/x.txt", "./ok.txt", "..fine/x.txt"]) + END
    reader = foreign(tmp_path / "x.tar", content)
    assert sorted(found(reader)) == ["..fine/x", "ok"]
    assert reader.counts == {"unsafe name": 5, "no sample": 3}
    assert not any("\n" in str(problem) or "\x1b" in str(problem) for problem in reader.problems)
    raw = bytearray(entry("bad_utf8.txt"))
    raw[0] = 0xFF
    raw[148:156] = b"%06o\0 " % (sum(raw[:512]) - sum(raw[148:156]) + 8 * 0x20)
    assert list(found(foreign(tmp_path / "x.tar", bytes(raw) + END))) == ["\\xffad_utf8"]


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    kinds = [b"1", b"2", b"3", b"4", b"6", b"D", b"Z"]
    content = b"".join(entry(f"{i}.txt", b"", kind) for i, kind in enumerate(kinds)) + entry("ok.txt") + END
    reader = foreign(tmp_path / "x.tar", content)
    assert found(reader) == {"ok": b"x"}
    assert reader.counts == {"link or device": 5, "unknown entry": 2}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (entry("a.txt") + entry("b.txt", b"y" * 5000)[:3000], "cut off"),
        (entry("a.txt") + entry("b.txt")[:300], "cut off"),
        (entry("a.txt") + b"garbage!" * 64 + END, "damaged header"),
        (entry("a.txt") + entry("b.txt", size=b"-0000001000\0") + END, "damaged header"),
        (entry("a.txt") + entry("b.txt", size=b"0000001_000\0") + END, "damaged header"),
        (entry("a.txt") + entry("b.txt", size=b"\x80" + b"\xff" * 11) + END, "cut off"),
        (entry("a.txt") + entry("b.txt", size=b"\xff" * 12) + END, "cut off"),
        (entry("a.txt") + entry("p", b"12 path=b.tx\n", b"x") + entry("b.txt") + END, "damaged header"),
        (entry("a.txt") + entry("p", b"9999999 path=b.txt\n", b"x") + END, "damaged header"),
        (entry("a.txt") + entry("p", b"0 path=b.txt\n", b"x") + END, "damaged header"),
        (entry("a.txt") + entry("p", b"21 size=999999999999\n", b"x") + entry("b.txt") + END, "damaged header"),
        (entry("a.txt") + entry("p", b"14 path=b.txt\n", b"g") + entry("c.txt") + END, "damaged header"),
        (entry("a.txt") + entry("p", b"n" * 100_000, b"L") + entry("c.txt") + END, "damaged header"),
    ],
)
def test_damage_ends_a_tar_and_what_lies_before_stands(tmp_path: Path, content: bytes, kind: str) -> None:
    with pytest.raises(ShardError, match=r"^x\.tar: .*on_damage"):
        foreign(tmp_path / "x.tar", content)
    reader = foreign(tmp_path / "x.tar", content, on_damage="skip")
    assert found(reader) == {"a": b"x"}
    assert reader.counts == {kind: 1}
    # and is remembered with the index
    again = ForeignReader(tmp_path / "x.tar", fields=["txt"], index_dir=tmp_path / "index", on_damage="skip")
    assert again.problems == reader.problems
    assert again.counts == reader.counts


@pytest.mark.parametrize(
    ("tail", "kind"), [(b"", "no end"), (bytes(512), "no end"), (END + entry("b.txt") + END, "trailing")]
)
def test_odd_ends_are_named_and_do_no_harm(tmp_path: Path, tail: bytes, kind: str) -> None:
    reader = foreign(tmp_path / "x.tar", entry("a.txt") + tail)
    assert found(reader) == {"a": b"x"}
    assert reader.counts == {kind: 1}


@pytest.mark.parametrize("content", [b"", END, b"\0" * 100, b"not a tar", entry("a", b"", b"5") + END])
def test_files_without_samples_are_named(tmp_path: Path, content: bytes) -> None:
    for choice in ("stop", "skip"):
        with pytest.raises(ShardError, match=r"x\.tar: .*(no sample in 1 tars|on_damage)"):
            foreign(tmp_path / "x.tar", content, on_damage=choice)


def test_thousands_of_suffixes_and_problems_take_no_room(tmp_path: Path) -> None:
    many = b"".join(entry(f"{i}.{i}") for i in range(100)) + END
    with pytest.raises(ShardError, match=r"x\.tar: more than 64 different suffixes, such as .*62, 63, 64 "):
        foreign(tmp_path / "x.tar", many)
    links = b"".join(entry(f"{i}.txt", b"", b"2") for i in range(5000)) + entry("a.txt") + END
    reader = foreign(tmp_path / "x.tar", links)
    assert reader.counts == {"link or device": 5000}
    assert len(reader.problems) == 100


def test_a_long_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    content = entry("a.txt", b"a" * 1000) + entry("b.txt", b"b" * 1001) + END
    reader = foreign(tmp_path / "x.tar", content, max_member_bytes=1000)
    assert len(reader.read(0)["txt"]) == 1000
    with pytest.raises(DamagedSampleError, match=r"x\.tar: sample b: txt: 1,001 bytes are more than the 1,000 allowed"):
        reader.read(1)


def test_headers_replaced_after_the_scan_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    reader = foreign(path, entry("a.txt", b"a") + entry("b.txt", b"b") + END)
    stat = path.stat()
    path.write_bytes(entry("b.txt", b"b") + entry("a.txt", b"a") + END)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(
        DamagedSampleError, match=r"x\.tar: sample a: txt: its header in the tar is not the one indexed"
    ):
        reader.read(0)


def test_usual_headers_are_those_of_tarfile_and_numbers_are_plain() -> None:
    for name, size in (("000000.jpg", 0), ("κλειδί.txt", 12_345), ("a" * 96 + ".jpg", 8**11 - 1)):
        info = tarfile.TarInfo(name)
        info.size = size
        expected = info.tobuf(format=tarfile.USTAR_FORMAT)
        assert usual_header(name.encode(), size) == make_header(name, size) == expected
    for field in (b"-0000001000\0", b"0o000000010\0", b"+0000000010\0", b"0000000 010\0"):
        with pytest.raises(ValueError, match="not a tar header"):
            parse_header(entry("a.txt", size=field)[:512])


# --- indexes ----------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    bomb = pickle.dumps(Bomb(mark))
    path = tmp_path / "x.tar"
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb(mark)], object), allow_pickle=True)
    members = dict.fromkeys(("pkl", "pth", "npz", "pyd", "txt"), bomb)
    write_shard(path, [RawSample("a", members | {"npy": objects.getvalue()})])
    reader = ForeignReader(path, fields=("pkl", "pth", "npz", "pyd"))
    ((sample,),) = epoch(reader, batch_size=1, fields=reader.fields)
    assert set(sample.fields.values()) == {bomb}
    with pytest.raises(DamagedSampleError, match=r"x\.tar: sample a: txt"):
        epoch(ForeignReader(path, fields=["txt"]), batch_size=1, fields=("txt",))
    with pytest.raises(DamagedSampleError, match=r"x\.tar: sample a: npy: an array of object"):
        epoch(ForeignReader(path, fields=["npy"]), batch_size=1, fields=("npy",))
    with np.load(sidecar_path(path)) as content:
        arrays = {name: content[name] for name in content.files}
    for name in arrays:
        np.savez(sidecar_path(path), allow_pickle=True, **(arrays | {name: np.array([Bomb(mark)], object)}))
        with pytest.raises(ShardError, match=r"not the index of x\.tar"):
            ShardIndex.open(path)
    assert not mark.exists()


def test_a_sidecar_that_would_unfold_to_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_shard(path, [small_sample(i) for i in range(3)])
    with np.load(sidecar_path(path)) as content:
        arrays = {name: content[name] for name in content.files}
    np.savez_compressed(sidecar_path(path), **(arrays | {"keys": np.zeros(1_000_000, "S50")}))
    assert sidecar_path(path).stat().st_size < 1_000_000
    with pytest.raises(ShardError, match=r"not the index of x\.tar: it is compressed"):
        ShardIndex.open(path)
    for shape in ((10**12, 2), (3, 10**18), (2**62, 2**62)):
        claim = io.BytesIO()
        np.lib.format.write_array_header_1_0(claim, {"descr": "<i8", "fortran_order": False, "shape": shape})
        np.savez(sidecar_path(path), **{name: array for name, array in arrays.items() if name != "offsets"})
        with zipfile.ZipFile(sidecar_path(path), "a") as archive:
            archive.writestr("offsets.npy", claim.getvalue() + bytes(64))
        with pytest.raises(ShardError, match=r"not the index of x\.tar"):
            ShardIndex.open(path)
    for offsets in (np.full((3, 2), 2**63 - 1), np.full((3, 2), -(2**63)), np.full((3, 2), -1), np.full((3, 2), 100)):
        np.savez(sidecar_path(path), **(arrays | {"offsets": offsets}))
        with pytest.raises(ShardError, match=r"not the index of x\.tar"):
            ShardIndex.open(path)


@pytest.mark.parametrize(
    "url", ["../data/..", "../data/a\n.tar", "../data/../../x.tar", "/etc/x.tar", "pipe:cat x", "s3://b/x.tar"]
)
def test_a_list_of_shards_cannot_point_outside_its_dataset(small: Path, tmp_path: Path, url: str) -> None:
    root = shutil.copytree(small, tmp_path / "d")
    index = DatasetLayout(root).index
    content = json.loads(index.read_text())
    content["shardlist"][0]["url"] = url
    index.write_text(json.dumps(content))
    with pytest.raises(ShardError, match=r"index\.json: not a shard index") as caught:
        DatasetReader(root, "train")
    assert "\n" not in str(caught.value)


def test_a_member_that_a_sample_lacks_is_named_when_read_by_an_index(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    foreign(path, entry("a.txt") + entry("a.json") + entry("b.txt") + END, index_dir=None)
    reader = ShardReader(path)  # reads the sidecar that the scan has left
    assert reader.read(0) == {"txt": b"x", "json": b"x"}
    assert reader.read(1) == {"txt": b"x"}
    with pytest.raises(DamagedSampleError, match=r"x\.tar: sample b: it has no json"):
        reader.read(1, ["json"])


# --- members ----------------------------------------------------------------------------------------------


def png_bomb(side: int) -> bytes:
    """A PNG of a few kilobytes per gigabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(1 + side)) for _ in range(side)) + pack.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_bomb(side: int) -> bytes:
    """An animation whose canvas claims `side` x `side` pixels."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), (i, i, i)) for i in (0, 200)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    content = bytearray(buffer.getvalue())
    content[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(content)


def jpeg_bomb(side: int) -> bytes:
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = side.to_bytes(2, "big") * 2
    return bytes(content)


def claiming(frames: int, seconds: float = 1.0) -> bytes:
    """A FLAC whose header claims so many frames; 0 stands for unknown, as in a stream."""
    content = bytearray(flac(seconds=seconds))
    content[21] = (content[21] & 0xF0) | (frames >> 32)
    content[22:26] = (frames & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(content)


def test_a_flac_that_claims_hours_is_refused_and_one_of_unknown_length_is_read() -> None:
    with pytest.raises(ValueError, match=r"3,600\.0 s are longer than the 60 s allowed"):
        decode_audio(claiming(16_000 * 3600))
    with pytest.raises(ValueError, match=r"longer than the 60 s allowed"):
        decode_audio(claiming(2**36 - 1))
    with pytest.raises(ValueError, match=r"cut off after 16000 of 640000 frames|not audio that can be decoded"):
        decode_audio(claiming(640_000))
    assert decode_audio(claiming(0))[0].shape == (16_000,)
    with pytest.raises(ValueError, match=r"longer than the 0\.5 s allowed"):
        decode_audio(claiming(0), max_seconds=0.5)
    for other in (b"FORM\0\0\0\x12AIFF", b".snd" + bytes(40), jpeg()):
        with pytest.raises(ValueError, match="neither FLAC, WAV, Ogg nor MP3"):
            decode_audio(other)


MEMORY = """
import resource, sys
from pathlib import Path
from symile_m3.shards import decode_audio, decode_image, decode_member
from PIL import Image; import soundfile; from PIL import PngImagePlugin, JpegImagePlugin, WebPImagePlugin
from warnings import simplefilter; simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode_member(path.suffix[1:], path.read_bytes())
        print("decoded", path)
    except ValueError as error:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """The peak of a process of its own, in KiB; each of these would be some 100 MB to 4 GB."""
    folder = tmp_path / "bombs"
    folder.mkdir()
    bombs = {f"{side}.png": png_bomb(side) for side in (8_000, 12_000)}
    bombs |= {f"{side}.webp": webp_bomb(side) for side in (8_000, 13_000, 16_000_000)}
    bombs |= {f"{side}.jpg": jpeg_bomb(side) for side in (8_000, 30_000, 65_000)}
    bombs |= {f"{frames}.flac": claiming(frames) for frames in (16_000 * 3600, 2**36 - 1)}
    bombs |= {"a.json": b"[" * 900_000, "b.txt": b"x" * 1_000_001}
    for name, data in bombs.items():
        assert len(data) < 2_000_000
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True, timeout=240
    )
    assert int(done.stdout) < 40_000, done.stdout


def test_limits_are_arguments_of_the_loader(small: Path) -> None:
    reader = DatasetReader(small, "train")
    assert len(epoch(reader, limits=DecodeLimits(pixels=256, seconds=0.05, text_bytes=31))) == 2
    for limits, message in (
        (DecodeLimits(pixels=255), "jpg: 16 x 16 pixels are more than the 255 allowed"),
        (DecodeLimits(seconds=0.04), r"flac: 0\.1 s are longer than the 0\.04 s allowed"),
        (DecodeLimits(text_bytes=8), "txt: 10 bytes of text are more than the 8 allowed"),
    ):
        with pytest.raises(DamagedSampleError, match=rf"^train-00000-of-00001\.tar: sample 00000\d: {message}"):
            epoch(reader, limits=limits)
    for wrong in ({"pixels": 0}, {"seconds": -1.0}, {"seconds": float("inf")}, {"text_bytes": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DecodeLimits(**wrong)
    with pytest.raises(ValueError, match="255 allowed"):
        decode_member("webp", jpeg(), DecodeLimits(pixels=255))
    assert decode_image(jpeg()).shape == (16, 16, 3)


def test_python_reads_the_tars_of_these_tests_alike(tmp_path: Path) -> None:
    """That the hand-made entries above are what they are meant to be."""
    path = tmp_path / "x.tar"
    path.write_bytes(entry("a.txt", b"1") + entry("b.txt", b"", b"2") + entry("c.txt", b"y" * 600) + END)
    with tarfile.open(path) as tar:
        assert [(member.name, member.size, member.issym()) for member in tar] == [
            ("a.txt", 1, False),
            ("b.txt", 0, True),
            ("c.txt", 600, False),
        ]
