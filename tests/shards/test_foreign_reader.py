from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shard_samples import flac, full_sample, jpeg, names, small_sample

from symile_m3.shards import (
    DamagedSampleError,
    ForeignReader,
    Loader,
    LoaderConfig,
    ShardError,
    ShardIndex,
    default_index_dir,
    sidecar_path,
    write_shard,
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes into the cache of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return default_index_dir()


def tar(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar as Python writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as file:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5
            file.addfile(info, io.BytesIO(data))
    return path


def texts(path: Path, keys: Iterable[str]) -> Path:
    return tar(path, [(f"{key}.txt", key.encode()) for key in keys])


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def keys(reader: ForeignReader) -> list[str]:
    return [reader.key(i) for i in range(len(reader))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tars_of_webdataset_are_read_by_a_loader_as_ours_are(tmp_path: Path) -> None:
    import webdataset

    for s in range(3):
        with webdataset.TarWriter(str(tmp_path / f"images-{s:03d}.tar")) as writer:
            for i in range(8 * s, 8 * s + 8):
                writer.write({"__key__": f"{i:06d}", **full_sample(i).members})
    reader = ForeignReader(f"{tmp_path}/images-{{000..002}}.tar")
    assert (len(reader), reader.shard_sizes) == (24, [8, 8, 8])
    assert all(reader.read(i) == full_sample(i).members for i in range(24))
    assert reader.shard(8) == "images-001.tar"
    assert not reader.counts
    config: dict[str, Any] = {"batch_size": 4, "seed": 1, "fields": ("jpg", "flac", "txt", "json"), "window": 10}
    loader = Loader(reader, LoaderConfig(**config))
    epoch = [[sample.index for sample in batch] for batch in loader]
    assert sorted(i for batch in epoch for i in batch) == list(range(24))
    spawned = Loader(reader, LoaderConfig(**config, workers=2))
    assert [[sample.index for sample in batch] for batch in spawned] == epoch
    running = iter(spawned)
    loader.set_epoch(1)
    whole = [[sample.index for sample in batch] for batch in loader]
    for _ in range(4):
        batch = next(running)
    assert batch[0].fields["flac"][1] == 16_000
    resumed = Loader(ForeignReader(tmp_path), LoaderConfig(**config))
    resumed.load_state_dict(spawned.state_dict())
    assert [[sample.index for sample in batch] for batch in resumed] == whole[4:]
    spawned.close()
    for rank in range(2):
        share = Loader(reader, LoaderConfig(**config, rank=rank, world=2))
        assert [[sample.index for sample in batch] for batch in share] == epoch[rank::2]


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_tars_of_gnu_tar_with_folders_long_names_and_links(tmp_path: Path, format: str) -> None:
    files = {"b/a/0001.txt": b"one", "b/a/0001.seg.PNG": png(), "b/κλειδί.txt": b"two", "c.TXT": b"three"}
    if format != "v7":
        files["/".join(["d" * 50, "e" * 50, "f" * 40]) + ".txt"] = b"long folders"
    if format in ("gnu", "pax", "oldgnu"):
        files["g" * 150 + ".txt"] = b"a long name"
    source = tmp_path / "in"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "z.txt").symlink_to("/etc/passwd")
    path = tmp_path / "out.tar"
    subprocess.run(["tar", f"--format={format}", "--sort=name", "-cf", path, "-C", source, "."], check=True)
    reader = ForeignReader(path, fields=["txt"])
    found = {reader.key(i): reader.read(i)["txt"] for i in range(len(reader))}
    assert found == {name.rsplit(".", 1)[0]: data for name, data in files.items() if name.lower().endswith("txt")}
    assert reader.counts == {"link or device": 1}
    assert "z.txt: passed over (symbolic link)" in str(reader.problems[0])
    seg = ForeignReader(path, fields=["seg.png"], on_missing="skip")
    assert keys(seg) == ["b/a/0001"]
    assert seg.read(0) == {"seg.png": png()}


def test_hard_links_devices_and_sparse_files_are_passed_over(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.txt").write_bytes(b"a")
    (source / "b.txt").hardlink_to(source / "a.txt")
    os.mkfifo(source / "c.txt")
    with (source / "d.txt").open("wb") as file:
        for hole in range(60):  # so many that the map of an old GNU sparse file goes on behind its header
            file.seek(hole * 65_536)
            file.write(b"x" * 4096)
        file.truncate(60 * 65_536)
    (source / "e.txt").write_bytes(b"e")
    for i, kind in enumerate((["--format=gnu"], ["--format=pax"], ["--format=pax", "--sparse-version=0.1"])):
        path = tmp_path / f"{i}.tar"
        subprocess.run(["tar", *kind, "--sparse", "--sort=name", "-cf", path, "-C", source, "."], check=True)
        reader = ForeignReader(path, fields=["txt"])
        assert [reader.read(i) for i in range(len(reader))] == [{"txt": b"a"}, {"txt": b"e"}]
        assert reader.counts == {"link or device": 2, "sparse file": 1}


def test_samples_differ_in_members_and_fields_have_several_suffixes(tmp_path: Path) -> None:
    wav = io.BytesIO()
    import soundfile

    soundfile.write(wav, np.zeros(160), 16_000, format="WAV")
    path = tar(
        tmp_path / "a.tar",
        [
            *[("1.JPEG", jpeg(1)), ("1.flac", flac()), ("1.txt", b"eins")],
            *[("2.png", png()), ("2.txt", b"zwei")],
            *[("3.txt", b"drei"), ("3.webp", b"?"), ("3.jpg", jpeg(3)), ("3.wav", wav.getvalue())],
            *[("4.jpg", jpeg(4)), ("4.wav", wav.getvalue())],
        ],
    )
    with pytest.raises(ShardError, match=r'a\.tar: sample 2: has no flac \(and 1 more\) \(on_missing="skip"'):
        ForeignReader(path, fields=("jpg", "flac", "txt"))
    reader = ForeignReader(path, fields=("jpg", "flac", "txt"), on_missing="skip")
    assert keys(reader) == ["1", "3"]
    assert reader.counts == {"missing": 2}
    assert [str(problem) for problem in reader.problems] == [
        "a.tar: sample 2: has no flac",
        "a.tar: sample 4: has no txt",
    ]
    assert reader.read(1, ["txt", "jpg"]) == {"txt": b"drei", "jpg": jpeg(3)}
    config = LoaderConfig(batch_size=2, seed=0, shuffle=False, fields=("jpg", "flac"))
    ((first, second),) = list(Loader(reader, config))
    assert first.fields["jpg"].shape == (16, 16, 3)
    assert second.fields["flac"][0].shape == (160,)
    assert keys(ForeignReader(path, fields=["jpg"], aliases={"jpg": ("png", "jpg")}, on_missing="skip")) == [*"234"]
    with pytest.raises(ShardError, match="'json' is not among the fields asked for: jpg, flac, txt"):
        reader.read(0, ["json"])
    with pytest.raises(ShardError, match="no sample in 1 tars has all of json"):
        ForeignReader(path, fields=["json"], on_missing="skip")
    for wrong in ({"fields": ()}, {"fields": "txt"}, {"on_missing": "no"}, {"workers": 0}, {"max_open": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ForeignReader(path, **wrong)


def test_an_index_is_kept_beside_the_tar_and_made_anew_when_the_tar_changes(tmp_path: Path, cache: Path) -> None:
    path = texts(tmp_path / "a.tar", ["1", "2"])
    first = ForeignReader(path, fields=["txt"])
    sidecar = sidecar_path(path)
    made = sidecar.stat().st_mtime_ns
    assert not cache.exists()
    assert ForeignReader(path, fields=["txt"]).fingerprint == first.fingerprint
    assert sidecar.stat().st_mtime_ns == made
    sidecar.write_bytes(b"damaged")
    assert ForeignReader(path, fields=["txt"]).fingerprint == first.fingerprint
    texts(path, ["3", "4"])  # of the same length
    os.utime(path, ns=(0, 12345))
    again = ForeignReader(path, fields=["txt"])
    assert keys(again) == ["3", "4"]
    assert again.fingerprint != first.fingerprint
    with pytest.raises(ShardError, match=r"a\.tar: has changed since it was first read"):
        first.key(0)
    moved = tmp_path / "elsewhere"
    (tmp_path / "new").mkdir()
    path.rename(tmp_path / "new" / "a.tar")
    sidecar.parent.rename(tmp_path / "new" / ".symile")
    (tmp_path / "new").rename(moved)
    made = sidecar_path(moved / "a.tar").stat().st_mtime_ns
    assert ForeignReader(moved, fields=["txt"]).fingerprint == again.fingerprint
    assert sidecar_path(moved / "a.tar").stat().st_mtime_ns == made


def test_an_index_goes_to_the_cache_where_the_folder_cannot_be_written_or_where_it_is_told_to(
    tmp_path: Path, cache: Path
) -> None:
    path = texts(tmp_path / "a" / "x.tar", ["1"])
    (tmp_path / "a" / ".symile").write_text("a file, so that no folder can be made")
    ForeignReader(path, fields=["txt"])
    (kept,) = names(cache)
    made = (cache / kept).stat().st_mtime_ns
    assert ForeignReader(path, fields=["txt"]).read(0) == {"txt": b"1"}
    assert (cache / kept).stat().st_mtime_ns == made
    told = tmp_path / "told"
    other = texts(tmp_path / "b" / "x.tar", ["2"])
    assert keys(ForeignReader([path, other], fields=["txt"], index_dir=told)) == ["1", "2"]
    assert len(names(told)) == 2
    assert names(tmp_path / "b") == ["x.tar"]
    nowhere = ForeignReader(other, fields=["txt"], index_dir=tmp_path / "a" / ".symile" / "x")
    assert nowhere.read(0) == {"txt": b"2"}


def test_the_index_of_our_own_writer_is_used_and_never_overwritten(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [small_sample(i) for i in range(3)])
    ours = sidecar_path(path).read_bytes()
    reader = ForeignReader(path, fields=("txt", "json"))
    assert not cache.exists()
    content = bytearray(path.read_bytes())
    at = int(ShardIndex.open(path).offsets[1, 0])
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedSampleError, match="the bytes of its txt were altered"):
        reader.read(1)
    scanned = ForeignReader(path, fields=("txt", "json"), index_dir=tmp_path / "told")
    assert scanned.fingerprint == reader.fingerprint
    path.write_bytes(content[:-512])
    ForeignReader(path, fields=("txt", "json"))
    assert sidecar_path(path).read_bytes() == ours
    assert len(names(cache)) == 1


def test_many_tars_are_scanned_by_processes_with_the_same_result(tmp_path: Path) -> None:
    for s in range(9):
        texts(tmp_path / f"{s}.tar", [f"{s}-{i}" for i in range(s + 1)])
    calls: list[tuple[int, int]] = []
    reader = ForeignReader(tmp_path, fields=["txt"], workers=2, progress=lambda *call: calls.append(call))
    assert calls == [(done, 9) for done in range(1, 10)]
    alone = ForeignReader(tmp_path, fields=["txt"], index_dir=tmp_path / "other", max_open=1)
    assert keys(alone) == keys(reader) == [f"{s}-{i}" for s in range(9) for i in range(s + 1)]
    assert alone.fingerprint == reader.fingerprint
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(44) == {"txt": b"8-8"}
    with pytest.raises(IndexError):
        reader.read(45)
    (tmp_path / "9.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ShardError, match=r"9\.tar: is compressed with gzip"):
        ForeignReader(tmp_path, fields=["txt"], workers=2)


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    for s in range(2):
        texts(tmp_path / f"{s}.tar", ["1"])
    script = (
        "import sys; from symile_m3.shards import ForeignReader, ShardError\n"
        "try:\n"
        "    ForeignReader(sys.argv[1], fields=['txt'], workers=2)\n"
        "except ShardError as error:\n"
        "    print(error)"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path], check=True, capture_output=True, text=True, timeout=240
    )
    assert 'guard the entry of the script with if __name__ == "__main__"' in done.stdout


def scan_again_and_again(path: str) -> int:
    total = 0
    for _ in range(20):
        total += len(ForeignReader(path, fields=["txt"]))
        sidecar_path(Path(path)).unlink(missing_ok=True)
    return total


def test_several_processes_may_scan_one_tar_at_once(tmp_path: Path) -> None:
    path = texts(tmp_path / "a.tar", [f"{i}" for i in range(50)])
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(scan_again_and_again, [str(path)] * 3) == [1000] * 3
    assert keys(ForeignReader(path, fields=["txt"])) == [f"{i}" for i in range(50)]
    assert names(tmp_path / ".symile") == ["a.idx.npz"]


def test_tars_are_meant_by_directory_pattern_range_and_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x-08", "a/x-09", "a/x-10", "a/deep/y", "a/.hidden/z", "b[1]"):
        texts(tmp_path / f"{name}.tar", [name])
    monkeypatch.chdir(tmp_path)

    def meant(tars: Any) -> list[str]:
        return [str(path) for path in ForeignReader(tars, fields=["txt"], index_dir=Path("i")).paths]

    assert meant("a") == ["a/deep/y.tar", "a/x-08.tar", "a/x-09.tar", "a/x-10.tar"]
    assert meant("a/x-{08..10}.tar") == meant("a/x-*.tar") == ["a/x-08.tar", "a/x-09.tar", "a/x-10.tar"]
    assert meant(["a/x-{10,08}.tar", Path("b[1].tar")]) == ["a/x-10.tar", "a/x-08.tar", "b[1].tar"]
    assert meant(f"file://{tmp_path}/a/x-{{08..09}}.tar") == [f"{tmp_path}/a/x-08.tar", f"{tmp_path}/a/x-09.tar"]
    assert meant("**/{y,x-1?}.tar") == ["a/deep/y.tar", "a/x-10.tar"]
    for wrong, message in (
        ("a/x-{08..11}.tar", r"a/x-11\.tar: no such file"),
        ("a/x-{10..08}.tar", "goes backwards"),
        ("a/x-{0..99999999999}.tar", "too long"),
        ("nothing-*.tar", "no such file"),
        ([], "no tars are given"),
        (["a", "a/x-08.tar"], "given twice"),
        ("pipe:cat a/x-08.tar", "commands are never run"),
        ("PIPE:touch owned", "commands are never run"),
        ("pipe://cat a/x-08.tar", "commands are never run"),
        ("mailto:a/x-08.tar", "not a path"),
        ("nothing://bucket/a.tar", "is not a kind of URL"),
        ("filecache::s3://bucket/a.tar", "chained URLs"),
    ):
        with pytest.raises(ShardError, match=message):
            meant(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match="empty: holds no tars"):
        meant("empty")


def test_members_that_a_sample_may_lack_are_given_where_they_are(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "some.tar",
        [
            ("a.txt", b"a"),
            ("a.left.npy", b"1"),
            ("b.txt", b"b"),
            ("c.left.npy", b"3"),
            ("d.txt", b"d"),
            ("d.far.npy", b"4"),
        ],
    )
    reader = ForeignReader(path, fields=("txt",), optional=("left.npy", "far.npy"), on_missing="skip")
    assert reader.fields == ("txt", "left.npy", "far.npy")
    assert [reader.read(i) for i in range(len(reader))] == [
        {"txt": b"a", "left.npy": b"1"},
        {"txt": b"b"},
        {"txt": b"d", "far.npy": b"4"},
    ]
    assert [reader.read(i, ["left.npy"]) for i in range(3)] == [{"left.npy": b"1"}, {}, {}]
    again = pickle.loads(pickle.dumps(reader))
    assert again.read(2) == reader.read(2)
    assert again.fingerprint == reader.fingerprint
    assert reader.fingerprint != ForeignReader(path, fields=("txt",), on_missing="skip").fingerprint
    every = ForeignReader(path, fields=(), optional=("txt", "left.npy"))
    assert keys(every) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="fields must be different members"):
        ForeignReader(path, fields=("txt",), optional=("txt",))
