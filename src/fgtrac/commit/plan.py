"""The plan of a seal: which journal frames it takes, in which order, and the entries that it adds itself.

Written and synced before anything else of the seal, so that a crash can be followed by the same seal. The plan of
the current head stays: it says how far each writer is sealed, and is rebuilt from the log where it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.store.journal import encode_frame, scan

SUFFIX = ".seal"


@dataclass(frozen=True, slots=True)
class Taken:
    """The frames first to stop (by seq) of one writer."""

    writer: bytes
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A seal from `start` to `stop` entries: `taken` in order, then `own` entries; `writers` is how far each is sealed
    afterwards; `index_size` and `index_digests` (SHA-256 of each column's file) are those of the newest index."""

    start: int
    stop: int
    taken: tuple[Taken, ...]
    writers: dict[bytes, int]
    own: tuple[bytes, ...]
    index_size: int
    index_digests: dict[str, bytes]

    @property
    def path(self) -> str:
        """Where the plan lies."""
        return f"journal/{self.stop}{SUFFIX}"


def format_plan(plan: Plan) -> bytes:
    """The plan's bytes: a frame with the order, then a frame for each own entry."""
    order = {
        "kind": "order",
        "from": plan.start,
        "to": plan.stop,
        "taken": [[t.writer, t.first, t.stop] for t in plan.taken],
        "writers": [[w, n] for w, n in sorted(plan.writers.items())],
        "index_size": plan.index_size,
        "index_digests": plan.index_digests,
        "own": len(plan.own),
    }
    return b"".join(map(encode_frame, [encode(order), *plan.own]))


def parse_plan(data: bytes) -> Plan:
    """The plan of these bytes. FormatError for anything that `format_plan` would not have written."""
    found = scan(data)
    if found.bad or found.torn or not found.frames:
        raise FormatError("the plan of a seal is damaged or was not written whole")
    order = decode(found.frames[0][1])
    own = tuple(entry for _, entry in found.frames[1:])
    try:
        plan = Plan(
            order["from"],
            order["to"],
            tuple(Taken(*item) for item in order["taken"]),
            dict(order["writers"]),
            own,
            order["index_size"],
            order["index_digests"],
        )
        whole = format_plan(plan) == data
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # IndexError: an array where a map belongs
        raise FormatError(f"the plan of a seal lacks a field or has one of another type: {error!r:.80}") from error
    if not whole:
        raise FormatError("the plan of a seal is not written as plans are")
    _check_counts(plan)
    return plan


def _check_counts(plan: Plan) -> None:
    def whole(value: Any) -> bool:
        return type(value) is int and value >= 0

    numbers = [plan.start, plan.stop, plan.index_size, *plan.writers.values()]
    if not all(map(whole, numbers)) or not all(whole(t.first) and whole(t.stop) for t in plan.taken):
        raise FormatError("the plan of a seal holds a negative number or none")
    if any(t.first > t.stop for t in plan.taken):
        raise FormatError("the plan of a seal takes frames that stop before they begin")
    digests = plan.index_digests
    if type(digests) is not dict or not all(type(d) is bytes and len(d) == 32 for d in digests.values()):
        raise FormatError("the plan of a seal names a digest of the index that is not 32 bytes")
    if not all(type(w) is bytes and len(w) == 16 for w in [*plan.writers, *(t.writer for t in plan.taken)]):
        raise FormatError("the plan of a seal names a writer that is not 16 bytes")
    entries = sum(t.stop - t.first for t in plan.taken) + len(plan.own)
    if plan.start + entries != plan.stop:
        raise FormatError(f"the plan of a seal takes {entries} entries from {plan.start} to {plan.stop}")
