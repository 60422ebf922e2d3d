"""A C2SP witness of our own on loopback, that checks every proof; it can be told to hang, to refuse, or to be busy."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cosigned import KEY, NAME, TIME, cosignature, cosigner
from fgtrac.anchor.witness import Witness
from fgtrac.errors import ProofError
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.merkle import check_consistency
from fgtrac.tlog.note import TreeHead, format_signatures, parse_note, parse_tree_head
from served import at_work


class LoopbackWitness:
    """What it has cosigned, in order, and how it behaves: `mode` is "well", "busy", "refuses", "hangs", or "new": it
    knows no log yet."""

    def __init__(self, name: str = NAME, key: Ed25519PrivateKey = KEY) -> None:
        self.name, self.key = name, key
        self.mode = "well"
        self.requests = 0
        self.cosigned: list[TreeHead] = []
        self.time = TIME
        self.released = threading.Event()
        self.asked = threading.Event()
        self.port = 0

    @property
    def vkey(self) -> str:
        return format_cosigner(cosigner(self.name, self.key))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/secret-path"

    def service(self, timeout_s: float = 5.0) -> Witness:
        return Witness(self.url, self.vkey, timeout_s=timeout_s)

    @property
    def sizes(self) -> list[int]:
        return [head.size for head in self.cosigned]

    @contextmanager
    def running(self) -> Iterator[LoopbackWitness]:
        """Serve inside the block, at the same port as before; outside it, the port is closed."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        server.daemon_threads = True
        self.port = server.server_port
        with at_work(server):
            try:
                yield self
            finally:
                self.released.set()

    def answer(self, body: bytes) -> tuple[int, str, bytes]:
        """The answer to add-checkpoint: status, content type, body."""
        self.requests += 1
        self.asked.set()
        if self.mode == "hangs":
            self.released.wait(300)
        if status := {"busy": 503, "new": 404, "refuses": 403}.get(self.mode):
            return status, "text/plain", b""
        request, _, note = body.partition(b"\n\n")
        first, *hashes = request.decode().split("\n")
        head = parse_tree_head(parse_note(note).text)
        last = next((h for h in reversed(self.cosigned) if h.origin == head.origin), None)
        old = int(first.removeprefix("old "))
        if old != (last.size if last else 0):
            return 409, "text/x.tlog.size", b"%d\n" % (last.size if last else 0)
        try:
            if last is not None:
                check_consistency(old, last.root, head.size, head.root, [base64.b64decode(h) for h in hashes])
        except ProofError:
            return 422, "text/plain", b""
        self.cosigned.append(head)
        self.time += 1
        return 200, "text/plain", format_signatures([cosignature(note, self.name, self.key, self.time)])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        witness = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, content_type, answer = witness.answer(body)
                with suppress(ConnectionError):  # who asked has gone
                    self.send_response(status)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_arguments: object) -> None: ...

        return Handler


def closed_witness() -> LoopbackWitness:
    """A witness that was there, and whose port is closed now."""
    made = LoopbackWitness("witness.example/down", Ed25519PrivateKey.from_private_bytes(b"d" * 32))
    with made.running():
        pass
    made.released.clear()
    return made
