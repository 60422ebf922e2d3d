"""Which epochs' orders a log announces, and which of the announcements were out of the signer's hands in time.

An announced order binds whoever signs only where a head with the `sampler` entry was shown to somebody else before the
log had any use of that epoch (docs/adr/0015): from the next use on, another order can no longer be announced. Whoever
has an old head shown after the training has shown nothing: so the time counts too, against the log's own word of when
the epoch was first used, and against who saw uses of it earlier. The log's word is the smallest time of all that the
writer recorded from that use on, and none in the future counts: else it would be enough to date one entry anew.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fgtrac.events.orders import UNREAD
from fgtrac.verify.sightings import TOLERANCE_S, Witnessed, utc
from fgtrac.verify.updates import counted

Key = tuple[bytes, int, int]  # writer, loader, epoch


class _SmallestTimes:
    """The smallest time of a writer's entries from each of its first uses on, taken entry by entry."""

    def __init__(self) -> None:
        self._until: list[int] = []  # first uses up to that entry, behind those of the item before, have
        self._times: list[int] = []  # that smallest time; both ascend

    def add(self, number: int, time_ns: int, is_first_use: bool) -> None:
        until = number if is_first_use else None
        while self._times and self._times[-1] >= time_ns:
            self._times.pop()
            last = self._until.pop()
            until = last if until is None else until
        if until is not None:
            self._until.append(until)
            self._times.append(time_ns)

    def since(self, first_use: int) -> float:
        """Unix seconds."""
        return self._times[bisect_left(self._until, first_use)] / 1e9


class Announcements:
    """The `sampler` entries of a log, and the first `use` entry of each pass over a loader."""

    def __init__(self) -> None:
        self._announced: dict[Key, int] = {}
        self._entries: Counter[Key] = Counter()
        self._used: dict[Key, int] = {}
        self._latest = 0  # own time of any entry
        self._times: defaultdict[bytes, _SmallestTimes] = defaultdict(_SmallestTimes)  # by writer

    def __len__(self) -> int:
        """Epochs whose order is announced, and that were used."""
        return len(self._announced.keys() & self._used.keys())

    @property
    def unused(self) -> int:
        """Epochs whose order is announced, and of which there is no use."""
        return len(self._announced) - len(self)

    @property
    def twice(self) -> int:
        """Of these, the epochs that are announced more than once: none of the orders is the announced one."""
        return sum(self._entries[key] > 1 for key in self._announced.keys() & self._used.keys())

    @property
    def missing(self) -> int:
        """Epochs that were used, and whose order no entry announces."""
        return len(self._used.keys() - self._announced.keys())

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`, of any kind."""
        before = len(self._used)
        if event["kind"] == "use":
            for epoch in np.unique(event["epoch"]).tolist():
                self._used.setdefault((event["writer"], event["loader"], epoch), number)
        elif event["kind"] == "sampler":
            key = event["writer"], event["loader"], event["epoch"]
            self._entries[key] += 1
            if event["sampler"] != UNREAD:
                self._announced.setdefault(key, number)
        self._latest = max(self._latest, event["time"])
        self._times[event["writer"]].add(number, event["time"], len(self._used) > before)

    def bound(self, held: Iterable[Witnessed], seen: Iterable[Witnessed] = ()) -> int:
        """How many used epochs one of the heads `held` binds: it has the one announcement, and no use of the epoch; its
        time is not later than what the log says of the first use, which is not in the future of this computer's clock
        by more than `TOLERANCE_S`; and nobody, of `seen` neither, has seen a use earlier."""
        held = list(held)
        able = sorted((one for one in held if one.exact and one.counts and not one.doubt), key=lambda one: one.size)
        sizes = np.array([one.size for one in able], float)
        times = np.array([one.time_s for one in able], float)
        latest = times + [one.margin_s for one in able]
        users = sorted((one.size, one.time_s) for one in (*held, *seen))
        used_sizes = np.array([size for size, _ in users], float)
        earliest = np.minimum.accumulate(np.array([time for _, time in users], float)[::-1])[::-1]  # of that size on
        bound, now_s = 0, time.time()
        for key, number in self._announced.items():
            first = self._used.get(key)
            if first is None or self._entries[key] > 1:
                continue
            used_s = self._times[key[0]].since(first)
            if used_s > now_s + TOLERANCE_S:
                continue
            mine = slice(*np.searchsorted(sizes, (number, first), "right").tolist())
            in_time = times[mine][latest[mine] <= used_s]
            after = int(np.searchsorted(used_sizes, first, "right"))
            bound += in_time.size > 0 and (after == len(users) or bool(in_time.min() <= earliest[after]))
        return bound

    def ahead(self) -> str:
        """That entries are in the future of this computer's clock by more than `TOLERANCE_S`, in words, if any is."""
        now_s, latest_s = time.time(), self._latest / 1e9
        if latest_s <= now_s + TOLERANCE_S:
            return ""
        return (
            f"entries say that they were recorded until {utc(latest_s)}, and this computer's clock is at {utc(now_s)}"
        )

    def told(self, held: Iterable[Witnessed], seen: Iterable[Witnessed] = ()) -> str:
        """The same in words, with what can never be bound; nothing for a log without any announcement or use."""
        words = []
        if self._announced:
            twice = f" ({self.twice} announced twice, which binds nothing)" if self.twice else ""
            unused = f", and {self.unused} more not used" if self.unused else ""
            bound = f"{self.bound(held, seen)} of {counted(len(self), 'announced epoch')}{twice}{unused}"
            words.append(f"anchored before their first use, by the log's own times: {bound}")
        if self.missing:
            words.append(f"{counted(self.missing, 'epoch')} used without an announced order")
        return "; ".join(words)
