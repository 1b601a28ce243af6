"""A server on 127.0.0.1 that answers as Google does to gTTS and to deep-translator, and fails when told to."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import html
import io
import json
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

SPEECH = "_/TranslateWebserverUi/data/batchexecute"
GREEK = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβκδεφγχιζκλμνοπκρστυβωξυζ")
KANA = str.maketrans("abcdefghijklmnopqrstuvwxyz", "アバカダエファハイジキラマナオパクルサタウヴワギヤザ")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What was asked: of which service, in which language, in which accent, and the text."""

    service: str
    language: str
    accent: str
    text: str


@dataclass(kw_only=True)
class Asked:
    """A request that came.

    Attributes:
        at: when it came, in seconds of the monotonic clock.
        fault: what befell it; empty where it was answered as it should be.
        sent: whether an answer went out; it is said before it does, and taken back where it could not.
    """

    question: Question
    at: float
    fault: str
    sent: bool = False


@dataclass
class GoogleServer:
    """The server.

    Attributes:
        fault: of the number of a request and its question: what befalls it, such as `429 Retry-After: 1`, `500`,
            `hang`, `drip`, `truncated`, `empty`, `html`, `error page`, `redirect`, `drop`, or nothing.
        translate: of an English name and a language: its translation.
        asked: every request.
    """

    url: str = ""
    fault: Callable[[int, Question], str] = field(default=lambda number, question: "")
    translate: Callable[[str, str], str] = field(default=lambda name, language: translation(name, language))
    asked: list[Asked] = field(default_factory=list)
    hang_s: float = 30.0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self) -> Counter[Question]:
        """How often each question was answered as it should be."""
        return Counter(asked.question for asked in self.asked if asked.sent and not asked.fault)

    def most_in_a_second(self) -> int:
        times = sorted(asked.at for asked in self.asked)
        return max(sum(first <= at < first + 1 for at in times) for first in times)


def translation(name: str, language: str) -> str:
    """Letters of the language's script for those of the name."""
    if language == "el":
        return name.translate(GREEK)
    if language == "ja":
        return name.translate(KANA).replace(" (", "（").replace(")", "）")
    return " ".join(f"{word}o" if word.isalpha() else word for word in name.split())


@functools.cache
def speech(text: str, language: str, accent: str) -> bytes:
    """An MP3 of some seconds, another one for each text, language and accent."""
    seed = int.from_bytes(hashlib.sha256(f"{text}/{language}/{accent}".encode()).digest()[:4], "big")
    wide = sum(2 if character > "\u2e80" else 1 for character in text)
    n = int(24_000 * (1.2 + 0.05 * wide))
    times = np.arange(n) / 24_000
    tone = np.sin(2 * np.pi * (150 + seed % 400) * times) * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + seed % 7) * times))
    noise = np.random.default_rng(seed).normal(0, 0.02, n)
    buffer = io.BytesIO()
    soundfile.write(buffer, (0.3 * tone + noise).astype(np.float32), 24_000, format="MP3")
    return buffer.getvalue()


def speech_reply(mp3: bytes) -> bytes:
    """The MP3 in base64, within JSON, within lines of JSON, as `batchexecute` sends it."""
    inner = json.dumps([base64.b64encode(mp3).decode()], separators=(",", ":"))
    line = json.dumps([["wrb.fr", "jQ1olc", inner, None, None, None, "generic"]], separators=(",", ":"))
    return f')]}}\'\n\n{len(line)}\n{line}\n25\n[["e",4,null,null,{len(line)}]]\n'.encode()


def page(text: str) -> bytes:
    """The page for small devices, with a translation where it has its place."""
    return (
        "<!DOCTYPE html><html><head><title>Google Translate</title></head><body>"
        '<form action="/m"><input name="q"></form>'
        f'<div class="result-container">{html.escape(text)}</div></body></html>'
    ).encode()


@contextlib.contextmanager
def google_server() -> Iterator[GoogleServer]:
    """Serve while the block lasts."""
    server = GoogleServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            accent, path = self.path.removeprefix("/").split("/", 1)
            assert path == SPEECH
            assert self.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
            [[[call, arguments, *_]]] = json.loads(urllib.parse.parse_qs(body)["f.req"][0])
            assert call == "jQ1olc"
            text, language, *_ = json.loads(arguments)
            assert len(text) <= 100
            self.answer(Question(service="gtts", language=language, accent=accent, text=text))

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            values = dict(urllib.parse.parse_qsl(query))
            if path == "/sorry":
                self.reply(429, b"<html>unusual traffic</html>")
                return
            assert path == "/m"
            assert values["sl"] == "en"
            self.answer(Question(service="google", language=values["tl"], accent="", text=values["q"]))

        def answer(self, question: Question) -> None:
            with server.lock:
                fault = server.fault(len(server.asked) + 1, question)
                asked = Asked(question=question, at=time.monotonic(), fault=fault, sent=fault not in ("hang", "drop"))
                server.asked.append(asked)
            try:
                self.send(question, fault)
            except OSError:  # the client has gone
                asked.sent = False

        def send(self, question: Question, fault: str) -> None:
            if fault == "hang":
                server.ended.wait(server.hang_s)
                self.close_connection = True
                return
            if fault == "drop":
                self.close_connection = True
                return
            if fault == "redirect":
                self.send_response(302)
                self.send_header("Location", "/sorry")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault[:3].isdecimal():
                status, _, header = fault.partition(" ")
                self.reply(int(status), b"<html>no</html>", *([header.split(": ")] if header else []))
                return
            if question.service == "gtts":
                mp3 = speech(question.text, question.language, question.accent)
                mp3 = {"truncated": mp3[: len(mp3) // 2], "empty": b"", "silence": silence()}.get(fault, mp3)
                content = b"<html>consent</html>" if fault == "html" else speech_reply(mp3)
            else:
                text = {"empty": "", "error page": "Error 500 (Server Error)!!1500.That's an error."}.get(
                    fault, server.translate(question.text, question.language)
                )
                content = b"<html>consent</html>" if fault == "html" else page(text)
            self.reply(200, content, slowly=fault == "drip", cut=fault == "cut")

        def reply(
            self, status: int, content: bytes, *headers: list[str], slowly: bool = False, cut: bool = False
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if cut:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            for byte in content if slowly else ():
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
            if not slowly:
                self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            if not isinstance(sys.exception(), OSError):  # a client that was killed
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    server.url = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield server
    finally:
        server.ended.set()
        httpd.shutdown()
        httpd.server_close()


@functools.cache
def silence() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(72_000, np.float32), 24_000, format="MP3")
    return buffer.getvalue()


def point_clients(url: str, patch: Callable[[object, str, object], None] = setattr) -> None:
    """Make gTTS and deep-translator ask the server at this URL, in this process."""
    import gtts.tts
    from deep_translator.constants import BASE_URLS

    patch(gtts.tts, "_translate_url", lambda tld="com", path="": f"{url}/{tld}/{path}")
    BASE_URLS["GOOGLE_TRANSLATE"] = f"{url}/m"


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    """The server, with the clients of this process pointed at it."""
    from deep_translator.constants import BASE_URLS

    monkeypatch.setitem(BASE_URLS, "GOOGLE_TRANSLATE", BASE_URLS["GOOGLE_TRANSLATE"])
    with google_server() as server:
        point_clients(server.url, monkeypatch.setattr)
        yield server
