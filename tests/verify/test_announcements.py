"""Which epochs a witnessed head binds: it has the announcement, and no use of the epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgtrac.events.orders import UNREAD
from fgtrac.verify.announcements import Announcements


def told(*entries: tuple[str, int, int]) -> Announcements:
    """Of entries (kind or sampler's name, loader, epoch), numbered from 0."""
    found = Announcements()
    for number, (what, loader, epoch) in enumerate(entries):
        event: dict[str, Any] = {"writer": b"w" * 16, "loader": loader}
        if what == "use":
            found.add(number, {"kind": "use", "epoch": np.array([epoch], np.uint32), **event})
        else:
            found.add(number, {"kind": "sampler", "sampler": what, "epoch": epoch, **event})
    return found


LOG = told(("R", 1, 0), ("R", 2, 0), ("use", 1, 0), ("R", 1, 1), ("use", 1, 1), ("use", 2, 0), (UNREAD, 3, 0))


@pytest.mark.parametrize(("size", "bound"), [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 0), (7, 0), (100, 0)])
def test_a_head_binds_the_epochs_between_their_announcement_and_their_first_use(size: int, bound: int) -> None:
    assert LOG.bound([size]) == bound
    assert len(LOG) == 3


def test_several_heads_bind_what_any_of_them_binds() -> None:
    assert LOG.bound([2, 4]) == 3
    assert LOG.bound([]) == 0


def test_an_epoch_that_was_never_used_stays_bound_and_one_announced_after_its_use_never_is() -> None:
    assert told(("R", 1, 0)).bound([1, 50]) == 1
    assert told(("use", 1, 0), ("R", 1, 0)).bound(range(9)) == 0
