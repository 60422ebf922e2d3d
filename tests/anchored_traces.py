"""Traces whose newest head is anchored: the key that signs them, how they grow, and what lies beside them then."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cosigned import cosigner
from traces import Made, Writing

LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
RECEIPT = f"witness-{cosigner().key_id.hex()}.checkpoint"


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


def grow(made: Made, number: int = 2, *, full: bool = True) -> int:
    """Another process's entries, sealed."""
    writing = Writing(made, bytes((number,)) * 16)
    for _ in range(number):
        writing.use([1, 2])
    writing.recorder.close()
    return made.seal(full=full).size


def pending_path(made: Made) -> Path:
    return made.signer.pending_path


def files(made: Made) -> list[str]:
    return sorted(name for name in made.trace.names() if name.startswith("receipts/"))
