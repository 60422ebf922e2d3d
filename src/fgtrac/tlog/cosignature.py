"""Cosignatures of witnesses over tree heads: C2SP tlog-cosignature, its timestamped Ed25519 form (type 0x04).

A witness cosigns a head after it has seen that the log only grew since the last one. Its line stands in the note beside
the log's own: an 8-byte time (seconds since 1970, by the witness's clock), then the signature over that and the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fgtrac.errors import FormatError, ProofError
from fgtrac.tlog.note import ED25519, Signature, is_key_name, key_id, parse_note, split_vkey, write_vkey

TIMESTAMPED_ED25519 = 4
TIMESTAMPED_ML_DSA = 6
SIGNATURE_BYTES = 8 + 64
MAX_TIME = 2**63 - 1
_OTHER_KINDS = {
    ED25519: "is the key of a log (type 0x01), and a witness has one of type 0x04",
    TIMESTAMPED_ML_DSA: "is an ML-DSA-44 key (type 0x06), which is not supported: name its Ed25519 key (0x04)",
}


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness whose cosignatures somebody counts: its name and its 32-byte Ed25519 public key."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || newline || 0x04 || key), the first four bytes."""
        return key_id(self.name, TIMESTAMPED_ED25519, self.public_key)


def format_cosigner(cosigner: Cosigner) -> str:
    """The cosigner's vkey: `name+keyid+base64(0x04 || key)`."""
    return write_vkey(cosigner.name, TIMESTAMPED_ED25519, cosigner.public_key)


def parse_cosigner(vkey: str) -> Cosigner:
    """The cosigner that a vkey names. FormatError for anything that `format_cosigner` would not have written; it says
    so where the vkey is of a kind that is known and not supported."""
    name, identity, raw = split_vkey(vkey, "a cosigner's key")
    if is_key_name(name) and raw[:1] and raw[0] in _OTHER_KINDS:
        raise FormatError(f"{vkey!r:.120} {_OTHER_KINDS[raw[0]]}")
    if not is_key_name(name) or len(raw) != 33 or raw[0] != TIMESTAMPED_ED25519:
        raise FormatError(f"{vkey!r:.120} is no cosigner's key name+keyid+base64 of type 0x04")
    cosigner = Cosigner(name, raw[1:])
    if identity != cosigner.key_id.hex():
        raise FormatError(
            f"the cosigner's key says key id {identity!r:.20}; its name and key give {cosigner.key_id.hex()}"
        )
    return cosigner


def cosignature_message(text: str, time: int) -> bytes:
    """What a cosigner signs: a header, the time in seconds since 1970, and the whole text of the note."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosignature_time(note: bytes, cosigner: Cosigner) -> int | None:
    """When a cosigner signed a note, in seconds since 1970 by its own clock; the earliest of several lines of the key,
    and None without one.

    FormatError for what is no note; ProofError where a line of that key does not fit, which spoils the whole note.
    """
    parsed = parse_note(note)
    mine = [s for s in parsed.signatures if (s.name, s.key_id) == (cosigner.name, cosigner.key_id)]
    return min((_time_of(line, parsed.text, cosigner) for line in mine), default=None)


def count_cosigners(note: bytes, cosigners: Sequence[Cosigner]) -> int:
    """How many of the cosigners signed a note, as `count_distinct` counts. Errors as in `cosignature_time`."""
    return count_distinct([c for c in cosigners if cosignature_time(note, c) is not None])


def count_distinct(cosigners: Sequence[Cosigner]) -> int:
    """How many witnesses these are: those that share a name or a public key count once, since what is signed does not
    say by whom."""
    groups: list[set[str | bytes]] = []
    for cosigner in cosigners:
        group: set[str | bytes] = {cosigner.name, cosigner.public_key}
        same = [g for g in groups if g & group]
        groups = [g for g in groups if not g & group] + [group.union(*same)]
    return len(groups)


def _time_of(line: Signature, text: str, cosigner: Cosigner) -> int:
    """The time in a cosigner's line, once it has been checked."""
    who = f"the cosignature of {line.name} (key id {line.key_id.hex()})"
    if len(line.signature) != SIGNATURE_BYTES:
        raise ProofError(f"{who} has {len(line.signature)} bytes, not {SIGNATURE_BYTES}")
    time = int.from_bytes(line.signature[:8], "big")
    if time > MAX_TIME:
        raise ProofError(f"{who} names the time {time}, more than {MAX_TIME}")
    try:
        key = Ed25519PublicKey.from_public_bytes(cosigner.public_key)
        key.verify(line.signature[8:], cosignature_message(text, time))
    except (InvalidSignature, ValueError) as error:
        raise ProofError(f"{who} does not fit the text") from error
    return time
