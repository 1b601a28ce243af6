"""Bad input: one clear line, the right exit status, nothing lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from image_files import write_tree
from script import SCRIPT, TINY, environment, error_of, symile_m3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("build", "--langs", "en,xx"), ("'xx'", "codes such as ar, el")),
        (("build", "--langs", "7"), ("--langs 7", "10, 5, 2")),
        (("build", "--langs", "en"), ("at least two languages",)),
        (("build", "--langs", "en,el,en"), ("twice",)),
        (("build", "--words", "3", "--langs", "2"), ("--words 3", "2 languages")),
        (("build", "--words", "0"), ("--words",)),
        (("build", "--classes", "100000"), ("--classes 100000", "usable classes")),
        (("build", "--classes", "many"), ("--classes", "many")),
        (("build", "--clips", "1,2"), ("--clips", "1,2")),
        (("build", "--train", "0"), ("--train 0",)),
        (("build", "--workers", "0"), ("--workers",)),
        (("build", "--shard-samples", "0"), ("--shard-samples 0", "1 to 1,000,000")),
        (("build", "--shard-samples", "many"), ("--shard-samples",)),
        (("build", "--seed", "-1"), ("--seed",)),
        (("build", "--split-by", "luck"), ("--split-by luck", "media or sample")),
        (("build", "--text", "short"), ("--text short",)),
        (("build", "--images", "cats"), ("--images cats", "emoji")),
        (("build", "--speech", "cats"), ("--speech cats", "espeak")),
        (("build", "--names", "cats"), ("--names cats", "builtin")),
        (("build", "--json", "no/such/file.json"), ("--json", "no/such")),
        (("eval", "--missing-p", "1.5"), ("--missing-p", "1.5", "0 to 1")),
        (("eval", "--missing-p", "nan"), ("--missing-p", "nan")),
        (("eval", "--bootstrap", "0"), ("--bootstrap",)),
        (("train", "--missing-p", "-0.1"), ("--missing-p", "-0.1")),
        (("train", "--steps", "0"), ("--steps",)),
        (("train", "--steps", "5", "--epochs", "5"), ("--steps", "--epochs")),
        (("train", "--batch-size", "1"), ("--batch-size",)),
        (("train", "--on-bad-sample", "cry"), ("--on-bad-sample cry", "stop or skip")),
        (("eval", "--on-bad-sample", "cry"), ("--on-bad-sample cry", "stop or skip")),
        (("encode", "--on-bad-sample", "cry"), ("--on-bad-sample cry", "stop or skip")),
        (("lexicon", "--category", "nothing"), ("--category nothing", "known:")),
        (("lexicon", "--langs", "tlh,en"), ("'tlh'",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_arguments_exit_2(words: tuple[str, ...], says: tuple[str, ...], tmp_path: Path) -> None:
    result = symile_m3(*words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    message = error_of(result)
    assert [part for part in says if part not in message] == []
    assert result.stdout == ""
    assert list(tmp_path.rglob("*.tar")) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for result in (
        symile_m3("--debug", "build", "--langs", "7", cwd=tmp_path),
        symile_m3("build", "--langs", "7", cwd=tmp_path, SYMILE_M3_DEBUG="1"),
    ):
        assert result.returncode == 2
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("symile-m3: error: --langs 7")


def test_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    result = symile_m3("build", *TINY, "--overwrite", "--data", tmp_path)
    assert result.returncode == 1
    assert "other files" in error_of(result)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_data_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = symile_m3("build", *TINY, "--data", tmp_path / "file")
    assert result.returncode == 2
    assert "is a file" in error_of(result)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no directory here refuses root")
def test_read_only_directory() -> None:
    result = symile_m3("build", *TINY, "--data", "/proc/m3")
    assert result.returncode == 1
    assert "/proc/m3" in error_of(result)


def test_full_disk(tmp_path: Path) -> None:
    limited = f"ulimit -f 64; trap '' XFSZ; exec {SCRIPT} build {' '.join(TINY)} --data {tmp_path / 'm3'}"
    result = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, env=environment(), timeout=240, check=False
    )
    assert result.returncode == 1
    assert "cannot be written" in error_of(result)
    assert "run the same command again" in error_of(result)
    assert list((tmp_path / "m3").rglob("*.tmp-*")) == []


def test_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        result = subprocess.run(
            [SCRIPT, "lexicon"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("spec", "status", "says"),
    [
        ("folder", 2, ("name a directory", "folder:photos")),
        ("folder:nowhere", 1, ("nowhere does not exist",)),
        ("folder:letters.txt", 1, ("letters.txt is a file",)),
        ("folder:empty", 1, ("0 directories in empty", "at least two classes")),
        ("folder:one", 1, ("1 directory in one, 1 of them with three images or more",)),
        ("folder:few", 1, ("3 directories in few", "2 classes have too few images: dog (2), eel (0)")),
        ("imagenet:few", 1, ("no directories or tars called by synsets",)),
        ("hf:", 2, ("name a data set",)),
        ("hf:./nowhere", 1, ("nowhere does not exist",)),
        ("hf:few,colour=red", 2, ("'colour=red' is no choice", "split=")),
    ],
)
def test_images_that_cannot_be_used_are_named(spec: str, status: int, says: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "letters.txt").write_text("mine")
    write_tree(tmp_path / "one", {"cat": 3})
    write_tree(tmp_path / "few", {"cat": 3, "dog": 2, "eel": 0})
    result = symile_m3("build", "--images", spec, "--names", "emoji", cwd=tmp_path)
    assert result.returncode == status, result.stderr
    message = error_of(result)
    assert [part for part in says if part not in message] == []
    assert not (tmp_path / "data").exists()
