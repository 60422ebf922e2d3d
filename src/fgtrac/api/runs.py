"""The traces below a folder, a line each: what their heads and newest entries say, and nothing of it verified."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fgtrac.api.prior import trace_id_of
from fgtrac.commit.keys import Keyring, default_key_path
from fgtrac.errors import FgtracError, FormatError
from fgtrac.events.schema import decode_event
from fgtrac.query.glance import Glance, glance
from fgtrac.query.occurrences import plain
from fgtrac.store import durable
from fgtrac.store.journal import MAX_FRAME_BYTES, scan
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier, parse_note, parse_tree_head
from fgtrac.verify.receipts import NOTE, parse_path

SUFFIX = ".trace"
DEPTH = 8  # folders below the one that was named
MOST_FOLDERS = 20_000
TRIES = 3  # to look at a trace that is sealed meanwhile
RECORDING, CUT_OFF, SEALED, ENDED, DAMAGED, UNREADABLE = (
    "recording", "cut off", "sealed", "ended", "damaged", "unreadable"
)  # fmt: skip
OWN, OWN_RETIRED, OWN_REVOKED, OTHER, NOBODY, UNKNOWN = (
    "own", "own, retired", "own, revoked", "other", "nobody", "cannot tell"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunLine:
    """A trace in a list. `name` is its path below the folder without `.trace`.

    `state`: `recording` (a process holds its journal), `cut off` (its journal has entries and no process; fgtrac seal
    takes them), `ended` (sealed, with an `end` entry behind the last training), `sealed` (without one), `damaged` or
    `unreadable` (`reason` says how). None in any other field: not known, or not among the entries that were looked at.
    `began` and `changed` are times in ns since 1970 as the entries say; `steps` the last applied update, of the
    optimizer that made most; `best_loss` is the lowest validation loss, at
    `best_step`; `signed_by` one of own, own retired, own revoked, other, nobody, cannot tell, by the key's id alone;
    `anchored` the kinds of receipts, `anchored_size` the newest size that has one.
    """

    name: str
    path: Path
    state: str
    reason: str = ""
    trace_id: str | None = None
    began: int | None = None
    changed: int | None = None
    entries: int | None = None
    steps: int | None = None
    epochs: int | None = None
    samples: int | None = None
    last_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    kept: int | None = None
    size_bytes: int = 0
    signed_by: str = UNKNOWN
    key: str | None = None
    anchored: tuple[str, ...] = ()
    anchored_size: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data; a loss that is not finite as text."""
        said: dict[str, Any] = plain(asdict(self) | {"path": str(self.path)})
        return said


def list_runs(folder: str | os.PathLike[str], *, depth: int = DEPTH) -> tuple[RunLine, ...]:
    """Every `NAME.trace` below a folder (or the folder itself, where it `is_trace`), by name; nothing is verified.

    Links are not followed, and folders inside a trace not looked at. FileNotFoundError where there is no such folder;
    ValueError where more than MOST_FOLDERS lie below it.
    """
    top = Path(folder)
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {top}; name one that traces lie in")
    keys = _own_keys()
    if is_trace(top):
        return (_line(top, top.name, keys),)
    found = sorted((str(path.relative_to(top)), path) for path in _traces(top, depth))
    return tuple(_line(path, name, keys) for name, path in found)


def is_trace(folder: Path) -> bool:
    """Whether a folder is a trace by its name, or (where it is a link, or has another name) by what lies in it: the
    first file of a log, and no trace of its own."""
    if folder.name.endswith(SUFFIX) or folder.resolve().name.endswith(SUFFIX):
        return True
    is_begun = (folder / "checkpoint").is_file() or (folder / "journal").is_dir()
    return is_begun and next(_traces(folder, DEPTH), None) is None


def _traces(top: Path, depth: int) -> Iterator[Path]:
    waiting, looked = [(top, 0)], 0
    while waiting:
        folder, down = waiting.pop()
        looked += 1
        if looked > MOST_FOLDERS:
            raise ValueError(f"more than {MOST_FOLDERS:,} folders lie below {top}; name one nearer to the traces")
        try:
            inside = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            if folder == top:
                raise
            yield folder  # its line says that it cannot be read
            continue
        for entry in inside:
            if entry.name.endswith(SUFFIX):
                yield Path(entry.path)
            elif down < depth:
                waiting.append((Path(entry.path), down + 1))


