"""Who may sign a log's heads: the key of its `run` entry, then the keys that `key` entries put in its place.

K_0 is the `run` entry's key; the n-th `key` entry replaces K_(n-1) by K_n, and both sign it. A head whose log holds the
entry is signed by K_n. Who trusts an older key follows the entries, unless one of them revokes a key on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fgtrac.errors import ProofError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.tlog.note import Note, Verifier, parse_note, parse_tree_head
from fgtrac.verify.checks import CannotTell

CONTEXT = b"fgtrac key rotation v1\n"
MAX_NAMED_SIGNERS = 4
_MARKS = tuple(encode("kind") + encode(kind) for kind in ("run", "key"))
_MARK_WITHIN = 24  # a map's head, `seq` with its number, then `kind`: the shorter names come first


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a `key` entry says: from the head behind it on another key signs; `revoked` says that the one before it is
    no longer believed."""

    number: int
    public_key: bytes
    revoked: bool
    old_signature: bytes
    new_signature: bytes

    @property
    def verb(self) -> str:
        """What became of the key before."""
        return "revoked" if self.revoked else "replaced"


def rotation_message(trace_id: bytes, old: bytes, new: bytes, revoked: bool) -> bytes:
    """What both keys sign: CONTEXT, the trace id (16), the old and the new public key (32 each), one byte."""
    return CONTEXT + trace_id + old + new + bytes((revoked,))


