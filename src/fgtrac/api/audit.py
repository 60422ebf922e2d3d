"""The verb `verify`: the auditor's checks of the log, of the scores in it, and of what only the writing side knows.

erased-rows    after an erasure: no file is left that holds rows of an erased subject, or may
contributions  every recorded score is what the factors in the log give
plan           the plan of the newest seal says what the log says
journal        what is not sealed yet: whole, and where it is sealed already, the same
files          every file in the folder is one that the log explains
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fgtrac.api.erased_rows import check_erased_rows
from fgtrac.api.recompute import check_contributions
from fgtrac.commit.indexer import UNFINISHED
from fgtrac.commit.plan import SUFFIX, Plan, parse_plan
from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import decode_event
from fgtrac.score.factor_files import is_factor_file
from fgtrac.store import durable
from fgtrac.store.journal import parse_segment_name, scan
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import tiles_of
from fgtrac.verify.anchors import first_seen
from fgtrac.verify.auditor import Audit, audit_log
from fgtrac.verify.checks import CannotTell, TraceFiles, is_of_machine
from fgtrac.verify.log_reader import InProcess, LogReader
from fgtrac.verify.one_moment import OneMoment
from fgtrac.verify.quorum import unread_lines
from fgtrac.verify.receipts import EVM, RFC3161, WITNESS, parse_path
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.tree import HEAD, read_head
from fgtrac.verify.updates import counted

JOURNAL = "journal/"
DAMAGED = ".wal.damaged"  # a segment that a seal has set aside
REPLAY = "samplers"  # the check on demand that draws the order of every epoch again
SINCE = "since"  # the check on demand that holds the log against an older head
VAULT = "vault"  # the check on demand that computes every registered id again
WEIGHTS = "modality-weights"  # the check on demand that computes recorded modality weights again
SCORES = "scores"  # the check on demand that computes recorded scores again, down to model and data
HEADS = "heads"  # the check that holds the log against the heads that were shown to outside witnesses
MAX_NAMED = 3  # faults named in one sentence; the others are counted


@dataclass(frozen=True, slots=True)
class Demand:
    """A check that is made on request, after all others: `examine` is given the trace and what the audit found, and
    returns in words why it holds, or raises (see `Checks.make`); `needs` names the checks that it rests on."""

    name: str
    examine: Callable[[TraceFiles, Audit], str]
    needs: tuple[str, ...] = ("entries",)


def audit_trace(
    files: TraceFiles,
    verifier: Verifier | None,
    *,
    demands: Iterable[Demand] = (),
    progress: Callable[[int, int], None] | None = None,
    reading: Callable[[TraceFiles], LogReader] = InProcess,
) -> Report:
    """Read everything again and answer check by check, whatever the files hold; then what is demanded beyond that.

    Without a verifier the head's signature is not checked: "cannot tell". `progress` is called with bundles read and
    bundles in all, then with contribution entries computed again and in all. `reading` is given the trace's files, and
    gives who goes over its log. EngineError where the workers of that are lost.
    """
    trace = OneMoment(files)
    names, demands = trace.names(), list(demands)
    unread: list[Exception] = []  # what this machine met where it could not read the journal
    journal = [name for name in names if name.startswith(JOURNAL) and name.endswith(".wal")]
    segments = [_read_segment(trace, name, unread) for name in journal]
    pending = _find_pending(trace, names, segments, unread)
    is_new = bool(unread) or (pending is not None and pending.start == 0)
    audit = audit_log(trace, verifier, progress=progress, is_new=is_new, reader=reading(trace))
    make = audit.checks.make
    if audit.facts.erasures.subjects:
        make("erased-rows", lambda: check_erased_rows(files, audit), ("entries", "registered"))
    make("contributions", lambda: check_contributions(files, audit, progress), ("entries", "registered"))
    make("plan", lambda: _check_plan(trace, audit, names, pending, unread), ("entries", "sequences"))
    make("journal", lambda: _check_journal(audit, segments, unread))
    make("files", lambda: _check_files(trace, audit, names, pending), ("tiles", "entries"))
    for demand in demands:
        where = files if demand.name in (SCORES, WEIGHTS) else trace  # factors and states are read in place
        make(demand.name, partial(demand.examine, where, audit), demand.needs)
    if audit.log is not None:
        demanded = {demand.name for demand in demands}
        audit.checks.notes += _not_shown(audit, demanded)
        audit.checks.notes += unread_lines(trace.read(HEAD)) if WITNESS not in demanded else []
    return Report(tuple(map(trace.excuse, audit.checks.findings)), tuple(audit.checks.notes))


def _not_shown(audit: Audit, demanded: set[str]) -> list[str]:
    """What no check that was made can tell, and the option that asks for the one that can."""
    facts = audit.facts
    left = facts.announced - facts.unopened
    gone = f", and of {facts.unopened} nothing can: an erasure destroyed what gives it" if facts.unopened else ""
    again = f"{counted(left, 'epoch')} was not drawn again; --replay does that{gone}"
    if not left:
        again = f"{counted(facts.unopened, 'epoch')} cannot be drawn again: an erasure destroyed what gives it"
    said = {
        REPLAY: f"that no batch was left out, repeated or exchanged is not shown: the order of {again}",
        SCORES: "that the recorded factors are gradients of the saved states is not shown; the data and the model's "
        "code do: --scores N --with FILE.py:FUNCTION",
        WEIGHTS: "that the saved states give the recorded modality weights is not shown; the data and the model's code "
        "do: --attention N --with FILE.py:FUNCTION",
        VAULT: "that the registered ids are those of the samples' names is not shown; the vault does: --vault",
        SINCE: "that the log was not rolled back, or rewritten and signed again, is "
        f"{_shown_by_anchors(audit)}: --since",
    }
    rests_on = {REPLAY: facts.announced, SCORES: facts.contributions, WEIGHTS: facts.attention.entries}
    idle = {name for name, there in rests_on.items() if not there}
    notes = [words for name, words in said.items() if name not in demanded | idle]
    if facts.announced and (audit.witnessed or REPLAY in demanded):
        notes.append(_bound(audit))
    return notes


_BOTH = "the account and the contract (--evm-account and --evm-contract)"


def _shown_by_anchors(audit: Audit) -> str:
    """What outside witnesses show of rolling back and rewriting, and what shows the rest."""
    seen = [one for one in audit.witnessed if one.counts]
    faithful = [one for one in seen if one.excludes]
    if faithful:
        newest = _newest(faithful)
        since = "" if newest.doubt else f" since {newest.told()}"
        entries = f"for its first {newest.size} entries{since}, and for nothing behind them"
        return f"shown by who witnessed it {entries}; an older head that you kept may show more"
    if seen:
        newest = _newest(seen)
        existed = f"that its first {newest.size} entries existed at {newest.told()} excludes no second history"
        whom = {RFC3161: "time stamps", EVM: f"heads that a chain keeps, unless you name {_BOTH}"}
        by = " or ".join(words for kind, words in whom.items() if any(one.kind == kind for one in seen))
        return f"not shown by {by}: {existed}; an older head that you kept does"
    return "not shown; an older head that you kept does"


def _newest(seen: Iterable[Witnessed]) -> Witnessed:
    """The largest of the heads (at least one), as it was first seen at a time that can be true, if there is such."""
    heads = first_seen(seen)
    return heads[max(heads)]


def _bound(audit: Audit) -> str:
    """Of how many epochs the announced order binds whoever signs."""
    announced, seen = audit.facts.announcements, audit.witnessed
    bound = announced.bound([one for one in seen if one.excludes], seen)
    stamped = announced.bound([one for one in seen if one.kind == RFC3161], seen)
    also = f"; time stamps show the same of {stamped}, and exclude no second history" if stamped else ""
    unnamed = announced.bound([one for one in seen if one.kind == EVM and not one.excludes], seen)
    if unnamed:
        also += f"; a chain shows the same of {unnamed}, and excludes a second history only where you name {_BOTH}"
    also += f"; {counted(announced.missing, 'epoch')} used without an announced order" if announced.missing else ""
    also += f"; {ahead}" if (ahead := announced.ahead()) else ""
    return (
        f"the announced order binds whoever signed in {bound} of {counted(len(announced), 'epoch')}: only there has a "
        "witness, or a contract named with its account, a head with the announcement and no use yet, from before the "
        f"first use by the log's own times{also}"
    )


# -- the journal ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Segment:
    """One journal file: its whole entries by (writer, seq), with their offsets, and what is wrong with it."""

    path: str
    entries: dict[tuple[bytes, int], tuple[int, bytes]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    torn: str = ""


def _read_segment(trace: TraceFiles, path: str, unread: list[Exception]) -> _Segment:
    segment = _Segment(path)
    try:
        writer, _number = parse_segment_name(path.removeprefix(JOURNAL))
        found = scan(trace.read(path))
    except (FormatError, OSError, MemoryError) as error:
        if is_of_machine(error):
            unread.append(error)
        else:
            segment.faults.append(f"{path}: {error}")
        return segment
    segment.faults += [f"{path}: {length} damaged bytes at offset {at}" for at, length in found.bad]
    if found.torn:
        segment.torn = f"{path} ends in {found.torn} bytes of a frame that was not written whole"
    for at, entry in found.frames:
        fault = _take_frame(segment, writer, at, entry)
        if fault:
            segment.faults.append(f"{path} at offset {at}: {fault}")
    return segment


def _take_frame(segment: _Segment, writer: bytes, at: int, entry: bytes) -> str:
    """Take one frame; what is wrong with it in words, or nothing."""
    try:
        event = decode_event(entry)
    except FormatError as error:
        return f"a whole frame holds no entry: {error}"
    if event["writer"] != writer:
        return f"an entry of writer {event['writer'].hex()}"
    known = segment.entries.setdefault((writer, event["seq"]), (at, entry))
    return "" if known[1] == entry else f"number {event['seq']} of its writer stands for two entries"


def _check_journal(audit: Audit, segments: Iterable[_Segment], unread: Sequence[Exception]) -> str:
    """Every frame is whole; one that is sealed already is the sealed entry. CannotTell of what is not sealed, and what
    could not be read is raised."""
    faults, waiting, sealed = [], 0, 0
    holds = _holds(audit, "entries")
    segments = list(segments)
    for segment in segments:
        faults += segment.faults
        for (writer, seq), (at, entry) in segment.entries.items():
            number = audit.facts.sequences.find(writer, seq) if holds else None
            if number is None:
                waiting += 1
                continue
            sealed += 1
            if audit.log is not None and audit.log.leaf(number) != leaf_hash(entry):
                faults.append(f"{segment.path} at offset {at} is not what was sealed as entry {number}")
    held = f"{waiting} entries are whole and not sealed yet; run fgtrac seal"
    if faults:
        more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise ProofError("; ".join(faults[:MAX_NAMED]) + more + (f"; {held}" if waiting else ""))
    if unread:
        raise unread[0]
    torn = [segment.torn for segment in segments if segment.torn]
    if waiting or torn:
        raise CannotTell("; ".join([*torn, *_holes(audit, segments), held]))
    return f"{sealed} frames are in the log as they stand here" if sealed else "nothing waits to be sealed"


def _holes(audit: Audit, segments: Iterable[_Segment]) -> list[str]:
    """Numbers that are missing before or between a writer's whole frames, in words."""
    seqs: dict[bytes, set[int]] = {}
    for segment in segments:
        for writer, seq in segment.entries:
            seqs.setdefault(writer, set()).add(seq)
    out = []
    for writer, mine in seqs.items():
        expected = audit.facts.sequences.stop(writer) if _holds(audit, "entries") else min(mine)
        for seq in sorted(s for s in mine if s >= expected):
            if seq > expected:
                out.append(f"numbers {expected} to {seq - 1} of writer {writer.hex()} are missing from the journal")
            expected = seq + 1
    return out[:MAX_NAMED]


