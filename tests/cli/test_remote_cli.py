from __future__ import annotations

import json
from pathlib import Path

import pytest
from remote_servers import serving, serving_s3
from script import TINY, error_of, symile_m3


def test_commands_take_urls(tiny_dataset: Path, tmp_path: Path) -> None:
    with serving(tiny_dataset) as server:
        done = symile_m3("verify", "--no-probes", "--data", server.url, XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        done = symile_m3("verify", "--no-probes", "--data", f"{server.url}/none", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"{server.url}/none/.symile/index.json: no dataset there (build one first)" in done.stderr


@pytest.mark.parametrize("command", ["train", "verify"])
def test_commands_refuse_what_would_run_a_command(command: str, tmp_path: Path) -> None:
    done = symile_m3(command, "--data", f"pipe:touch {tmp_path / 'ran'}", cwd=tmp_path)
    assert done.returncode == 1
    assert "pipe: is refused, as it would run a command" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_build_takes_a_store_and_says_what_is_next(tmp_path: Path) -> None:
    with serving_s3() as server:
        words = ("build", *TINY, "--data", "s3://bucket/m3", "--json", "build.json", "--workers", "2")
        done = symile_m3(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "Next: symile-m3 train --data s3://bucket/m3"
        assert f"s3://bucket/m3: made in {tmp_path}/cache/symile-m3/builds/m3-" in done.stderr
        assert server.puts[-1] == "m3/.symile/index.json"
    figures = json.loads((tmp_path / "build.json").read_text())
    assert (figures["data"], figures["shards"], figures["shards_built"]) == ("s3://bucket/m3", 3, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.json", "cache"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("build", "--data", "https://host/m3"), "https://host/m3: cannot be written over HTTP"),
        (("info", "--data", "s3://bucket/m3"), "s3://bucket/m3: this command takes a directory, not a URL"),
        (("preview", "--data", "s3://bucket/m3"), "s3://bucket/m3: this command takes a directory, not a URL"),
    ],
)
def test_urls_that_a_command_cannot_use_are_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = symile_m3(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert message in error_of(done)
    assert not list(tmp_path.iterdir())
