"""The check `witness`: heads that C2SP witnesses cosigned are heads of this log, and enough of them saw it.

A witness cosigns a head only after it has seen that the log grew from the last one (C2SP tlog-witness): two heads that
it cosigned are never of two histories. Its word counts whether or not the log's own signature is still beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from fgtrac.errors import ProofError
from fgtrac.tlog.cosignature import Cosigner, cosignature_time, count_distinct
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.verify.anchors import (
    SHOWN,
    by_service,
    examine_all,
    first_seen,
    head_in,
    judged,
    read_receipt,
    some,
    uncovered,
)
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.quorum import Quorum
from fgtrac.verify.receipts import WITNESS, note_path, paths_of, witness_name
from fgtrac.verify.sightings import Witnessed, utc
from fgtrac.verify.since import check_extends
from fgtrac.verify.tree import HEAD, Log
from fgtrac.verify.updates import counted

Seen = dict[Cosigner, dict[int, int]]  # by witness, when it first cosigned the head of each size


def check_witnesses(trace: TraceFiles, audit: Audit, quorum: Quorum | None) -> str:
    """In words, how much of the log as many of the witnesses saw as are asked for; needs the checks of `entries` and
    `run`.

    Counts their lines in the receipts, and in the notes of the newest head and of full seals. ProofError for a receipt
    that is malformed, moved or altered, for a cosigned head that is none of this log, and where a witness's key is the
    log's own; CannotTell where too few cosigned, and where nobody is named.
    """
    assert audit.log is not None
    log, names, seen = audit.log, trace.names(), Seen()
    if quorum is not None:
        quorum.check_independent(audit.facts.signers_from(0))
    cosigners = quorum.cosigners if quorum is not None else ()
    receipts = paths_of(names, WITNESS)
    sealed = [f"index/{size}/{HEAD}" for size in audit.facts.full_seals]
    others = [HEAD, *(path for path in sealed if path in names)]
    examine_all([*receipts, *others], lambda path: _read_note(read_receipt(trace, path), log, cosigners, seen))
    examine_all(receipts, lambda path: _check_place(trace, path, cosigners))
    if quorum is None:
        raise CannotTell(
            f"{counted(len(receipts), 'cosignature')} of witnesses, none of whom is named: name those whose "
            "word counts with --witness-key"
        )
    words = _conclude(audit, quorum, seen)
    known = {witness_name(cosigner.key_id) for cosigner in cosigners}
    foreign = [path for path in receipts if PurePosixPath(path).name not in known]
    if foreign:
        audit.checks.notes.append(f"{some(foreign)}: cosigned by witnesses that you did not name, and not counted")
    return words


def _conclude(audit: Audit, quorum: Quorum, seen: Seen) -> str:
    """In words, what each witness saw, and what as many as are asked for saw together: that is taken into `audit`.
    CannotTell where too few did."""
    broken = {c: words for c, sizes in seen.items() if (words := _contradiction(c, sizes))}
    alone = {
        c: judged(
            [Witnessed(s, time, c.name, excludes=True, counts=False) for s, time in sizes.items()], WITNESS, audit
        )
        for c, sizes in seen.items()
        if c not in broken
    }
    held = judged(together(alone, quorum.needed), WITNESS, audit)
    if not held:
        raise CannotTell("; ".join([*broken.values(), _too_few(quorum, seen)]))
    each = [one for heads in alone.values() for one in heads]
    told = [by_service(each, WITNESS)]
    if (count := count_distinct(quorum.cosigners)) > 1:
        newest = held[-1]
        told.append(f"{quorum.needed} of {count} together the first {newest.size} entries, by {newest.told()}")
    told += [*broken.values(), *uncovered(held, audit), audit.facts.announcements.told(held, each), SHOWN[WITNESS]]
    audit.witnessed += [*held, *each]
    return "; ".join(filter(None, told))


def _contradiction(cosigner: Cosigner, sizes: Mapping[int, int]) -> str:
    """Why a witness's word counts for nothing, where it does: it cosigned a smaller head later than a larger one."""
    larger: tuple[int, int] | None = None  # of the larger heads the one that was cosigned first
    for size in sorted(sizes, reverse=True):
        if larger is not None and sizes[size] > larger[1]:
            return (
                f"{cosigner.name} is not counted: it cosigned the head of {larger[0]} entries at {utc(larger[1])} and "
                f"that of {size} later, at {utc(sizes[size])}, and no witness that keeps its word goes back"
            )
        if larger is None or sizes[size] <= larger[1]:
            larger = size, sizes[size]
    return ""


