"""One HTTP exchange with an outside service: bounded in time and in bytes, and silent about what a URL may hide."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from fgtrac.errors import AnchorError

Answer = tuple[int, str, bytes]
"""Status, content type (lower case, without parameters; empty where none was said), body."""

Opened = Callable[[http.client.HTTPConnection], None]

_CHUNK = 65_536
_here = threading.local()  # .cpu_s: what exchanges for this thread have taken on threads of their own


def check_url(url: str) -> None:
    """ValueError unless `url` is an http or https URL with a host. The text never repeats the URL: it may hold keys."""
    _split(url)


def shown(url: str) -> str:
    """`scheme://host[:port]`: what of a URL may be shown. User, password, path and query may be secret."""
    parts = _split(url)
    return f"{parts.scheme}://{_place(parts)}"


def fetch(
    url: str,
    *,
    data: bytes | None = None,
    content_type: str | None = None,
    timeout_s: float,
    max_bytes: int,
) -> Answer:
    """Send one request (POST where there is `data`, otherwise GET) and read the whole answer, whatever its status.

    A user and a password in the URL are sent as basic authentication. No redirect is followed. ValueError for a URL
    that is none, or a timeout that is not above 0. AnchorError where no whole answer of at most `max_bytes` came within
    `timeout_s` seconds, name resolution included, and for a redirect.
    """
    parts = _split(url)
    if timeout_s <= 0:
        raise ValueError(f"a timeout is above 0 s, got {timeout_s}")
    request = _request(parts, data, content_type)
    exchange = _Exchange(request, shown(url), time.monotonic() + timeout_s, timeout_s, max_bytes)
    # Sockets time out between two bytes only, and name resolution never: the thread lets the caller go on in time.
    thread = threading.Thread(target=exchange.run, name="fgtrac-fetch", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # an interpreter that ends starts no thread (3.12): here its own time-outs have to do
        exchange.run()
    else:
        thread.join(timeout_s)
    answer, failure = exchange.answer, exchange.failure
    exchange.end()
    _here.cpu_s = exchanges_cpu_s() + exchange.cpu_s
    if failure is not None:
        raise failure
    if answer is None:
        raise AnchorError(f"{shown(url)} did not answer within {timeout_s:g} s; try again, or allow more time")
    return answer


def exchanges_cpu_s() -> float:
    """The processor time of this thread's finished exchanges, which is not in its `time.thread_time()`."""
    return float(getattr(_here, "cpu_s", 0.0))


class _Exchange:
    """One request and what became of it, filled in by another thread."""

    def __init__(self, request: urllib.request.Request, name: str, deadline: float, timeout_s: float, max_bytes: int):
        self.request, self.name, self.deadline = request, name, deadline
        self.timeout_s, self.max_bytes = timeout_s, max_bytes
        self.answer: Answer | None = None
        self.failure: BaseException | None = None
        self.connection: http.client.HTTPConnection | None = None
        self.cpu_s = 0.0

    def run(self) -> None:
        try:
            self.answer = self._exchange()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)  # urllib wraps the system's error
            if not isinstance(reason, TimeoutError):  # which is what the caller says, without an answer
                self.failure = AnchorError(f"{self.name} gave no usable answer: {_words(reason)}")
        except BaseException as error:  # noqa: BLE001  raised again where the caller waits
            self.failure = error
        finally:
            self.cpu_s = time.thread_time()

    def opened(self, connection: http.client.HTTPConnection) -> None:
        """Take note of the connection that this exchange makes."""
        self.connection = connection

    def end(self) -> None:
        """Break off what is still under way: however slowly the other side goes on sending, the thread ends."""
        sock = None if self.connection is None else self.connection.sock
        if sock is not None and self.answer is None and self.failure is None:
            with suppress(OSError):  # closed meanwhile
                sock.shutdown(socket.SHUT_RDWR)

    def _exchange(self) -> Answer:
        with _opener(self.opened).open(self.request, timeout=self.timeout_s) as response:
            status, headers = response.status, response.headers
            if 300 <= status < 400:
                raise AnchorError(
                    f"{self.name} answers with status {status}, another address, which is not followed; name that one"
                )
            body = self._body(response)
        return status, headers.get("Content-Type", "").split(";")[0].strip().lower(), body

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > self.max_bytes:
                raise AnchorError(f"{self.name} answers with more than {self.max_bytes} bytes; is the URL right?")
            if time.monotonic() > self.deadline:
                raise TimeoutError
        if response.length:
            raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body)


def _opener(opened: Opened) -> urllib.request.OpenerDirector:
    """Without the handlers that follow redirects, raise on a status, or open files; proxies as the environment says."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), _Http(opened), _Https(opened)):
        opener.add_handler(handler)
    return opener


class _Http(urllib.request.HTTPHandler):
    """Tells of the connection that it makes."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._opened = opened

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_telling(http.client.HTTPConnection, self._opened), req)


class _Https(urllib.request.HTTPSHandler):
    """As _Http."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._opened = opened

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_telling(http.client.HTTPSConnection, self._opened), req)


def _telling(kind: type[http.client.HTTPConnection], opened: Opened) -> Any:
    def connection(*args: Any, **options: Any) -> http.client.HTTPConnection:
        made = kind(*args, **options)
        opened(made)
        return made

    return connection


def _request(parts: SplitResult, data: bytes | None, content_type: str | None) -> urllib.request.Request:
    headers = {"User-Agent": "fgtrac"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    bare = urlunsplit((parts.scheme, _place(parts), parts.path or "/", parts.query, ""))
    return urllib.request.Request(bare, data=data, headers=headers)


def _split(url: str) -> SplitResult:
    """The parts of an http or https URL. The error says nothing of what it read."""
    if isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url:
        try:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                parts.hostname.encode("idna")
                return parts
        except ValueError:  # a port that is no number, brackets that do not close, a label that is too long
            pass
    raise ValueError("this is no URL of an outside service: it needs http:// or https://, a host, and ASCII throughout")


def _place(parts: SplitResult) -> str:
    """`host[:port]`, without user and password."""
    host = parts.hostname or ""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if parts.port is None else f"{bracketed}:{parts.port}"


def _words(reason: object) -> str:
    """Why an exchange failed, on one line and without anything that the other side wrote."""
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__
