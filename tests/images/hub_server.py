"""A Hugging Face Hub on 127.0.0.1: data sets from directories, some of them gated."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

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
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(
        url=f"http://127.0.0.1:{server.server_port}", repositories=repositories, gated=frozenset(gated), token=token
    )
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if any(part in path for part in self.hub.failing):
            return self._json({"error": "Forbidden"}, 403)
        parts = path.strip("/").removeprefix("api/").split("/")
        name, rest = "/".join(parts[1:3]), parts[3:]
        directory = self.hub.repositories.get(name)
        if parts[0] != "datasets" or directory is None:
            return self._json({"error": "Invalid username or password."}, 401, {"X-Error-Code": "RepoNotFound"})
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if name in self.hub.gated and given != self.hub.token:
            message = f"Access to dataset {name} is restricted. You must have access to it and be authenticated."
            return self._json({"error": message}, 403 if given else 401, {"X-Error-Code": "GatedRepo"})
        files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
        if len(rest) > 1 and rest[0] in ("resolve", "tree", "revision") and rest[1] not in ("main", REVISION):
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["resolve"]:
            return self._file(files.get("/".join(rest[2:])))
        if rest[:1] == ["tree"]:
            under = "/".join(rest[2:])
            if not (directory / under).is_dir():
                return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return self._json(_entries(directory, under, recursive="recursive=True" in self.path))
        if rest[:1] == ["paths-info"]:
            asked = parse_qs(body.decode()).get("paths") or json.loads(body or "{}").get("paths", [])
            return self._json([entry for entry in _entries(directory, "", recursive=True) if entry["path"] in asked])
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": file} for file in sorted(files)]
            info = {"_id": "1", "id": name, "sha": REVISION, "private": False, "gated": False, "downloads": 0}
            if "README.md" in files:
                info["cardData"] = {"license": "cc-by-4.0"}
            return self._json({**info, "siblings": siblings, "tags": [], "likes": 0, "disabled": False})
        return self._json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _json(self, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        message = content.get("error", "") if isinstance(content, dict) else ""
        extra = {"X-Error-Message": message} if message else {}
        self._send(status, data, {"Content-Type": "application/json", **extra, **(headers or {})})

    def _file(self, path: Path | None) -> None:
        if path is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        status, asked = 200, self.headers.get("Range", "").removeprefix("bytes=")
        if asked:
            first, _, last = asked.partition("-")
            stop = min(int(last or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            status, data = 206, data[int(first) : stop]
        return self._send(status, data, {"Content-Type": "application/octet-stream", **headers})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


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
