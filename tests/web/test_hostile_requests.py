"""Hostile requests to the explorer: paths that lead out, odd methods and heads, many at once, clients that are slow."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from asgi import ask
from fgtrac.web.explorer import explorer_app
from fgtrac.web.listening import listen, server_of
from traces import make_trace

SECRET = "secret-5b1d"
PAGES = ("/", "/run/run", "/run/run/samples", "/run/run/suspects", "/run/run/mine", "/run/run/log",
         "/run/run/log/entry/3", "/compare?a=run&b=run")  # fmt: skip
TRICKS = (
    "..", "../outside", "../../outside", "%2e%2e/outside", "%2e%2e%2foutside", "..%2foutside", "..%5coutside",
    "..\\outside", "%252e%252e%252foutside", "run%2f..%2f..%2foutside", "run.trace", "run.trace/checkpoint",
    "run.vault", "run%00", "run%00/../outside", "./run", "run/.", "run//", "//outside", "%2Foutside",
    "%c0%ae%c0%ae/outside",
    "..%00/outside", "~", "$HOME", "CON", "run;x=1", "%2e", "%2e%2e", "linked", "linked-file", "file",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, links that lead out of it, and beside it what nobody may see."""
    home = tmp_path_factory.mktemp("requests")
    make_trace(home / "runs")
    make_trace(home / "elsewhere")
    outside = (home / "elsewhere/run.trace").rename(home / "outside.trace")
    (home / "outside").write_text(SECRET)
    (outside / "artifacts").mkdir(exist_ok=True)
    (home / "runs/linked.trace").symlink_to(outside)
    (home / "runs/linked-file.trace").symlink_to(home / "outside")
    (home / "runs/file.trace").write_text(SECRET)
    return home / "runs"


@contextmanager
def served(place: Path) -> Iterator[tuple[str, int]]:
    """The explorer behind a real socket."""
    server = server_of(explorer_app(place))
    listener, url = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield "127.0.0.1", urlsplit(url).port or 0
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[tuple[str, int]]:
    with served(place) as at:
        yield at


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    """All that is answered to these bytes, until the other side hangs up."""
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def request(target: str, method: str = "GET", *lines: str) -> bytes:
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines, "", ""])
    return head.encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("page", ["", "/samples", "/log", "/log/entry/0", "/mine", "/find?q=digits:0"])
def test_no_path_leads_out_of_the_folder(page: str, place: Path) -> None:
    app = explorer_app(place)
    for trick in TRICKS:
        answer = ask(app, f"/run/{trick}{page}")
        assert answer.status in (400, 404), (trick, answer.status)
        assert SECRET not in answer.text
        assert str(place.parent) not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["file", "linked", "linked-file", "run%2f..%2flinked"])
def test_the_first_page_and_a_comparison_read_nothing_from_outside(name: str, place: Path) -> None:
    app = explorer_app(place)
    assert SECRET not in ask(app, "/").text
    for other in (f"/compare?a=run&b={name}", f"/compare?a={name}&b=run"):
        answer = ask(app, other)
        assert answer.status in (400, 404), other
        assert SECRET not in answer.text


