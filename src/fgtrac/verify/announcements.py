"""Which epochs' orders a log announces, and which of the announcements were out of the signer's hands in time.

An announced order binds whoever signs only where a head with the `sampler` entry was shown to somebody else before the
log had any use of that epoch (docs/adr/0015): from the next use on, another order can no longer be announced.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fgtrac.events.orders import UNREAD

Key = tuple[bytes, int, int]  # writer, loader, epoch


class Announcements:
    """The `sampler` entries of a log, and the first `use` entry of each pass over a loader."""

    def __init__(self) -> None:
        self._announced: dict[Key, int] = {}
        self._used: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._announced)

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`, a `sampler` or a `use` entry."""
        if event["kind"] == "use":
            for epoch in np.unique(event["epoch"]).tolist():
                self._used.setdefault((event["writer"], event["loader"], epoch), number)
        elif event["sampler"] != UNREAD:
            self._announced.setdefault((event["writer"], event["loader"], event["epoch"]), number)

    def bound(self, sizes: Iterable[int]) -> int:
        """How many epochs a head of one of these sizes binds: it has the announcement, and no use of the epoch."""
        sizes, bound = sorted(sizes), 0
        for key, number in self._announced.items():
            at = bisect_right(sizes, number)  # the first head that has the announcement
            bound += at < len(sizes) and sizes[at] <= self._used.get(key, sizes[at])
        return bound
