"""What receipts show of a log once each has been looked at: how much of it is held, since when, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fgtrac.errors import AnchorError, FgtracError, FormatError, ProofError
from fgtrac.tlog.note import MAX_NOTE_BYTES, TreeHead, parse_note, parse_tree_head
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.tree import Log
from fgtrac.verify.updates import counted

MAX_RECEIPT_BYTES = MAX_NOTE_BYTES  # the largest that any kind may be
MAX_NAMED = 3  # receipts named in one sentence; the others are counted


@dataclass(frozen=True, slots=True)
class Witnessed:
    """That somebody outside saw so many entries of the log: when (unix seconds, by the witness's clock), and who.
    `exact` says that it was the head of that very size, and not only a later one that extends it."""

    size: int
    time_s: float
    by: str
    exact: bool = True


@dataclass(slots=True)
class Tally:
    """What became of all receipts of one kind: heads that are held; receipts that are refuted, and those of which
    nobody can tell, in words."""

    held: list[Witnessed] = field(default_factory=list)
    refuted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @contextmanager
    def taking(self, where: str) -> Iterator[None]:
        """Takes what is raised of the receipt, or the service, called `where`: as a check raises, and AnchorError for a
        service that gave no usable answer."""
        try:
            yield
        except (CannotTell, AnchorError) as reason:
            self.unknown.append(f"{where}: {reason}")
        except (FgtracError, OSError) as error:
            self.refuted.append(f"{where}: {error}")

    def conclude(self, verb: str, log: Log, announcements: Announcements) -> str:
        """In words what the held heads show, where every receipt does; `verb` is what the witnesses did.

        ProofError where one is refuted, CannotTell where nobody can tell of one, or there is none.
        """
        if self.refuted:
            raise ProofError(some(self.refuted))
        words = describe(self.held, verb, log.head.size, announcements) if self.held else ""
        if self.unknown:
            raise CannotTell("; ".join([some(self.unknown), *([f"beside that, {words}"] if words else [])]))
        return words


def describe(held: Iterable[Witnessed], verb: str, size: int, announcements: Announcements) -> str:
    """How much of a log of so many entries the heads cover (at least one), since when, and which epochs they bind."""
    since: dict[int, float] = {}
    held = list(held)
    for one in held:
        since[one.size] = min(one.time_s, since.get(one.size, one.time_s))
    first, newest = min(since), max(since)
    who = sorted({one.by for one in held})
    told = f"{counted(len(since), 'head')} {verb} by {some(who, ' and ')}: "
    told += f"the first of {first} entries at {utc(since[first])}, the newest " if len(since) > 1 else ""
    told += f"of {newest} entries at {utc(since[newest])}"
    if size > newest:
        told += f"; the last {'entry is' if size == newest + 1 else f'{size - newest} are'} not covered"
    if len(announcements):
        bound = announcements.bound({one.size for one in held if one.exact})
        told += f"; anchored before their first use: {bound} of {counted(len(announcements), 'announced epoch')}"
    return told


def head_in(note: bytes, path: str) -> TreeHead:
    """The head of a note that lies at that path in `receipts/`. FormatError for what is none, ProofError where the
    folder is another size's."""
    head = parse_tree_head(parse_note(note).text)
    check_folder(head.size, path)
    return head


def check_folder(size: int, path: str) -> None:
    """ProofError unless the path is in the folder of the heads of that size."""
    folder = path.split("/")[1]
    if str(size) != folder:
        raise ProofError(f"of a head of {size} entries, in the folder of {folder}; it was moved")


def utc(time_s: float) -> str:
    """A time as people read it; whole seconds."""
    try:
        return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError) as error:
        raise FormatError(f"{time_s:.0f} seconds since 1970 is no time of this era") from error


def read_receipt(trace: TraceFiles, path: str) -> bytes:
    """A file of `receipts/`. FormatError for one larger than any receipt is; otherwise raises as `TraceFiles.read`."""
    data = bytearray()
    for piece in trace.pieces(path):
        data += piece
        if len(data) > MAX_RECEIPT_BYTES:
            raise FormatError(f"more than {MAX_RECEIPT_BYTES:,} bytes, which no receipt has")
    return bytes(data)


def examine_all(paths: Iterable[str], examine: Callable[[str], None]) -> None:
    """Examine each file; ProofError that names those of which it raised."""
    wrong = []
    for path in paths:
        try:
            examine(path)
        except (FgtracError, OSError) as error:
            wrong.append(f"{path}: {error}")
    if wrong:
        raise ProofError(some(wrong))


def some(words: list[str], between: str = "; ") -> str:
    """The first few, and how many more."""
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return between.join(words[:MAX_NAMED]) + more
