"""A glance at a log as it stands on disk: its first entry, its newest full seal, and what its last entries say.

Nothing here is checked: it is for lists of many traces, which have to be quick whatever a trace holds. At most
LOOKED_AT entries are looked at, the newest first, and of a long one (a column of samples) its beginning alone; of the
`use` entries, which are the longest, at most MOST_USES. Each is of one loader and one optimizer, so the newest alone
does not say how far training came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fgtrac.errors import FgtracError, FormatError
from fgtrac.events.codec import encode
from fgtrac.events.schema import NO_STEP, STATUS, TRAINING, decode_event
from fgtrac.query.log import SealedLog
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import CONTENT
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.npy import column_path

LOOKED_AT = 4096
MOST_USES = 32
KIND_WITHIN = 256  # bytes: few and short are the fields whose names sort before `kind`
_KIND = encode("kind")
_ENDS = ("end", *TRAINING)


@dataclass(slots=True)
class Glance:
    """What a glance found; None where it was not among the entries that were looked at, or is not said.

    `first` and `last` are times in ns since 1970; `step` the last applied update, of the optimizer that made most;
    `losses` the validation loss by step, of states that no resumed run went back behind; `kept` whether the state of a
    step is kept; `is_whole` whether every checkpoint was seen.
    """

    first: int | None = None
    last: int | None = None
    public_key: bytes | None = None
    indexed: int = 0
    samples: int | None = None
    step: int | None = None
    epochs: int | None = None
    ended: bool | None = None
    losses: dict[int, float] = field(default_factory=dict)
    kept: dict[int, bool] = field(default_factory=dict)
    is_whole: bool = False

    @property
    def last_loss(self) -> float | None:
        """The validation loss of the newest checkpoint that has one."""
        return self.losses[max(self.losses)] if self.losses else None

    @property
    def best(self) -> tuple[float, int] | None:
        """The lowest validation loss and its step; None where not all checkpoints were seen."""
        if not self.losses or not self.is_whole:
            return None
        loss, step = min((loss, step) for step, loss in self.losses.items())
        return loss, step


def glance(trace: TraceDir, head: TreeHead) -> Glance:
    """Look at a log. FormatError or FileNotFoundError where its files are damaged or missing as far as it looks."""
    log, found = SealedLog(trace, head), Glance()
    if head.size == 0:
        return found
    first = decode_event(log.peek(0))
    found.first = first["time"]
    found.public_key = first.get("public_key")
    found.last = decode_event(log.peek(head.size - 1))["time"]
    seal = _newest_seal(trace, head, log)
    if seal is not None:
        found.indexed = seal["entries"]
        found.epochs = len(seal["epoch_steps"]) or None
        found.samples = _count_samples(trace, seal["entries"] + 1)
    _look_back(found, log, seal)
    return found


def _newest_seal(trace: TraceDir, head: TreeHead, log: SealedLog) -> Mapping[str, Any] | None:
    for size in reversed(trace.full_seals()):
        if 0 < size <= head.size:
            event = decode_event(log.peek(size - 1))
            if event["kind"] != "seal":
                raise FormatError(f"entry {size - 1} is a {event['kind']} entry, and index/{size} asks for a seal")
            return event
    return None


def _count_samples(trace: TraceDir, size: int) -> int | None:
    """How many leaves of the index are samples: they come before the contents. None where the column is gone."""
    try:
        keys = trace.mapped(column_path(size, "keys"))
    except (FileNotFoundError, FgtracError):
        return None  # an index is rebuilt by fgtrac seal; the trace is none the worse
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if int(keys[middle, 0]) < CONTENT else (low, middle)
    return low


def _look_back(found: Glance, log: SealedLog, seal: Mapping[str, Any] | None) -> None:
    """Go back from the newest entry until everything was seen that the newest seal counts, or the look is over."""
    counts = seal["counts"] if seal is not None else {}
    covered = seal["entries"] if seal is not None else 0
    missing, uses = counts.get("checkpoint", 0), counts.get("use", 0)  # of those before the seal
    undone = 1 << 64  # a resumed run went on from this step
    looked, used = 0, False  # at how many uses; whether one of them said how far training came
    for number, kind in _kinds_backward(log):
        if kind in _ENDS and found.ended is None:
            found.ended = kind == "end"
        if kind in ("resume", "checkpoint") or (kind == "use" and (looked < MOST_USES or not used)):
            event = _event(log, number, kind)
            if event is None:
                continue
            if kind == "resume":
                undone = min(undone, event["step"])
            elif kind == "checkpoint":
                missing -= number < covered
                _take_checkpoint(found, event, undone)
            else:
                looked, uses = looked + 1, uses - (number < covered)
                used = _take_use(found, event, undone) or used
        is_far = uses <= 0 or (used and looked >= MOST_USES)
        if number < covered and missing <= 0 and found.ended is not None and is_far:
            found.is_whole = True
            break
    if uses > 0 and seal is not None:
        _doubt_step(found, seal, undone)
    found.is_whole = found.is_whole or log.head.size <= LOOKED_AT
    if found.is_whole and found.ended is None:
        found.ended = False


def _doubt_step(found: Glance, seal: Mapping[str, Any], undone: int) -> None:
    """Not every use was looked at: where an epoch began behind the step that was found, another optimizer came further,
    and how far is not known."""
    begun = seal["epoch_steps"][seal["epoch_steps"] != NO_STEP]
    if len(begun) and found.step is not None and min(int(begun.max()), undone) > found.step:
        found.step = None


def _kinds_backward(log: SealedLog) -> Iterator[tuple[int, str]]:
    """Number and kind of the newest entries, the last one first."""
    for number in range(log.head.size - 1, max(-1, log.head.size - 1 - LOOKED_AT), -1):
        yield number, kind_at(log, number)


def kind_at(log: SealedLog, number: int) -> str:
    """The kind of an entry as its first bytes say; empty where they do not. Unchecked, as all that is peeked at."""
    start = log.peek(number, KIND_WITHIN)
    if _KIND not in start:
        start = log.peek(number)
    _before, _key, rest = start.partition(_KIND)
    return rest[1 : 1 + (rest[0] & 0x1F)].decode(errors="replace") if rest else ""


def _event(log: SealedLog, number: int, kind: str) -> Mapping[str, Any] | None:
    """The event of an entry that looks like one of this kind; None where it is another after all."""
    event = decode_event(log.peek(number))
    return event if event["kind"] == kind else None


def _take_checkpoint(found: Glance, event: Mapping[str, Any], undone: int) -> None:
    step = event["step"]
    if step > undone:
        return
    found.kept.setdefault(step, event["kept"])  # a later entry of the same step says what became of it
    if "val_loss" in event:
        found.losses.setdefault(step, event["val_loss"])
    found.step = max(step, found.step or 0)


def _take_use(found: Glance, event: Mapping[str, Any], undone: int) -> bool:
    """Whether the entry says how far training came."""
    applied = event["status"] == STATUS["applied"]
    steps = event["step"][applied]
    if not len(steps) or int(steps.min()) > undone:
        return False
    found.step = max(int(np.minimum(steps, np.uint64(min(undone, 2**64 - 1))).max()), found.step or 0)
    found.epochs = max(int(event["epoch"][applied].max()) + 1, found.epochs or 0)
    return True
