"""Whether witnesses have seen the head of a bundle: its check `witness`, and a note where nobody was named."""

from __future__ import annotations

from collections.abc import Sequence

from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.verify.checks import Checks
from fgtrac.verify.quorum import Quorum
from fgtrac.verify.report import Report


def read_quorum(keys: Sequence[str], needed: int | None = None) -> Quorum | None:
    """The witnesses that vkeys, or files that hold them, name, and how many are needed (default: all); None for no
    keys. ValueError for what is no such key, and for a number that they cannot reach."""
    if not keys:
        if needed is not None:
            raise ValueError("--quorum says how many of the witnesses named with --witness-key; name them")
        return None
    from fgtrac.anchor.witness import read_cosigner  # which loads what talks to a network

    return Quorum.of(tuple(read_cosigner(key) for key in keys), needed)


def with_witnesses(report: Report, note: bytes, quorum: Quorum | None) -> Report:
    """The report on a bundle with the head `note`, and what the witnesses said of that."""
    if quorum is None:
        return Report(report.findings, (*report.notes, *_unread(note)))
    checks = Checks()
    checks.make("witness", lambda: quorum.check(note))
    return Report((*report.findings, *checks.findings), report.notes)


def _unread(note: bytes) -> list[str]:
    """What to do about the lines of a head that are not by its log."""
    parsed = parse_note(note)
    origin = parse_tree_head(parsed.text).origin
    others = sorted({line.name for line in parsed.signatures if line.name != origin})
    if not others:
        return []
    return [
        f"the head has signature lines of {', '.join(others):.200}, which nobody checked: where they are witnesses "
        "that you trust, name their keys with --witness-key"
    ]
