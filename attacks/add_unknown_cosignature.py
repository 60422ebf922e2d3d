"""Add an unknown cosignature: a line by a key that nobody knows joins the head's signatures.

Nothing catches it, and nothing should: the signed-note specification says to ignore such lines. What counts is the
signature by the key that the verifier named, and the answer says whose it was.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import put
from fgtrac.tlog.note import Note, Signature, format_note, parse_note
from lying import Act, Stage, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    note = parse_note(trace.read("checkpoint"))
    line = Signature("witness.example", b"\x01\x02\x03\x04", bytes(72))
    put(trace, "checkpoint", format_note(Note(note.text, (*note.signatures, line))))
    yield passes(stage.verify(trace), design="signature lines of unknown keys")


if __name__ == "__main__":
    main(tell)
