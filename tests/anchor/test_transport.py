"""The exchange with an outside service: what it sends, every way that an answer fails, and what a URL never shows."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fgtrac.anchor.transport import check_url, fetch, shown
from fgtrac.errors import AnchorError

SECRET = "k3y-th4t-is-secret"
Handle = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def served(handle: Handle) -> Iterator[str]:
    """A server on loopback that answers every request with `handle`: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            handle(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answers(status: int, body: bytes, content_type: str | None = None) -> Handle:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        request.send_response(status)
        if content_type is not None:
            request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return handle


def writes(*pieces: bytes, pause_s: float = 0.0) -> Handle:
    """The bytes as they stand, with a pause after each piece, until the other side hangs up."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                request.wfile.write(piece)
                time.sleep(pause_s)

    return handle


@pytest.mark.parametrize("status", [200, 404, 409, 500])
def test_the_answer_comes_back_whatever_its_status(status: int) -> None:
    with served(answers(status, b"body", "Text/X.Tlog.Size; charset=utf-8")) as url:
        assert fetch(url, timeout_s=5, max_bytes=4) == (status, "text/x.tlog.size", b"body")


def test_data_is_posted_as_the_type_that_is_named_to_the_path_and_query() -> None:
    seen: list[object] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        seen.extend([request.command, request.path, request.headers["Content-Type"], body])
        seen.append(request.headers["Authorization"])
        answers(200, b"")(request) if not body else request.wfile.write(b"HTTP/1.0 204 No Content\r\n\r\n")

    with served(handle) as url:
        with_password = url.replace("//", "//user:p%40ss@")
        assert fetch(f"{with_password}/a?b=c", data=b"\0\1", content_type="x/y", timeout_s=5, max_bytes=9)[0] == 204
    assert seen == ["POST", "/a?b=c", "x/y", b"\0\1", "Basic dXNlcjpwQHNz"]  # user:p@ss


@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (answers(200, b"12345"), "more than 4 bytes"),
        (answers(302, b""), "status 302"),
        (writes(b"garbage\r\n\r\n"), "BadStatusLine"),
        (writes(b""), "RemoteDisconnected"),
        (writes(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), "IncompleteRead"),
        (writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab"), "IncompleteRead"),
        (writes(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200), "HTTPException"),
        (writes(b"HTTP/1.1 200 OK\r\n", *[b"A"] * 40, pause_s=0.02), "within 0.25 s"),
        (writes(b"HTTP/1.1 200 OK\r\n\r\n", *[b"A"] * 40, pause_s=0.02), "within 0.25 s"),
        (writes(b"", pause_s=0.5), "within 0.25 s"),
    ],
)
def test_an_answer_that_cannot_be_used_names_the_service_and_no_secret(handle: Handle, words: str) -> None:
    with served(handle) as url:
        secret = url.replace("//", f"//u{SECRET}:p{SECRET}@") + f"/{SECRET}?key={SECRET}"
        start = time.monotonic()
        with pytest.raises(AnchorError, match=words) as raised:
            fetch(secret, timeout_s=0.25, max_bytes=4 if "more" in words else 4096)
        assert time.monotonic() - start < 2
        assert url in str(raised.value)
        assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_nobody_listening_and_no_such_host_are_an_anchor_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and never listening: nobody else gets the port meanwhile
        port = unused.getsockname()[1]
        with pytest.raises(AnchorError, match=f"http://127.0.0.1:{port} gave no usable answer: Connection refused"):
            fetch(f"http://127.0.0.1:{port}/{SECRET}", timeout_s=5, max_bytes=1)
    with pytest.raises(AnchorError, match=r"http://no-such-host\.invalid"):
        fetch(f"http://no-such-host.invalid/{SECRET}", timeout_s=5, max_bytes=1)


def test_a_server_that_speaks_no_tls_is_an_anchor_error() -> None:
    with served(answers(200, b"")) as url, pytest.raises(AnchorError, match="SSL"):
        fetch(url.replace("http", "https"), timeout_s=5, max_bytes=1)


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        answers(200, b"by proxy")(request)

    with served(handle) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        assert fetch("http://tsa.invalid/x", timeout_s=5, max_bytes=9)[2] == b"by proxy"
    assert asked == ["http://tsa.invalid/x"]


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "localhost:80", "//h/x", "ftp://h/", "file:///etc/passwd", "http://", "http:///x", "http://h:x/",
        "http://h:70000/", "http://h:0/", "http://[::1", "http://h/a b", "http://h/\n", "http://h/ä",
        f"http://{'a' * 64}/", SECRET, f"{SECRET}://h/", f"http://h:{SECRET}/", f"http://u:{SECRET}@h:x/{SECRET}",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_service_is_the_callers_mistake(url: str) -> None:
    for call in (check_url, shown, lambda wrong: fetch(wrong, timeout_s=1, max_bytes=1)):
        with pytest.raises(ValueError, match="no URL of an outside service") as raised:
            call(url)
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_no_time_at_all_is_the_callers_mistake(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        fetch("http://127.0.0.1/", timeout_s=timeout_s, max_bytes=1)


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        (f"https://user:{SECRET}@h.example/{SECRET}?k={SECRET}#{SECRET}", "https://h.example"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://[::1]:80/x", "http://[::1]:80"),
        ("HTTP://H.Example/", "http://h.example"),
    ],
)
def test_scheme_host_and_port_are_all_that_is_shown(url: str, visible: str) -> None:
    assert shown(url) == visible
