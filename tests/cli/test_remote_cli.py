from __future__ import annotations

from pathlib import Path

import pytest
from remote_servers import serving
from script import symile_m3


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