@pytest.mark.parametrize(
    "target",
    ["/static/../explorer.py", "/static/%2e%2e/explorer.py", "/static/..%2fexplorer.py", "/static/", "/static",
     "/static/style.css/", "/static/style.css%00", "/templates/frame.html", "/etc/passwd", "//etc/passwd", "/%2e",
     "/run", "/run/", "/run//", "/run/run/", "/run/run/nothing", "/run/run/sample/", "/run/run/log/entry/",
     "/run/run/sample/%2e%2e/checkpoint", "/run/run/checkpoint", "/run/run.trace/tile/entries/000",
     "/" + "a" * 5000, "/run/" + "a/" * 1000, "/run/" + "%41" * 2000, "/%ff%fe", "/run/%ff", "*", "data:,",
     "javascript:alert(1)", "http://elsewhere.example/run/run"],
)  # fmt: skip
def test_what_is_no_page_is_not_found(target: str, place: Path) -> None:
    answer = ask(explorer_app(place), target)
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "query",
    ["?" + "q" * 5000, "?a=1&a=2", "?" + "&".join(f"x{n}=1" for n in range(900)), "?page=-1", "?page=1e9",
     "?page=99999999999999999999", "?page=%00", "?page=%F0%9F%92%A9", "?sort=;DROP TABLE samples", "?sort=id'--",
     "?order=sideways", "?role='%20OR%201=1", "?q=%25%27%22%3B", "?q=" + "%2525" * 300, "?format=xml", "?a=..&b=..",
     "?%00=%00", "?size=0&to=0", "?size=99999999&to=1", "?sha256=" + "0" * 63, "?sha256=" + "g" * 64,
     "?id=" + "0" * 64],
)  # fmt: skip
def test_no_query_is_more_than_a_clear_page(query: str, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = explorer_app(place)
    for page in PAGES:
        answer = ask(app, page.partition("?")[0] + query.replace(" ", "%20"))
        assert answer.status in (200, 303, 400, 404, 409), (page, query, answer.text)
        assert answer.headers["content-type"].startswith(("text/html", "text/plain")), page
    assert not caplog.records


@pytest.mark.parametrize(
    "sample", ["0" * 64, "F" * 64, "0" * 63, "0" * 65, "../" * 5, "%00", "a" * 3000, "id:" + "0" * 64]
)
def test_no_name_of_a_sample_is_more_than_a_clear_page(sample: str, place: Path) -> None:
    app = explorer_app(place)
    for page in ("sample", "prediction"):
        for more in ("", "/proof", "/thumbnail.png"):
            answer = ask(app, f"/run/run/{page}/{sample}{more}")
            is_absence = more == "/proof" and answer.status == 200  # which a bundle proves
            assert is_absence or answer.status in (303, 400, 404, 409), (page, more, answer.status)
            assert answer.headers.get("location", "/run").startswith("/run")
            assert "Traceback" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
def test_the_explorer_only_reads(method: str, address: tuple[str, int]) -> None:
    body = b"x" * 10
    answer = exchange(address, request("/run/run", method, f"Content-Length: {len(body)}") + body)
    assert status(answer) in (400, 405)


@pytest.mark.parametrize("page", PAGES)
def test_head_is_get_without_its_body(page: str, address: tuple[str, int]) -> None:
    head, _, body = exchange(address, request(page, "HEAD")).partition(b"\r\n\r\n")
    assert status(head) == status(exchange(address, request(page)))
    assert b"content-length" in head.lower()
    assert body == b""


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n\r\n", b"GET\r\n\r\n",
     b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
     b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
     b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n",
     b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\nConnection: close\r\n\r\n",
     b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: b\r\n" * 20_000 + b"Connection: close\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_proper_request_is_refused_and_the_next_one_answered(sent: bytes, address: tuple[str, int]) -> None:
    try:
        answer = exchange(address, sent)
    except (ConnectionResetError, BrokenPipeError):
        answer = b""  # hung up before everything was read
    assert not answer or status(answer) in (400, 403, 404, 414, 431), answer[:300]
    assert SECRET.encode() not in answer
    assert b"Traceback" not in answer
    assert status(exchange(address, request("/run/run"))) == 200


def test_many_requests_at_once_are_all_answered_alike(address: tuple[str, int]) -> None:
    def body(page: str) -> tuple[int, bytes]:
        head, _, rest = exchange(address, request(page)).partition(b"\r\n\r\n")
        return status(head), rest

    pages = ["/run/run/log/entry/3?format=json", "/run/run/samples?format=json", "/run/run/log?format=json"]
    alone = {page: body(page) for page in pages}
    assert all(code == 200 for code, _ in alone.values())
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: (pages[n % 3], body(pages[n % 3])), range(120)))
    assert all(answer == alone[page] for page, answer in answers)


def test_a_slow_client_keeps_nobody_waiting(address: tuple[str, int]) -> None:
    slow = [socket.create_connection(address, timeout=30) for _ in range(60)]
    try:
        for connection in slow:
            connection.sendall(b"GET /run/run/samples HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
        began = time.monotonic()
        assert status(exchange(address, request("/run/run"))) == 200
        assert time.monotonic() - began < 5
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_reads_nothing_or_hangs_up_stops_nobody(address: tuple[str, int]) -> None:
    for _ in range(20):
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(request("/run/run/samples?format=json") * 50)
    assert status(exchange(address, request("/run/run"))) == 200


def test_the_explorer_writes_nothing_into_the_folder(place: Path) -> None:
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in place.rglob("*"))
    app = explorer_app(place)
    for page in PAGES:
        ask(app, page)
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in place.rglob("*")) == before
    assert os.listdir(place.parent / "outside.trace")
