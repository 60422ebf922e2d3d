"""The check `since`: the present log begins with the very entries of an older head that the verifier has kept."""

from __future__ import annotations

from collections.abc import Sequence

from fgtrac.errors import FormatError, ProofError
from fgtrac.tlog.merkle import check_consistency, prove_consistency
from fgtrac.tlog.note import TreeHead, Verifier, parse_note, parse_tree_head, verify_note
from fgtrac.tlog.proof import HEADER, parse_proof
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.tree import Log


def head_note_of(data: bytes) -> bytes:
    """The signed tree head in a file: a note itself (a copy of `checkpoint`), or that of a tlog-proof or a bundle.
    FormatError for anything else."""
    if data.startswith(HEADER.encode()):
        try:
            note = parse_proof(data.decode()).note
        except UnicodeDecodeError as error:
            raise FormatError(f"the proof is no UTF-8: {error.reason} at byte {error.start}") from error
    else:
        note = parse_bundle(data).proof.note if data.lstrip()[:1] == b"{" else data
    parse_tree_head(parse_note(note).text)
    return note


def check_since(note: bytes, named: str, log: Log, signers: Sequence[bytes]) -> str:
    """ProofError unless `log` extends the tree whose head `note` is; `named` is its file, `signers` the public keys
    that sign heads of that size or more, by a log whose signature and entries have been checked.

    CannotTell where none of them signed the older head: anybody may have written it, or who holds a key that had been
    replaced. The proof is RFC 6962's (section 2.1.2), made and checked as by somebody who has the two roots only.
    """
    old, new = parse_tree_head(parse_note(note).text), log.head
    if old.origin != new.origin:
        raise ProofError(f"{named} is a head of the log {old.origin!r:.80}, and this one is {new.origin!r:.80}")
    try:
        verify_note(note, [Verifier(old.origin, key) for key in signers])
    except ProofError as error:
        raise CannotTell(f"{named} is a head that the log's key did not sign, so it says nothing: {error}") from error
    if old.size > new.size:
        raise ProofError(
            f"{named} has {old.size} entries, and this log {new.size}: it was rolled back to an older head or truncated"
        )
    if old.size == 0:
        return f"{named} is a head of no entries, which every log extends"
    path = prove_consistency(old.size, new.size, log.nodes)
    try:
        check_consistency(old.size, old.root, new.size, new.root, path)
    except ProofError as error:
        raise ProofError(_fork(named, old, log)) from error
    return (
        f"the first {old.size} of {new.size} entries are those of {named}, root {old.root.hex()}: a consistency proof "
        f"of {len(path)} hashes leads from it to {new.root.hex()}"
    )


def _fork(named: str, old: TreeHead, log: Log) -> str:
    reached = log.root_at(old.size).hex()
    return (
        f"a fork: over the first {old.size} entries {named} has the root {old.root.hex()}, and this log {reached}; "
        "the log's keys signed both, so the past was rewritten after one of them"
    )
