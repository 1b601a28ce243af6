"""Commands as forks of one process that has imported them: `forked_commands.py FD`.

Starting Python and importing is most of what a short command takes. Here it is done once; each command that is asked
for at the socket FD is then a process of its own, with its own arguments, directory, environment and streams, and runs
what the console script runs, to its exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NoReturn

USED = {  # what a command imports once it knows what to do; `--help` must not, so none of it is imported with the app
    "quickstart": ("build", "train", "evaluate"),
    "build": ("build", "images", "speech"),
    "train": ("train", "modalities.training"),
    "encode": ("features",),
    "eval": ("evaluate", "missing_plot", "modalities.evaluation"),
    "report": ("report",),
    "export": ("export",),
    "compare": ("comparison",),
    "xor": ("synthetic.sweep",),
    "verify": ("audit",),
    "info": ("info",),
    "preview": ("preview",),
    "lexicon": ("images", "lexicon.translate"),
}
DRAWING = {"quickstart", "train", "eval", "report", "compare", "xor"}  # for which Matplotlib is imported
OPTIMISING = {*DRAWING, "encode", "export"}  # for which torch is imported, mostly with its compiler
PRETRAINED = ("open_clip", "transformers")  # what towers are made with that `encode` is asked for
LISTING_EMOJI = ("build", "lexicon", "quickstart")  # for which 24,000 files are read
REQUEST_BYTES = 2**20


class ForkedCommands:
    """The side of those who ask; one command at a time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * REQUEST_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(
        self, words: list[str], cwd: Path | None, environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        request = json.dumps([words, str(cwd or Path.cwd()), environment]).encode()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as stdout,
            tempfile.TemporaryFile("w+", encoding="utf-8") as stderr,
        ):
            self._ours.settimeout(timeout_s)
            socket.send_fds(self._ours, [request], [stdout.fileno(), stderr.fileno()])
            answer = self._ours.recv(64)
            assert answer, "the process that forks has ended"
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(words, int(answer), stdout.read(), stderr.read())

    def close(self) -> None:
        """End the process that forks."""
        self._ours.close()
        self._process.wait(timeout=240)


@cache
def prepare(command: str) -> None:
    """Import what the command will, and read what it will read of installed packages and then keep."""
    for module in USED.get(command, ()):
        importlib.import_module(f"symile_m3.{module}")
    if command in OPTIMISING:
        importlib.import_module("torch._dynamo")
        importlib.import_module("lightning_fabric")
    if command == "encode":
        for module in PRETRAINED:
            importlib.import_module(module)
    if command in DRAWING:
        importlib.import_module("matplotlib.figure")
    if command in LISTING_EMOJI:
        from symile_m3.images import open_image_pool

        open_image_pool("emoji").classes()


def end(run: Callable[[], None]) -> NoReturn:
    """Run and exit as Python does, but for taking apart what was imported, which takes longer than most commands."""
    try:
        run()
    except SystemExit as error:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(error.code or 0))


def serve(asked: socket.socket) -> NoReturn:
    """Fork for each request until nobody can ask any more."""
    while True:
        request, streams, _, _ = socket.recv_fds(asked, REQUEST_BYTES, 2)
        if not request:
            os._exit(0)
        words, cwd, environment = json.loads(request)
        if "--help" not in words:
            prepare(next((word for word in words if not word.startswith("-")), ""))
        gc.freeze()  # else the first collection of a child copies every page
        child = os.fork()
        if child == 0:
            asked.close()
            for number, stream in enumerate(streams, start=1):
                os.dup2(stream, number)
                os.close(stream)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["symile-m3", *words]
            end(run)
        for stream in streams:
            os.close(stream)
        asked.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


if __name__ == "__main__":
    from typer.main import get_command

    from symile_m3.cli.app import app
    from symile_m3.cli.main import run

    get_command(app)  # for what it imports
    serve(socket.socket(fileno=int(sys.argv[1])))
