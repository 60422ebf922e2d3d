"""Anchoring beside the training: the newest head, one try at a time, again after growing pauses, never for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cosigned import signed_head
from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.background import BackgroundAnchor
from fgtrac.anchor.service import SignedHead
from fgtrac.errors import AnchorError, RefusedError

ENTRIES = [b"%d" % n for n in range(10)]
HEADS = {size: signed_head(ENTRIES, size) for size in range(1, 10)}
SOON_S = 30.0


class Party:
    """Answers each head as it is told to, and remembers them."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.times: list[float] = []
        self.answers: list[Exception | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def anchor(self, signed: SignedHead) -> Anchored:
        self.tried.append(signed.head.size)
        self.times.append(time.monotonic())
        self.entered.release()
        assert self.gate.wait(SOON_S)
        return Anchored("witness", "w", signed.head.size, error=self.answers.pop(0) if self.answers else None)


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.fixture
def start(party: Party) -> Iterator[Callable[..., BackgroundAnchor]]:
    made: list[BackgroundAnchor] = []

    def started(first_pause_s: float = 0.001) -> BackgroundAnchor:
        made.append(BackgroundAnchor(party.anchor, "test", first_pause_s=first_pause_s))
        return made[-1]

    yield started
    party.gate.set()
    for worker in made:
        worker.close()
        assert worker.join(time.monotonic() + SOON_S)


def soon() -> float:
    return time.monotonic() + SOON_S


def test_a_head_is_anchored_once(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    worker = start()
    assert worker.result(3, time.monotonic()) is None
    worker.submit(HEADS[3])
    assert worker.result(3, soon()) == Anchored("witness", "w", 3)
    assert worker.is_done(2)
    assert worker.is_done(3)
    assert not worker.is_done(4)
    assert party.tried == [3]


def test_what_fails_is_tried_again_until_it_is_done(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.answers = [AnchorError("busy")] * 3
    worker = start()
    worker.submit(HEADS[3])
    result = worker.result(3, soon())
    assert result is not None
    assert result.error is None
    assert party.tried == [3, 3, 3, 3]


def test_pauses_grow(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.answers = [AnchorError("busy")] * 3
    worker = start(0.04)
    worker.submit(HEADS[3])
    worker.result(3, soon())
    first, second, third = (b - a for a, b in zip(party.times, party.times[1:], strict=False))
    assert first >= 0.02  # of the pause at least half
    assert second >= 0.04
    assert third >= 0.08


def test_what_is_refused_is_not_tried_again_and_the_next_head_is(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.answers = [RefusedError("unknown log")]
    worker = start()
    worker.submit(HEADS[3])
    result = worker.result(3, soon())
    assert result is not None
    assert isinstance(result.error, RefusedError)
    assert not worker.is_done(3)
    worker.submit(HEADS[5])
    assert worker.result(5, soon()) == Anchored("witness", "w", 5)
    assert party.tried == [3, 5]


def test_heads_that_come_while_one_is_under_way_are_one_head(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.gate.clear()
    worker = start()
    worker.submit(HEADS[1])
    party.entered.acquire()
    for size in (2, 3, 4):
        worker.submit(HEADS[size])
    party.gate.set()
    assert worker.result(4, soon()) == Anchored("witness", "w", 4)
    assert party.tried == [1, 4]


def test_a_smaller_head_does_not_take_a_larger_one_s_place(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.gate.clear()
    worker = start()
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.submit(HEADS[5])
    worker.submit(HEADS[2])
    party.gate.set()
    assert worker.result(5, soon()) == Anchored("witness", "w", 5)
    assert party.tried == [1, 5]


def test_a_newer_head_waits_out_the_pause_unless_it_is_asked_for_now(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.answers = [AnchorError("down")]
    worker = start(3600)
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.submit(HEADS[2])
    assert worker.result(2, time.monotonic() + 0.05) is None
    worker.submit(HEADS[3], now=True)
    assert worker.result(3, soon()) == Anchored("witness", "w", 3)
    assert party.tried == [1, 3]


def test_what_failed_is_told_when_the_time_is_up(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.answers = [AnchorError("down")] * 9
    worker = start(3600)
    worker.submit(HEADS[1])
    party.entered.acquire()
    result = worker.result(1, time.monotonic() + 0.1)
    assert result is not None
    assert str(result.error) == "down"


def test_the_end_is_one_more_try_without_a_pause(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.answers = [AnchorError("down")] * 9
    worker = start(3600)
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.result(1, time.monotonic() + 0.1)
    worker.close()
    assert worker.join(soon())
    assert party.tried == [1, 1]


def test_a_try_that_was_under_way_at_the_end_and_fails_is_tried_once_more(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.gate.clear()
    party.answers = [AnchorError("down")]
    worker = start(3600)
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.close()
    party.gate.set()
    assert worker.join(soon())
    assert party.tried == [1, 1]
    assert worker.is_done(1)


def test_nobody_waits_for_a_service_that_is_not_asked_again_in_that_time(
    party: Party, start: Callable[..., BackgroundAnchor]
) -> None:
    party.answers = [AnchorError("down")] * 9
    worker = start(3600)
    began_s = time.monotonic()
    worker.submit(HEADS[1])
    first = worker.result(1, began_s + SOON_S)
    assert first is not None
    assert str(first.error) == "down"
    worker.submit(HEADS[2])
    assert worker.result(2, began_s + SOON_S) is None
    assert time.monotonic() - began_s < SOON_S / 2


def test_what_was_given_up_is_not_tried_again(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.gate.clear()
    party.answers = [AnchorError("down")]
    worker = start(3600)
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.close()
    worker.give_up()
    party.gate.set()
    assert worker.join(soon())
    assert party.tried == [1]


def test_nobody_waits_for_a_service_that_hangs(party: Party, start: Callable[..., BackgroundAnchor]) -> None:
    party.gate.clear()
    worker = start()
    worker.submit(HEADS[1])
    party.entered.acquire()
    worker.close()
    began_s = time.monotonic()
    assert worker.result(1, began_s + 0.05) is None
    assert not worker.join(began_s + 0.1)
    assert time.monotonic() - began_s < SOON_S / 2


def test_the_processor_time_of_tries_is_counted_and_that_of_waiting_is_not(
    start: Callable[..., BackgroundAnchor],
) -> None:
    def busy(signed: SignedHead) -> Anchored:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return Anchored("witness", "w", signed.head.size)

    worker = BackgroundAnchor(busy, "test")
    worker.submit(HEADS[1])
    assert worker.result(1, soon()) is not None
    assert worker.result(2, time.monotonic() + 0.05) is None
    worker.close()
    assert worker.join(soon())
    assert 0.05 <= worker.cpu_s < 0.09
