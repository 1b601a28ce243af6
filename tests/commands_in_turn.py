"""Commands in one process, one after the other: `commands_in_turn.py WORD... + WORD... + ...`.

Most of what a short command takes is importing; the processes of `torchrun` do it once for all of them. They must
have left their group when they end: a thread of gloo that is still there may abort the process.
"""

from __future__ import annotations

import atexit
import os
import sys
from itertools import groupby
from pathlib import Path

from symile_m3.cli.main import run


def threads_of_gloo() -> list[str]:
    """Of this process, by name."""
    names = (task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir())
    return [name for name in names if "gloo" in name]


@atexit.register  # before the commands register theirs, so it is called after them
def check_that_the_group_is_left() -> None:
    """End the process with status 70 where it is not."""
    if left := threads_of_gloo():
        print(f"threads left: {', '.join(left)}", file=sys.stderr, flush=True)
        os._exit(70)


for divides, words in groupby(sys.argv[1:], key=lambda word: word == "+"):
    if divides:
        continue
    sys.argv = ["symile-m3", *words]
    try:
        run()
    except SystemExit as error:
        if error.code:
            raise

if "WORLD_SIZE" in os.environ and not threads_of_gloo():
    sys.exit("no thread of gloo, where several are known to run: the check at the end would check nothing")
