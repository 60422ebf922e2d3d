"""What `fgtrac doctor TRACE` says of a trace: what a crash, a move or a stranger left of it. It changes nothing, and
verifies nothing: entries and signatures are for `fgtrac verify`."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fgtrac.anchor.pending import parse_pending
from fgtrac.api.finding import Finding, fine, note, to_do
from fgtrac.api.machine_checks import folder_findings
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.commit.gather import read_segments
from fgtrac.commit.plan import SUFFIX
from fgtrac.commit.signer import Signer
from fgtrac.commit.state import sealed_writers
from fgtrac.errors import FgtracError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.query.seals import NotSealedError, open_full_seal
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.npy import COLUMNS
from fgtrac.tlog.tiles import WIDTH, parse_tile_path, read_bundle
from fgtrac.verify.receipts import parse_path

NAMED = 5  # files named in one finding
TRIES = 3  # to look at a trace that is sealed meanwhile: a seal replaces the tiles that the head before it needs
AHEAD_S = 300  # how far an entry may lie in the future before the clock is in doubt
_KINDS = {kind: encode("kind") + encode(kind) for kind in ("artifact", "erasure", "gap")}
_KNOWN = re.compile(
    rf"checkpoint|index/[1-9][0-9]{{0,18}}/(?:checkpoint|(?:{'|'.join(COLUMNS)})\.npy)"
    r"|journal/[0-9a-f]{32}-[0-9]{1,19}\.wal(?:\.damaged)?|journal/[0-9]{1,19}\.seal"
)


def trace_findings(path: Path, now: float) -> Iterator[Finding]:
    """Look at a trace, again where it is sealed meanwhile. FileNotFoundError, FormatError where there is none."""
    trace = TraceDir.open(path)
    for _ in range(TRIES):
        note_before = trace.head_note()
        found = list(_findings(trace, now))
        if trace.head_note() == note_before:
            break
    yield from found


def _findings(trace: TraceDir, now: float) -> Iterator[Finding]:
    try:
        head = trace.head()
    except FgtracError as error:
        yield to_do("head", f"checkpoint: {error}", "restore it from a copy, or from the newest index/SIZE/checkpoint")
        return
    files = sorted(trace.journal.glob("*.wal")) if trace.journal.is_dir() else []
    held = [file for file in files if durable.is_held(file)]
    yield _head(trace, head, is_recording=bool(held))
    yield from _journal(trace, head, held)
    yield from _signer(trace, head)
    yield from _index(trace, head, is_recording=bool(held))
    yield from _vault(trace)
    yield from _log(trace, head, now)
    yield from folder_findings("folder", trace.path.resolve().parent)


def _head(trace: TraceDir, head: TreeHead | None, *, is_recording: bool) -> Finding:
    if head is None and is_recording:
        return note("head", "nothing was sealed yet: the first checkpoint, or the end, does that")
    if head is None:
        return to_do("head", "nothing was sealed yet", f"fgtrac seal {trace.path}")
    return fine("head", f"{head.size:,} entries with the root {head.root.hex()}; its signature was not checked")


# -- what a process left --------------------------------------------------------------------------------------------


def _journal(trace: TraceDir, head: TreeHead | None, held: list[Path]) -> Iterator[Finding]:
    seal = f"fgtrac seal {trace.path}"
    try:
        segments = read_segments(trace)
        sealed = sealed_writers(trace) if segments else {}
    except FgtracError as error:
        yield to_do("journal", str(error), "move that file away, then fgtrac seal")
        return
    left = sum(f.seq >= sealed.get(s.writer, 0) for s in segments if s.path not in held for f in s.frames)
    damage = "; ".join(s.damage for s in segments if s.damage)
    if damage:
        yield to_do("journal", damage, f"{seal} sets the file aside, and a gap entry says what is lost")
    if held:
        yield note("journal", f"a process is recording: it holds {_named([path.name for path in held])}")
    if left:
        yield to_do("journal", f"{left:,} entries are in no log, and no process records: it was cut off", seal)
    elif not held and not damage:
        yield fine("journal", "nothing is left in it")
    yield from _plans(trace, head.size if head is not None else 0)
    yield from _temporaries(trace)
    aside = sorted(trace.journal.glob("*.damaged")) if trace.journal.is_dir() else []
    if aside:
        words = f"{_named([path.name for path in aside])} set aside as damaged; a gap entry says what is lost"
        yield note("journal", words, "keep or remove them: nothing reads them")


def _plans(trace: TraceDir, size: int) -> Iterator[Finding]:
    plans = [path for path in trace.journal.glob(f"*{SUFFIX}") if is_size(path.stem)] if trace.journal.is_dir() else []
    begun = sorted(int(path.stem) for path in plans if int(path.stem) > size)
    if begun:
        words = f"a seal at {begun[-1]:,} entries was begun and not finished"
        yield to_do("seal", words, f"fgtrac seal {trace.path} finishes it (unless a process is at it now)")


def _temporaries(trace: TraceDir) -> Iterator[Finding]:
    found = [name for name in trace.names() if name.endswith(durable.TEMPORARY)]
    left = [name for name in found if not durable.is_held(trace.path / name)]
    if left:
        words = f"{len(left)} files were cut short in writing: {_named(left)}"
        yield to_do("leftovers", words, f"fgtrac seal {trace.path} removes them")


# -- who signs, and for whom ----------------------------------------------------------------------------------------


def _signer(trace: TraceDir, head: TreeHead | None) -> Iterator[Finding]:
    try:
        signer = signer_of(trace)
        last = signer.last()
    except FileNotFoundError as error:
        yield note("signer", f"not you: {error}", "only who holds its key can seal it")
        return
    except ValueError as error:
        yield note("signer", f"not you: {error}", "only who holds its key can seal it")
        return
    except (OSError, FgtracError) as error:
        yield to_do("signer", str(error), "mend what it says: the trace cannot be sealed until then")
        return
    yield _memory(trace, head, last[0] if last is not None else None)
    yield from _pending(trace, signer)


def _memory(trace: TraceDir, head: TreeHead | None, last: TreeHead | None) -> Finding:
    """What the signer's memory says beside the head."""
    size = head.size if head is not None else 0
    if last is None:
        return note("signer", "your key, which remembers no head of this trace: it was signed on another machine")
    if last.size > size:
        words = f"your key signed {last.size:,} entries, and the trace has {size:,}"
        remedy = (
            f"fgtrac seal {trace.path} publishes that head where its tree is there; else it was rolled back: restore it"
        )
        return to_do("signer", words, remedy)
    if head is not None and last.size == head.size and last.root != head.root:
        words = f"your key signed the root {last.root.hex()} for this size: this is another trace than was sealed"
        return to_do("signer", words, "restore it from a copy")
    return fine("signer", "your key, and the newest head that it signed for this trace is not ahead of it")


