"""Real servers on 127.0.0.1 that serve a directory, or pass on to another server, and fail when told to."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request.

    Attributes:
        drop_after: the connection ends after so many bytes of the body.
        status, retry_after: this answer, in place of the file.
        alter: the byte at this place of the body is another one.
        wait_s: before the first byte.
        rate: bytes a second.
    """

    drop_after: int | None = None
    status: int | None = None
    retry_after: str | None = None
    alter: int | None = None
    wait_s: float = 0.0
    rate: float | None = None


@dataclass
class HttpServer:
    """A directory over HTTP.

    Attributes:
        root: the directory.
        ranges: whether it knows `Range`.
        tags: whether it sends an `ETag`, of the content.
        pages: whether a folder is a page with links to what is in it; otherwise there is none.
        faults: by file name, what befalls the next GET requests for it; by `HEAD name`, the next HEAD requests.
        requests: (method, file name, Range header, status) of each request answered.
    """

    root: Path
    ranges: bool = True
    tags: bool = False
    pages: bool = False
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[tuple[str, str, str | None, int]] = field(default_factory=list)
    url: str = ""

    def gets(self, name: str) -> list[str | None]:
        """The Range headers of the GET requests for a file."""
        return [header for method, found, header, _ in self.requests if method == "GET" and found == name]


@contextlib.contextmanager
def serving(root: Path, *, ranges: bool = True, tags: bool = False, pages: bool = False) -> Iterator[HttpServer]:
    """Serve a directory while the block lasts."""
    server = HttpServer(root, ranges, tags, pages)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, body: bool) -> None:
            path = root / urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")
            faults = server.faults[path.name if body else f"HEAD {path.name}"]
            fault = faults.popleft() if faults else Fault()
            time.sleep(fault.wait_s)
            is_page = server.pages and path.is_dir()
            status = fault.status or (200 if path.is_file() or is_page else 404)
            data = b"" if status != 200 else page_of(path) if is_page else path.read_bytes()
            etag = hashlib.md5(data).hexdigest() if server.tags else ""
            wanted = self.headers.get("Range")
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
            if match and server.ranges and status == 200:
                total, start = len(data), int(match[1])
                data = data[start : int(match[2]) + 1 if match[2] else None]
                status = 206 if data else 416
            server.requests.append((self.command, path.name, wanted, status))
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
            if is_page:
                self.send_header("Content-Type", "text/html; charset=utf-8")
            if server.tags and status in (200, 206):
                self.send_header("ETag", f'"{etag}"')
            if fault.retry_after:
                self.send_header("Retry-After", fault.retry_after)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if not body:
                return
            if fault.alter is not None:
                data = data[: fault.alter] + bytes([data[fault.alter] ^ 1]) + data[fault.alter + 1 :]
            with contextlib.suppress(OSError):  # the reader may be gone, and so may be what it reads for
                self.send(data[: fault.drop_after], fault.rate)
            if fault.drop_after is not None:
                self.close_connection = True
                time.sleep(0.05)  # what was sent arrives before the end does
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

        def send(self, data: bytes, rate: float | None) -> None:
            if rate is None:
                self.wfile.write(data)
                return
            for at in range(0, len(data), 4096):
                self.wfile.write(data[at : at + 4096])
                time.sleep(4096 / rate)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a connection that its reader gave up

    with Server(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def page_of(folder: Path) -> bytes:
    """A folder as servers show it, with links that lead elsewhere too."""
    inside = [path.name + "/" * path.is_dir() for path in sorted(folder.iterdir(), reverse=True)]
    links = ["../", "/", "?C=N;O=D", "https://elsewhere.invalid/x.tar", "/elsewhere/y.tar", "#top"]
    return "".join(
        f'<a href="{urllib.parse.quote(name, safe="/:?=;#")}">{name}</a>\n' for name in links + inside
    ).encode()


@dataclass
class Proxy:
    """Passes connections on to another server.

    Attributes:
        drops: after how many bytes of answers the next connections end that carry as many.
        dropped: how many did.
    """

    drops: deque[int] = field(default_factory=deque)
    dropped: int = 0
    url: str = ""


@contextlib.contextmanager
def proxying(port: int) -> Iterator[Proxy]:
    """Pass on to a port of this machine while the block lasts."""
    proxy = Proxy()
    listener = socket.create_server(("127.0.0.1", 0))
    proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def pump(source: socket.socket, sink: socket.socket, answers: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and proxy.drops and sent + len(data) >= proxy.drops[0]:
                    sink.sendall(data[: max(0, proxy.drops.popleft() - sent)])
                    proxy.dropped += 1
                    break
                sink.sendall(data)
                sent += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=pump, args=(client, upstream, False), daemon=True).start()
                threading.Thread(target=pump, args=(upstream, client, True), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@dataclass
class S3Server:
    """moto's S3, with the bucket `bucket`.

    Attributes:
        refuse: how many of the next PUT requests for a key that ends so are answered with status 500.
        puts: the keys of what was stored, in order.
        on_put: called with the key of each PUT request that is not refused, before anything is stored.
    """

    refuse: dict[str, int] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    on_put: Callable[[str], object] | None = None
    url: str = ""


@contextlib.contextmanager
def serving_s3() -> Iterator[S3Server]:
    """Serve an empty bucket while the block lasts, and have s3fs talk to it."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    server = S3Server()
    backend: Any = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] != "PUT":
            return backend(environ, start_response)
        key = environ["PATH_INFO"].removeprefix("/bucket").removeprefix("/")
        ending = next((ending for ending, count in server.refuse.items() if count and key.endswith(ending)), None)
        if ending is not None:
            server.refuse[ending] -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        if server.on_put is not None:
            server.on_put(key)

        def answer(status: str, *rest: Any) -> Any:
            if status.startswith("200"):
                server.puts.append(key)
            return start_response(status, *rest)

        return backend(environ, answer)

    def reset(url: str) -> None:
        """moto keeps its buckets in this process, whichever server they were made through."""
        urllib.request.urlopen(f"{url}/moto-api/reset", data=b"").close()

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:
            pass

    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        with s3_endpoint(server.url):
            import s3fs

            reset(server.url)
            s3fs.S3FileSystem().mkdir("bucket")
            server.puts.clear()
            yield server
    finally:
        reset(server.url)
        http.shutdown()
        thread.join()
        http.server_close()


@contextlib.contextmanager
def s3_endpoint(url: str) -> Iterator[None]:
    """Have s3fs talk to this server, as its users would: by the environment."""
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        s3fs.S3FileSystem.clear_instance_cache()