def _check_place(trace: TraceFiles, path: str, cosigners: Sequence[Cosigner]) -> None:
    """ProofError unless a receipt is the head beside it with a line of the key that it is named after."""
    note = read_receipt(trace, path)
    size = head_in(note, path).size
    mine = [s for s in parse_note(note).signatures if witness_name(s.key_id) == PurePosixPath(path).name]
    if not mine:
        raise ProofError("no line of the key that it is named after: it was renamed, or the line was removed")
    for cosigner in cosigners:
        if cosigner.key_id == mine[0].key_id and cosigner.name != mine[0].name:
            raise ProofError(f"the line of {cosigner.name}'s key says {mine[0].name!r:.80}; it was altered")
    if not note.startswith(read_receipt(trace, note_path(size))):
        raise ProofError(f"not {note_path(size)} with a line behind it, which it was made of")


def _read_note(note: bytes, log: Log, cosigners: Sequence[Cosigner], seen: Seen) -> None:
    """Take the cosigners' lines in a note, once its head is known to be one of the log."""
    head = parse_tree_head(parse_note(note).text)
    times = {c: time for c in cosigners if (time := cosignature_time(note, c)) is not None}
    told = " and ".join(f"{c.name} cosigned at {utc(time)}" for c, time in times.items())
    check_extends(head, f"the head that {told}" if told else "it", log)
    for cosigner, time in times.items():
        sizes = seen.setdefault(cosigner, {})
        sizes[head.size] = min(time, sizes.get(head.size, time))


def together(alone: Mapping[Cosigner, Sequence[Witnessed]], needed: int) -> list[Witnessed]:
    """The heads that at least `needed` distinct cosigners saw, or a later one that extends them, each with the time by
    which so many had: that can be believed, where so many times can."""
    believed = {c: [one for one in heads if not one.doubt] for c, heads in alone.items()}
    sure = first_seen(_covered(believed, needed))
    return [sure.get(one.size, one) for one in _covered(alone, needed)]


def _covered(alone: Mapping[Cosigner, Sequence[Witnessed]], needed: int) -> list[Witnessed]:
    found = []
    seen = {c: {one.size: one.time_s for one in heads} for c, heads in alone.items() if heads}
    names = sorted(cosigner.name for cosigner in seen)
    who = " and ".join(names) if needed >= len(names) else f"at least {needed} of {', '.join(names)}"
    for size in sorted({size for sizes in seen.values() for size in sizes}):
        first = {c: min(t for s, t in sizes.items() if s >= size) for c, sizes in seen.items() if max(sizes) >= size}
        enough: list[Cosigner] = []
        for cosigner in sorted(first, key=lambda c: first[c]):
            enough.append(cosigner)
            if count_distinct(enough) >= needed:
                exact = count_distinct([c for c in seen if size in seen[c]]) >= needed
                found.append(Witnessed(size, first[cosigner], who, excludes=True, exact=exact))
                break
    return found


def _too_few(quorum: Quorum, seen: Seen) -> str:
    silent = ", ".join(f"{c.name} (key id {c.key_id.hex()})" for c in quorum.cosigners if c not in seen)
    asked = f"{quorum.needed} of the witnesses named are asked for"
    if not silent:
        return asked
    return f"{asked}, and there is no cosignature by {silent:.400}: never anchored there, or the receipt vanished"
