"""Who signs a trace's heads, and what was signed: never two tree heads of one size, whatever crashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.commit.keys import Keyring, key_path, load_key, make_key, public_bytes
from fgtrac.errors import TamperError
from fgtrac.store import durable
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.dsse import pre_authentication
from fgtrac.tlog.note import (
    Note,
    TreeHead,
    Verifier,
    format_note,
    format_tree_head,
    parse_note,
    parse_tree_head,
    sign_note,
    verify_note,
)


class Signer:
    """Signs the tree heads of one trace. Its state lies beside the key, out of reach of who can write the trace only:

    heads/TRACE-ID         the last note that was signed
    heads/TRACE-ID.plans   the SHA-256 of the last two plans of seals, so that no other plan is believed
    heads/TRACE-ID.lock    held by the one sealer at work
    heads/TRACE-ID.index   the SHA-256 of the finished parts of an index that does not fit in memory
    heads/TRACE-ID.pending what is still to be anchored (anchor/pending.py)
    """

    def __init__(
        self,
        trace_id: bytes,
        key: Ed25519PrivateKey,
        state: Path,
        others: Iterable[Ed25519PrivateKey] = (),
        key_path: Path | None = None,
    ) -> None:
        """`key` signs what no entry names another key for; `others` are the user's keys before and after it, and
        `key_path` the file to look beside where a later one is asked for."""
        self.trace_id = trace_id
        self.name = ORIGIN_PREFIX + trace_id.hex()
        self._keys = {public_bytes(k): k for k in (key, *others)}
        self._state = state
        self._key_path = key_path

    @classmethod
    def open(cls, trace_id: bytes, named: Path | None = None) -> Signer:
        """The signer of a new trace under a key file (default: the user's), which is made on first use."""
        path = key_path(named)
        key = load_key(path) if path.exists() else make_key(path)
        return cls(trace_id, key, path.parent / "heads" / trace_id.hex(), key_path=path)

    @classmethod
    def of(cls, trace_id: bytes, public_key: bytes, named: Path | None = None, note: bytes | None = None) -> Signer:
        """The signer of an existing trace: with the key of its newest head, `note`, or before there is one with that of
        its `run` entry, `public_key`. The user's other keys, retired ones too, are at hand for `key` entries.

        FileNotFoundError where there is no key file (none is made), ValueError where none of the keys is the right one.
        """
        path = key_path(named)
        if not path.exists():
            raise FileNotFoundError(
                f"there is no key at {path}; name the one that this trace is signed with: FGTRAC_KEY"
            )
        keys, name = Keyring(path).keys(), ORIGIN_PREFIX + trace_id.hex()
        lines = [s for s in parse_note(note).signatures if s.name == name] if note is not None else []
        mine = [k for line in lines for k in keys if Verifier(name, k).key_id == line.key_id]
        mine += [public_key] if public_key in keys else []
        if not mine:
            raise ValueError(
                f"this trace is signed with the key {public_key.hex()}, and {path} holds {next(iter(keys)).hex()}; "
                "name the right one: FGTRAC_KEY"
            )
        return cls(trace_id, keys[mine[0]], path.parent / "heads" / trace_id.hex(), keys.values(), path)

    @property
    def public_key(self) -> bytes:
        """The 32-byte Ed25519 public key that signs what no entry names another key for."""
        return next(iter(self._keys))

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """The public keys that this signer's heads may be signed with."""
        return tuple(self._keys)

    @property
    def verifier(self) -> Verifier:
        """What checks this signer's notes under that key."""
        return Verifier(self.name, self.public_key)

    def key_of(self, note: bytes) -> bytes:
        """Which of the user's keys signed a note. ProofError where none of them did, or its signature fails."""
        lines = [s.key_id for s in parse_note(note).signatures if s.name == self.name]  # others say nothing here
        if not any(Verifier(self.name, k).key_id in lines for k in self._keys):
            self._look_again()
        verify_note(note, [Verifier(self.name, k) for k in self._keys])
        return next(k for k in self._keys if Verifier(self.name, k).key_id in lines)

    def _look_again(self) -> None:
        """Take up the keys that the user got since: another process has put one in the place of this one."""
        if self._key_path is not None and self._key_path.exists():
            self._keys |= Keyring(self._key_path).keys()

    def rotate(self, old: bytes, new: bytes, message: bytes) -> tuple[bytes, bytes]:
        """Both keys' signatures over a rotation's message (`fgtrac.verify.keys.rotation_message`)."""
        return self._key(old).sign(message), self._key(new).sign(message)

    def sign_envelope(self, public_key: bytes, payload_type: str, payload: bytes) -> bytes:
        """A key's signature over a payload in a DSSE envelope: never over bytes that could be a tree head's or a
        rotation's (`fgtrac.tlog.dsse`). ValueError for a key that is not the user's, or that was revoked."""
        if self._key_path is not None and public_key in Keyring(self._key_path).revoked():
            raise ValueError(f"the key {public_key.hex()} is revoked: nobody would believe what it signs now")
        return self._key(public_key).sign(pre_authentication(payload_type, payload))

    def _key(self, public_key: bytes) -> Ed25519PrivateKey:
        if public_key not in self._keys:
            self._look_again()
        if public_key not in self._keys:
            raise ValueError(
                f"the log says that the key {public_key.hex()} signs from here on, and it is not among yours; name the "
                "file that it lies in, or beside: FGTRAC_KEY"
            )
        return self._keys[public_key]

    @property
    def lock_path(self) -> Path:
        """The file that a sealer of this trace locks."""
        return self._state.with_name(self._state.name + ".lock")

    @property
    def index_path(self) -> Path:
        """The file that says which parts of an index are finished, so that no others are believed."""
        return self._state.with_name(self._state.name + ".index")

    @property
    def pending_path(self) -> Path:
        """The file that says what is still to be anchored."""
        return self._state.with_name(self._state.name + ".pending")

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

    def sign(self, head: TreeHead, public_key: bytes | None = None) -> bytes:
        """The signed note of a head, by the key that the log says. The state is on disk before the signature leaves.

        The same head gives the same note again. TamperError for another root of the same size, or a smaller size;
        ValueError for a key that is not the user's.
        """
        key = self._key(public_key or self.public_key)
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
        note = format_note(Note(text, (sign_note(text, self.name, key),)))
        self.adopt(note)
        return note


class SignerElsewhere(Signer):
    """Of a process whose trace another process seals: it knows who signs, and signs nothing (ValueError)."""

    def __init__(self, trace_id: bytes, public_key: bytes) -> None:
        self.trace_id = trace_id
        self.name = ORIGIN_PREFIX + trace_id.hex()
        self._keys = {}
        self._public_key = public_key
        self._state = Path(trace_id.hex())  # neither read nor written
        self._key_path = None

    @property
    def public_key(self) -> bytes:
        """The public key of whoever signs."""
        return self._public_key
