"""Seals beside the training: one at a time, not too often, and nothing that goes wrong is lost."""

from __future__ import annotations

import threading
import time

import pytest

from fgtrac.commit.background import BackgroundSealer


def test_what_was_asked_for_is_done_by_finish_at_the_latest() -> None:
    done: list[int] = []
    sealer = BackgroundSealer(lambda: done.append(1), interval_s=3600)
    sealer.ask()
    sealer.finish()
    assert done == [1]
    sealer.ask()  # not due for an hour
    sealer.ask()
    sealer.finish()
    assert done == [1, 1]
    sealer.finish()
    assert done == [1, 1]


def test_what_is_asked_for_now_does_not_wait_for_the_interval_and_what_follows_does() -> None:
    done = threading.Semaphore(0)
    sealer = BackgroundSealer(done.release, interval_s=3600)
    sealer.ask()
    assert done.acquire(timeout=60)
    sealer.ask()  # not due for an hour
    assert not done.acquire(timeout=0.05)
    sealer.ask(now=True)
    assert done.acquire(timeout=60)
    sealer.ask()
    assert not done.acquire(timeout=0.05)
    sealer.finish()
    assert done.acquire(timeout=60)


def test_a_seal_that_takes_long_has_the_next_wait_longer() -> None:
    done = threading.Semaphore(0)

    def seal() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.01:  # so that a thousandth is 10 s, of which 12 intervals are waited
            pass
        done.release()

    sealer = BackgroundSealer(seal, interval_s=0.1)
    sealer.ask()
    assert done.acquire(timeout=60)
    began = time.monotonic()
    sealer.ask()
    assert done.acquire(timeout=60)
    assert time.monotonic() - began > 1.0
    sealer.finish()


def test_what_may_wait_a_little_is_one_seal_with_what_is_asked_for_now_and_done_alone_where_nothing_is() -> None:
    done = threading.Semaphore(0)
    sealer = BackgroundSealer(done.release, interval_s=0)
    sealer.ask(pause_s=3600)
    assert not done.acquire(timeout=0.05)
    sealer.ask(now=True)
    assert done.acquire(timeout=60)
    sealer.finish()
    assert not done.acquire(blocking=False)
    sealer.ask(pause_s=0.01)
    assert done.acquire(timeout=60)
    sealer.finish()


def test_seals_never_run_at_the_same_time() -> None:
    inside, entered = threading.Lock(), threading.Event()
    release = threading.Event()
    count: list[int] = []

    def slow() -> None:
        assert inside.acquire(blocking=False)
        entered.set()
        release.wait()
        count.append(1)
        inside.release()

    sealer = BackgroundSealer(slow, interval_s=0)
    sealer.ask()
    entered.wait()
    sealer.ask()
    release.set()
    sealer.finish()
    assert count == [1, 1]


def test_an_error_is_raised_once_in_the_thread_that_asks() -> None:
    def fails() -> None:
        raise OSError(28, "no space left on device")

    sealer = BackgroundSealer(fails, interval_s=0)
    sealer.ask()
    with pytest.raises(OSError, match="no space"):
        sealer.finish()
    sealer.check()
    sealer.finish()
