"""The engine of this machine: a pool of processes for each worker, so that a lost one takes no other along.

Each is a `ProcessPoolExecutor` of one process: when it breaks, the unit that it was doing is known, and only that one
counts as lost. Processes are spawned, not forked: this one may run threads (BLAS, torch, a bar), whose locks a fork
would copy as they happen to be. A spawned one imports its parent's `__main__` by default; a user's script without
`if __name__ == "__main__"` would begin again in each worker, so it is kept out of sight: no unit needs it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from fgtrac.engine.alone import Alone
from fgtrac.engine.units import IN_FLIGHT, TRIES, R, U, attempt, lost

# What libraries ask, before they are imported, how many threads they may have: BLAS (three kinds), torch and pyarrow.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_starting = threading.Lock()


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its container's share of time."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return min(bound, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`: no share is set
        return bound


class LocalPool:
    """So many processes of this machine; they are started when they are first needed, and end with `close`."""

    def __init__(self, workers: int) -> None:
        self.name, self.workers = f"local:{workers}", workers
        self._workers = [_Worker(max(1, cores() // workers)) for _ in range(workers)]

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """As `Engine.results`. One unit is done in this process."""
        if len(units) == 1:
            yield from Alone().results(work, units, what=what, progress=progress)
            return
        waiting, tries, done = deque(range(len(units))), [0] * len(units), 0
        try:
            while done < len(units):
                self._hand_out(work, units, waiting)
                for number, result in self._finished(waiting, tries, what, len(units)):
                    done += 1
                    if progress is not None:
                        progress(done, len(units))
                    self._hand_out(work, units, waiting)  # before the caller takes its time
                    yield number, result
        finally:
            for worker in self._workers:
                worker.give_up()

    def check_shared(self, folder: Path) -> None:
        """Processes of one machine see the same folders."""

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()

    def _hand_out(self, work: Callable[[U], R], units: Sequence[U], waiting: deque[int]) -> None:
        for depth in range(1, IN_FLIGHT + 1):  # every worker its first before anyone has a second
            for worker in self._workers:
                if waiting and len(worker.under_way) < depth:
                    number = waiting.popleft()
                    worker.begin(number, work, units[number])

    def _finished(self, waiting: deque[int], tries: list[int], what: str, total: int) -> Iterator[tuple[int, Any]]:
        """Wait for a unit or a worker to end: the results there are, and what was lost back among those that wait."""
        wait([worker.under_way[0][1] for worker in self._workers if worker.under_way], return_when=FIRST_COMPLETED)
        for worker in self._workers:
            while worker.under_way and worker.under_way[0][1].done():
                number, future = worker.under_way[0]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    how, given = worker.lose()
                    waiting.extendleft(reversed(given))
                    tries[number] += 1  # it was doing the first; the one behind that had not begun
                    if tries[number] == TRIES:
                        raise lost(what, number, total, how) from None
                    break
                worker.under_way.popleft()
                yield number, result


class _Worker:
    """One process at a time, and the units that it was given, the one that it does first."""

    def __init__(self, threads: int) -> None:
        self.under_way: deque[tuple[int, Future[Any]]] = deque()
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Context()

    def begin(self, number: int, work: Callable[[U], R], unit: U) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, self._context, _begin_worker, (self._threads,))
        try:
            future = self._pool.submit(attempt, work, unit)
        except BrokenProcessPool as error:  # it ended between two units, or before its first
            future = Future()
            future.set_exception(error)
        self.under_way.append((number, future))

    def lose(self) -> tuple[str, list[int]]:
        """How the process ended, and the units that it had."""
        given = [number for number, _ in self.under_way]
        return self.end(), given

    def give_up(self) -> None:
        """Leave a unit that is being done: its files are whole or not there."""
        if self.under_way:
            self.end()

    def end(self) -> str:
        """End the process, and say how it ended."""
        pool, self._pool = self._pool, None
        how = self._context.end()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        self.under_way.clear()
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
        process.join(0.2)  # a lost one is on its way
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            return "ended"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _begin_worker(threads: int) -> None:
    """In a new worker, before it imports anything large."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    for name in THREADS:
        os.environ[name] = str(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's worker holds both ends of its own queue, and would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_end([parent.sentinel])
    os._exit(1)
