"""Watching a DataLoader: pair the indices that were drawn with the batch that was delivered, and change nothing.

A registry-scoped patch of `torch.utils.data.dataloader._BaseDataLoaderIter`, in the main process only. The loader's
own task numbers tell which drawn index list a delivered batch answers, with any number of workers, in order or not.
Of loaders that nobody watches, each batch asks whether their data set is watched.
"""

from __future__ import annotations

import functools
import weakref
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import dataloader as torch_dataloader

from fgtrac.capture.batch import Iteration, Unnamed
from fgtrac.capture.collate import holds_other_count
from fgtrac.capture.envelope import Envelope
from fgtrac.capture.graph import is_changed_behind_sampler, is_unfinished
from fgtrac.capture.hops import Hops
from fgtrac.capture.sampler import Order
from fgtrac.capture.self_test import KNOWN_VERSIONS, check_pairing, check_private_names
from fgtrac.capture.step import Grounding
from fgtrac.capture.watches import Watch, find_watch, keep_watch, watch_over
from fgtrac.errors import CaptureError

OTHERWISE_BEGUN = "an iterator that was begun before watch(), or over a copy of the watched loader,"


class Ahead(Protocol):
    """A pass of a loader around the watched one that reads ahead: it holds batches back until the loop gets them, and
    may know another order than the watched loader's."""

    order: Order | None

    def begin(self, pairing: Pairing) -> None: ...
    def hold(self, positions: array[int], data: Any, hops: Hops | None) -> Any: ...


class Pairing:
    """The state that a watched loader's iterator carries: which index lists are under way. `loader` until the pass is
    announced; `drawn` index lists so far; number and positions of the batch that it `awaits`, see node_loader.py;
    whether the batches of a graph are `changed` behind its sampler; the loader around it that reads `ahead`, if any;
    the loader that may be `restored` from a state; whether it `asks_at_once` for what was drawn; whether it `is_plain`:
    rows of a data set, without workers."""

    __slots__ = (
        "ahead", "asks_at_once", "awaits", "changed", "drawn", "is_plain", "iteration", "loader", "restored", "sent",
        "watch",
    )  # fmt: skip

    def __init__(self, watch: Watch, loader: Any) -> None:
        self.watch = watch
        self.loader = loader
        self.drawn = 0
        self.asks_at_once = loader.batch_sampler is None
        self.changed = is_changed_behind_sampler(loader)
        self.restored = weakref.ref(loader) if hasattr(loader, "next_iter_state") else None  # torchdata's
        self.awaits: tuple[int, array[int]] | None = None
        self.sent: dict[int, Any] = {}
        self.iteration = Iteration(watch.number, watch.epochs, watch.trains)
        self.ahead = _awaiting.get(id(loader))
        if self.ahead is not None:
            self.ahead.begin(self)
        others = watch.stream, watch.sampled, self.restored
        self.is_plain = not loader.num_workers and all(other is None for other in others)

    def announce(self, iterator: Any) -> None:
        """The first index is about to be drawn."""
        loader, self.loader = self.loader, None
        if self.watch.active and self.ahead is not None and self.ahead.order is not None:
            self.watch.orders.announce_order(self.iteration, self.ahead.order)
        elif self.watch.active:
            self.watch.orders.announce(self.iteration, iterator, loader)

    def take(self, iterator: Any, data: Any) -> Any:
        """The iterator delivered something; what the loop gets of it."""
        if self.is_plain and 0 in self.sent:  # the usual case in one piece: calls into cold code are what a step pays
            ahead = self.ahead
            try:
                positions = as_positions(self.sent.pop(0), self.watch.rows, asked_at_once=self.asks_at_once)
            except CaptureError as error:
                positions = self.nameless(error)
            return self.receive(positions, data, None) if ahead is None else ahead.hold(positions, data, None)
        if self.watch.stream is None:
            task = _answered(iterator, self)
            if self.is_rewinding():
                self.sent.pop(task, None)
                return data
            return self.deliver(task, _number(iterator, self, task), data)
        if not isinstance(data, Envelope):
            self.watch.unrecorded("a loader that was given another collate_fn since watch()")
            return data
        if self.is_rewinding():
            return data.batch
        if data.fault is None:
            positions = self.watch.stream.open(data, self.iteration.epoch)
        else:
            positions = self.nameless(CaptureError(data.fault))
        if self.ahead is not None:
            return self.ahead.hold(positions, data.batch, None)
        return self.receive(positions, data.batch, None)

    def is_rewinding(self) -> bool:
        """Whether a loader that is restored from a state makes its iterator go where it was: the loop gets nothing."""
        loader = None if self.restored is None else self.restored()
        return loader is not None and loader.next_iter_state is not None

    def deliver(self, task: int, number: int, data: Any) -> Any:
        """Hand the delivered batch to the grounding, with the positions drawn for that task, and give what the loop
        gets; batch `number` of the pass is awaited where it is still to be made of its nodes."""
        if task not in self.sent:
            raise CaptureError(f"batch {task} came back but was never drawn; {KNOWN_VERSIONS} are known to pair right")
        try:
            positions = as_positions(self.sent.pop(task), self.watch.rows, asked_at_once=self.asks_at_once)
        except CaptureError as error:
            positions = self.nameless(error)
        if self.awaits is not None:
            raise CaptureError("drawn nodes came before the batch of those drawn before them; iterate over the loader")
        if self.watch.sampled is not None and is_unfinished(data):
            self.awaits = number, positions
            return data
        if self.ahead is None and self.watch.sampled is None:
            return self.receive(positions, data, None)
        return self.hand_over(positions, data)

    def hand_over(self, positions: array[int], data: Any) -> Any:
        """The batch is complete; what the loop gets of it."""
        hops, reader = None, self.watch.sampled
        if reader is not None and not isinstance(positions, Unnamed):
            positions, hops = reader.read(positions, data, self.changed)
        if self.ahead is not None:
            return self.ahead.hold(positions, data, hops)
        return self.receive(positions, data, hops)

    def receive(self, positions: array[int], data: Any, hops: Hops | None) -> Any:
        """The loop receives the batch; what it gets of it."""
        watch = self.watch
        batch = watch.grounding.deliver(self.iteration, positions, data, hops)
        say = watch.miscounted
        if say is not None and hops is None and holds_other_count(len(positions), data) and not batch.is_unnamed:
            batch.is_at_most = True
            say(batch)
        return data if watch.opener is None else watch.opener(batch, data)

    def nameless(self, error: CaptureError) -> Unnamed:
        """Nobody can tell which samples a batch holds: have that said. The loop gets its batch, which is followed and
        not recorded; of a strict run it gets `error`."""
        if self.watch.unnamed is None:
            raise error
        self.watch.unnamed(self.watch.number, error)
        return Unnamed("I")

    def unread(self, number: int) -> None:
        """Have it said that a batch of the pass was never delivered."""
        if self.watch.active:
            self.watch.orders.unread(self.iteration, number)


