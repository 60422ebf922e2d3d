"""How long fgtrac's own code takes inside a training loop, measured where it happens rather than by difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import dataloader as torch_dataloader

from fgtrac.capture import loader, node_loader
from fgtrac.capture.contributions import Contributions
from fgtrac.capture.full_batch import FullBatch
from fgtrac.capture.prepared import Reading
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.root_modules import Roots
from fgtrac.capture.step import Grounding
from fgtrac.capture.updates import Updates

HOOKS = (
    (Roots, "_found"),
    (Grounding, "_after_forward"),
    (Contributions, "reach"),
    (Contributions, "_accumulated"),
    (Updates, "_before_step"),
    (Updates, "_after_step"),
    (FullBatch, "_begin"),
    (node_loader, "_hand_over"),
    (Reading, "hand_over"),
)


class OwnTime:
    """Seconds spent in hooks, loader patch and flushes on the training thread, and in `measured` functions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.background_s = 0.0

    def own(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted as fgtrac's."""
        return self._timed(function, 1.0)

    def foreign(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, called from fgtrac's code but not fgtrac's: its time is taken off again."""
        return self._timed(function, -1.0)

    def _timed(self, function: Callable[..., Any], sign: float) -> Callable[..., Any]:
        clock = time.perf_counter

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += sign * (clock() - start)

        return timed


@contextmanager
def own_time() -> Iterator[OwnTime]:
    """Measure every run started inside the block; the timers' own cost counts as fgtrac's.

    The thread that flushes, and those that anchor, count with their processor time: while they wait for the disk or an
    answer, they take nothing.
    """
    meter = OwnTime()
    loader._install()
    base: Any = torch_dataloader._BaseDataLoaderIter
    patched = {name: getattr(base, name) for name in loader._original}
    originals = dict(loader._original)
    hooks = [(owner, name, getattr(owner, name)) for owner, name in HOOKS]
    recorders: list[Recorder] = []
    made = Recorder.__init__

    def remember(self: Recorder, *args: Any, **kwargs: Any) -> None:
        recorders.append(self)
        made(self, *args, **kwargs)

    try:
        for name in patched:
            loader._original[name] = meter.foreign(originals[name])
            setattr(base, name, meter.own(patched[name]))
        for owner, name, function in hooks:
            setattr(owner, name, meter.own(function))
        Recorder.__init__ = remember  # type: ignore[method-assign]
        yield meter
    finally:
        meter.background_s = sum(r.background_cpu_s + r.beside_cpu_s() for r in recorders)
        loader._original.update(originals)
        for name in patched:
            setattr(base, name, patched[name])
        for owner, name, function in hooks:
            setattr(owner, name, function)
        Recorder.__init__ = made  # type: ignore[method-assign]
