from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from remote_servers import Fault, serving, serving_s3
from script import TINY, error_of, symile_m3


def test_commands_take_urls(tiny_dataset: Path, tmp_path: Path) -> None:
    with serving(tiny_dataset) as server:
        done = symile_m3("verify", "--no-probes", "--data", server.url, XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        done = symile_m3("verify", "--no-probes", "--data", f"{server.url}/none", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"{server.url}/none/.symile/index.json: no dataset there (build one first)" in done.stderr


def test_info_and_preview_take_urls(tiny_dataset: Path, tmp_path: Path) -> None:
    with serving(tiny_dataset) as server:
        server.faults["index.json"].append(Fault(status=503))
        words = ("info", "--data", f"{server.url}?token=secret", "--json", "-")
        done = symile_m3(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "secret" not in done.stderr + done.stdout
        assert json.loads(done.stdout)["data"] == server.url
        assert f"{server.url}/.symile/index.json: HTTP 503 Service Unavailable; trying again in" in done.stderr
        words = ("preview", "--data", server.url, "--samples", "3", "--split", "test")
        done = symile_m3(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.startswith("preview.html: 3 of 16 test samples"), done.stderr
        assert not list((tmp_path / "symile-m3").rglob("*.tar"))


def test_a_server_that_nobody_answers_for_is_said_and_given_up_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    done = symile_m3("info", "--data", "http://127.0.0.1:9/m3", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert time.monotonic() - began < 25
    assert done.returncode == 1
    place = "http://127.0.0.1:9/m3/.symile/index.json"
    assert error_of(done).startswith(f"{place}: cannot be read: Connect call failed")
    assert done.stderr.startswith(f"{place}: Connect call failed ('127.0.0.1', 9); trying again in ")


@pytest.mark.parametrize("command", ["train", "verify", "info", "preview"])
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
    ],
)
def test_urls_that_a_command_cannot_use_are_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = symile_m3(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert message in error_of(done)
    assert not list(tmp_path.iterdir())