_awaiting: dict[int, Ahead] = {}  # by the identity of the loader whose next iterator it reads
_original: dict[str, Callable[..., Any]] = {}
_lookers: weakref.WeakSet[Grounding] = weakref.WeakSet()  # of the runs that are open


@contextmanager
def awaiting(loader: DataLoader[Any], ahead: Ahead) -> Iterator[None]:
    """What the iterator that `loader` makes meanwhile delivers is read by `ahead`."""
    _awaiting[id(loader)] = ahead
    try:
        yield
    finally:
        del _awaiting[id(loader)]


def watch_loader(loader: DataLoader[Any], watch: Watch) -> None:
    """Register a loader, and every other loader that will be built around the same data set, or the same seeds.

    Raises CaptureError where this torch lacks the private names that the pairing reads.
    """
    _install()
    keep_watch(watch, loader, loader.dataset, watch.sampled)


def as_positions(index: Any, rows: int, *, asked_at_once: bool = False) -> array[int]:
    """One drawn index (or list of them) as unsigned positions; negative ones count from the end, as in Python.

    Raises CaptureError for what is no row number of the data set, naming the value: also for pairs, masks, and a tuple
    that the data set is `asked_at_once` for, which is one index of several dimensions.
    """
    if isinstance(index, list):
        try:
            positions = array("I", index)  # 2 us for 256
            if not index or max(index) < rows:
                return positions
        except (TypeError, ValueError, OverflowError):
            pass  # negative, or no list of integers: the slow way below decides
    try:
        drawn = np.asarray(index)
        if drawn.ndim > 1 or drawn.dtype == np.bool_ or (asked_at_once and isinstance(index, tuple)):
            raise TypeError("an index of several dimensions, or a mask")
        whole = np.ravel(drawn).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise CaptureError(
            f"the sampler drew {index!r:.80}, which is no row number; use run.use(...) for loaders indexed otherwise"
        ) from error
    whole = np.where(whole < 0, whole + rows, whole)
    if whole.size and (whole.min() < 0 or whole.max() >= rows):
        raise CaptureError(
            f"the sampler drew row {index!r:.80} of a data set of {rows} rows; watch the loader after the data is whole"
        )
    return array("I", whole.astype(np.uint32).tobytes())


