"""A process beside this one that does what it is given, in turn: it ends with this one, and can be ended at any time.

It is spawned, not forked: this process may run threads (BLAS, torch, a bar), whose locks a fork would copy as they
happen to be. A spawned one imports its parent's `__main__` by default; a user's script without
`if __name__ == "__main__"` would begin again in it, so `__main__` is kept out of sight: no unit of work needs it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

LOST_S = 0.2  # for a process that is on its way out

_starting = threading.Lock()


class Child:
    """One process, started when it is first needed, and anew after `end`."""

    def __init__(self, begin: Callable[..., None], *given: Any) -> None:
        """`begin(*given)` runs in the process before anything else."""
        self._begin, self._given = begin, given
        self._context = _Context()
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, do: Callable[..., Any], *given: Any) -> Future[Any]:
        """Give it something to do, after what it has. The result raises BrokenProcessPool where the process is lost."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, _begin_child, (self._begin, self._given))
        try:
            return self._pool.submit(do, *given)
        except BrokenProcessPool as error:  # it ended since
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def end(self) -> str:
        """End the process, in the middle of what it does where it must be, and say how it ended."""
        pool, self._pool = self._pool, None
        how = self._context.end()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        return how


class _Process(SpawnProcess):
    """A process that never imports its parent's `__main__`."""

    def start(self) -> None:
        with _starting:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class _Context(SpawnContext):
    """Makes a pool's process, and knows it: only a process that is known can be ended in the middle of a unit."""

    def __init__(self) -> None:
        super().__init__()
        self._process: _Process | None = None

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]
        self._process = _Process(*args, **kwargs)
        return self._process

    def end(self) -> str:
        """End the process where it still runs, and say how it ended."""
        process, self._process = self._process, None
        if process is None or process.pid is None:
            return "it did not start"
        process.join(LOST_S)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            return "ended"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _begin_child(begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*given)


def _end_with_parent() -> None:
    """A pool's process holds both ends of its own queue, and would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
