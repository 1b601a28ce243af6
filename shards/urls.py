"""URLs of datasets: which are taken, and how they are shown."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from symile_m3.shards.errors import ShardError

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.:\-]*)://")
_COMMAND = re.compile(r"(?:pipe|cmd|exec|shell|gopen)\s*:", re.IGNORECASE)
_REFUSED = {
    "pipe": "would run a command",
    "cmd": "would run a command",
    "exec": "would run a command",
    "shell": "would run a command",
    "dask": "would run on other machines",
    "reference": "would follow a file that says where the bytes are",
    "data": "holds its content in its name",
    "cached": "would keep a second cache",
    "blockcache": "would keep a second cache",
    "filecache": "would keep a second cache",
    "simplecache": "would keep a second cache",
}


def is_url(root: str | Path) -> bool:
    """Whether `root` names a place by URL; what is neither a URL nor a command is a local path.

    A `Path` is always local: it has lost the second slash of a URL.
    """
    return isinstance(root, str) and bool(_SCHEME.match(root) or _COMMAND.match(root))


def local_path(root: str | Path) -> Path | None:
    """The local path that `root` is, also as a `file://` URL; None where it is any other URL."""
    if not is_url(root):
        return Path(root)
    match = _SCHEME.match(str(root))
    return Path(str(root)[match.end() :]) if match and match["scheme"].lower() in ("file", "local") else None


def shown(url: str) -> str:
    """A URL without user, password, query and last slash, for messages and names."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def plain_name(name: str, most: int) -> str:
    """What of a name any file system takes, in at most so many bytes: ASCII letters, digits, - and _, others as _."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:most]


def url_name(url: str) -> str:
    """A name for the cache of a URL: its last part and a digest of the whole."""
    last = plain_name(shown(url).rpartition("/")[2], 40)
    return f"{last}-{hashlib.sha256(shown(url).encode()).hexdigest()[:12]}"


def checked_protocol(url: str) -> str:
    """The protocol of a URL that fsspec can serve.

    Raises:
        ShardError: the kind of URL is refused or unknown, or a package for it is missing.
    """
    try:
        urlsplit(url)
    except ValueError as error:
        raise ShardError(f"{url!r}: not a URL: {error}") from None
    match = _SCHEME.match(url)
    protocol = match["scheme"].lower() if match else url.partition(":")[0].strip().lower()
    known = "name a directory, or a URL such as s3://bucket/m3, gs://bucket/m3 or https://host/m3"
    if "::" in url or "|" in url:
        raise ShardError(f"{shown(url)}: chained URLs and commands are refused ({known})")
    if protocol in _REFUSED:
        raise ShardError(f"{protocol}: is refused, as it {_REFUSED[protocol]} ({known})")
    import fsspec  # type: ignore[import-untyped]

    if protocol not in fsspec.available_protocols():
        raise ShardError(f"{protocol}: is not a kind of URL that fsspec knows ({known}, or install its package)")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise ShardError(f"{shown(url)}: a package is missing: {' '.join(str(error).split())}") from error
    return protocol


def without_secrets(text: str, url: str) -> str:
    """A message without the user, password and query of the URL it is about."""
    parts = urlsplit(url)
    for secret in (parts.query, parts.netloc.rpartition("@")[0], parts.password):
        if secret:
            text = text.replace(secret, "***")
    return text


def checked_name(name: str) -> str:
    """`name`, which must not lead out of the dataset.

    Raises:
        ShardError: it is absolute, or has a part `..`, or a character no file of a dataset has.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or re.search(r"[\\?#\x00-\x1f]", name):
        raise ShardError(f"{name!r} cannot be a file of a dataset (use a relative path without '..')")
    return path.as_posix()
