"""One pass over a log's `use` entries: who was used at all, and every use that was not allowed. Columnar throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS, decode_event
from fgtrac.verify.roster import Mask, Places, Progress, Roster
from fgtrac.verify.tree import Log

U64 = NDArray[np.uint64]
NONE = NO_STEP  # in a column of violations: a sample that was not used has no step, epoch or entry


@dataclass(frozen=True, slots=True, eq=False)
class Violations:
    """What breaks a policy, one element each: the sample's place in the roster; the entry, step and epoch of the use;
    whether that update was superseded by a later resume; at which hop the sample was a neighbour, 0 of a seed; whether
    it was then out of the seeds' reach, in an update on the whole graph."""

    places: Places
    entries: U64
    steps: U64
    epochs: U64
    superseded: Mask
    hops: U64
    far: Mask

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def unused(cls, places: Places) -> Violations:
        """Samples that break a policy by not being used."""
        none, no = np.full(len(places), NONE, np.uint64), np.zeros(len(places), np.bool_)
        return cls(places, none, none, none, no, np.zeros(len(places), np.uint64), no)


NO_VIOLATIONS = Violations.unused(np.empty(0, np.intp))


@dataclass(slots=True)
class Ban:
    """Samples (n,) that must not be used: as seeds, as neighbours, or as either. With `entries` and `times` (n,) only
    behind that entry of the log, or later than that time in ns, whichever a use shows."""

    banned: Mask
    entries: U64 | None = None
    times: U64 | None = None
    seeds: bool = True
    neighbours: bool = False
    found: list[Violations] = field(default_factory=list)
    perhaps: int = 0  # such uses in batches that may have left the sample out

    def violations(self) -> Violations:
        """All that were found, in the order of the log."""
        if not self.found:
            return NO_VIOLATIONS
        return Violations(*(np.concatenate([getattr(some, f.name) for some in self.found]) for f in fields(Violations)))

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
    """What `use` entries say of the samples (n,). As seeds, whose loss took part: `used` in an applied update, `last`
    at which time in ns, `standing` in an update that no resume superseded, `watched` in such a one that is not only
    declared; `perhaps` in such a one whose batch may have left it out, which counts nowhere else. As neighbours in a
    graph, with their features alone: how often (`beside`), how often of that out of the seeds' reach (`far`), last at
    which time. How many uses as seeds there are, how many of them in entries that name no neighbours, and how many
    entries do."""

    used: Mask
    last: U64
    standing: Mask
    watched: Mask
    beside: U64
    far: U64
    last_beside: U64
    perhaps: Mask
    total: int = 0
    alone: int = 0
    graphs: int = 0

    @classmethod
    def of(cls, n: int) -> Uses:
        """No use of n samples."""
        no, none = np.zeros(n, np.bool_), np.zeros(n, np.uint64)
        return cls(no, none, no.copy(), no.copy(), none.copy(), none.copy(), none.copy(), no.copy())

    def concerned(self, ban: Ban) -> tuple[Mask, U64]:
        """(n,) who was used as the ban forbids it to some, and at which time in ns last."""
        used = (self.used & ban.seeds) | ((self.beside > 0) & ban.neighbours)
        return used, np.maximum(self.last * ban.seeds, self.last_beside * ban.neighbours)


