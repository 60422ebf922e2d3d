"""Workers that cannot be started, or cannot begin, and a cluster's head that is silent for a moment: one line each."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import engine_units
from engine_units import units
from fgtrac.engine import cluster
from fgtrac.engine.pool import Pool
from fgtrac.errors import EngineError


@contextmanager
def limited(what: int, to: int) -> Iterator[None]:
    """A limit of this process, and of those that it starts meanwhile."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (to, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def squares(folder: Path) -> None:
    pool = Pool(2, 1)
    try:
        list(pool.results(engine_units.square, units(4, folder), "squares", None))
    finally:
        pool.close()


def test_where_no_process_can_be_started_one_line_says_what_is_lacking(tmp_path: Path) -> None:
    least = os.open(os.devnull, os.O_RDONLY)
    os.close(least)
    words = r"^no process could be started beside this one \(.*Too many open files"
    with limited(resource.RLIMIT_NOFILE, least + 1), pytest.raises(EngineError, match=words):
        squares(tmp_path)


def test_where_a_process_can_start_no_thread_one_line_says_what_is_lacking(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = r"could not begin \(can't start new thread\): .*--engine local:1 needs"
    too_much = 1 << 46  # for the stack of each thread: no process has so many addresses
    with limited(resource.RLIMIT_STACK, too_much), pytest.raises(EngineError, match=words):
        squares(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A place where nobody listens yet."""
    monkeypatch.setattr(cluster, "LOOK_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener


def test_a_head_that_answers_the_second_time_has_not_gone_away(head: socket.socket) -> None:
    address = f"127.0.0.1:{head.getsockname()[1]}"
    threading.Timer(0.1, head.listen).start()
    assert not cluster._listens(address)
    assert not cluster._went_away(address)


def test_a_head_that_answers_no_time_has_gone_away(head: socket.socket) -> None:
    assert cluster._went_away(f"127.0.0.1:{head.getsockname()[1]}")
