"""Forge the head: it claims another root under the old signature.

The signature is over the text of the head, root and all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.demo.forge import head_of, put
from fgtrac.tlog.note import Note, format_note, format_tree_head, parse_note
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    note = parse_note(trace.read("checkpoint"))
    text = format_tree_head(replace(head_of(trace), root=bytes(32)))
    put(trace, "checkpoint", format_note(Note(text, note.signatures)))
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
