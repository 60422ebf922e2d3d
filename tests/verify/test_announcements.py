"""Which epochs a witnessed head binds: it has the announcement, no use of the epoch, and was seen before the first."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import numpy as np
import pytest

from fgtrac.events.orders import UNREAD
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.sightings import Witnessed


def told(*entries: tuple[str, int, int]) -> Announcements:
    """Of entries (kind or sampler's name, loader, epoch), numbered from 0, each recorded at 100 s times its number."""
    found = Announcements()
    for number, (what, loader, epoch) in enumerate(entries):
        event: dict[str, Any] = {"writer": b"w" * 16, "loader": loader, "time": number * 100 * 10**9}
        if what == "use":
            found.add(number, {"kind": "use", "epoch": np.array([epoch], np.uint32), **event})
        else:
            found.add(number, {"kind": "sampler", "sampler": what, "epoch": epoch, **event})
    return found


def head(size: int, time_s: float | None = None, **more: Any) -> Witnessed:
    """The head of that size, as seen right after its last entry where no time is given."""
    return Witnessed(size, size * 100 - 50 if time_s is None else time_s, "a", **more)


LOG = told(("R", 1, 0), ("R", 2, 0), ("use", 1, 0), ("R", 1, 1), ("use", 1, 1), ("use", 2, 0), (UNREAD, 3, 0))


def use(number: int, epoch: int, time_s: float, kind: str = "use", writer: bytes = b"w" * 16) -> tuple[int, Any]:
    own = {"writer": writer, "time": round(time_s * 10**9)}
    return number, {"kind": kind, "loader": 1, "epoch": np.array([epoch]), **own}


@pytest.mark.parametrize(("size", "bound"), [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2), (5, 1), (6, 0), (7, 0), (100, 0)])
def test_a_head_binds_the_epochs_between_their_announcement_and_their_first_use(size: int, bound: int) -> None:
    assert LOG.bound([head(size)]) == bound
    assert len(LOG) == 3


def test_several_heads_bind_what_any_of_them_binds() -> None:
    assert LOG.bound([head(2), head(4)]) == 3
    assert LOG.bound([head(4), head(2)]) == 3
    assert LOG.bound([]) == 0


@pytest.mark.parametrize(("time", "bound"), [(0, 2), (200, 2), (201, 1), (500, 1), (501, 0)])
def test_a_head_that_was_shown_after_an_epoch_s_first_use_does_not_bind_it(time: float, bound: int) -> None:
    """Loader 1 is used at 200 s, loader 2 at 500 s; a prefix from before both can be signed at any time."""
    assert LOG.bound([head(2, time)]) == bound
    assert LOG.bound([head(2, time, accuracy_s=60)]) == bound
    assert LOG.bound([head(2, time - 61, accuracy_s=61)]) == bound
    assert LOG.bound([head(2, time), head(2, 600)]) == bound


def test_a_head_with_uses_that_somebody_saw_earlier_shows_that_the_log_s_own_times_are_false() -> None:
    assert LOG.bound([head(2, 150)], [head(3, 149)]) == 1  # of loader 2 it has no use
    assert LOG.bound([head(2, 150)], [head(3, 150)]) == 2
    assert LOG.bound([head(2, 150)], [head(7, 149, counts=False, doubt="early")]) == 0
    assert LOG.bound([head(2, 150), head(7, 149)]) == 0
    assert LOG.bound([head(2, 150)], [head(2, 0)]) == 2


@pytest.mark.parametrize("what", [{"exact": False}, {"counts": False}, {"doubt": "early"}])
def test_a_head_binds_nothing_that_is_not_counted_or_not_believed(what: dict[str, Any]) -> None:
    assert LOG.bound([head(2, **what)]) == 0
    assert LOG.bound([head(2, **what), head(1)]) == 1


