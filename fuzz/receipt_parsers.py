"""Parsers of what outside witnesses hand back."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.errors import FormatError, ProofError
from fgtrac.tlog import cosignature, note
from log_parsers import text_target
from target import Real, Target, filled

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
COSIGNER = cosignature.Cosigner("w", KEY.public_key().public_bytes_raw())


def line_over(head: bytes) -> note.Signature:
    """The cosignature of a head, by the witness that is looked for."""
    signed = KEY.sign(cosignature.cosignature_message(note.parse_note(head).text, 1))
    return note.Signature(COSIGNER.name, COSIGNER.key_id, (1).to_bytes(8, "big") + signed)


def cosigned_heads(real: Real) -> Iterator[bytes]:
    for head in real.files("checkpoint"):
        yield note.with_signatures(head, [line_over(head)])


def witness_answers(real: Real) -> Iterator[bytes]:
    for head in real.files("checkpoint"):
        yield note.format_signatures([line_over(head), *note.parse_note(head).signatures])


def worst_lines() -> Iterator[bytes]:
    """As many lines as fit, of the witness that is looked for; and one long one."""
    mine = note.format_signatures([note.Signature(COSIGNER.name, COSIGNER.key_id, bytes(72))])
    yield filled(mine)
    yield mine * note.MAX_SIGNATURES
    yield filled(b"\n")
    yield "— w ".encode() + filled(b"A", 900_000) + b"\n"


TARGETS = [
    text_target(
        "cosigner's key", cosignature.parse_cosigner, cosignature.format_cosigner,
        seeds=lambda r: [cosignature.format_cosigner(COSIGNER).encode()],
        worst=lambda: [filled(b"+"), b"w+00000000+" + filled(b"A"), filled(b"w")],
    ),
    Target(
        "cosigned head", lambda data: cosignature.cosignature_time(data, COSIGNER), cosigned_heads,
        refusals=(FormatError, ProofError),
        worst=lambda: (filled(b"a\n", 1 << 19) + b"\n" + lines for lines in worst_lines()),
    ),
    Target("answer of a witness", note.parse_signatures, witness_answers, note.format_signatures, worst=worst_lines),
]  # fmt: skip
