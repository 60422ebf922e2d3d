"""A real time-stamping responder (`openssl ts -reply`) behind HTTP on loopback, which may also lie, refuse or hang."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from authorities import FIRST, LAST, Identity, authority_rights, issue, make_root, pem
from fgtrac.store import durable
from served import at_work

CONFIGURATION = """\
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_digest = {signer_digest}
default_policy = 1.2.3.4.1
digests = {digests}
accuracy = secs:1, millisecs:500, microsecs:100
clock_precision_digits = {precision}
ordering = no
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = {certificate_digest}
"""

Sent = bytes | tuple[int, str, bytes]
Answer = Callable[[bytes, bytes], Sent]
"""What is sent instead of a reply: (query, OpenSSL's reply) -> a body, or a status, a content type and a body."""


@dataclass
class Responder:
    """A running authority: its URL and the PEM file of its root. `answer` may be exchanged while it runs, and sleep."""

    url: str
    root: Path
    answer: Answer = lambda query, reply: reply
    queries: list[bytes] = field(default_factory=list)


def make_authority(folder: Path, *, is_expired: bool = False, is_rsa: bool = False) -> Path:
    """Keys and certificates of a new authority in `folder`; its root's file. Every authority has its own root, and all
    roots have the same name. The RSA one has an intermediate, which its tokens carry."""
    folder.mkdir(parents=True, exist_ok=True)
    root = make_root()
    above: Identity = root
    if is_rsa:
        above = issue("test intermediate", root, extensions=authority_rights(0))
        durable.write_file(folder / "chain.pem", pem(above.certificate))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048) if is_rsa else None
    last = datetime(2021, 1, 1, tzinfo=UTC) if is_expired else LAST
    issue("test authority", above, first=FIRST, last=last, key=key).write(folder, "tsa")
    return root.write(folder, "root")[0]


def reply(
    folder: Path,
    query: bytes,
    *,
    digests: str = "sha256, sha384, sha512",
    signer_digest: str = "sha256",
    certificate_digest: str = "sha256",
    precision: int = 0,
) -> bytes:
    """OpenSSL's reply to one query, by the authority in `folder`."""
    options = {"digests": digests, "signer_digest": signer_digest, "certificate_digest": certificate_digest}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        configuration = CONFIGURATION.format(folder=place, precision=precision, **options)
        durable.write_file(place / "tsa.cnf", configuration.encode())
        durable.write_file(place / "query", query)
        chain = ["-chain", folder / "chain.pem"] if (folder / "chain.pem").exists() else []
        done = subprocess.run(
            ["openssl", "ts", "-reply", "-config", place / "tsa.cnf", "-queryfile", place / "query",
             "-signer", folder / "tsa.pem", "-inkey", folder / "tsa.key", *chain, "-out", place / "reply"],
            capture_output=True, check=False, timeout=20,
        )  # fmt: skip
        assert (place / "reply").exists(), done.stderr.decode()
        return (place / "reply").read_bytes()


def stamped(folder: Path, data: bytes) -> bytes:
    """OpenSSL's time stamp over `data`, by the authority in `folder`, whatever it is worth."""
    durable.write_file(folder / "stamped", data)
    command = ["openssl", "ts", "-query", "-data", folder / "stamped", "-sha256", "-cert"]
    return reply(folder, subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)


@contextmanager
def running_tsa(
    folder: Path,
    *,
    is_expired: bool = False,
    is_rsa: bool = False,
    digests: str = "sha256, sha384, sha512",
    port: int = 0,
) -> Iterator[Responder]:
    """A new authority in `folder`, or the one that is there, answering on a port until the block is left; the system
    chooses it where none is named.

    `digests` without sha256 makes it reject what fgtrac asks.
    """
    root = folder / "root.pem"
    responder = Responder("", root if root.exists() else make_authority(folder, is_expired=is_expired, is_rsa=is_rsa))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            responder.queries.append(query)
            sent = responder.answer(query, reply(folder, query, digests=digests))
            status, kind, body = sent if isinstance(sent, tuple) else (200, "application/timestamp-reply", sent)
            with suppress(ConnectionError):  # who asked may have given up
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    responder.url = f"http://127.0.0.1:{server.server_port}/tsa"
    with at_work(server):
        yield responder