def test_an_epoch_s_first_use_is_as_old_as_anything_that_its_writer_recorded_from_then_on() -> None:
    found = told(("R", 1, 0))
    found.add(*use(1, 0, 900))
    assert found.bound([head(1, 500)]) == 1
    found.add(*use(2, 0, 500))
    found.add(*use(3, 0, 400, writer=b"v" * 16))
    assert found.bound([head(1, 500)]) == 1
    found.add(*use(4, 0, 499, kind="metrics"))
    assert found.bound([head(1, 500)]) == 0
    assert found.bound([head(1, 499)]) == 1


def test_the_smallest_time_from_each_first_use_on_is_what_the_definition_says() -> None:
    draw = random.Random(7)
    for _ in range(200):
        times = [draw.randrange(12) for _ in range(12)]
        epochs = [draw.randrange(5) for _ in times]
        found = told(*(("R", 1, epoch) for epoch in range(5)))
        for number, (epoch, time_s) in enumerate(zip(epochs, times, strict=True), 5):
            found.add(*use(number, epoch, time_s))
        for seen_s in range(12):
            expected = sum(min(times[epochs.index(epoch) :]) >= seen_s for epoch in set(epochs))
            assert found.bound([head(5, seen_s)]) == expected, (times, epochs, seen_s)


def test_an_epoch_whose_first_use_is_in_the_future_is_not_bound_and_that_is_said() -> None:
    for ahead_s, bound in ((-100, 1), (200, 1), (400, 0)):
        found = told(("R", 1, 0))
        found.add(*use(1, 0, time.time() + ahead_s))
        assert found.bound([head(1)]) == bound
        assert bool(found.ahead()) == (ahead_s > 300)
    assert "entries say that they were recorded until 20" in found.ahead()
    assert "this computer's clock is at 20" in found.ahead()


def test_an_epoch_that_was_never_used_is_not_counted_and_one_announced_after_its_use_is_never_bound() -> None:
    assert told(("R", 1, 0)).bound([head(1), head(50)]) == 0
    unused = told(*(("R", 1, epoch) for epoch in range(9)), ("R", 1, 8), ("use", 1, 3))
    said = "anchored before their first use, by the log's own times: 1 of 1 announced epoch, and 8 more not used"
    assert unused.told([head(9, 0)]) == said
    assert told(("use", 1, 0), ("R", 1, 0)).bound([head(n, 0) for n in range(9)]) == 0


@pytest.mark.parametrize("again", ["R", "S", UNREAD])
def test_an_epoch_that_is_announced_twice_is_never_bound_and_said(again: str) -> None:
    found = told(("R", 1, 0), (again, 1, 0), ("use", 1, 0), ("R", 1, 1), ("use", 1, 1))
    assert [found.bound([head(size, 0)]) for size in range(5)] == [0, 0, 0, 0, 1]
    words = "anchored before their first use, by the log's own times: 0 of 2 announced epochs (1 announced twice"
    assert found.told([head(2)]).startswith(words)


def test_epochs_that_are_used_and_not_announced_are_counted() -> None:
    found = told(("use", 1, 0), (UNREAD, 2, 0), ("use", 2, 0), ("R", 3, 0), ("use", 3, 0))
    assert found.told([head(4)]).endswith(": 1 of 1 announced epoch; 2 epochs used without an announced order")
    assert told(("use", 1, 0)).told([head(1)]) == "1 epoch used without an announced order"
    assert told().told([head(1)]) == ""
    assert "used without" not in LOG.told([head(1)])


def test_what_is_bound_is_what_the_definition_says_for_every_two_heads() -> None:
    first_uses = {0: (0, 2, 200.0), 1: (1, 5, 500.0), 2: (3, 4, 400.0)}
    heads = [head(size, time) for size in (1, 2, 3, 4, 6) for time in (50, 200, 350, 450, 550)]
    for pair in itertools.product(heads, repeat=2):
        bound = 0
        for announced, used, used_s in first_uses.values():
            early = [h for h in pair if announced < h.size <= used and h.time_s <= used_s]
            late = [h for h in pair if h.size > used]
            bound += any(all(o.time_s >= h.time_s for o in late) for h in early)
        assert LOG.bound(pair) == bound, pair