def _line(path: Path, name: str, keys: dict[bytes, str] | None) -> RunLine:
    """A line for whatever lies there. A seal may put wider tiles in the place of those that the head needs: what fails
    beside one is looked at again."""
    line = failed = RunLine(name.removesuffix(SUFFIX), path, DAMAGED)
    for _ in range(TRIES):
        note = TraceDir(path).head_note()
        try:
            line = replace(line, size_bytes=_size_of(path))
            return _read(line, TraceDir.open(path), keys)
        except PermissionError as error:
            return replace(line, state=UNREADABLE, reason=f"{error.filename or path}: {error.strerror}")
        except (FgtracError, OSError, ValueError) as error:
            failed = replace(line, reason=" ".join(str(error).split()))
        if TraceDir(path).head_note() == note:
            break
    return failed


def _read(line: RunLine, trace: TraceDir, keys: dict[bytes, str] | None) -> RunLine:
    head, journal = trace.head(), _journal_state(trace)
    line = replace(line, **_anchored(trace))
    if head is None:
        run = _run_in_journal(trace)
        known = {"trace_id": run["trace"].hex(), "key": run["public_key"].hex(), "signed_by": NOBODY}
        return replace(line, state=journal or CUT_OFF, began=run["time"], entries=0, **known)
    found = glance(trace, head)
    signed_by, key = _who_signed(trace, found, keys)
    best = found.best
    return replace(
        line,
        state=journal or (ENDED if found.ended else SEALED),
        trace_id=trace_id_of(trace).hex(),
        began=found.first,
        changed=found.last,
        entries=head.size,
        steps=found.step,
        epochs=found.epochs,
        samples=found.samples,
        last_loss=found.last_loss,
        best_loss=best[0] if best else None,
        best_step=best[1] if best else None,
        kept=sum(found.kept.values()) if found.is_whole else None,
        signed_by=signed_by,
        key=key,
    )


def _run_in_journal(trace: TraceDir) -> dict[str, Any]:
    """The `run` entry of a trace that has no head yet: it begins a writer's first segment. FormatError without one."""
    for path in sorted(trace.journal.glob("*-0.wal")):
        with trace.plain(f"journal/{path.name}").open("rb") as file:
            frames = scan(file.read(MAX_FRAME_BYTES)).frames
        if frames and (event := decode_event(frames[0][1]))["kind"] == "run":
            return event
    raise FormatError("nothing was sealed, and the journal does not begin with a run entry: its first write was lost")


def _journal_state(trace: TraceDir) -> str | None:
    """Whether a process records, or has left something that no seal took; None where neither is so. FormatError where
    a segment is no plain file."""
    files = sorted(trace.journal.glob("*.wal")) if trace.journal.is_dir() else []
    sizes = []
    for path in files:
        with suppress(FileNotFoundError):  # a seal took it meanwhile
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise FormatError(
                    f"journal/{path.name} is no plain file; a trace has none, and fgtrac doctor says what to do"
                )
            sizes.append(found.st_size)
    if any(durable.is_held(path) for path in files):
        return RECORDING
    return CUT_OFF if any(sizes) else None


def _anchored(trace: TraceDir) -> dict[str, Any]:
    folder = trace.path / "receipts"
    if not folder.is_dir():
        return {}
    named = [
        f"receipts/{size.name}/{file}" for size in os.scandir(folder) if size.is_dir() for file in os.listdir(size)
    ]
    files = [file for file in map(parse_path, named) if file is not None and file.kind != NOTE]
    sizes = [file.size for file in files]
    return {"anchored": tuple(sorted({file.kind for file in files})), "anchored_size": max(sizes, default=None)}


def _own_keys() -> dict[bytes, str] | None:
    """The user's public keys, and which each is; none where there is no key, None where they cannot be read."""
    try:
        ring = Keyring(default_key_path(os.environ))
        if not ring.path.exists():
            return {}
        keys, revoked = list(ring.keys()), ring.revoked()
    except (OSError, ValueError, FgtracError):
        return None  # the list says "cannot tell" of each, and fgtrac doctor why
    return {key: OWN_REVOKED if key in revoked else OWN_RETIRED if n else OWN for n, key in enumerate(keys)}


def _who_signed(trace: TraceDir, found: Glance, keys: dict[bytes, str] | None) -> tuple[str, str | None]:
    """Whose the newest head's signature says it is, and the public key in hex where it is known."""
    note = parse_note(trace.read("checkpoint"))
    origin = parse_tree_head(note.text).origin
    ids = [line.key_id for line in note.signatures if line.name == origin]
    if not ids:
        return NOBODY, None
    for key, whose in (keys or {}).items():
        if Verifier(origin, key).key_id in ids:
            return whose, key.hex()
    first = found.public_key
    known = first.hex() if first is not None and Verifier(origin, first).key_id in ids else None
    return UNKNOWN if keys is None else OTHER, known


def _size_of(path: Path) -> int:
    """The bytes of all plain files in a trace."""
    total, waiting = 0, [os.fspath(path)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
