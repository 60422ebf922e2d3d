"""Whether witnesses have seen the head of a bundle: its check `witness`, and a note where nobody was named."""

from __future__ import annotations

from collections.abc import Sequence

from fgtrac.events.schema import decode_event
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import Bundle
from fgtrac.verify.checks import Checks
from fgtrac.verify.keys import is_about_keys, rotations_of
from fgtrac.verify.quorum import Quorum, unread_lines
from fgtrac.verify.report import Report
from fgtrac.verify.since import is_followed


def read_quorum(keys: Sequence[str], needed: int | None = None) -> Quorum | None:
    """The witnesses that vkeys, or files that hold them, name, and how many are needed (default: all); None for no
    keys. ValueError for what is no such key, and for a number that they cannot reach."""
    if not keys:
        if needed is not None:
            raise ValueError("--quorum says how many of the witnesses named with --witness-key; name them")
        return None
    from fgtrac.anchor.witness import read_cosigner  # which loads what talks to a network

    return Quorum.of(tuple(read_cosigner(key) for key in keys), needed)


def with_witnesses(
    report: Report, bundle: Bundle, quorum: Quorum | None, trace_id: bytes, verifier: Verifier | None
) -> Report:
    """The report on a bundle, and what the witnesses said of its head; `verifier` is whose signature counts."""
    note = bundle.proof.note
    if quorum is None:
        return Report(report.findings, (*report.notes, *unread_lines(note)))
    checks = Checks()
    checks.make("witness", lambda: quorum.check(note, _log_keys(bundle, quorum, trace_id, verifier)))
    return Report((*report.findings, *checks.findings), report.notes)


def _log_keys(bundle: Bundle, quorum: Quorum, trace_id: bytes, verifier: Verifier | None) -> set[bytes]:
    """The log's keys as far as they can be known here: the verifier's, those that entries in the bundle name, and those
    of the witnesses that signed a `key` entry."""
    shown = [(entry.number, decode_event(entry.entry)) for entry in bundle.entries if is_about_keys(entry.entry)]
    found = {event["public_key"] for _, event in shown} | ({verifier.public_key} if verifier else set())
    keys, rotations = [cosigner.public_key for cosigner in quorum.cosigners], rotations_of(shown)
    return found | {key for key in keys for rotation in rotations if is_followed(trace_id, key, rotation)}
