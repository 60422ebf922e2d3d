"""Which epochs' orders a log announces, and which of the announcements were out of the signer's hands in time.

An announced order binds whoever signs only where a head with the `sampler` entry was shown to somebody else before the
log had any use of that epoch (docs/adr/0015): from the next use on, another order can no longer be announced. Whoever
has an old head shown after the training has shown nothing: so the time counts too, against the log's own word of when
the epoch was first used, and against who saw uses of it earlier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fgtrac.events.orders import UNREAD
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.updates import counted

Key = tuple[bytes, int, int]  # writer, loader, epoch


class Announcements:
    """The `sampler` entries of a log, and the first `use` entry of each pass over a loader."""

    def __init__(self) -> None:
        self._announced: dict[Key, int] = {}
        self._entries: Counter[Key] = Counter()
        self._used: dict[Key, tuple[int, float]] = {}  # the entry's number and its own time, unix seconds

    def __len__(self) -> int:
        """Epochs whose order is announced."""
        return len(self._announced)

    @property
    def twice(self) -> int:
        """Of these, the epochs that are announced more than once: none of the orders is the announced one."""
        return sum(self._entries[key] > 1 for key in self._announced)

    @property
    def missing(self) -> int:
        """Epochs that were used, and whose order no entry announces."""
        return len(self._used.keys() - self._announced.keys())

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`, a `sampler` or a `use` entry."""
        if event["kind"] == "use":
            for epoch in np.unique(event["epoch"]).tolist():
                self._used.setdefault((event["writer"], event["loader"], epoch), (number, event["time"] / 1e9))
            return
        key = event["writer"], event["loader"], event["epoch"]
        self._entries[key] += 1
        if event["sampler"] != UNREAD:
            self._announced.setdefault(key, number)

    def bound(self, held: Iterable[Witnessed], seen: Iterable[Witnessed] = ()) -> int:
        """How many epochs one of the heads `held` binds: it has the one announcement, and no use of the epoch; its time
        is not later than the first use's own; and nobody, of `seen` neither, has seen a use earlier."""
        held = list(held)
        able = sorted((one for one in held if one.exact and one.counts and not one.doubt), key=lambda one: one.size)
        sizes = np.array([one.size for one in able], float)
        times = np.array([one.time_s for one in able], float)
        latest = times + [one.margin_s for one in able]
        users = sorted((one.size, one.time_s) for one in (*held, *seen))
        used_sizes = np.array([size for size, _ in users], float)
        earliest = np.minimum.accumulate(np.array([time for _, time in users], float)[::-1])[::-1]  # of that size on
        bound = 0
        for key, number in self._announced.items():
            if self._entries[key] > 1:
                continue
            first, used_s = self._used.get(key, (None, np.inf))
            stop = len(able) if first is None else int(np.searchsorted(sizes, first, "right"))
            mine = slice(int(np.searchsorted(sizes, number, "right")), stop)
            in_time = times[mine][latest[mine] <= used_s]
            after = len(users) if first is None else int(np.searchsorted(used_sizes, first, "right"))
            bound += in_time.size > 0 and (after == len(users) or bool(in_time.min() <= earliest[after]))
        return bound

    def told(self, held: Iterable[Witnessed], seen: Iterable[Witnessed] = ()) -> str:
        """The same in words, with what can never be bound; nothing for a log without any announcement or use."""
        words = []
        if self._announced:
            twice = f" ({self.twice} announced twice, which binds nothing)" if self.twice else ""
            bound = f"{self.bound(held, seen)} of {counted(len(self), 'announced epoch')}{twice}"
            words.append(f"anchored before their first use, by the log's own times: {bound}")
        if self.missing:
            words.append(f"{counted(self.missing, 'epoch')} used without an announced order")
        return "; ".join(words)
