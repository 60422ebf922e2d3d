"""What `verify` says of anchors: the heads that outside witnesses saw, held against the log as it is now.

heads    every head in receipts/ is one of this log, signed by its key
rfc3161  time stamps over those heads, by authorities that lead to the roots that the verifier names
witness  cosignatures of the witnesses that the verifier names, of as many as it asks for
evm      heads that contracts keep, on chains whose nodes the verifier names

Each of the last three is decided alone, whatever was changed or removed of the others. They are made where the trace
has such receipts, or the verifier names somebody of that kind; without the one or the other nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fgtrac.api.audit import HEADS, Demand
from fgtrac.api.chain_audit import ChainCheck
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.verify.anchored_heads import check_heads
from fgtrac.verify.anchors import Tally, head_in, read_receipt
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.receipts import EVM, RFC3161, WITNESS, anchored_sizes, note_path, parse_path, paths_of
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.since import check_extends
from fgtrac.verify.tree import Log
from fgtrac.verify.updates import counted
from fgtrac.verify.witnesses import check_witnesses

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

NEEDS = ("entries", "run")


def anchor_demands(names: Iterable[str], trusted: TrustedAnchors) -> list[Demand]:
    """The checks of anchors for a trace of these files. ValueError for keys, addresses, URLs and numbers that are none,
    FileNotFoundError and FormatError for files of roots."""
    names = list(names)
    roots, quorum, chains = trusted.read_roots(), trusted.read_quorum(), ChainCheck(trusted)
    made: list[tuple[str, bool, Callable[[TraceFiles, Audit], str]]] = [
        (HEADS, bool(anchored_sizes(names)), check_heads),
        (RFC3161, bool(roots or paths_of(names, RFC3161)), lambda trace, audit: _check_stamps(trace, audit, roots)),
        (WITNESS, bool(quorum or paths_of(names, WITNESS)), lambda trace, audit: check_witnesses(trace, audit, quorum)),
        (EVM, bool(trusted.nodes or paths_of(names, EVM)), chains.examine),
    ]
    return [Demand(name, examine, NEEDS) for name, is_there, examine in made if is_there]


def _check_stamps(trace: TraceFiles, audit: Audit, roots: tuple[Certificate, ...]) -> str:
    """In words, what time stamps lead to the roots. ProofError for one that is altered, over other bytes than the head
    beside it, or of a head that is none of this log; CannotTell where it leads elsewhere, and without any."""
    assert audit.log is not None
    tally = Tally()
    for path in paths_of(trace.names(), RFC3161):
        with tally.taking(path):
            tally.held.append(_check_stamp(trace, path, audit.log, roots))
    if not (tally.held or tally.refuted or tally.unknown):
        raise CannotTell("no time stamp: never anchored there, or the receipt vanished")
    if tally.unknown and not tally.refuted and not roots:
        raise CannotTell(
            f"{counted(len(tally.unknown), 'time stamp')} of authorities, none of which is named: name the root "
            "certificates of those that you trust with --tsa-root"
        )
    return tally.conclude(RFC3161, audit)


def _check_stamp(trace: TraceFiles, path: str, log: Log, roots: tuple[Certificate, ...]) -> Witnessed:
    from fgtrac.anchor.rfc3161 import check_stamp

    receipt = parse_path(path)
    assert receipt is not None
    note = read_receipt(trace, note_path(receipt.size))
    check_extends(head_in(note, path), "the head that is stamped", log)
    stamp = check_stamp(read_receipt(trace, path), note, roots)
    ended = f", whose certificates ended on {stamp.until:%Y-%m-%d}" if stamp.until < datetime.now(UTC) else ""
    by = f"{stamp.by} (root {stamp.root}{ended})"
    return Witnessed(receipt.size, stamp.time.timestamp(), by, accuracy_s=stamp.accuracy_s or 0.0)
