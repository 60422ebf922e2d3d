"""Makes tests/anchor/stamps/ once more, with the real `openssl ts`: python tests/anchor/make_stamps.py

Keys are thrown away. All roots have the same name, so that each is a foreign one to the others' stamps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from cosigned import signed_head
from fgtrac.store import durable
from services.openssl_tsa import make_authority, reply

STAMPS = Path(__file__).parent / "stamps"


def main() -> None:
    note = signed_head([b"entry 0", b"entry 1"], 2).note
    durable.write_file(STAMPS / "checkpoint", note)
    query = TimestampRequestBuilder(note, HashAlgorithm.SHA256).build().as_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, options in {"p256": {}, "rsa": {"is_rsa": True}, "expired": {"is_expired": True}}.items():
            root = make_authority(folder / name, **options)
            durable.write_file(STAMPS / f"{name}-root.pem", root.read_bytes())
            durable.write_file(STAMPS / f"{name}.tsr", reply(folder / name, query, precision=6 * (name == "p256")))
        p256 = folder / "p256"
        durable.write_file(STAMPS / "p256-by-sha1.tsr", reply(p256, query, certificate_digest="sha1"))
        durable.write_file(STAMPS / "p256-over-sha1.tsr", reply(p256, query, signer_digest="sha1"))
        durable.write_file(STAMPS / "p256-rejection.tsr", reply(p256, query, digests="sha512"))


if __name__ == "__main__":
    main()
