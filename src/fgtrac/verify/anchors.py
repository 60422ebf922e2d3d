"""What receipts show of a log once each has been looked at: how much of it is held, since when, and by whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fgtrac.errors import AnchorError, FgtracError, FormatError, ProofError, StorageError
from fgtrac.tlog.note import MAX_NOTE_BYTES, TreeHead, parse_note, parse_tree_head
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.receipts import EVM, RFC3161, WITNESS
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.updates import counted

if TYPE_CHECKING:
    from fgtrac.verify.auditor import Audit

MAX_RECEIPT_BYTES = MAX_NOTE_BYTES  # the largest that any kind may be
MAX_NAMED = 3  # receipts named in one sentence; the others are counted
VERBS = {RFC3161: "stamped", WITNESS: "cosigned", EVM: "kept"}
SHOWN = {
    RFC3161: "a time stamp shows since when a head exists, and excludes no second history",
    WITNESS: "whoever cosigned says that it saw no other history of this log",
    EVM: "a contract takes heads of one account in one order; another account may have given it another history",
}


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
        service that gave no usable answer. StorageError where the trace is far away, and nobody answers."""
        try:
            yield
        except (CannotTell, AnchorError) as reason:
            self.unknown.append(f"{where}: {reason}")
        except StorageError:
            raise
        except (FgtracError, FileNotFoundError) as error:
            self.refuted.append(f"{where}: {error}")
        except OSError as error:
            self.unknown.append(f"{where}: {error}")

    def conclude(self, kind: str, audit: Audit) -> str:
        """In words what the held heads show, where every receipt does; then they are among those that `audit` has.

        ProofError where one is refuted, CannotTell where nobody can tell of one, or there is none.
        """
        if self.refuted:
            raise ProofError(some(self.refuted))
        held = judged(self.held, kind, audit)
        words = describe(held, kind, audit) if held else ""
        if self.unknown:
            raise CannotTell("; ".join([some(self.unknown), *([f"beside that, {words}"] if words else [])]))
        audit.witnessed += held
        return words


def judged(held: Iterable[Witnessed], kind: str, audit: Audit) -> list[Witnessed]:
    """The heads as those of that kind, each with what speaks against its time."""
    now_s = time.time()
    return [audit.facts.own_times.judge(replace(one, kind=kind), now_s) for one in held]


def describe(held: Sequence[Witnessed], kind: str, audit: Audit) -> str:
    """How much of the log the heads cover (at least one), by whom and since when, which epochs they bind, and what such
    a witness shows at all."""
    told = [by_service(held, kind), *uncovered(held, audit), audit.facts.announcements.told(held), SHOWN[kind]]
    return "; ".join(filter(None, told))


def by_service(held: Iterable[Witnessed], kind: str) -> str:
    """What each of those who saw heads saw: whose newest head is the largest comes first."""
    services: dict[str, list[Witnessed]] = {}
    for one in held:
        services.setdefault(one.by, []).append(one)
    heads = {by: first_seen(mine) for by, mine in services.items()}
    order = sorted(heads, key=lambda by: (-max(heads[by]), by))
    return some([_told(heads[by], f"{VERBS[kind]} by {by}") for by in order])


def first_seen(held: Iterable[Witnessed]) -> dict[int, Witnessed]:
    """Of each size the one with the earliest time, those last that cannot be believed; by size."""
    best = sorted(held, key=lambda one: (one.size, bool(one.doubt), one.time_s))
    return {one.size: one for one in reversed(best)}


def _told(heads: Mapping[int, Witnessed], by: str) -> str:
    first, newest = heads[min(heads)], heads[max(heads)]
    words = f"{counted(len(heads), 'head')} {by}: "
    words += f"the first of {first.size} entries at {first.told()}, the newest " if len(heads) > 1 else ""
    words += f"of {newest.size} entries at {newest.told()}"
    doubtful = sum(bool(one.doubt) for one in heads.values() if one not in (first, newest))
    return words + (f", and the times of {doubtful} between them are not believable" if doubtful else "")


def uncovered(held: Iterable[Witnessed], audit: Audit) -> list[str]:
    """How many entries are behind the newest head, in words; empty for none."""
    assert audit.log is not None
    size, newest = audit.log.head.size, max(one.size for one in held)
    if size == newest:
        return []
    return [f"the last {'entry is' if size == newest + 1 else f'{size - newest} are'} not covered"]


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


def read_receipt(trace: TraceFiles, path: str) -> bytes:
    """A file of `receipts/`. FormatError for one larger than any receipt is; otherwise raises as `TraceFiles.read`."""
    data = bytearray()
    for piece in trace.pieces(path):
        data += piece
        if len(data) > MAX_RECEIPT_BYTES:
            raise FormatError(f"more than {MAX_RECEIPT_BYTES:,} bytes, which no receipt has")
    return bytes(data)


def examine_all(paths: Iterable[str], examine: Callable[[str], None]) -> None:
    """Examine each file; ProofError that names those of which it raised, and CannotTell where it raised that only, or
    a file could not be read."""
    wrong, unknown = [], []
    for path in paths:
        try:
            examine(path)
        except StorageError:
            raise
        except (FgtracError, FileNotFoundError) as error:
            wrong.append(f"{path}: {error}")
        except (CannotTell, OSError) as reason:
            unknown.append(f"{path}: {reason}")
    if wrong:
        raise ProofError(some(wrong))
    if unknown:
        raise CannotTell(some(unknown))


def some(words: Sequence[str], between: str = "; ") -> str:
    """The first few, and how many more."""
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return between.join(words[:MAX_NAMED]) + more
