"""The `sampler` entries of a run: how each pass over a watched loader will be ordered, on record before it begins.

Where anyone can compute the ids, the entry holds what decides the order, and the longer parts are artifacts. Elsewhere
that would tell which row each sample is: the entry holds a commitment, and the vault what opens it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from fgtrac.api.ledger import Ledger
from fgtrac.capture.batch import Iteration
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Resolved
from fgtrac.capture.sampler import Order, read_order
from fgtrac.capture.use_entries import Placement
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.orders import UNREAD, encode_placement, opening_name, part_name, state_commitment
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault


class Orders:
    """Writes the `sampler` entries of one process. What goes into the vault during training waits for `keep`, which
    the recorder's own thread calls: an epoch does not wait for the disk."""

    def __init__(self, trace: TraceDir, vault: Vault, recorder: Recorder, ledger: Ledger) -> None:
        self._vault = vault
        self._recorder = recorder
        self._ledger = ledger
        self.before: Callable[[], None] = lambda: None  # called before a training pass is announced; it may raise
        self.announced: Callable[[], None] = lambda: None  # called between a training pass's entry and its first batch
        self.put_file: Callable[[str, bytes], None] = lambda path, data: durable.write_file(trace.path / path, data)
        self._turn = threading.Lock()
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._kept: set[tuple[bytes, bool]] = set()  # parts by digest that are in the trace (True), or the vault's

    def of_loader(self, resolved: Resolved, placement: Placement) -> LoaderOrders:
        """For one watched loader, whose positions lead to the samples that `placement` says."""
        is_open = all(root.scheme == "public" for root in resolved.roots)
        data = encode_placement(placement.blocks, placement.ordinals, placement.which)
        return LoaderOrders(self, is_open, self._part(data, is_open, "where its positions lead"))

    def of_stream(self) -> StreamPasses:
        """For one iterable-style loader."""
        return StreamPasses(self)

    def keep(self, *, last: bool = False) -> None:
        """Put what waits into the vault. Where that fails it goes on waiting, or with `last` is said to be lost."""
        with self._turn:
            try:
                while self._waiting:
                    self._vault.put_opening(*self._waiting[0])
                    self._waiting.popleft()
            except (OSError, FormatError) as error:
                if last:
                    self._recorder.lose(f"{len(self._waiting)} openings of orders were not kept", OSError(str(error)))

    def _part(self, data: bytes, is_open: bool, about: str) -> bytes:
        """A part of an order that is too long for an entry; its SHA-256."""
        digest = hashlib.sha256(data).digest()
        if (digest, is_open) not in self._kept:
            self._kept.add((digest, is_open))
            if is_open:
                self._publish(digest, data, about)
            else:
                self._waiting.append((part_name(digest), data))
        return digest

    def _publish(self, digest: bytes, data: bytes, about: str) -> None:
        path = f"artifacts/order-{digest.hex()[:16]}.cbor"
        if path in self._ledger.artifacts:
            return  # from before a resume
        try:
            self.put_file(path, data)
        except OSError as error:
            self._recorder.lose("what a sampler draws from could not be written", error)
            return
        fields = {"path": path, "sha256": digest, "size": len(data), "about": f"the order of a loader: {about}"}
        ref = self._recorder.record("artifact", {**fields, "media_type": "application/cbor"})
        self._ledger.take("artifact", fields, ref)


class LoaderOrders:
    """Announces the passes over one watched loader."""

    def __init__(self, orders: Orders, is_open: bool, placement: bytes) -> None:
        self._orders = orders
        self._is_open = is_open
        self._placement = placement

    def announce(self, iteration: Iteration, iterator: Any, loader: Any) -> None:
        """Write down how the pass will be ordered, before its first index is drawn, and hand it to the system."""
        self.announce_order(iteration, read_order(iterator, loader))

    def announce_order(self, iteration: Iteration, order: Order) -> None:
        """The same for an order that is known."""
        orders = self._orders
        if iteration.trains:
            orders.before()
        origin: dict[str, Any] = {"placement": self._placement, **order.origin}
        if order.listed is not None:
            origin["listed"] = orders._part(encode(order.listed), self._is_open, "what its sampler draws from")
        state = encode(origin)
        said: dict[str, Any] = {"loader": iteration.loader, "epoch": iteration.epoch, "sampler": order.sampler}
        if order.parameters:
            said["parameters"] = order.parameters
        if self._is_open:
            orders._recorder.record("sampler", said | {"state": state})
        else:
            opening = os.urandom(32) + state
            ref = orders._recorder.record("sampler", said | {"state_commitment": state_commitment(opening)})
            orders._waiting.append((opening_name(*ref), opening))
        orders._recorder.hand_over()
        if iteration.trains:
            orders.announced()

    def unread(self, iteration: Iteration, batch: int) -> None:
        """Say that a batch of the announced order never reached the loop: it could not be read, or something that is
        not recorded read it."""
        said = {"loader": iteration.loader, "epoch": iteration.epoch, "sampler": UNREAD}
        self._orders._recorder.record("sampler", said | {"parameters": {"batch": batch}})


class StreamPasses:
    """Announces the passes over one iterable-style loader, whose order only its data set knows."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def announce(self, iteration: Iteration, iterator: Any, loader: Any) -> None:
        """Write down that a pass begins, and over what kind of data set."""
        kind = type(loader.dataset)
        self.announce_order(iteration, Order(f"{kind.__module__}.{kind.__qualname__}"))

    def announce_order(self, iteration: Iteration, order: Order) -> None:
        """The same in other words."""
        orders = self._orders
        if iteration.trains:
            orders.before()
        said = {"loader": iteration.loader, "epoch": iteration.epoch, "sampler": order.sampler}
        orders._recorder.record("sampler", said)
        orders._recorder.hand_over()
        if iteration.trains:
            orders.announced()

    def unread(self, iteration: Iteration, batch: int) -> None:
        """A batch that could not be read was never drawn from anything: its samples come later, or never."""
