"""A stranger's S3 server on loopback, which answers what no honest one does; the bucket's name says what."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

LISTED = "<ListBucketResult><IsTruncated>{}</IsTruncated>{}</ListBucketResult>"
ONE = "<Contents><Key>run.trace/{}</Key><Size>1</Size><ETag>a</ETag></Contents>"
LISTINGS = {
    "no-token": LISTED.format("true", ""),
    "no-size": LISTED.format("false", "<Contents><Key>run.trace/y</Key></Contents>"),
    "elsewhere": LISTED.format("false", ONE.replace("run.trace", "other.trace").format("y")),
}
NOTHING = LISTED.format("false", "")


class Stranger(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    note = b""  # what it gives as the head

    def log_message(self, *_words: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """An object, or a listing."""
        bucket = self.path.partition("?")[0].strip("/").partition("/")[0]
        if "list-type" in self.path:
            self._list(bucket)
        elif bucket in ("endless", "drip"):
            self._without_end(b"x" * (1 if bucket == "drip" else 1 << 20), 0.2 if bucket == "drip" else 0.0)
        elif bucket == "no-etag":
            self._whole(200, self.note)
        elif bucket == "endless-error":
            self._without_end(b"x" * (1 << 20), 0.0, 400)
        elif bucket == "other-range":
            self._whole(206, b"hello", ETag='"a"', **{"Content-Range": "bytes 7-11/100"})
        else:
            self._whole(200, self.note, ETag='"a"')

    def do_PUT(self) -> None:
        """Taken, and forgotten."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._whole(200, b"")

    def do_DELETE(self) -> None:
        """As if it were done."""
        self._whole(200, b"")

    def _list(self, bucket: str) -> None:
        if bucket == "endless-page":
            self._without_end(b"<a/>" * (1 << 18), 0.0)
        elif bucket == "endless-list":
            now = time.time_ns()
            token = f"<NextContinuationToken>{now}</NextContinuationToken>"
            self._whole(200, LISTED.format("true", token + ONE.format(now) * 100).encode())
        else:
            self._whole(200, LISTINGS.get(bucket, NOTHING).encode())

    def _whole(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _without_end(self, piece: bytes, wait_s: float, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("ETag", '"a"')
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(piece)
                time.sleep(wait_s)


@contextlib.contextmanager
def strange_s3(monkeypatch: pytest.MonkeyPatch, note: bytes) -> Iterator[str]:
    """Where it listens; this process's environment names it, and gives an answer 2 seconds."""
    monkeypatch.setattr(Stranger, "note", note)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    server.daemon_threads = True
    server.block_on_close = False
    where = f"http://127.0.0.1:{server.server_port}"
    said = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in (said | {"FGTRAC_S3_ENDPOINT": where, "FGTRAC_S3_TIMEOUT_S": "2"}).items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield where
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
