from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shard_samples import names

from symile_m3.shards import ShardError, replacing, sweep, write_bytes, write_text


def test_write_makes_directories_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "plan.json"
    write_text(path, "eins")
    write_bytes(path, b"zwei")
    assert path.read_bytes() == b"zwei"
    assert names(path.parent) == ["plan.json"]


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_bytes(path, b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new and longer")
            assert path.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.tar"]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_directory_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ShardError, match=r"data/x\.tar: cannot be written: [^\n]+$"):
        write_bytes(tmp_path / "data" / "x.tar", b"")


def test_sweep_removes_what_a_killed_writer_left_and_spares_the_living(tmp_path: Path) -> None:
    script = (
        "import sys, os, pathlib; from symile_m3.shards import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "dead.tar")], check=False)
    other = tmp_path / "x.tar.tmp-another_host-1-0123abcd"
    other.write_text("of another machine")
    (tmp_path / "notes.tmp-1").write_text("not ours")
    with replacing(tmp_path / "alive.tar") as file:
        file.write(b"whole")
        removed = sweep(tmp_path)
    assert [path.name.split(".tmp-")[0] for path in removed] == ["dead.tar"]
    assert names(tmp_path) == ["alive.tar", "notes.tmp-1", other.name]
    os.utime(other, (time.time() - 90_000,) * 2)
    assert sweep(tmp_path) == [other]
    assert sweep(tmp_path / "nowhere") == []