def _holds(audit: Audit, name: str) -> bool:
    return any(f.check == name and f.verdict is Verdict.HOLDS for f in audit.checks.findings)


# -- the plan -------------------------------------------------------------------------------------------------------


def _plan_sizes(names: Iterable[str]) -> dict[int, str]:
    """The plans in the folder: size -> path."""
    stems = {n: n.removeprefix(JOURNAL).removesuffix(SUFFIX) for n in names if n.startswith(JOURNAL)}
    return {int(s): n for n, s in stems.items() if n.endswith(SUFFIX) and s.isascii() and s.isdigit() and len(s) < 20}


def _find_pending(
    trace: TraceFiles, names: Iterable[str], segments: Iterable[_Segment], unread: list[Exception]
) -> Plan | None:
    """The plan of a seal that was interrupted before its head appeared: all that it takes is still in the journal."""
    try:
        size = read_head(trace).size if HEAD in names else 0
    except (FormatError, OSError, MemoryError):
        return None
    there = {key for segment in segments for key in segment.entries}
    for stop, path in _plan_sizes(names).items():
        try:
            plan = parse_plan(trace.read(path))
        except (FormatError, OSError, MemoryError) as error:
            unread += [error] if is_of_machine(error) else []
            continue
        is_next = stop > size and (plan.start, plan.stop) == (size, stop) and (plan.taken or size)
        if is_next and all((t.writer, seq) in there for t in plan.taken for seq in range(t.first, t.stop)):
            return plan
    return None