def _pending(trace: TraceDir, signer: Signer) -> Iterator[Finding]:
    if not signer.pending_path.exists():
        return
    try:
        pending = parse_pending(signer.pending_path.read_bytes())
    except FgtracError as error:
        yield to_do("anchors", f"{signer.pending_path}: {error}", "remove that file, and anchor anew")
        return
    if pending:
        words = f"{len(pending)} heads are still to be anchored, the newest of {max(p.size for p in pending):,} entries"
        yield to_do("anchors", words, f"fgtrac anchor {trace.path} --pending (--forget drops them instead)")


# -- what is rebuilt, and what is beside ----------------------------------------------------------------------------


def _index(trace: TraceDir, head: TreeHead | None, *, is_recording: bool) -> Iterator[Finding]:
    if head is None:
        return
    later = "the end of the recording makes one" if is_recording else f"fgtrac seal {trace.path}"
    needed = note if is_recording else to_do
    remedy = f"fgtrac seal {trace.path} makes it again"
    try:
        seal = open_full_seal(trace)
    except NotSealedError:
        yield needed("index", "there is none: histories and proofs need one", later)
        return
    except (FgtracError, OSError) as error:
        yield to_do("index", str(error), remedy)
        return
    behind = head.size - seal.head.size
    words = f"over {seal.head.size - 1:,} entries, with {len(seal.tree):,} leaves; its hashes were not checked"
    if behind:
        yield needed("index", f"{words}; {behind:,} later entries are in none", later)
    else:
        yield fine("index", words)


