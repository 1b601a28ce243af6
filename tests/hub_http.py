"""What both hubs of the tests are made of: a server on 127.0.0.1 that answers as the Hugging Face Hub does."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@contextmanager
def serving(handler: type[HubHandler], new_hub: Callable[[str], Any]) -> Iterator[Any]:
    """Serve until the end of the block; `new_hub` makes what is served, given the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub = new_hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class HubHandler(BaseHTTPRequestHandler, ABC):
    """A request; subclasses say in `answer` what comes back."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Any:
        """What is served."""
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(unquote(urlsplit(self.path).path), body)

    do_HEAD = do_POST = do_PUT = do_GET

    @abstractmethod
    def answer(self, path: str, body: bytes) -> None:
        """Send a response.

        Args:
            path: of the request, without its query.
            body: of the request.
        """

    def token(self) -> str:
        """Who asks; empty for nobody."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def send_json(self, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send(status, data, {"Content-Type": "application/json", **(headers or {})})

    def refuse(self, status: int, message: str, code: str = "") -> None:
        """Say no in the hub's manner; `code` is what its client tells kinds of refusals by."""
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.send_json({"error": message}, status, headers)

    def send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
