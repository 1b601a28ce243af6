"""The entry point: runs the app and turns whatever ends it into one line and an exit status.

    0     done
    1     failed, or `verify` and `lexicon --check` found something
    2     an argument is wrong
    130   Ctrl-C
    143   SIGTERM

Nothing but the standard library is imported here before `run` is in charge, so that Ctrl-C during the
slow imports is answered like any other. Worker processes import this module too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from types import FrameType

PROGRAM = "symile-m3"
INTERRUPTED = "interrupted; run the same command again to go on"

_caught: list[int] = []  # signals that have asked this process to end


def _on_signal(number: int, frame: FrameType | None) -> None:
    _caught.append(number)
    raise KeyboardInterrupt


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised where nothing can be, as in the callback of a weak reference, of which importing
    has many; a signal that came then is sent again when that is over."""
    if _caught and isinstance(unraisable.exc_value, KeyboardInterrupt):
        again = threading.Timer(0.01, _send_again)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _send_again() -> None:
    if signal.getsignal(_caught[0]) is _on_signal:
        os.kill(os.getpid(), _caught[0])


def run() -> None:
    """Run the command line of this process and exit; the console script."""
    sys.unraisablehook = _on_unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _on_signal)
    try:
        status = _status()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _interrupted()
    except BrokenPipeError:
        status = _reader_gone()
    except OSError as error:
        status = _failed(error)
    finally:
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # from here on, one more signal ends the process at once
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)
    sys.exit(status)


def _status() -> int:
    """Run the command; the exit status."""
    try:
        from typer.main import get_command

        from symile_m3.cli.app import app

        result = get_command(app).main(prog_name=PROGRAM, standalone_mode=False)
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as error:  # shell completion, and Typer's answer to a closed pipe
        return _reader_gone() if error.code == 1 else error.code if isinstance(error.code, int) else 0
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:
        if _caught:  # an import or a library that turned the interruption into an error of its own
            return _interrupted()
        return _failed(error)
    status = result if isinstance(result, int) else 0
    return _interrupted() if status == 130 or _caught else status


def _interrupted() -> int:
    _say(INTERRUPTED)
    return 128 + (_caught[0] if _caught else signal.SIGINT)


def _reader_gone() -> int:
    """Whoever read our output has closed it, as `head` does: nothing more to say, and nothing to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _failed(error: Exception) -> int:
    """Say in one line what went wrong; the exit status."""
    status, message = explain(error)
    if debugging():
        traceback.print_exception(error)
    _say(f"{PROGRAM}: error: {message}")
    return status


def debugging() -> bool:
    """Whether `--debug` or SYMILE_M3_DEBUG asks for tracebacks."""
    return os.environ.get("SYMILE_M3_DEBUG", "").lower() not in ("", "0", "false", "no")


def explain(error: Exception) -> tuple[int, str]:
    """The exit status and the one line that an exception deserves."""
    import errno

    from typer import Abort

    from symile_m3.errors import SymileM3Error, UsageError

    if isinstance(error, SymileM3Error):
        return (2 if isinstance(error, UsageError) else 1), _one_line(str(error))
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # Typer's own, such as a wrong option
        return int(error.exit_code), _one_line(error.format_message()) + _hint(error)
    if isinstance(error, Abort):
        return 1, "stopped: the input ended"
    if isinstance(error, MemoryError):
        return (
            1,
            "out of memory: use fewer --workers or a smaller --batch-size, and run the same command again",
        )
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("symile_m3"):
        return (
            1,
            f"the Python package {error.name.partition('.')[0]} is not installed; install symile-m3 again",
        )
    if isinstance(error, OSError) and error.strerror:
        advice = {
            errno.ENOSPC: " (make room and run the same command again)",
            errno.EDQUOT: " (make room and run the same command again)",
            errno.EROFS: " (choose a directory that can be written)",
            errno.EACCES: " (choose a directory that can be read and written)",
        }
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return 1, _one_line(f"{where}{error.strerror}{advice.get(error.errno or 0, '')}")
    text = _one_line(f"{type(error).__name__}: {error}".rstrip(": "))
    return 1, text if debugging() else f"{text} (unexpected; run again with --debug for the traceback)"


def _hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f" (see: {context.command_path} --help)" if context is not None else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return
