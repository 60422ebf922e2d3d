"""Inclusion proofs as files: c2sp.org/tlog-proof@v1, a leaf's index, its audit path, and the signed tree head.

c2sp.org/tlog-proof@v1\\n  index N\\n  base64 hash\\n ...  \\n  the signed note as it stands
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from fgtrac.errors import FormatError
from fgtrac.tlog.note import decode_base64

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PATH = 64


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Where a leaf stands, the leaf's sibling and the hashes above it, and the note whose root they lead to."""

    index: int
    path: tuple[bytes, ...]
    note: bytes


def format_proof(proof: TlogProof) -> str:
    """The proof's text. ValueError for a note that is no UTF-8."""
    lines = [HEADER, f"index {proof.index}", *(base64.b64encode(h).decode() for h in proof.path), "", ""]
    return "\n".join(lines) + proof.note.decode()


def parse_proof(text: str) -> TlogProof:
    """The proof of a text. FormatError for anything that `format_proof` would not have written; `extra` lines, which
    nothing authenticates, are refused."""
    above, blank, note = text.partition("\n\n")
    lines = above.split("\n")
    if not blank or len(lines) < 2 or lines[0] != HEADER:
        raise FormatError(f"a proof begins with {HEADER} and an index, not {text!r:.60}")
    word, _, number = lines[1].partition(" ")
    if word != "index" or not (number.isascii() and number.isdigit() and len(number) < 20):
        raise FormatError(f"a proof's second line is `index N`, not {lines[1]!r:.60}")
    if len(lines) - 2 > MAX_PATH:
        raise FormatError(f"a proof has {len(lines) - 2} hashes; no tree asks for more than {MAX_PATH}")
    path = tuple(decode_base64(line, "a proof's hash") for line in lines[2:])
    try:
        proof = TlogProof(int(number), path, note.encode())
    except UnicodeEncodeError as error:
        raise FormatError(f"a proof's note is no text: {error.reason}") from error
    if any(len(h) != 32 for h in path) or format_proof(proof) != text:
        raise FormatError("a proof is written in one way only, with hashes of 32 bytes; this is not it")
    return proof
