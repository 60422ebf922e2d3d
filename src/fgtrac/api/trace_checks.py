"""What `fgtrac doctor TRACE` says of a trace: what a crash, a move or a stranger left of it. It changes nothing, and
verifies nothing: entries and signatures are for `fgtrac verify`."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fgtrac.anchor.pending import parse_pending
from fgtrac.api.finding import Finding, command, fine, named, note, to_do
from fgtrac.api.journal_checks import TRIES, journal_findings, read_journal, unreadable_journal
from fgtrac.api.log_checks import RESTORE_LOG, log_findings
from fgtrac.api.machine_checks import folder_findings
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.commit.gather import Segment
from fgtrac.commit.keys import Keyring, key_path
from fgtrac.commit.plan import SUFFIX
from fgtrac.commit.signer import Signer
from fgtrac.commit.state import sealed_writers
from fgtrac.errors import FgtracError, FormatError, TamperError
from fgtrac.query.log import SealedLog
from fgtrac.query.seals import NotSealedError, open_full_seal
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head
from fgtrac.tlog.tiles import ENTRIES, WIDTH, parse_tile_path

_MEND = "mend what it says: the trace cannot be sealed until then"


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
        yield to_do("head", f"checkpoint: {error}", _restore_head(trace))
        return
    files = sorted(trace.journal.glob("*.wal")) if trace.journal.is_dir() else []
    held = [file for file in files if durable.is_held(file)]
    segments: list[Segment] = []
    sealed: Mapping[bytes, int] = {}
    try:
        segments = read_journal(trace)
    except (FgtracError, OSError) as error:
        yield unreadable_journal(trace, error)
        if head is None:
            return
    else:
        if head is None and not any(frame.kind == "run" for segment in segments for frame in segment.frames):
            yield from _headless(trace, held)
            return
        yield _head(trace, head, is_recording=bool(held))
        try:
            sealed = sealed_writers(trace) if segments else {}
        except (FgtracError, OSError) as error:
            yield to_do("log", str(error), RESTORE_LOG)
            return
        yield from journal_findings(trace, head, held, segments, sealed)
    waiting = [frame for segment in segments for frame in segment.frames if frame.seq >= sealed.get(segment.writer, 0)]
    yield from _signer(trace, head)
    yield from _index(trace, head, is_recording=bool(held))
    yield from _vault(trace)
    yield from log_findings(trace, head, waiting, now, is_recording=bool(held))
    yield from folder_findings("folder", trace.path.resolve().parent)


def _head(trace: TraceDir, head: TreeHead | None, *, is_recording: bool) -> Finding:
    if head is None and is_recording:
        return note("head", "nothing was sealed yet: the first checkpoint, or the end, does that")
    if head is None:
        return to_do("head", "nothing was sealed yet", command("seal", trace.path))
    return fine("head", f"{head.size:,} entries with the root {head.root.hex()}; its signature was not checked")


def _headless(trace: TraceDir, held: list[Path]) -> Iterator[Finding]:
    """Of a trace with neither a head nor a `run` entry in its journal: nothing else can be told of it."""
    if _reached(trace):
        yield to_do("head", "there is no checkpoint, and the trace was sealed: it was lost", _restore_head(trace))
    elif held:
        yield note("head", f"nothing was sealed yet, and {named([path.name for path in held])} has no run entry yet")
    else:
        words = "nothing was sealed, and the journal has no run entry: its first write was lost"
        yield to_do("head", words, "restore the journal from a copy; without one, start a new run")


def _restore_head(trace: TraceDir) -> str:
    """What brings a lost head back. One that is older than the log's files is not to be sealed on: that would be a
    fork."""
    kept, reached = max(trace.full_seals(), default=0), _reached(trace)
    where = f"index/{kept}/checkpoint"
    try:
        whole = kept > 0 and parse_tree_head(parse_note(trace.read(where)).text).size == kept
    except (FgtracError, OSError):
        whole = False
    ask = "restore it from a copy, or ask who recorded the trace"
    if not whole:
        return ask
    if kept < reached:
        return f"{ask}; {where} is an older head, and there are files of {reached:,} entries: do not seal on it"
    return f"restore it from a copy; without one, copy {where}, the newest head that files tell of, and fgtrac verify"


def _reached(trace: TraceDir) -> int:
    """The largest size of the log that any file's name tells of."""
    sizes = [0, *trace.full_seals()]
    for name in trace.names():
        folder, _, rest = name.partition("/")
        stem = rest.partition("/")[0].removesuffix(SUFFIX)
        if folder == "tile":
            with suppress(FormatError):
                tile = parse_tile_path(name)
                sizes.append(tile.number * WIDTH + tile.width if tile.level == ENTRIES else 0)
        elif is_size(stem) and (folder == "receipts" or (folder == "journal" and rest.endswith(SUFFIX))):
            sizes.append(int(stem))
    return max(sizes)


