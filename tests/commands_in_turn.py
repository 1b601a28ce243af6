"""Commands in one process, one after the other: `commands_in_turn.py WORD... + WORD... + ...`.

Most of what a short command takes is importing; the processes of `torchrun` do it once for all of them.
"""

from __future__ import annotations

import sys
from itertools import groupby

from symile_m3.cli.main import run

for divides, words in groupby(sys.argv[1:], key=lambda word: word == "+"):
    if divides:
        continue
    sys.argv = ["symile-m3", *words]
    try:
        run()
    except SystemExit as error:
        if error.code:
            raise