def _install() -> None:
    if _original:
        return
    check_private_names()
    base: Any = torch_dataloader._BaseDataLoaderIter
    base._fgtrac = None
    for name, patch in (
        ("__init__", _patched_init),
        ("_reset", _patched_reset),
        ("_next_index", _patched_next_index),
        ("__next__", _patched_next),
    ):
        original = getattr(base, name)
        _original[name] = original
        setattr(base, name, functools.wraps(original)(patch))
    try:
        check_pairing(_answered)
    except BaseException:
        for name in list(_original):
            setattr(base, name, _original.pop(name))
        raise


def _patched_init(self: Any, loader: Any) -> None:
    watch = find_watch(loader)
    if watch is not None and watch.stream is not None:
        watch.stream.wrap(loader)
    _original["__init__"](self, loader)
    if self._num_workers == 0:
        _begin(self, loader)


def _patched_reset(self: Any, loader: Any, first_iter: bool = False) -> None:
    _original["_reset"](self, loader, first_iter)
    _begin(self, loader)  # before the first indices are sent: what an early break left under way is forgotten


def _begin(iterator: Any, loader: Any) -> None:
    watch = find_watch(loader)
    if watch is None or not isinstance(loader, DataLoader) or (iterator._dataset_kind != 0) != bool(watch.stream):
        iterator._fgtrac = None
        return
    watch.grounding.restarted(watch.number)
    iterator._fgtrac = Pairing(watch, loader)
    watch.epochs += 1


def _patched_next_index(self: Any) -> Any:
    pairing = self._fgtrac
    if pairing is not None and pairing.loader is not None:
        pairing.announce(self)
    index = _original["_next_index"](self)
    if pairing is not None:
        pairing.drawn += 1
        if pairing.watch.stream is None:
            pairing.sent[self._send_idx if self._num_workers else 0] = index
    return index


def _patched_next(self: Any) -> Any:
    pairing = self._fgtrac
    if pairing is None or not pairing.watch.active:
        data = _original["__next__"](self)
        _look_for_unrecorded(self, data)
        return data.batch if type(data) is Envelope else data
    try:
        data = _original["__next__"](self)
    except StopIteration:
        if pairing.ahead is None:
            pairing.watch.grounding.exhausted(pairing.iteration)
        raise
    except BaseException:
        _forget_unread(self, pairing)  # a sample could not be read: that batch was never delivered
        raise
    if pairing.watch.grounding.looks_away:
        _forget_unread(self, pairing)
    elif pairing.watch.active:
        return pairing.take(self, data)
    return data.batch if type(data) is Envelope else data


def look_for_strangers(grounding: Grounding) -> None:
    """From now on this run is told of what unwatched loaders deliver. Nothing where this torch cannot be patched: then
    `watch` says so."""
    with suppress(CaptureError):
        _install()
        _lookers.add(grounding)


def _look_for_unrecorded(iterator: Any, data: Any) -> None:
    """An iterator that no run follows delivered a batch: is it of a watched data set? And is it trained on?"""
    data_set = getattr(iterator, "_dataset", iterator)
    if (watch := watch_over(data_set)) is not None:
        watch.unrecorded(OTHERWISE_BEGUN)
        return
    for grounding in list(_lookers):
        if grounding.is_open and not grounding.looks_away:
            grounding.deliver_stranger(data, type(data_set).__name__)


def _answered(iterator: Any, pairing: Pairing) -> int:
    """The task that was just answered: the one no longer in the loader's table of tasks."""
    if iterator._num_workers == 0:
        return 0
    under_way = iterator._task_info
    return next((task for task in pairing.sent if task not in under_way), -1)


def _number(iterator: Any, pairing: Pairing, task: int) -> int:
    """Which batch of the pass a task was about."""
    return pairing.drawn - 1 if iterator._num_workers == 0 else task


def _forget_unread(iterator: Any, pairing: Pairing) -> None:
    """Take back the task that was answered with an error, if one was, and have it said."""
    task = _answered(iterator, pairing)
    if pairing.sent.pop(task, None) is not None:
        pairing.unread(_number(iterator, pairing, task))
