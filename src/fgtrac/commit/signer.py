"""The user's signing key and what it has signed: never two tree heads of one size, whatever crashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fgtrac.errors import FormatError, TamperError
from fgtrac.store import durable
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.note import (
    Note,
    TreeHead,
    Verifier,
    format_note,
    format_tree_head,
    parse_note,
    parse_tree_head,
    sign_note,
)


def default_key_path(environment: Mapping[str, str]) -> Path:
    """Where the user's key lies: $FGTRAC_KEY, else key.pem in the user's configuration folder. ValueError where the
    user has none."""
    if named := environment.get("FGTRAC_KEY"):
        return Path(named)
    try:
        folder = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    except RuntimeError as error:
        raise ValueError(f"there is no folder for your key: {error}; name the key's file in FGTRAC_KEY") from error
    return Path(folder) / "fgtrac" / "key.pem"


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PKCS8 PEM file. FileNotFoundError, or FormatError for anything but an Ed25519 key."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path} is no unencrypted PKCS8 key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError(f"{path} holds a {type(key).__name__}; tree heads are signed with Ed25519")
    return key


def make_key(path: Path) -> Ed25519PrivateKey:
    """A new private key, for its owner's eyes only; where several processes make one at once, all get the first's."""
    key = Ed25519PrivateKey.generate()
    with contextlib.suppress(FileExistsError):  # somebody else was faster: that one is everybody's
        durable.create_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    return load_key(path)


class Signer:
    """Signs the tree heads of one trace. Its state lies beside the key, out of reach of who can write the trace only:

    heads/TRACE-ID         the last note that was signed
    heads/TRACE-ID.plans   the SHA-256 of the last two plans of seals, so that no other plan is believed
    heads/TRACE-ID.lock    held by the one sealer at work
    """

    def __init__(self, trace_id: bytes, key: Ed25519PrivateKey, state: Path) -> None:
        self.trace_id = trace_id
        self.name = ORIGIN_PREFIX + trace_id.hex()
        self._key = key
        self._state = state

    @classmethod
    def open(cls, trace_id: bytes, key_path: Path | None = None) -> Signer:
        """The signer of a new trace under a key file (default: the user's), which is made on first use."""
        path = key_path or default_key_path(os.environ)
        key = load_key(path) if path.exists() else make_key(path)
        return cls(trace_id, key, path.parent / "heads" / trace_id.hex())

    @classmethod
    def of(cls, trace_id: bytes, public_key: bytes, key_path: Path | None = None) -> Signer:
        """The signer of an existing trace, whose `run` entry names `public_key`.

        FileNotFoundError where there is no key file (none is made), ValueError where it is another key.
        """
        path = key_path or default_key_path(os.environ)
        if not path.exists():
            raise FileNotFoundError(
                f"there is no key at {path}; name the one that this trace is signed with: FGTRAC_KEY"
            )
        signer = cls.open(trace_id, path)
        if signer.public_key != public_key:
            raise ValueError(
                f"this trace is signed with the key {public_key.hex()}, and {path} holds {signer.public_key.hex()}; "
                "name the right one: FGTRAC_KEY"
            )
        return signer

    @property
    def public_key(self) -> bytes:
        """The 32-byte Ed25519 public key."""
        return self._key.public_key().public_bytes_raw()

    @property
    def verifier(self) -> Verifier:
        """What checks this signer's notes."""
        return Verifier(self.name, self.public_key)

    @property
    def lock_path(self) -> Path:
        """The file that a sealer of this trace locks."""
        return self._state.with_name(self._state.name + ".lock")

    @property
    def _plans_path(self) -> Path:
        return self._state.with_name(self._state.name + ".plans")

    def remember_plan(self, plan: bytes) -> None:
        """Believe this plan, and the one remembered before it, from now on."""
        digests = [*self._plan_digests()[-1:], hashlib.sha256(plan).hexdigest()]
        durable.write_file(self._plans_path, "".join(f"{d}\n" for d in digests).encode(), mode=0o600)

    def is_known_plan(self, plan: bytes) -> bool:
        """Whether these are the bytes of one of the last two plans remembered."""
        return hashlib.sha256(plan).hexdigest() in self._plan_digests()

    def _plan_digests(self) -> list[str]:
        return self._plans_path.read_text().splitlines() if self._plans_path.exists() else []

    def last(self) -> tuple[TreeHead, bytes] | None:
        """The last head that was signed, and its note; None before the first. FormatError for a damaged state."""
        if not self._state.exists():
            return None
        data = self._state.read_bytes()
        return parse_tree_head(parse_note(data).text), data

    def adopt(self, note: bytes) -> None:
        """Take a note that this key signed elsewhere as the last one signed."""
        durable.write_file(self._state, note, mode=0o600)

    def sign(self, head: TreeHead) -> bytes:
        """The signed note of a head. The state is on disk before the signature leaves this function.

        The same head gives the same note again. TamperError for another root of the same size, or a smaller size.
        """
        last = self.last()
        if last is not None:
            signed, note = last
            if signed == head:
                return note
            if head.size <= signed.size:
                raise TamperError(
                    f"this key has signed size {signed.size} with root {signed.root.hex()}; it does not sign size "
                    f"{head.size} with root {head.root.hex()}: the trace is not the one that was sealed"
                )
        text = format_tree_head(head)
        note = format_note(Note(text, (sign_note(text, self.name, self._key),)))
        self.adopt(note)
        return note
