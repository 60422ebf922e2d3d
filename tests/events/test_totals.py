"""What a `seal` entry counts, in one go and from where an older seal left off."""

from __future__ import annotations

from typing import Any

import numpy as np

from fgtrac.events.totals import MAX_EPOCHS, Totals

NO_STEP = 2**64 - 1


def use(*batches: tuple[int, int, int]) -> dict[str, Any]:
    """A `use` event of (epoch, step, status) batches, as far as totals look at it."""
    epochs, steps, statuses = zip(*batches, strict=True)
    return {
        "kind": "use",
        "epoch": np.array(epochs, "<u4"),
        "step": np.array(steps, "<u8"),
        "status": np.array(statuses, "<u1"),
    }


EVENTS = [
    {"kind": "run"},
    use((0, 3, 1), (0, 2, 1), (0, NO_STEP, 2)),
    use((2, NO_STEP, 3)),
    {"kind": "metrics"},
    use((0, 1, 1), (3, 9, 1)),
    use((2, 7, 1)),
]


def totals_of(events: list[dict[str, Any]], start: Totals | None = None) -> Totals:
    totals = Totals({}, np.empty(0, np.uint64)) if start is None else Totals(start.counts, start.epoch_steps)
    for event in events:
        totals.add(event)
    return totals


def test_kinds_are_counted_and_an_epoch_begins_with_its_first_applied_step() -> None:
    totals = totals_of(EVENTS)
    assert totals.counts == {"run": 1, "use": 4, "metrics": 1}
    assert totals.epoch_steps.tolist() == [1, NO_STEP, 7, 9]


def test_totals_that_go_on_from_a_seal_equal_those_from_scratch() -> None:
    for cut in range(len(EVENTS) + 1):
        resumed, scratch = totals_of(EVENTS[cut:], totals_of(EVENTS[:cut])), totals_of(EVENTS)
        assert resumed.counts == scratch.counts
        assert resumed.epoch_steps.tolist() == scratch.epoch_steps.tolist()


def test_a_run_of_more_epochs_than_a_seal_lists_can_be_sealed() -> None:
    totals = totals_of([use((MAX_EPOCHS - 1, 5, 1), (MAX_EPOCHS, 6, 1), (2**32 - 1, 7, 1))])
    assert len(totals.epoch_steps) == MAX_EPOCHS
    assert totals.epoch_steps[-1] == 5
