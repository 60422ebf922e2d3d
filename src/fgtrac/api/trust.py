"""Whose signature counts: the public key that the verifier names, or the user's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fgtrac.commit.keys import Keyring, default_key_path, parse_key
from fgtrac.errors import FormatError
from fgtrac.store.private_files import check_names_file
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.note import Verifier, parse_note, parse_vkey

FORMS = "64 hex digits, a C2SP verifier key (name+id+base64), or a file that holds one of these or a PEM key"
MAX_KEY_FILE_BYTES = 10_000
_VKEY = re.compile(r"[^+\s]+\+[0-9a-f]{8}\+")


def trusted_verifier(
    named: str | None, trace_id: bytes, environment: Mapping[str, str] | None = None, *, note: bytes | None = None
) -> tuple[Verifier | None, str]:
    """The verifier of a trace's heads, and whose key it is in words.

    `named` is one of FORMS; None means the user's own: of several, the one that signed `note`. There is no verifier
    where there is no such key, and for a key that the user has revoked.
    ValueError for a name that is none of the forms and a file that holds no Ed25519 key, FormatError for a vkey that
    contradicts itself and a damaged list of revoked keys.
    """
    name, environment = ORIGIN_PREFIX + trace_id.hex(), _now(environment)
    if named is None:
        path = default_key_path(environment)
        if not path.exists():
            return None, "no key was named, and there is no key of yours"
        verifier, whose = Verifier(name, _own_key(path, name, note)), "your own key"
    elif _is_file(path := Path(named)):
        verifier, whose = _from_file(path, name), f"the key in {path.name}"
    else:
        verifier, whose = _from_text(named, name), "the key that you named"
    if verifier.public_key in revoked_keys(environment):
        return None, (
            f"{whose}, {verifier.public_key.hex()}, is one that you have revoked: whoever holds it can sign anything; "
            "name the key that took its place, and have a bundle from before the rotation made again"
        )
    return verifier, whose


def _now(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    """The environment as it is when it is asked for: some libraries put another object into `os.environ`."""
    return os.environ if environment is None else environment


def _own_key(path: Path, name: str, note: bytes | None) -> bytes:
    """The user's public key that signed the note; the present one where none did."""
    keys, signers = list(Keyring(path).keys()), set()
    with suppress(FormatError):  # a damaged note: the check of its signature says so
        signers = {line.key_id for line in parse_note(note or b"").signatures if line.name == name}
    return next((key for key in keys if Verifier(name, key).key_id in signers), keys[0])


def revoked_keys(environment: Mapping[str, str] | None = None) -> frozenset[bytes]:
    """The public keys that the user believes no longer. FormatError for a damaged list."""
    try:
        path = default_key_path(_now(environment))
    except ValueError:
        return frozenset()  # who has no folder for keys has no list of them
    return Keyring(path).revoked()


def trust_state(named: str | None, environment: Mapping[str, str] | None = None) -> tuple[tuple[str, ...], ...]:
    """What changes when a file does that `trusted_verifier` goes by: the one that was named, the user's own keys, and
    the list of those that are revoked."""
    places = [] if named is None else [Path(named)]
    with suppress(ValueError):  # who has no folder for keys has none there
        ring = Keyring(default_key_path(_now(environment)))
        places += ring.files()
    return tuple((str(place), *_identity(place)) for place in places)


def _identity(path: Path) -> tuple[str, ...]:
    try:
        said = path.stat()
    except (OSError, ValueError):
        return ()  # nothing lies there, or it is a key itself
    return tuple(map(str, (said.st_ino, said.st_size, said.st_ctime_ns)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # too long for a file's name: it is a key itself


def _from_file(path: Path, name: str) -> Verifier:
    """The key in a file; a message says nothing of what else may stand there."""
    with path.open("rb") as file:
        data = file.read(MAX_KEY_FILE_BYTES)
    if data.startswith(b"-----BEGIN"):
        return Verifier(name, _from_pem(data, str(path)))
    try:
        return _from_text(data.decode().strip(), name)
    except (ValueError, FormatError):
        raise ValueError(f"{path} holds no key: give {FORMS}") from None  # whose words say what stands there


def _from_text(text: str, name: str) -> Verifier:
    if len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text):
        return Verifier(name, bytes.fromhex(text))
    if not _VKEY.match(text):
        check_names_file(Path(text))
    if text.count("+") >= 2:
        return parse_vkey(text)
    raise ValueError(f"{text!r:.80} is no key and no file: give {FORMS}")


def _from_pem(data: bytes, named: str) -> bytes:
    if b"PRIVATE KEY" in data:
        return parse_key(data, Path(named)).public_key().public_bytes_raw()
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{named:.80} holds no PEM key: {error}") from error
    except InternalError as error:  # of lengths that belong to another kind of key; its text is a page
        raise ValueError(f"{named:.80} holds no key that OpenSSL can read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{named:.80} holds a {type(key).__name__}; tree heads are signed with Ed25519")
    return key.public_bytes_raw()