def _check_plan(
    trace: TraceFiles, audit: Audit, names: Iterable[str], pending: Plan | None, unread: Sequence[Exception]
) -> str:
    """The plan of the newest head agrees with the log, frame by frame."""
    assert audit.log is not None
    size = audit.log.head.size
    path = f"{JOURNAL}{size}{SUFFIX}"
    later = [p for stop, p in _plan_sizes(names).items() if stop > size and (pending is None or p != pending.path)]
    if later:
        if unread:
            raise unread[0]
        raise ProofError(f"{later[0]} plans a seal of frames that are not in the journal")
    try:
        plan = parse_plan(trace.read(path))
    except FormatError as error:
        raise FormatError(f"{path}: {error}; fgtrac seal works without it") from error
    _compare_plan(path, plan, audit)
    if plan.index_size and not audit.index_digests:
        raise CannotTell(f"{path} agrees with the log; its digests of the index are not checked, since that fails")
    if plan.index_digests != audit.index_digests:
        wrong = sorted(k for k in COLUMNS if plan.index_digests.get(k) != audit.index_digests.get(k))
        raise ProofError(f"{path} says other digests of the index columns ({', '.join(wrong)}) than the log gives")
    if pending is not None:
        raise CannotTell(f"{pending.path} plans a seal of {pending.stop} entries that was interrupted; run fgtrac seal")
    own = "1 entry" if len(plan.own) == 1 else f"{len(plan.own)} entries"
    return f"{path} says what the log says: {counted(len(plan.taken), 'range')} taken, {own} of its own"


