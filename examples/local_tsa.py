"""A time-stamping authority (RFC 3161) on this machine, to try anchors with: `openssl ts -reply` behind HTTP.

python examples/local_tsa.py FOLDER [PORT]     makes its keys in FOLDER where there are none; trust FOLDER/root.pem
"""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

CONFIGURATION = """[tsa]
default_tsa = this
[this]
serial = serial
signer_digest = sha256
digests = sha256
default_policy = 1.2.3.4.1
accuracy = secs:1
ess_cert_id_alg = sha256
"""
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(folder: Path, *arguments: str, data: bytes = b"") -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, input=data, check=True, capture_output=True)


def make(folder: Path) -> None:
    """A root, and a certificate under it that may stamp and nothing else."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "tsa.cnf").write_text(CONFIGURATION)
    (folder / "rights.cnf").write_text("extendedKeyUsage = critical, timeStamping\n")
    openssl(folder, "req", "-x509", *NEW_KEY, "-keyout", "root.key", "-out", "root.pem", "-days", "365", "-subj",
            "/CN=A root to try with", "-addext", "keyUsage = critical, keyCertSign")  # fmt: skip
    openssl(folder, "req", *NEW_KEY, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=An authority to try with")
    openssl(folder, "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days", "365",
            "-extfile", "rights.cnf", "-out", "tsa.pem")  # fmt: skip


def serve(folder: Path, port: int) -> None:
    class Authority(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            openssl(folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-signer", "tsa.pem",
                    "-inkey", "tsa.key", "-out", "reply")  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

    with HTTPServer(("127.0.0.1", port), Authority) as server:
        print(
            f"an authority at http://127.0.0.1:{server.server_port}/, under the root {folder / 'root.pem'}", flush=True
        )
        server.serve_forever()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not (folder / "tsa.pem").exists():
        make(folder)
    serve(folder, int(sys.argv[2]) if len(sys.argv) > 2 else 8318)
