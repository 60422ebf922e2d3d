"""The demand `since`: a trace is held against an older head of it, which the verifier has kept."""

from __future__ import annotations

from pathlib import Path

from fgtrac.api.audit import SINCE, Demand
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.since import check_since, head_note_of
from fgtrac.verify.strict_json import MAX_BYTES


def since_demand(path: Path) -> Demand:
    """The check that a log extends the head in a file: a copy of its `checkpoint`, a bundle or a tlog-proof.

    FileNotFoundError, or FormatError for a file that holds none of these.
    """
    with path.open("rb") as file:
        note = head_note_of(file.read(MAX_BYTES + 1))
    size = parse_tree_head(parse_note(note).text).size

    def examine(_trace: TraceFiles, audit: Audit) -> str:
        assert audit.log is not None
        return check_since(note, path.name, audit.log, audit.facts.signers_from(size))

    return Demand(SINCE, examine, ("signature", "entries", "run"))
