"""Whose signature counts: the public key that the verifier names, or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fgtrac.commit.signer import default_key_path, load_key
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.note import Verifier, parse_vkey

FORMS = "64 hex digits, a C2SP verifier key (name+id+base64), or a file that holds one of these or a PEM key"
MAX_KEY_FILE_BYTES = 10_000


def trusted_verifier(
    named: str | None, trace_id: bytes, environment: Mapping[str, str] = os.environ
) -> tuple[Verifier | None, str]:
    """The verifier of a trace's heads, and whose key it is in words.

    `named` is one of FORMS; None means the user's own key, and where there is none, no verifier at all.
    ValueError for a name that is none of the forms, FormatError for a vkey that contradicts itself.
    """
    name = ORIGIN_PREFIX + trace_id.hex()
    if named is None:
        path = default_key_path(environment)
        if not path.exists():
            return None, "no key was named, and there is no key of yours"
        return Verifier(name, load_key(path).public_key().public_bytes_raw()), "your own key"
    path = Path(named)
    if _is_file(path):
        return _from_text(path.read_bytes()[:MAX_KEY_FILE_BYTES], name, named), f"the key in {path.name}"
    return _from_text(named.encode(), name, named), "the key that you named"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # too long for a file's name: it is a key itself


def _from_text(data: bytes, name: str, named: str) -> Verifier:
    if data.startswith(b"-----BEGIN"):
        return Verifier(name, _from_pem(data, named))
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{named:.80} holds no key: give {FORMS}") from error
    if len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text):
        return Verifier(name, bytes.fromhex(text))
    if text.count("+") >= 2:
        return parse_vkey(text)
    raise ValueError(f"{named!r:.80} is no key and no file: give {FORMS}")


def _from_pem(data: bytes, named: str) -> bytes:
    if b"PRIVATE KEY" in data:
        return load_key(Path(named)).public_key().public_bytes_raw()
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{named:.80} holds no PEM key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{named:.80} holds a {type(key).__name__}; tree heads are signed with Ed25519")
    return key.public_bytes_raw()
