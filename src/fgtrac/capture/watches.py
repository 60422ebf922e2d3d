"""Which loaders are watched, and for which run: each watch is found by the loader, its data set, or its seeds."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch.utils.data import DataLoader

from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.hops import SampledNodes
from fgtrac.capture.sampler import Order
from fgtrac.capture.step import Grounding
from fgtrac.capture.streams import Stream
from fgtrac.errors import CaptureError


class Announcer(Protocol):
    """Who writes down how a pass will be ordered, and which of its batches could not be read."""

    def announce(self, iteration: Iteration, iterator: Any, loader: Any) -> None: ...
    def announce_order(self, iteration: Iteration, order: Order) -> None: ...
    def unread(self, iteration: Iteration, batch: int) -> None: ...


@dataclass(eq=False, slots=True)
class Watch:
    """One watched loader (or every loader around one watched data set) of one run."""

    grounding: Grounding
    number: int
    rows: int  # positions that the data set has: an index outside is refused at delivery
    trains: bool
    orders: Announcer
    trace: str  # of the run, as messages call it
    unrecorded: Callable[..., None]  # told what delivers batches of the watched data that are not recorded
    sampled: SampledNodes | None = None  # of a loader over seed nodes: reads who is in a batch
    opener: Callable[[Batch, Any], Any] | None = None  # takes what was delivered, and gives what the loop gets
    stream: Stream | None = None  # of an iterable-style loader: names its samples
    miscounted: Callable[[Batch], None] | None = None  # told of a batch that holds another number than were drawn
    unnamed: Callable[[int, CaptureError], None] | None = None  # told the loader, and why samples cannot be named
    pid: int = field(default_factory=os.getpid)
    epochs: int = 0
    active: bool = True

    @property
    def is_here(self) -> bool:
        """Whether the run is open, this process's, and looks on."""
        return self.active and self.pid == os.getpid() and not self.grounding.looks_away


_watched: dict[int, tuple[weakref.ref[Any], Watch]] = {}


def check_free(loader: DataLoader[Any], grounding: Grounding) -> None:
    """CaptureError where another run that is still open watches the loader or its data set: it would lose batches."""
    same = (_entry_of(loader), "loader"), (_entry_of(loader.dataset), "data set"), (_over_same_nodes(loader), "graph")
    for other, what in same:
        if other is not None and other.grounding is not grounding:
            raise CaptureError(
                f"this {what} is watched by the run {other.trace}, which is still open and would lose its batches; "
                f"close that run first, or give this one a {what} of its own"
            )


def keep_watch(watch: Watch, *things: Any) -> None:
    """Each of these is found again by its identity, as long as it lives."""
    for thing in things:
        try:
            _watched[id(thing)] = (weakref.ref(thing, functools.partial(_forget, id(thing))), watch)
        except TypeError:
            continue  # None; and a list as data set has no weak references: found by its loader alone


def _forget(key: int, _dead: Any) -> None:
    _watched.pop(key, None)


def unwatch(watch: Watch) -> None:
    """Forget everything registered for this watch; iterators under way stop reporting."""
    watch.active = False
    if watch.stream is not None:
        watch.stream.unwrap()
    for key in [k for k, (_ref, w) in _watched.items() if w is watch]:
        del _watched[key]


def find_watch(loader: Any) -> Watch | None:
    """The watch that follows a loader's batches."""
    return _entry_of(loader) or _entry_of(getattr(loader, "dataset", None)) or _over_same_nodes(loader)


def watch_over(data_set: Any) -> Watch | None:
    """The watch of a data set, or of a loader over it."""
    for ref, watch in list(_watched.values()):
        thing = ref()
        if (thing is data_set or getattr(thing, "dataset", None) is data_set) and watch.is_here:
            return watch
    return None


def _entry_of(thing: Any) -> Watch | None:
    entry = _watched.get(id(thing))
    return entry[1] if entry is not None and entry[0]() is thing and entry[1].is_here else None


def _over_same_nodes(loader: Any) -> Watch | None:
    """The watch over the same seeds of the same graph: each of PyG's loaders has a data set of its own, a range."""
    watches = [watch for _ref, watch in list(_watched.values()) if watch.sampled is not None and watch.is_here]
    return next((w for w in watches if w.sampled is not None and w.sampled.are_of(loader)), None)