def rotations_of(entries: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[Rotation, ...]:
    """The rotations among decoded entries with their numbers, in the order of the log; their signatures unchecked."""
    found = [
        Rotation(n, e["public_key"], e.get("revoked", False), e["old_signature"], e["new_signature"])
        for n, e in entries
        if e["kind"] == "key"
    ]
    return tuple(sorted(found, key=lambda rotation: rotation.number))


def is_about_keys(entry: bytes) -> bool:
    """Whether an entry's bytes are a `run` or a `key` entry's; looks at their beginning only."""
    return any(mark in entry[:_MARK_WITHIN] for mark in _MARKS)


def may_hold_key(bundle: bytes) -> bool:
    """Whether a `key` entry may stand in a bundle of entries; False is certain."""
    return _MARKS[1] in bundle


def last_named_key(entries: Iterable[bytes]) -> bytes | None:
    """The public key that signs a head behind these entries, as the last `run` or `key` entry among them says; None
    where there is none."""
    found = None
    for entry in entries:
        if is_about_keys(entry):
            found = decode_event(entry)["public_key"]
    return found


def signers_from(first: bytes, rotations: Sequence[Rotation], size: int) -> list[bytes]:
    """The public keys that sign heads of `size` entries and more, in order, where `first` is the `run` entry's."""
    keys = [first, *(r.public_key for r in rotations)]
    return keys[sum(r.number < size for r in rotations) :]


def check_chain(trace_id: bytes, first: bytes | None, rotations: Sequence[Rotation]) -> None:
    """ProofError unless each rotation is signed by the key before it and by its own, and no key comes twice.

    Where `first` is not known, nothing but its successor's place is believed of the first rotation.
    """
    keys = [first]
    for rotation in rotations:
        old, new = keys[-1], rotation.public_key
        if new in keys:
            raise ProofError(f"entry {rotation.number} (key) goes back to the key {new.hex()}, which signed before")
        if old is not None:
            message = rotation_message(trace_id, old, new, rotation.revoked)
            pairs = (("the key before it", old, rotation.old_signature), ("its own", new, rotation.new_signature))
            for whose, key, signature in pairs:
                if not _is_signature(key, signature, message):
                    raise ProofError(f"entry {rotation.number} (key) is not signed by {whose}, {key.hex()}")
        keys.append(new)


def follow(verifier: Verifier, note: bytes, rotations: Sequence[Rotation] = (), first: bytes | None = None) -> str:
    """Why a head is signed by the key in force, which the verifier's key leads to, in words.

    `rotations` are all of the head's log; `first` is the `run` entry's key, where it is at hand: without it a key that
    signed the first rotation counts as the first. FormatError for what is no signed head; ProofError for a head of
    another log, by an unknown or a replaced key, and for a rotation whose signatures fail; CannotTell where a key was
    revoked between the verifier's and the last.
    """
    parsed = parse_note(note)
    head = parse_tree_head(parsed.text)
    if head.origin != verifier.name:
        raise ProofError(f"a head of the log {head.origin!r:.80}; the key that you named is for {verifier.name!r:.80}")
    inside = [r for r in rotations if r.number < head.size]
    keys = _keys(verifier, inside, first)
    _check_signer(parsed, verifier, keys, inside)
    last = Verifier(verifier.name, keys[-1])
    if verifier.public_key == last.public_key:
        return f"signed by {last.name} (key id {last.key_id.hex()})"
    passed = inside[_first_after(keys, inside, verifier.public_key) :]
    for rotation in passed:
        if rotation.revoked:
            raise CannotTell(
                f"entry {rotation.number} (key) revokes a key between the one that you named and the one that signed: "
                "who holds it could have made this log; get the new key from the log's owner and name that"
            )
    through = ", ".join(str(r.number) for r in passed)
    who = "the key that you named" if len(passed) == 1 else "each by the key before, from the one that you named"
    entries = "entry" if len(passed) == 1 else "entries"
    return f"signed by {last.name} (key id {last.key_id.hex()}) through {entries} {through} (key), signed by {who}"


def _keys(verifier: Verifier, rotations: Sequence[Rotation], first: bytes | None) -> list[bytes]:
    """K_0 to K_n, without K_0 where nobody knows it, once the signatures over them are checked."""
    named = verifier.public_key
    if not rotations:
        return [named if first is None else first]
    trace_id = _trace_id(verifier.name)
    start = rotations[0]
    if first is None:
        message = rotation_message(trace_id, named, start.public_key, start.revoked)
        first = named if _is_signature(named, start.old_signature, message) else None
    check_chain(trace_id, first, rotations)
    return ([] if first is None else [first]) + [r.public_key for r in rotations]


def _check_signer(note: Note, verifier: Verifier, keys: Sequence[bytes], rotations: Sequence[Rotation]) -> None:
    """ProofError unless the last of the keys signed the note, and the verifier's is one of them."""
    named = verifier.public_key
    signed = [key for key in dict.fromkeys((*keys, named)) if is_signed_by(note, Verifier(verifier.name, key))]
    if named not in keys or not signed:
        raise ProofError(_unknown_key(note, verifier, named in signed))
    if keys[-1] not in signed:
        later = rotations[_first_after(keys, rotations, signed[-1])]
        raise ProofError(
            f"signed by the key {signed[-1].hex()}, which entry {later.number} (key) {later.verb}: heads from there on "
            f"are signed by {later.public_key.hex()}, and this one is not"
        )


def _first_after(keys: Sequence[bytes], rotations: Sequence[Rotation], key: bytes) -> int:
    """Which rotation replaces a key; as many as there are for the last one."""
    return keys.index(key) + len(rotations) - (len(keys) - 1)  # one further where the first key is not known


def _unknown_key(note: Note, verifier: Verifier, is_signed: bool) -> str:
    mine = f"the key that you named (key id {verifier.key_id.hex()})"
    if is_signed:
        return f"signed by {mine}, and the log's own entries name other keys"
    found = [f"{s.name} (key id {s.key_id.hex()})" for s in note.signatures]
    more = f" and {len(found) - MAX_NAMED_SIGNERS} more" if len(found) > MAX_NAMED_SIGNERS else ""
    return f"signed by {', '.join(found[:MAX_NAMED_SIGNERS]):.300}{more}, not by {mine}, and no key entry leads there"


def is_signed_by(note: Note, verifier: Verifier) -> bool:
    """Whether the key signed the note. ProofError where its line is there and its signature fails."""
    lines = [s for s in note.signatures if (s.name, s.key_id) == (verifier.name, verifier.key_id)]
    for line in lines:
        if not verifier.is_signed(note.text, line.signature):
            raise ProofError(f"the signature of {line.name} (key id {line.key_id.hex()}) does not fit the text")
    return bool(lines)


def _is_signature(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _trace_id(origin: str) -> bytes:
    prefix, _, name = origin.rpartition("/")
    try:
        found = bytes.fromhex(name)
    except ValueError:
        found = b""
    if prefix != "fgtrac" or len(found) != 16:
        raise ProofError(f"the log {origin!r:.80} has key entries, and is no trace: that is named fgtrac/TRACE-ID")
    return found