def read_uses(log: Log, roster: Roster, bans: Sequence[Ban], progress: Progress | None = None) -> Uses:
    """Go over all uses in applied updates, and put what breaks a ban into it. `progress`: entries done, and in all."""
    uses = Uses.of(len(roster))
    for done, (number, entry) in enumerate(log.entries(roster.use_entries), 1):
        _read_entry(number, decode_event(entry), roster, bans, uses)
        if progress is not None:
            progress(done, len(roster.use_entries))
    return uses


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The seeds or the neighbours of an entry in applied updates: their places, run by run; of each run how many there
    are, which batch it belongs to, and which hop it is (0: seeds)."""

    places: Places
    counts: NDArray[np.uint32]
    batch: Places
    hop: U64

    @classmethod
    def of(cls, places: Places, counts: NDArray[np.uint32], applied: Mask, batch: Places, hop: U64) -> _Part:
        mine = applied[batch]
        if not mine.all():
            places, counts, batch, hop = places[np.repeat(mine, counts)], counts[mine], batch[mine], hop[mine]
        return cls(places, counts, batch, hop)

    def those(self, runs: Mask) -> Places:
        """The places in these runs."""
        return self.places if runs.all() else self.places[np.repeat(runs, self.counts)]

    def runs(self, which: Places) -> Places:
        """The run of each of these elements."""
        return np.searchsorted(np.cumsum(self.counts, dtype=np.int64), which, "right")


def _parts(event: Mapping[str, Any], roster: Roster) -> Iterator[_Part]:
    """The seeds, and where an entry is about a graph the neighbours."""
    places, applied = roster.blocks[event["block"]].places, event["status"] == STATUS["applied"]
    applied &= event["attribution"] != ATTRIBUTION["among"]
    batch, hops = np.arange(len(applied)), event.get("hops", 0)
    yield _Part.of(places[event["ordinals"]], event["count"], applied, batch, np.zeros(len(batch), np.uint64))
    if "hops" in event:
        hop = np.tile(np.arange(1, hops + 1, dtype=np.uint64), len(batch))
        yield _Part.of(places[event["hop_ordinals"]], event["hop_count"], applied, np.repeat(batch, hops), hop)


def _read_perhaps(
    number: int, event: Mapping[str, Any], roster: Roster, bans: Sequence[Ban], uses: Uses, superseded: Mask
) -> None:
    """The samples of batches that may have left them out, and their neighbours."""
    among = (event["status"] == STATUS["applied"]) & (event["attribution"] == ATTRIBUTION["among"])
    if not among.any():
        return
    places = roster.blocks[event["block"]].places
    seeds = places[event["ordinals"]]
    uses.perhaps[seeds[np.repeat(among & ~superseded, event["count"])]] = True
    seeds, beside = seeds[np.repeat(among, event["count"])], seeds[:0]
    if "hops" in event:
        counts = event["hop_count"].reshape(len(among), -1).sum(axis=1, dtype=np.int64)
        beside = places[event["hop_ordinals"]][np.repeat(among, counts)]
    for ban in bans:
        some = np.concatenate([seeds[: len(seeds) * ban.seeds], beside[: len(beside) * ban.neighbours]])
        ban.perhaps += len(ban.is_broken(number, event["time"], some))


def _read_entry(number: int, event: Mapping[str, Any], roster: Roster, bans: Sequence[Ban], uses: Uses) -> None:
    time = np.uint64(event["time"])
    went_on = [step for resume, step in roster.resumes if resume > number]  # docs/spec/entries.md, resume
    superseded = event["step"] > np.uint64(min(went_on, default=NO_STEP))
    last_hop = np.uint64((event.get("graph") == "whole" and event["hops"]) or NO_STEP)  # the last one: out of reach
    _read_perhaps(number, event, roster, bans, uses, superseded)
    seeds, *beside = parts = list(_parts(event, roster))
    uses.total += len(seeds.places)
    uses.used[seeds.places] = True
    uses.last[seeds.places] = np.maximum(uses.last[seeds.places], time)
    uses.standing[seeds.those(~superseded[seeds.batch])] = True
    is_watched = ~superseded & (event["attribution"] != ATTRIBUTION["declared"])
    uses.watched[seeds.those(is_watched[seeds.batch])] = True
    uses.alone += 0 if beside else len(seeds.places)
    uses.graphs += any(len(part.counts) for part in beside)
    for part in beside:
        np.add.at(uses.beside, part.places, 1)
        if (is_far := part.hop == last_hop).any():
            np.add.at(uses.far, part.those(is_far), 1)
        uses.last_beside[part.places] = np.maximum(uses.last_beside[part.places], time)
    for ban in bans:
        for part in parts[not ban.seeds : 1 + ban.neighbours]:
            which = ban.is_broken(number, event["time"], part.places)
            if len(which):
                runs = part.runs(which)
                batch, hop = part.batch[runs], part.hop[runs]
                columns = event["step"][batch], event["epoch"][batch].astype(np.uint64), superseded[batch]
                entries = np.full(len(which), number, np.uint64)
                ban.found.append(Violations(part.places[which], entries, *columns, hop, hop == last_hop))