# -- who signs, and for whom ----------------------------------------------------------------------------------------


def _signer(trace: TraceDir, head: TreeHead | None) -> Iterator[Finding]:
    try:
        path = key_path(None)
        keys = Keyring(path).keys() if path.exists() else {}
    except (OSError, ValueError, FgtracError) as error:
        yield to_do("signer", str(error), _MEND)
        return
    if not keys:
        yield note("signer", f"not you: there is no key at {path}", "only who holds its key can seal it")
        return
    try:
        signer = signer_of(trace)
        last = signer.last()
    except ValueError as error:
        yield note("signer", f"not you: {error}", "only who holds its key can seal it")
        return
    except (OSError, FgtracError) as error:
        yield to_do("signer", str(error), _MEND)
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
        seal = command("seal", trace.path)
        remedy = f"{seal} publishes that head if its tree is there; else it was rolled back: restore it"
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
        yield to_do("anchors", f"{signer.pending_path}: {error}", "keep that file elsewhere, and anchor anew")
        return
    if pending:
        words = f"{len(pending)} heads are still to be anchored, the newest of {max(p.size for p in pending):,} entries"
        yield to_do("anchors", words, f"{command('anchor', trace.path)} --pending (--forget drops them instead)")


# -- what is rebuilt, and what is beside ----------------------------------------------------------------------------


def _index(trace: TraceDir, head: TreeHead | None, *, is_recording: bool) -> Iterator[Finding]:
    if head is None:
        return
    later = "the end of the recording makes one" if is_recording else command("seal", trace.path)
    needed = note if is_recording else to_do
    try:
        seal = open_full_seal(trace)
    except NotSealedError:
        yield needed("index", "there is none: histories and proofs need one", later)
        return
    except (FgtracError, OSError) as error:
        yield _no_index(trace, head, error)
        return
    behind = head.size - seal.head.size
    words = f"over {seal.head.size - 1:,} entries, with {len(seal.tree):,} leaves; its hashes were not checked"
    if behind:
        yield needed("index", f"{words}; {behind:,} later entries are in none", later)
    else:
        yield fine("index", words)


def _no_index(trace: TraceDir, head: TreeHead, error: Exception) -> Finding:
    """What is at fault where the newest index cannot be opened: of the log and of signed notes there is nothing that a
    seal makes again."""
    size = max(size for size in trace.full_seals() if size <= head.size)
    try:
        signed = parse_tree_head(parse_note(trace.read(f"index/{size}/checkpoint")).text)
        if signed.size != size:
            raise FormatError(f"a head of {signed.size} entries")
    except (FgtracError, OSError) as wrong:
        return to_do("index", f"index/{size}/checkpoint: {wrong}", "restore that file from a copy")
    try:
        SealedLog(trace, signed).event(size - 1)
    except (FgtracError, OSError) as wrong:
        return to_do("log", str(wrong), RESTORE_LOG)
    return to_do("index", str(error), f"{command('seal', trace.path)} makes it again")


def _vault(trace: TraceDir) -> Iterator[Finding]:
    path = trace.vault_path
    if not path.exists():
        words = f"none at {path}: samples can be named by their ids alone, unless ids are public"
        yield note("vault", words, "put it there if you have it; who was only given the trace has none")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield to_do(
            "vault", f"{path} has mode {mode:04o}: others may read its secrets", f"chmod 600 {shlex.quote(str(path))}"
        )
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
        words = f"the erasure of {named(names)} was interrupted: its key is gone already (or a process is at it now)"
        remedy = f"{command('erase', trace.path)} --subject {names[0]} finishes it, erases nobody else, and ends with 2"
        yield to_do("vault", words, remedy)
    else:
        yield fine("vault", f"{path} is this trace's; fgtrac verify --vault holds its names against the log")
