"""One pass over a log's `use` entries: who was used at all, and every use that was not allowed. Columnar throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import NO_STEP, STATUS, decode_event
from fgtrac.verify.roster import Mask, Places, Progress, Roster
from fgtrac.verify.tree import Log

U64 = NDArray[np.uint64]
NONE = NO_STEP  # in a column of violations: a sample that was not used has no step, epoch or entry


@dataclass(frozen=True, slots=True, eq=False)
class Violations:
    """What breaks a policy, one element each: the sample's place in the roster; the entry, step and epoch of the use;
    whether that update was superseded by a later resume."""

    places: Places
    entries: U64
    steps: U64
    epochs: U64
    superseded: Mask

    def __len__(self) -> int:
        return len(self.places)


NO_VIOLATIONS = Violations(
    np.empty(0, np.intp), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.bool_)
)


def unused(places: Places) -> Violations:
    """Samples that break a policy by not being used."""
    none = np.full(len(places), NONE, np.uint64)
    return Violations(places, none, none, none, np.zeros(len(places), np.bool_))


@dataclass(slots=True)
class Ban:
    """Samples (n,) that must not be used. With `entries` and `times` (n,) only behind that entry of the log, or later
    than that time in ns, whichever a use shows."""

    banned: Mask
    entries: U64 | None = None
    times: U64 | None = None
    found: list[Violations] = field(default_factory=list)

    def violations(self) -> Violations:
        """All that were found, in the order of the log."""
        if not self.found:
            return NO_VIOLATIONS
        columns = ("places", "entries", "steps", "epochs", "superseded")
        return Violations(*(np.concatenate([getattr(some, name) for some in self.found]) for name in columns))

    def is_broken(self, number: int, time: int, places: Places) -> Places:
        """Which of the samples that an entry uses must not be used there."""
        broken = self.banned[places]
        if not broken.any():
            return np.empty(0, np.intp)
        which = np.flatnonzero(broken)
        if self.times is not None:
            late = self.times[places[which]] < np.uint64(time)
            if self.entries is not None:
                late |= self.entries[places[which]] < np.uint64(number)
            which = which[late]
        return which


@dataclass(slots=True)
class Uses:
    """What `use` entries say of the samples (n,): `used` in an applied update, `last` at which time in ns, `standing`
    in an update that no resume superseded. How many uses there are, and how many entries have neighbours in a graph."""

    used: Mask
    last: U64
    standing: Mask
    total: int = 0
    with_neighbours: int = 0


def read_uses(log: Log, roster: Roster, bans: Sequence[Ban], progress: Progress | None = None) -> Uses:
    """Go over all uses in applied updates, and put what breaks a ban into it. `progress`: entries done, and in all."""
    n = len(roster)
    uses = Uses(np.zeros(n, np.bool_), np.zeros(n, np.uint64), np.zeros(n, np.bool_))
    for done, (number, entry) in enumerate(log.entries(roster.use_entries), 1):
        _read_entry(number, decode_event(entry), roster, bans, uses)
        if progress is not None:
            progress(done, len(roster.use_entries))
    return uses


def _read_entry(number: int, event: Mapping[str, Any], roster: Roster, bans: Sequence[Ban], uses: Uses) -> None:
    uses.with_neighbours += "hops" in event
    applied, counts, ordinals = event["status"] == STATUS["applied"], event["count"], event["ordinals"]
    if not applied.all():
        ordinals, counts = ordinals[np.repeat(applied, counts)], counts[applied]
    steps, epochs = event["step"][applied], event["epoch"][applied]
    places = roster.blocks[event["block"]].places[ordinals]
    went_on = [step for resume, step in roster.resumes if resume > number]  # docs/spec/entries.md, resume
    superseded = steps > np.uint64(min(went_on, default=NO_STEP))
    uses.total += len(places)
    uses.used[places] = True
    uses.last[places] = np.maximum(uses.last[places], np.uint64(event["time"]))
    uses.standing[places if not superseded.any() else places[np.repeat(~superseded, counts)]] = True
    ends = np.cumsum(counts, dtype=np.int64)
    for ban in bans:
        which = ban.is_broken(number, event["time"], places)
        if len(which):
            batch = np.searchsorted(ends, which, "right")
            entries = np.full(len(which), number, np.uint64)
            columns = steps[batch], epochs[batch].astype(np.uint64), superseded[batch]
            ban.found.append(Violations(places[which], entries, *columns))
