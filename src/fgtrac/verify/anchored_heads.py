"""The check `heads`: every head that the trace says was shown to somebody is a head of this very log."""

from __future__ import annotations

from fgtrac.errors import ProofError
from fgtrac.tlog.note import Verifier, parse_note
from fgtrac.verify.anchors import examine_all, head_in, read_receipt
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.keys import is_signed_by
from fgtrac.verify.receipts import NOTE, anchored_sizes, note_path, receipt_files
from fgtrac.verify.since import check_extends
from fgtrac.verify.updates import counted


def check_heads(trace: TraceFiles, audit: Audit) -> str:
    """Why every `receipts/SIZE/checkpoint` is a head of this log that its key in force signed, in words; needs the
    checks of `entries` and `run`. ProofError naming both roots where one is not, or is missing.

    A head without any receipt is a note: nobody can tell a pending anchor from one that was lost.
    """
    files = receipt_files(trace.names())
    sizes = anchored_sizes(trace.names())
    examine_all(map(note_path, sizes), lambda path: _check_head(trace, audit, path))
    answered = {file.size for file in files if file.kind != NOTE}
    audit.checks.notes += [
        f"receipts/{size}/ has no receipt: that anchor is pending, or its receipt was lost"
        for size in sizes
        if size not in answered
    ]
    which = f"of {sizes[0]} entries" if len(sizes) == 1 else f"from {sizes[0]} to {sizes[-1]} entries"
    return f"{counted(len(sizes), 'head')} in receipts/, {which}: signed by the log's key, and the log extends each"


def _check_head(trace: TraceFiles, audit: Audit, path: str) -> None:
    assert audit.log is not None
    note = read_receipt(trace, path)
    head = head_in(note, path)
    check_extends(head, "it", audit.log)
    key = audit.facts.signers_from(head.size)[0]
    if not is_signed_by(parse_note(note), Verifier(head.origin, key)):
        raise ProofError(f"not signed by {key.hex()}, the log's key at {head.size} entries")
    if (lines := len(parse_note(note).signatures)) > 1:
        raise ProofError(f"{lines} signature lines, and only the log's own belongs there: others were added later")
