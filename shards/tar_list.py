"""Which tars are meant: by a list, a pattern with `*` or `{000..012}`, a directory, or URLs of these."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from symile_m3.shards.errors import ShardError
from symile_m3.shards.remote_tars import RemoteTar, remote_tars
from symile_m3.shards.retry import RetryConfig
from symile_m3.shards.urls import is_url, local_path

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_MAX_TARS = 10_000_000


def list_tars(tars: str | Path | Sequence[str | Path], *, retry: RetryConfig | None = None) -> list[Path | RemoteTar]:
    """The tars that are meant, in the order in which their samples are numbered.

    Args:
        tars: a directory (all `*.tar` in it and below it but for hidden folders, sorted), a path, a pattern
            with `*`, `?`, `[...]`, `**` (what it matches, sorted), `{000..012}` or `{a,b}` (in this
            order), or a list of these. The path of a file that exists is that file, whatever signs it has.
            Of a URL (`s3://bucket/x-{000..012}.tar`) the same is meant, but that `*` can stand in its last
            part only, and that what does not end in `.tar` is a folder; over HTTP a folder has the tars that
            its page, and the pages of folders below, link to.
        retry: how failures of a remote store are tried again.

    Raises:
        ShardError: nothing is there, a tar is meant twice, a URL is refused (as `pipe:` is) or cannot be reached.
    """
    found: list[Path | RemoteTar] = []
    for one in [tars] if isinstance(tars, str | Path) else tars:
        found += _expand(one, retry or RetryConfig())
    if not found:
        raise ShardError("no tars are given (give a directory, a pattern or a list of paths)")
    known: set[Path | str] = set()
    for tar in found:
        path = tar.url if isinstance(tar, RemoteTar) else tar
        if path in known:
            raise ShardError(f"{path}: is given twice (give each tar once)")
        known.add(path)
    return found


def _expand(one: str | Path, retry: RetryConfig) -> Sequence[Path | RemoteTar]:
    if is_url(one):
        local = local_path(one)
        if local is None and (text := str(one)).lower().startswith("pipe:"):
            raise ShardError(f"{text!r}: commands are never run (give paths of tars)")
        if local is None:
            return remote_tars(text, _capped(text, _alternatives(text)), retry)
        one = local
    text = str(one)
    if isinstance(one, str) and _SCHEME.match(one) and not Path(one).exists():
        raise ShardError(f"{one!r}: not a path (give paths of tars)")
    path = Path(one)
    if path.is_dir():
        inside = sorted(
            tar
            for tar in path.rglob("*.tar")
            if tar.is_file() and not any(part.startswith(".") for part in tar.relative_to(path).parts)
        )
        if not inside:
            raise ShardError(f"{path}: holds no tars (give a directory, a pattern or a list of paths)")
        return inside
    if path.is_file():
        return [path]
    tars = []
    for pattern in _capped(text, _alternatives(text)):
        matches = [pattern]
        if glob.has_magic(pattern):
            matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob wants a folder)
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise ShardError(f"{pattern}: no such file (give a directory, a pattern or a list of paths)")
        tars += files
    return tars


def _capped(text: str, patterns: Iterator[str]) -> Sequence[str]:
    found = list(itertools.islice(patterns, _MAX_TARS + 1))
    if len(found) > _MAX_TARS:
        raise ShardError(f"{text}: more than {_MAX_TARS:,} tars")
    return found


def _alternatives(pattern: str) -> Iterator[str]:
    """`{a,b}-{08..10}` -> a-08 a-09 a-10 b-08 b-09 b-10."""
    parts: list[Sequence[str]] = []
    at = 0
    for match in _BRACES.finditer(pattern):
        parts += [[pattern[at : match.start()]], _choices(pattern, match)]
        at = match.end()
    parts.append([pattern[at:]])
    return ("".join(choice) for choice in itertools.product(*parts))


def _choices(pattern: str, match: re.Match[str]) -> Sequence[str]:
    span = _RANGE.fullmatch(match[1])
    if span is None:
        return match[1].split(",") if "," in match[1] else [match[0]]
    first, last = int(span[1]), int(span[2])
    if not 0 <= last - first < _MAX_TARS:
        raise ShardError(f"{pattern}: the range {match[0]} goes backwards or is too long")
    return [f"{i:0{len(span[1])}d}" for i in range(first, last + 1)]
