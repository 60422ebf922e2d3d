"""C2SP tlog-proof: written in one way, and read in no other."""

from __future__ import annotations

import pytest

from fgtrac.errors import FormatError
from fgtrac.tlog.proof import TlogProof, format_proof, parse_proof

PROOF = TlogProof(7, (b"a" * 32, b"b" * 32), "origin\n8\nroot\n\n\N{EM DASH} name AAAA\n".encode())
TEXT = format_proof(PROOF)


def test_a_proof_is_written_as_the_specification_says() -> None:
    assert TEXT == (
        "c2sp.org/tlog-proof@v1\nindex 7\nYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n"
        "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=\n\norigin\n8\nroot\n\n\N{EM DASH} name AAAA\n"
    )
    assert parse_proof(TEXT) == PROOF
    empty = TlogProof(0, (), b"note\n")
    assert parse_proof(format_proof(empty)) == empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("index 7", "index 07"),
        TEXT.replace("index 7", "index -7"),
        TEXT.replace("index 7", "index \u0667"),
        TEXT.replace("index 7", "index " + "9" * 20),
        TEXT.replace("index 7\n", "extra AAAA\nindex 7\n"),
        TEXT.replace("YWFh", "YWF", 1),
        TEXT.replace("WE=\n", "WF=\n", 1),
        TEXT.replace("\nindex 7\n", "\nindex 7\n" + "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=\n" * 64),
        TEXT.replace("\n\n", "\n"),
        TEXT + "\udc80",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_proof(text)
