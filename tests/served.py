"""A server on loopback that answers every request as a test says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

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
    with at_work(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def at_work(server: HTTPServer) -> Iterator[None]:
    """The server answers on a thread of its own inside the block; behind it, its port is closed."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
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