def _compare_plan(path: str, plan: Plan, audit: Audit) -> None:
    assert audit.log is not None
    sequences, number = audit.facts.sequences, plan.start
    newest = audit.facts.full_seals[-1] if audit.facts.full_seals else 0
    for what, said, found in (
        ("a size", plan.stop, audit.log.head.size),
        ("a newest full seal", plan.index_size, newest),
    ):
        if said != found:
            raise ProofError(f"{path} says {what} of {said}; the log gives {found}")
    for taken in plan.taken:
        for seq in range(taken.first, taken.stop):
            if sequences.find(taken.writer, seq) != number:
                raise ProofError(f"{path} takes entry {number} as number {seq} of {taken.writer.hex()}; it is not")
            number += 1
    for entry in plan.own:
        if leaf_hash(entry) != audit.log.leaf(number):
            raise ProofError(f"{path} holds another entry {number} than the log")
        number += 1
    stops = sequences.stops()
    for writer in plan.writers.keys() | stops.keys():
        if plan.writers.get(writer) != stops.get(writer):
            raise ProofError(
                f"{path} says that writer {writer.hex()} is sealed up to {plan.writers.get(writer)}; the log gives "
                f"{stops.get(writer)}"
            )


# -- files ----------------------------------------------------------------------------------------------------------


def _check_files(trace: TraceFiles, audit: Audit, names: Iterable[str], pending: Plan | None) -> str:
    """Every file is explained by the log, by the journal, or by a crash, and is a plain file."""
    assert audit.log is not None
    size, names = audit.log.head.size, list(names)
    known = audit.known | {f"{JOURNAL}{size}{SUFFIX}"}
    if pending is not None:
        known |= {pending.path, f"index/{pending.stop}/{HEAD}"} | {tile.path for tile in tiles_of(pending.stop)}
        known |= {column_path(pending.stop, name) for name in COLUMNS}
    known |= {n for n in names if n.startswith(JOURNAL) and n.endswith(".wal")}  # the check of the journal reads them
    older = {column_path(full, name) for full in audit.facts.full_seals for name in COLUMNS}
    older |= {path for stop, path in _plan_sizes(names).items() if stop < size}
    known |= {path for stop, path in _plan_sizes(names).items() if stop > size}  # and the check of the plan these
    left, unfinished = [n for n in names if n not in known and is_factor_file(n)], 0
    for name in names:
        if name in known:
            continue
        try:
            next(iter(trace.pieces(name)), b"")  # raises for what is no plain file: no other check reads these
        except FileNotFoundError:
            if not name.endswith(durable.TEMPORARY) and not name.startswith(f"{UNFINISHED}/"):
                raise
            continue  # it has been written whole meanwhile
        if name.startswith(f"{UNFINISHED}/"):
            unfinished += 1
        elif name.endswith(durable.TEMPORARY):
            audit.checks.notes.append(f"{name} was not written whole; the next seal removes it")
        elif name in older:
            audit.checks.notes.append(f"{name} is left over from an older seal; the next seal removes it")
        elif name.startswith(JOURNAL) and name.endswith(DAMAGED):
            audit.checks.notes.append(f"{name} was set aside as damaged: if entries are lost, a gap entry says so")
        elif parse_path(name) is not None:
            continue  # the checks of the anchors read it
        elif name.startswith("artifacts/") and name not in left:
            audit.checks.notes.append(f"{name} is not named by any sealed entry: nothing is said about it")
        elif name not in left:
            raise ProofError(f"{name} is no file that the log explains; move it out of the trace")
    if unfinished:
        what = f"{UNFINISHED} has {unfinished} files of an index in the making"
        audit.checks.notes.append(f"{what}; the next seal goes on from them or removes them")
    if left:
        what = f"{len(left)} factor files ({left[0]} ...), as an interrupted scoring leaves them, are not named by any"
        audit.checks.notes.append(f"{what} sealed entry: nothing is said about them; scoring again goes on from them")
    return f"{len(names)} files, each of them explained"
