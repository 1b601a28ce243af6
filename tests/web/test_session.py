"""The HTTP session that clients are lent, against real servers."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google_server import GoogleServer, Question, point_clients, speech, speech_reply

from symile_m3.errors import ServiceError, SourceError
from symile_m3.speech.gtts import GttsPool
from symile_m3.web import Answers, BadAnswerError, Manners, Service
from symile_m3.web.session import lent

QUICK = Manners(rate=200, timeout_s=60, patience_s=60, first_pause_s=0.01)
IMPATIENT = replace(QUICK, timeout_s=0.4)  # where an answer never comes


def service(directory: Path, manners: Manners = QUICK) -> Service:
    return Service(name="gtts", title="The service", version="1", answers=Answers(directory=directory), manners=manners)


def say(one: Service, text: str = "hello there") -> bytes:
    """Ask with the real client of gTTS."""
    import gtts.tts

    def request() -> bytes:
        try:
            return b"".join(gtts.tts.gTTS(text, lang="en", lang_check=False).stream())
        except gtts.tts.gTTSError as error:
            raise BadAnswerError("no speech") from error

    return one.ask({"language": "en", "accent": "com", "text": text}, gtts.tts, request)


def faults(*kinds: str) -> object:
    """These, one a request, and then none."""
    return lambda number, question: kinds[number - 1] if number <= len(kinds) else ""


def test_an_answer_is_asked_for_once(google: GoogleServer, tmp_path: Path) -> None:
    one = service(tmp_path)
    first = say(one)
    assert first == speech("hello there", "en", "com")
    assert say(one) == first
    assert say(service(tmp_path)) == first
    assert google.answered() == {Question(service="gtts", language="en", accent="com", text="hello there"): 1}
    assert len(google.asked) == 1


@pytest.mark.parametrize("fault", ["500", "503", "429", "408", "hang", "drip", "drop", "cut", "redirect"])
def test_what_may_pass_is_asked_again(fault: str, google: GoogleServer, tmp_path: Path) -> None:
    google.fault = faults(fault, fault)  # type: ignore[assignment]
    manners = IMPATIENT if fault in ("hang", "drip") else QUICK
    began = time.monotonic()
    assert say(service(tmp_path, manners)) == speech("hello there", "en", "com")
    assert len(google.asked) == 3
    assert time.monotonic() - began < google.hang_s


@pytest.mark.parametrize("status", ["400", "403", "404"])
def test_what_will_not_pass_is_not_asked_again(status: str, google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: status
    with pytest.raises(SourceError, match=f"The service: HTTP {status} [A-Z]"):
        say(service(tmp_path))
    assert len(google.asked) == 1


def test_a_request_is_not_repeated_for_ever_where_others_succeed(google: GoogleServer, tmp_path: Path) -> None:
    import gtts.tts

    google.fault = lambda number, question: {"bad": "500", "busy": "503"}.get(question.text, "")
    one = service(tmp_path)
    say(one, "good")
    with pytest.raises(SourceError, match="The service: HTTP 500 Internal Server Error, asked 7 times"):
        say(one, "bad")
    another, good = service(tmp_path), itertools.count()

    def busy() -> bytes:
        """Asked for while another question is answered."""
        say(another, f"good {next(good)}")
        return b"".join(gtts.tts.gTTS("busy", lang="en", lang_check=False).stream())

    # What is due to the service and not to the text is tried for longer, unless others are answered.
    with pytest.raises(SourceError, match="HTTP 503 Service Unavailable, asked 7 times"):
        one.ask({"language": "en", "accent": "com", "text": "busy"}, gtts.tts, busy)
    assert len(google.asked) == 1 + 7 + 2 * 7
    assert say(one, "good too")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_to(form: str, google: GoogleServer, tmp_path: Path) -> None:
    def busy(number: int, question: Question) -> str:
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
        value = "1" if form == "seconds" else later.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return f"429 Retry-After: {value}" if number == 1 else ""

    google.fault = busy
    say(service(tmp_path))
    first, second = google.asked
    assert second.at - first.at > 0.95


def test_a_service_that_is_down_is_given_up_within_patience(google: GoogleServer, tmp_path: Path) -> None:
    say(service(tmp_path), "before")
    google.fault = lambda number, question: "hang"
    one = service(tmp_path, Manners(rate=200, timeout_s=0.4, patience_s=1.5, attempts=100))
    began = time.monotonic()
    with pytest.raises(ServiceError, match=r"no answer within 0.\d+ s"):
        say(one)
    assert time.monotonic() - began < 15  # a hundred attempts would take 40
    asked = len(google.asked)
    with pytest.raises(ServiceError):
        say(one, "another")
    assert len(google.asked) == asked
    assert say(one, "before")  # what is kept needs no service


def test_nobody_is_there(tmp_path: Path, google: GoogleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    point_clients("http://127.0.0.1:9", monkeypatch.setattr)
    manners = Manners(rate=200, patience_s=0.5, attempts=1)  # which are for what others are answered meanwhile
    with pytest.raises(ServiceError, match=r"no connection: .*(refused|denied)"):
        say(service(tmp_path, manners))


def test_the_rate_holds_at_the_server(google: GoogleServer, tmp_path: Path) -> None:
    google.fault = lambda number, question: "500" if number % 5 == 0 else ""
    one = service(tmp_path, Manners(rate=40, first_pause_s=0.001))
    began = time.monotonic()
    for i in range(48):
        say(one, f"text {i}")
    assert google.asked[-1].at - began >= 58 / 40 - 0.01
    assert google.most_in_a_second() <= 48  # one that arrives late is nearer to those after it
    assert len(google.asked) == 59  # of which 11 failed


def test_only_the_client_that_is_lent_a_session_gets_one(google: GoogleServer, tmp_path: Path) -> None:
    import gtts.tts

    own = gtts.tts.requests
    assert own is requests
    say(service(tmp_path))
    assert gtts.tts.requests is requests
    with lent(gtts.tts, None):  # type: ignore[arg-type]
        assert gtts.tts.requests is not requests
        assert gtts.tts.requests.exceptions is requests.exceptions
    assert gtts.tts.requests is requests


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path, list[ssl.SSLError]]]:
    """The URL of a server with a certificate that nobody knows, the certificate, and the handshakes that failed."""
    refused: list[ssl.SSLError] = []
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = tmp_path / "certificate.pem", tmp_path / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = speech_reply(speech("hello there", "en", "com"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Counting(HTTPServer):
        def get_request(self) -> tuple[socket.socket, Any]:
            try:
                return super().get_request()
            except ssl.SSLError as error:
                refused.append(error)
                raise

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    httpd = Counting(("127.0.0.1", 0), Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{httpd.server_port}", pem, refused
    httpd.shutdown()
    httpd.server_close()


def test_certificates_are_checked_though_gtts_asks_not_to(
    tls_server: tuple[str, Path, list[ssl.SSLError]],
    google: GoogleServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, certificate, refused = tls_server
    point_clients(url, monkeypatch.setattr)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with pytest.raises(ServiceError, match=r"cannot be used: no trusted connection: .*certificate"):
        say(service(tmp_path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert say(service(tmp_path)) == speech("hello there", "en", "com")
    assert len(refused) == 1  # no second attempt


def test_a_service_travels_to_worker_processes(tmp_path: Path) -> None:
    pool = GttsPool(service=service(tmp_path))
    assert pickle.loads(pickle.dumps(pool)) == pool
