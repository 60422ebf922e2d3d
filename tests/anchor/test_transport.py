"""The exchange with an outside service: what it sends, every way that an answer fails, and what a URL never shows."""

from __future__ import annotations

import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler

import pytest

from fgtrac.anchor.transport import check_url, fetch, shown
from fgtrac.errors import AnchorError
from served import Handle, answers, served, writes

SECRET = "k3y-th4t-is-secret"


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
        (writes(b"HTTP/1.1 200 OK\r\n", *[b"A"] * 4000, pause_s=0.02), "within 0.25 s"),
        (writes(b"HTTP/1.1 200 OK\r\n\r\n", *[b"A"] * 4000, pause_s=0.02), "within 0.25 s"),
        (writes(b"", pause_s=0.5), "within 0.25 s"),
    ],
)
def test_an_answer_that_cannot_be_used_names_the_service_and_no_secret(handle: Handle, words: str) -> None:
    with served(handle) as url:
        secret = url.replace("//", f"//u{SECRET}:p{SECRET}@") + f"/{SECRET}?key={SECRET}"
        start, timeout_s = time.monotonic(), 0.25 if "within" in words else 60
        with pytest.raises(AnchorError, match=words) as raised:
            fetch(secret, timeout_s=timeout_s, max_bytes=4 if "more" in words else 4096)
        assert time.monotonic() - start < 30
        assert url in str(raised.value)
        assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_no_thread_stays_behind_an_answer_that_drips() -> None:
    with served(writes(b"HTTP/1.1 200 OK\r\n\r\n", *[b"A"] * 4000, pause_s=0.02)) as url:
        with pytest.raises(AnchorError, match=r"within 0\.1 s"):
            fetch(url, timeout_s=0.1, max_bytes=4096)
        for thread in threading.enumerate():
            if thread.name == "fgtrac-fetch":
                thread.join(30)
                assert not thread.is_alive()


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


@pytest.mark.parametrize("where", ["headers", "body"])
def test_the_thread_of_an_exchange_ends_however_slowly_the_other_side_goes_on(where: str) -> None:
    begun = b"HTTP/1.1 200 OK\r\n" + (b"X: " if where == "headers" else b"\r\n")
    with served(writes(begun, *[b"A"] * 4000, pause_s=0.02)) as url:
        with pytest.raises(AnchorError, match=r"within 0\.2 s"):
            fetch(url, timeout_s=0.2, max_bytes=1000)
        for thread in (t for t in threading.enumerate() if t.name == "fgtrac-fetch"):
            thread.join(30)
            assert not thread.is_alive()


def test_an_interpreter_that_starts_no_thread_any_more_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with served(answers(200, b"body")) as url, monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        assert fetch(url, timeout_s=5, max_bytes=4)[2] == b"body"
