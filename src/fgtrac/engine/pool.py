"""The processes of an engine of this machine, each with units of its own, so that a lost one takes no other's along."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fgtrac.engine.child import Child, LostError, wait_for_any
from fgtrac.engine.units import IN_FLIGHT, TRIES, R, U, attempt, lost

# What libraries ask, before they are imported, how many threads they may have: BLAS (three kinds), torch and pyarrow.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pool:
    """So many processes; each is started when it is first needed, and ends with `close`."""

    def __init__(self, workers: int, threads: int) -> None:
        """`threads`: how many each may run."""
        self._workers = [_Worker(Child(_share_threads, threads)) for _ in range(workers)]

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        what: str,
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[int, R]]:
        """As `Engine.results`."""
        waiting, tries, done = deque(range(len(units))), [0] * len(units), 0
        try:
            while done < len(units):
                self._hand_out(work, units, waiting)
                for number, result in self._finished(waiting, tries, what):
                    done += 1
                    if progress is not None:
                        progress(done, len(units))
                    self._hand_out(work, units, waiting)  # before the caller takes its time
                    yield number, result
        finally:
            for worker in self._workers:
                worker.give_up()

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

    def _finished(self, waiting: deque[int], tries: list[int], what: str) -> Iterator[tuple[int, Any]]:
        """Wait for a unit or a worker to end: the results there are, and what was lost back among those that wait."""
        busy = [worker for worker in self._workers if worker.under_way]
        wait_for_any([worker.child for worker in busy])
        for worker in busy:
            while worker.under_way and worker.child.has_answer():
                number, ticket = worker.under_way[0]
                try:
                    result = worker.child.take(ticket)
                except LostError:
                    waiting.extendleft(number for number, _ in reversed(worker.under_way))
                    worker.under_way.clear()
                    how = worker.child.lost()
                    tries[number] += 1  # it was doing the first; the one behind that had not begun
                    if tries[number] == TRIES:
                        raise lost(what, number, len(tries), how) from None
                    break
                worker.under_way.popleft()
                yield number, result


class _Worker:
    """A process and the units that it was given, each with the child's own number, the one that it does first."""

    def __init__(self, child: Child) -> None:
        self.under_way: deque[tuple[int, int]] = deque()
        self.child = child

    def begin(self, number: int, work: Callable[[U], R], unit: U) -> None:
        self.under_way.append((number, self.child.give(attempt, work, unit)))

    def give_up(self) -> None:
        """Leave a unit that is being done: its files are whole or not there."""
        if self.under_way:
            self.end()

    def end(self) -> None:
        self.under_way.clear()
        self.child.end()


def _share_threads(threads: int) -> None:
    """In a new worker, before it imports anything that has threads."""
    for name in THREADS:
        os.environ[name] = str(threads)
