"""Signed notes, verifier keys and tree heads: C2SP signed-note and tlog-checkpoint, byte for byte.

A tree head is a note whose text is the log's origin, size and root; the C2SP specification calls it a checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fgtrac.errors import FormatError, ProofError

ED25519 = 1
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
DASH = "\N{EM DASH}"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")  # U+007F is allowed


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who, the first four bytes of whose key's hash, and the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text (with its final newline) and the signatures over it."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key that somebody trusts: its name and its 32-byte Ed25519 public key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || newline || type || key), the first four bytes."""
        return key_id(self.name, ED25519, self.public_key)

    def is_signed(self, text: str, signature: bytes) -> bool:
        """Whether `signature` is this key's over the text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class TreeHead:
    """A log's origin, its number of entries, and the Merkle root over them."""

    origin: str
    size: int
    root: bytes


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """The four bytes that name a key in a signature line."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + public_key).digest()[:4]


def is_key_name(name: str) -> bool:
    """A key name is not empty, is encodable as UTF-8, and has no white space (Unicode's), control or plus sign."""
    return bool(name) and not any(c == "+" or c.isspace() or c < " " or "\ud800" <= c <= "\udfff" for c in name)


def format_vkey(verifier: Verifier) -> str:
    """`name+keyid+base64(type || key)`."""
    return write_vkey(verifier.name, ED25519, verifier.public_key)


def write_vkey(name: str, kind: int, public_key: bytes) -> str:
    """The vkey of a key of any type."""
    material = base64.b64encode(bytes((kind,)) + public_key).decode()
    return f"{name}+{key_id(name, kind, public_key).hex()}+{material}"


def split_vkey(text: str, what: str) -> tuple[str, str, bytes]:
    """A vkey's name, key id in hex, and type and key, as they stand. FormatError where the last is no base64."""
    name, _, rest = text.partition("+")
    identity, _, material = rest.partition("+")
    return name, identity, decode_base64(material, what)


def parse_vkey(text: str) -> Verifier:
    """The verifier that a vkey names. FormatError for anything that `format_vkey` would not have written."""
    name, identity, raw = split_vkey(text, "a verifier key")
    if not is_key_name(name) or len(raw) != 33 or raw[0] != ED25519:
        raise FormatError(f"{text!r:.120} is no Ed25519 verifier key name+keyid+base64")
    verifier = Verifier(name, raw[1:])
    if identity != verifier.key_id.hex():
        raise FormatError(
            f"the verifier key says key id {identity!r:.20}; its name and key give {verifier.key_id.hex()}"
        )
    return verifier


def decode_base64(text: str, what: str) -> bytes:
    """Standard base64 with padding, canonical. FormatError otherwise."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{what}: {text!r:.80} is no base64: {error}") from error
    if base64.b64encode(raw).decode() != text:
        raise FormatError(f"{what}: {text!r:.80} is not canonical base64")
    return raw


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> Signature:
    """The signature of a note's text under `name`. ValueError for a name that a note cannot carry."""
    if not is_key_name(name):
        raise ValueError(f"{name!r} is no key name: it has white space or a plus sign, or is empty")
    public = key.public_key().public_bytes_raw()
    return Signature(name, key_id(name, ED25519, public), key.sign(text.encode()))


def format_signatures(signatures: Sequence[Signature]) -> bytes:
    """Signature lines, as they end a note."""
    lines = [f"{DASH} {s.name} {base64.b64encode(s.key_id + s.signature).decode()}\n" for s in signatures]
    return "".join(lines).encode()


def parse_signatures(data: bytes) -> tuple[Signature, ...]:
    """The signatures of lines without their note. FormatError where there are none, or anything else."""
    note = parse_note(b"\n\n" + data)
    if note.text != "\n":
        raise FormatError("an empty line among signature lines")
    return note.signatures


def format_note(note: Note) -> bytes:
    """The note's bytes: text, an empty line, the signature lines."""
    return f"{note.text}\n".encode() + format_signatures(note.signatures)


def parse_note(data: bytes) -> Note:
    """A note's text and signatures. FormatError for what is no note; unknown signatures are kept as they are."""
    if len(data) > MAX_NOTE_BYTES:
        raise FormatError(f"a note of {len(data)} bytes; the most is {MAX_NOTE_BYTES}")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the note is no UTF-8: {error.reason} at byte {error.start}") from error
    if _CONTROL.search(whole):
        raise FormatError("the note has control characters")
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n"):
        raise FormatError("the note has no empty line before its signatures, or does not end in a newline")
    text, lines = whole[: cut + 1], whole[cut + 2 :].split("\n")[:-1]
    if not lines or len(lines) > MAX_SIGNATURES:
        raise FormatError(f"the note has {len(lines)} signature lines; it has 1 to {MAX_SIGNATURES}")
    return Note(text, tuple(_parse_signature(line) for line in lines))


def _parse_signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != DASH or not is_key_name(parts[1]):
        raise FormatError(f"{line!r:.100} is no signature line")
    raw = decode_base64(parts[2], "a signature line")
    if len(raw) < 5:
        raise FormatError(
            f"the signature of {parts[1]!r:.60} has {len(raw)} bytes, fewer than a key id and a signature"
        )
    return Signature(parts[1], raw[:4], raw[4:])


def with_signatures(note: bytes, lines: Sequence[Signature]) -> bytes:
    """The note with these lines behind its own; of each name and key id the first line stays, and no other is added.
    FormatError for what is no note, ValueError where it would have more lines than a note may have."""
    parsed = parse_note(note)
    signatures = list(parsed.signatures)
    for line in lines:
        if (line.name, line.key_id) not in {(s.name, s.key_id) for s in signatures}:
            signatures.append(line)
    if len(signatures) > MAX_SIGNATURES:
        raise ValueError(f"a note of {len(signatures)} signature lines; the most is {MAX_SIGNATURES}: leave some out")
    return format_note(Note(parsed.text, tuple(signatures)))


def verify_note(data: bytes, verifiers: Sequence[Verifier]) -> Note:
    """The note, once at least one of the verifiers' signatures has been checked and none of them is wrong.

    Lines of unknown keys are ignored, as the specification asks. FormatError for what is no note, ProofError for one
    that no verifier signed or whose signature fails.
    """
    note = parse_note(data)
    known = {(v.name, v.key_id): v for v in verifiers}
    signed = False
    for line in note.signatures:
        verifier = known.get((line.name, line.key_id))
        if verifier is None:
            continue
        if not verifier.is_signed(note.text, line.signature):
            raise ProofError(f"the signature of {line.name} (key id {line.key_id.hex()}) does not fit the text")
        signed = True
    if not signed:
        wanted = ", ".join(f"{v.name} (key id {v.key_id.hex()})" for v in verifiers)
        found = ", ".join(f"{s.name} (key id {s.key_id.hex()})" for s in note.signatures)
        raise ProofError(f"signed by {found:.200}, not by {wanted:.200}")
    return note


def format_tree_head(head: TreeHead) -> str:
    """A tree head's text: origin, decimal size, base64 root."""
    return f"{head.origin}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def parse_tree_head(text: str) -> TreeHead:
    """The tree head of a note's text. FormatError for any other text; extension lines are not accepted."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise FormatError(f"a tree head has three lines (origin, size, root), not {text!r:.100}")
    if not (lines[1].isascii() and lines[1].isdigit() and len(lines[1]) < 20):
        raise FormatError(f"a tree head's size is a decimal number, not {lines[1]!r:.40}")
    root = decode_base64(lines[2], "a tree head's root")
    head = TreeHead(lines[0], int(lines[1]), root)
    if len(root) != 32 or format_tree_head(head) != text:
        raise FormatError(f"a tree head is written in one way only; {text!r:.100} is not it")
    return head
