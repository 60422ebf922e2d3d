"""The check `since`: the present log begins with the very entries of an older head that the verifier has kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import decode_event
from fgtrac.tlog.merkle import check_consistency, prove_consistency
from fgtrac.tlog.note import TreeHead, Verifier, parse_note, parse_tree_head
from fgtrac.tlog.proof import HEADER, parse_proof
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.keys import (
    Rotation,
    check_chain,
    follow,
    is_about_keys,
    is_signed_by,
    rotations_of,
    signers_from,
)
from fgtrac.verify.tree import Log


@dataclass(frozen=True, slots=True)
class KeptHead:
    """An older head in its signed note, and the rotations that a bundle carries with it; nothing of it is checked."""

    note: bytes
    head: TreeHead
    rotations: tuple[Rotation, ...] = ()


@dataclass(frozen=True, slots=True)
class LogKeys:
    """Who signs the heads of a log that has been checked: its `run` entry's key and the `key` entries; `distrusted`
    are public keys that the verifier believes no longer, whatever the log says of them."""

    trace_id: bytes
    first: bytes
    rotations: Sequence[Rotation] = ()
    distrusted: frozenset[bytes] = frozenset()

    @property
    def all(self) -> list[bytes]:
        """K_0 to K_n."""
        return signers_from(self.first, self.rotations, 0)

    def doubt(self, key: bytes, size: int) -> str:
        """Why nothing follows from what one of the keys signed over so many entries; empty where something does."""
        if key in self.distrusted:
            return _revoked_here(key)
        after = self.rotations[self.all.index(key) :]  # empty for the last key
        if after and after[0].revoked:
            return (
                f"the key {key.hex()}, which entry {after[0].number} (key) of this log revokes: who holds it can sign"
            )
        if after and after[0].number < size:
            return f"the key {key.hex()}, which entry {after[0].number} (key) of this log replaced before that size"
        return ""


def read_kept_head(data: bytes) -> KeptHead:
    """The signed tree head in a file: a note itself (a copy of `checkpoint`), or that of a tlog-proof or a bundle.
    FormatError for anything else."""
    note = data
    rotations: tuple[Rotation, ...] = ()
    if data.startswith(HEADER.encode()):
        try:
            note = parse_proof(data.decode()).note
        except UnicodeDecodeError as error:
            raise FormatError(f"the proof is no UTF-8: {error.reason} at byte {error.start}") from error
    elif data.lstrip()[:1] == b"{":
        bundle = parse_bundle(data)
        shown = [(e.number, decode_event(e.entry)) for e in bundle.entries if is_about_keys(e.entry)]
        note, rotations = bundle.proof.note, rotations_of(shown)
    return KeptHead(note, parse_tree_head(parse_note(note).text), rotations)


def check_not_behind(
    kept: KeptHead, named: str, head: TreeHead, verifier: Verifier, distrusted: frozenset[bytes] = frozenset()
) -> None:
    """ProofError where the verifier's key leads to who signed the kept head, and that is larger than `head`, by
    whomever `head` is signed: as a log looks that was rolled back to before its key was replaced."""
    if not kept.head.origin == head.origin == verifier.name or kept.head.size <= head.size:
        return
    if any(rotation.public_key in distrusted for rotation in kept.rotations):
        return
    try:
        follow(verifier, kept.note, kept.rotations)
    except (ProofError, CannotTell):
        return  # the kept head says nothing, and the check of the signature what there is to say of the other
    raise ProofError(_rolled_back(kept.head, named, head))


def check_since(kept: KeptHead, named: str, log: Log, keys: LogKeys) -> str:
    """ProofError unless `log`, whose signature and entries have been checked, extends the tree of the kept head, which
    is in the file `named`.

    CannotTell where nobody signed that whose word counts: anybody may have written it, or who holds a key that was
    replaced or revoked.
    """
    old, new = kept.head, log.head
    check_origin(old, named, log)
    doubts = _signers(kept, named, keys)
    if not doubts:
        raise CannotTell(_unknown(kept, named, new))
    try:
        return check_extends(old, named, log)
    except ProofError as error:
        if all(doubts):
            raise CannotTell(
                f"{named} contradicts this log, and is signed by {doubts[0]}; so it says nothing"
            ) from error
        if old.size > new.size:
            raise
        raise ProofError(f"{error}; the log's keys signed both, so the past was rewritten after one of them") from error


def check_origin(old: TreeHead, named: str, log: Log) -> None:
    """ProofError with both names where a head is one of another log."""
    if old.origin != log.head.origin:
        raise ProofError(f"{named} is a head of the log {old.origin!r:.80}, and this one is {log.head.origin!r:.80}")


def check_extends(old: TreeHead, named: str, log: Log) -> str:
    """Why a log whose entries have been checked extends a tree head, by whomever that is signed, in words. The proof is
    RFC 6962's (section 2.1.2), made and checked as by somebody who has the two roots only.

    ProofError with both roots where it does not: the head is of another log, the log is shorter, or a fork.
    """
    new = log.head
    check_origin(old, named, log)
    if old.size > new.size:
        raise ProofError(_rolled_back(old, named, new))
    if old.size == 0:
        return f"{named} is a head of no entries, which every log extends"
    path = prove_consistency(old.size, new.size, log.nodes)
    try:
        check_consistency(old.size, old.root, new.size, new.root, path)
    except ProofError as error:
        raise ProofError(
            f"a fork: over the first {old.size} entries {named} has the root {old.root.hex()}, and this log "
            f"{log.root_at(old.size).hex()}; the consistency proof of {len(path)} hashes from {old.size} to {new.size} "
            f"entries, with the root {new.root.hex()}, fails"
        ) from error
    return (
        f"the first {old.size} of {new.size} entries are those of {named}, root {old.root.hex()}: a consistency proof "
        f"of {len(path)} hashes leads from it to {new.root.hex()}"
    )


def _signers(kept: KeptHead, named: str, keys: LogKeys) -> list[str]:
    """For each key of the log, or that a bundle leads to from one of these, which signed the kept head: why nothing
    follows from that, or nothing."""
    doubts = {key: keys.doubt(key, kept.head.size) for key in keys.all} | _later_keys(kept, named, keys)
    note = parse_note(kept.note)
    try:
        return [doubts[key] for key in doubts if is_signed_by(note, Verifier(kept.head.origin, key))]
    except ProofError as error:
        raise CannotTell(f"{named} is no signed head, so it says nothing: {error}") from error


def _later_keys(kept: KeptHead, named: str, keys: LogKeys) -> dict[bytes, str]:
    """The keys that the rotations beside a kept head lead to from one of the log's, each as `doubt` says. They are
    believed for their signatures, wherever they stand."""
    found: dict[bytes, str] = {}
    for rotation in kept.rotations:
        new, number = rotation.public_key, rotation.number
        if new in keys.all:
            continue
        old = next((key for key in list(found)[-1:] or keys.all if is_followed(keys.trace_id, key, rotation)), None)
        if old is None or number >= kept.head.size:
            break
        found[new] = found[old] if old in found else keys.doubt(old, number)
        if new in keys.distrusted:
            found[new] = _revoked_here(new)
        elif rotation.revoked and not found[new]:
            found[new] = (
                f"a key that entry {number} (key) in {named} puts in a revoked one's place: ask the log's owner for "
                "the new key and name it with --key"
            )
    return found


def _revoked_here(key: bytes) -> str:
    return f"the key {key.hex()}, which you have revoked: who holds it can sign anything"


def is_followed(trace_id: bytes, old: bytes, rotation: Rotation) -> bool:
    """Whether a rotation puts its key in the place of `old`, by the signatures of both."""
    try:
        check_chain(trace_id, old, [rotation])
    except ProofError:
        return False  # it is another key's
    return True


def _unknown(kept: KeptHead, named: str, head: TreeHead) -> str:
    who = ", ".join(f"{s.name} (key id {s.key_id.hex()})" for s in parse_note(kept.note).signatures)
    if kept.head.size <= head.size:
        return f"{named} is a head that none of the log's keys signed, so it says nothing: signed by {who:.200}"
    return (
        f"{named} has {kept.head.size} entries, and this log {head.size}; it is signed by {who:.200}, by none of this "
        "log's keys up to here. It may be by a later key of this log, which was rolled back: name that key with --key"
    )


def _rolled_back(old: TreeHead, named: str, head: TreeHead) -> str:
    return f"{named} has {old.size} entries, and this log {head.size}: it was rolled back to an older head or truncated"
