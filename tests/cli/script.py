"""Commands of the command line: as forks of a process that has it imported, or by the real console script."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from forked_commands import OPTIMISING, ForkedCommands

SCRIPT = Path(sys.executable).with_name("symile-m3")
COMMANDS = (
    *("quickstart", "build", "encode", "train", "eval", "report", "export", "verify", "info", "preview", "lexicon"),
    *("compare", "xor"),
)
TINY = (
    *("--langs", "2", "--classes", "6", "--train", "24", "--val", "8", "--test", "8", "--clips", "16,4,4"),
    *("--workers", "1"),
)


def environment(**changes: str) -> dict[str, str]:
    """Ours, without what changes how help and tables look."""
    varying = ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "SYMILE_M3_DEBUG", "TERMINAL_WIDTH")
    return {**{name: value for name, value in os.environ.items() if name not in varying}, **changes}


def console_script(
    *words: str | Path, cwd: Path | None = None, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the script, as installed beside this Python, to its end."""
    return subprocess.run(
        [SCRIPT, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**env),
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@cache
def forked_commands(optimising: bool) -> ForkedCommands:
    """Two, as forks of a process that has imported torch are slower by half."""
    commands = ForkedCommands()
    atexit.register(commands.close)
    return commands


def symile_m3(
    *words: str | Path, cwd: Path | None = None, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own that has nothing left to import.

    Where the environment is to say how Python starts, it is the console script.
    """
    if any(name.startswith("PYTHON") for name in env):
        return console_script(*words, cwd=cwd, timeout=timeout, **env)
    commands = forked_commands(not OPTIMISING.isdisjoint(words))
    return commands.run([*map(str, words)], cwd, environment(**env), timeout)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed, which is the one line of ours on standard error."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("symile-m3: error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0], result.stderr
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("symile-m3: error: ")
