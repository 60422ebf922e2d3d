"""What a `seal` entry counts: entries by kind, and the first step of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import NO_STEP, STATUS

MAX_EPOCHS = 4096  # what fits a `seal` entry with room to spare; a run may have more, and none is refused for it


class Totals:
    """Counts by kind and the smallest applied step of each epoch, over entries as they come."""

    def __init__(self, counts: Mapping[str, int], epoch_steps: NDArray[np.uint64]) -> None:
        self.counts = dict(counts)
        self._steps = dict(enumerate(epoch_steps.tolist()))

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one entry."""
        self.counts[event["kind"]] = self.counts.get(event["kind"], 0) + 1
        if event["kind"] == "use":
            applied = event["status"] == STATUS["applied"]
            epochs, steps = event["epoch"], event["step"]
            for epoch in np.unique(epochs[epochs < MAX_EPOCHS]).tolist():
                mine = steps[(epochs == epoch) & applied]
                first = int(mine.min()) if len(mine) else NO_STEP
                self._steps[epoch] = min(self._steps.get(epoch, NO_STEP), first)

    def merge(self, counts: Mapping[str, int], epoch_steps: NDArray[np.uint64]) -> None:
        """Take what other entries gave, in any order."""
        for kind, count in counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        for epoch, first in enumerate(epoch_steps.tolist()):
            self._steps[epoch] = min(self._steps.get(epoch, NO_STEP), first)

    @property
    def epoch_steps(self) -> NDArray[np.uint64]:
        """Element e: the first applied step of epoch e (below MAX_EPOCHS), 2^64-1 where there is none."""
        length = max(self._steps) + 1 if self._steps else 0
        return np.array([self._steps.get(e, NO_STEP) for e in range(length)], dtype=np.uint64)