def _vault(trace: TraceDir) -> Iterator[Finding]:
    path = trace.vault_path
    if not path.exists():
        words = f"none at {path}: samples can be named by their ids alone, unless ids are public"
        yield note("vault", words, "put it there if you have it; who was only given the trace has none")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield to_do("vault", f"{path} has mode {mode:04o}: others may read its secrets", f"chmod 600 {path}")
    if path.with_name(f"{path.name}-journal").exists():
        words = f"a write to {path} was cut off"
        yield note("vault", words, "whoever opens it next puts it right; copy both files or neither")
    try:
        vault = Vault.open(path, trace_id_of(trace))
    except TamperError as error:
        yield to_do("vault", str(error), "put this trace's own vault beside it")
        return
    except (FgtracError, OSError) as error:
        yield to_do("vault", str(error), "restore it from a copy")
        return
    try:
        unfinished = vault.unfinished()
    except (FgtracError, OSError) as error:
        yield to_do("vault", str(error), "restore it from a copy")
        return
    finally:
        vault.close()
    if unfinished:
        names = [pseudonym.hex() for pseudonym, _artifacts in unfinished]
        words = f"the erasure of {_named(names)} was interrupted: its key is gone already (or a process is at it now)"
        remedy = f"fgtrac erase {trace.path} --subject {names[0]} finishes it, erases nobody else, and ends with 2"
        yield to_do("vault", words, remedy)
    else:
        yield fine("vault", f"{path} is this trace's; fgtrac verify --vault holds its names against the log")


# -- what the log says ----------------------------------------------------------------------------------------------


def _log(trace: TraceDir, head: TreeHead | None, now: float) -> Iterator[Finding]:
    size = head.size if head is not None else 0
    named: set[str] = set()
    withdrawn: set[str] = set()
    gaps: list[str] = []
    last = 0
    try:
        for number in range(-(-size // WIDTH)):
            entries = read_bundle(trace, number, size)
            for entry in entries:
                kind = next((kind for kind, mark in _KINDS.items() if mark in entry), "")
                event = decode_event(entry) if kind else {}
                if event.get("kind") == "artifact":
                    named.add(event["path"])
                elif event.get("kind") == "erasure":
                    withdrawn |= set(event["artifacts"])
                elif event.get("kind") == "gap":
                    gaps.append(event["reason"])
            last = decode_event(entries[-1])["time"]
    except (FgtracError, OSError) as error:
        yield to_do("log", str(error), "restore that file from a copy: the log is the one thing that nothing rebuilds")
        return
    if gaps:
        words = f"{len(gaps)} gaps, which the log says itself: {_named(list(dict.fromkeys(gaps)))}"
        yield note("gaps", words, "nothing brings back what was lost; fgtrac show lists them")
    if last > (now + AHEAD_S) * 10**9:
        then = datetime.fromtimestamp(min(last // 10**9, 10**11), UTC)
        words = f"the newest entry is of {then:%Y-%m-%d %H:%M:%S} UTC, which this machine's clock has not reached"
        yield to_do("clock", words, "set the clock of this machine, or of the one that recorded")
    yield from _files(trace, named, withdrawn)


def _files(trace: TraceDir, named: set[str], withdrawn: set[str]) -> Iterator[Finding]:
    there = trace.names()
    gone = sorted(named - withdrawn - set(there))
    if gone:
        yield to_do("artifacts", f"{len(gone)} files that the log names are gone: {_named(gone)}", "restore them")
    odd = [name for name in there if not stat.S_ISREG((trace.path / name).lstat().st_mode)]
    if odd:
        yield to_do("files", f"links, pipes or devices: {_named(odd)}", "remove them: a trace has plain files alone")
    rest = [name for name in there if name not in named and name not in odd and not name.endswith(durable.TEMPORARY)]
    left = [name for name in rest if name.startswith(("artifacts/scoring/", "artifacts/targets/"))]
    if left:
        words = f"{len(left)} files of scores that no entry names: {_named(left)}"
        yield note("files", words, "the next scoring goes on from them, or removes them")
    unknown = [name for name in rest if name not in left and not _is_known(name)]
    if unknown:
        words = f"{len(unknown)} files that are none of a trace's: {_named(unknown)}"
        yield to_do("files", words, "move them away: nothing reads them, and nobody vouches for them")
    if not (gone or odd or unknown):
        yield fine(
            "files", f"{len(there):,}, each where a trace has one, and every artifact that the log names is there"
        )


def _is_known(name: str) -> bool:
    if _KNOWN.fullmatch(name) or parse_path(name) is not None:
        return True
    try:
        parse_tile_path(name)
    except FgtracError:
        return False
    return True


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
