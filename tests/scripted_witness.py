"""An HTTP server on loopback that gives the answers it is told to, in order. It is no witness: it looks at nothing.

The real one is tested in tests/services.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from cosigned import NAME, cosignature
from fgtrac.tlog.note import format_signatures
from served import at_work

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


@dataclass
class Script:
    """What was asked: the paths and bodies of the requests so far."""

    url: str
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def cosigns(note: bytes, name: str = NAME) -> Answer:
    """200, with a cosignature that `cosigned.KEY` made beforehand."""
    return 200, "text/plain", format_signatures([cosignature(note, name)])


def knows(size: int) -> Answer:
    """409, with the size of what was cosigned last."""
    return 409, "text/x.tlog.size", b"%d\n" % size


@contextlib.contextmanager
def answering(answers: Sequence[Answer], prefix: str = "") -> Iterator[Script]:
    """The server at work: the n-th answer to the n-th request, the last one again to all further ones."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, content_type, body = answers[min(len(script.paths), len(answers) - 1)]
            script.paths.append(self.path)
            script.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    script = Script(f"http://127.0.0.1:{server.server_port}{prefix}")
    with at_work(server):
        yield script
