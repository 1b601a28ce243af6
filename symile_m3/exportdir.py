"""The folder that a run is exported to: written whole or not at all, and only an earlier export is replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_m3.checkpoints import BEST
from symile_m3.errors import NotBuiltError, UsageError
from symile_m3.portable import EXPORTED, MODEL, digest, read_record
from symile_m3.rundir import read_summary

CARD = "README.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: where.
        objective: of the model.
        files: name -> bytes.
        written: whether it was written now; not if the same files were there already.
    """

    folder: Path
    objective: str
    files: Mapping[str, int]
    written: bool


def check_finished(run: Path) -> None:
    """Make sure that a directory holds a trained run.

    Raises:
        NotBuiltError: it does not.
    """
    if not (run / BEST).is_file():
        raise NotBuiltError(f"{run}: no trained run (it has no {BEST}); run `symile-m3 train` first, or give --runs")


def best_top1(run: Path) -> float | None:
    """The best validation top-1 of a run; None where it is not finished."""
    return read_summary(run).best_top1 if (run / "summary.json").exists() else None


@contextmanager
def reading_figures(path: Path) -> Iterator[None]:
    """Say of figures that cannot be read, or lack something, what `eval --json` writes.

    Raises:
        UsageError: that is so.
    """
    try:
        yield
    except KeyError as error:
        raise UsageError(f"--eval {path}: has no {error.args[0]!r}, as `symile-m3 eval --json` writes it") from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--eval {path}: cannot be read as what `symile-m3 eval --json` writes ({error})") from error


def figures_for(
    run: Path, evaluation: Path | None, figures_of: Callable[[Path], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Test figures of a run: of the file that is named, or else of eval.json beside the run, if it is there, newer than
    the weights, and of this model.

    Args:
        figures_of: takes them out of a file, or raises UsageError.

    Raises:
        UsageError: those that are named are unreadable, or not of this model.
    """
    if evaluation is not None:
        return figures_of(evaluation)
    path = run.parent / "eval.json"
    if not path.is_file() or path.stat().st_mtime_ns < (run / BEST).stat().st_mtime_ns:
        return None
    try:
        return figures_of(path)
    except UsageError:
        return None


def write_folder(
    run: Path, folder: Path, fill: Callable[[Path], Callable[[Mapping[str, str]], str]], *, overwrite: bool
) -> Exported:
    """Write the weights of a run and what lies beside them, and what `fill` adds.

    Args:
        fill: writes the rest into a directory, and gives what makes the card of the digests of all other files.
        overwrite: put it in the place of an earlier export.

    Raises:
        UsageError: the folder holds something else, or an earlier export.
    """
    record = read_record(run)
    earlier = _check_place(folder, overwrite)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        card = fill(new)
        shutil.copyfile(run / BEST, new / EXPORTED)
        for file in (MODEL, *record["files"]):
            shutil.copyfile(run / file, new / file)
        (new / CARD).write_text(card(_contents(new)), encoding="utf-8")
        same = earlier and _contents(folder) == _contents(new)
        if earlier and not same and not overwrite:
            raise UsageError(f"{folder} holds an earlier export; give --overwrite to put this one in its place")
        if not same:
            _put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return Exported(
        folder=folder, objective=str(record["objective"]), files=dict(sorted(sizes.items())), written=not same
    )


def _check_place(folder: Path, overwrite: bool) -> bool:
    """Whether an earlier export is there.

    Raises:
        UsageError: something else is.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / EXPORTED).is_file() or not (folder / MODEL).is_file():
        also = ", and --overwrite replaces earlier exports only" if overwrite else ""
        raise UsageError(f"--out {folder}: holds something else than an export{also}; name another folder")
    return True


def _put_in_place(new: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): digest(path) for path in folder.rglob("*") if path.is_file()}
