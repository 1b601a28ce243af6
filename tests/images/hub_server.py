"""A Hugging Face Hub on 127.0.0.1: data sets from directories, some of them gated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from hub_http import HubHandler, serving

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(kw_only=True)
class Hub:
    """A running hub.

    Attributes:
        url: what HF_ENDPOINT is set to.
        repositories: NAME -> directory.
        gated: names that are read with `token` alone.
        token: of the one user who may read them.
        requests: method, path and Range of every request.
        failing: paths with one of these in them are answered with 403.
    """

    url: str
    repositories: Mapping[str, Path]
    gated: frozenset[str]
    token: str
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)


@contextmanager
def serving_hub(repositories: Mapping[str, Path], *, gated: tuple[str, ...] = (), token: str = "hf_t") -> Iterator[Hub]:
    """Serve these directories as data sets."""

    def new_hub(url: str) -> Hub:
        return Hub(url=url, repositories=repositories, gated=frozenset(gated), token=token)

    with serving(_Handler, new_hub) as hub:
        yield hub


class _Handler(HubHandler):
    hub: Hub

    def answer(self, path: str, body: bytes) -> None:
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if any(part in path for part in self.hub.failing):
            return self.refuse(403, "Forbidden")
        parts = path.strip("/").removeprefix("api/").split("/")
        name, rest = "/".join(parts[1:3]), parts[3:]
        directory = self.hub.repositories.get(name)
        if parts[0] != "datasets" or directory is None:
            return self.refuse(401, "Invalid username or password.", "RepoNotFound")
        given = self.token()
        if name in self.hub.gated and given != self.hub.token:
            message = f"Access to dataset {name} is restricted. You must have access to it and be authenticated."
            return self.refuse(403 if given else 401, message, "GatedRepo")
        files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
        if len(rest) > 1 and rest[0] in ("resolve", "tree", "revision") and rest[1] not in ("main", REVISION):
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        if rest[:1] == ["resolve"]:
            return self._file(files.get("/".join(rest[2:])))
        if rest[:1] == ["tree"]:
            under = "/".join(rest[2:])
            if not (directory / under).is_dir():
                return self.refuse(404, "Entry not found", "EntryNotFound")
            return self.send_json(_entries(directory, under, recursive="recursive=True" in self.path))
        if rest[:1] == ["paths-info"]:
            asked = parse_qs(body.decode()).get("paths") or json.loads(body or "{}").get("paths", [])
            return self.send_json(
                [entry for entry in _entries(directory, "", recursive=True) if entry["path"] in asked]
            )
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": file} for file in sorted(files)]
            info = {"_id": "1", "id": name, "sha": REVISION, "private": False, "gated": False, "downloads": 0}
            if "README.md" in files:
                info["cardData"] = {"license": "cc-by-4.0"}
            return self.send_json({**info, "siblings": siblings, "tags": [], "likes": 0, "disabled": False})
        return self.refuse(404, "not found", "EntryNotFound")

    def _file(self, path: Path | None) -> None:
        if path is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        status, asked = 200, self.headers.get("Range", "").removeprefix("bytes=")
        if asked:
            first, _, last = asked.partition("-")
            stop = min(int(last or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            status, data = 206, data[int(first) : stop]
        return self.send(status, data, {"Content-Type": "application/octet-stream", **headers})


def _entries(directory: Path, under: str, *, recursive: bool) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for path in sorted((directory / under).rglob("*") if recursive else (directory / under).iterdir()):
        name = path.relative_to(directory).as_posix()
        if path.is_dir():
            entries.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
        else:
            oid = hashlib.sha1(path.read_bytes()).hexdigest()
            entries.append({"type": "file", "path": name, "oid": oid, "size": path.stat().st_size})
    return entries
