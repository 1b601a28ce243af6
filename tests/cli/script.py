"""The real console script, as installed beside this Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("symile-m3")
COMMANDS = ("quickstart", "build", "encode", "train", "eval", "compare", "verify", "info", "preview", "lexicon")
TINY = ("--langs", "2", "--classes", "6", "--train", "24", "--val", "8", "--test", "8", "--clips", "16,4,4")


def environment(**changes: str) -> dict[str, str]:
    """Ours, without what changes how help and tables look."""
    varying = ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "SYMILE_M3_DEBUG", "TERMINAL_WIDTH")
    return {**{name: value for name, value in os.environ.items() if name not in varying}, **changes}


def symile_m3(
    *words: str | Path, cwd: Path | None = None, timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(
        [SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**env),
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed, which is the one line of ours on standard error."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("symile-m3: error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0], result.stderr
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("symile-m3: error: ")
