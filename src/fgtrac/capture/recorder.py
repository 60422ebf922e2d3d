"""The recorder: events in, journal frames out; the training step pays for a list append and nothing else.

Settled batches wait in columnar buffers, one for each (loader, optimizer); a buffer becomes `use` entries when it
holds about 60,000 bytes, when the flush interval has passed, before a checkpoint and at the end. Everything else is
encoded when it is said and written with the next flush. One background thread flushes and syncs by the clock.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.use_entries import ENTRY_PAYLOAD_BYTES, Places, UseBuffer
from fgtrac.errors import CaptureError
from fgtrac.events.schema import encode_event

if TYPE_CHECKING:  # it needs torch
    from fgtrac.capture.hops import Hops

Ref = tuple[bytes, int]
SETTLED_AT_ONCE = 64  # batches
SHARED = ("roles", "transform", "artifact")  # kinds that every rank of a training would say alike


class Journal(Protocol):
    """What the recorder needs of a journal: one write call a flush, and a sync."""

    def append(self, entries: list[bytes]) -> None: ...
    def sync(self) -> None: ...
    def rotate(self) -> None: ...
    def close(self) -> None: ...


class Recorder:
    """Turns events into journal entries of one writer, in order, without holes.

    Safe to call from several threads. `strict` decides what a failed write means: an error, or a `gap` entry that
    names the lost range as soon as writing works again. Clock and journal are handed in; the background thread calls
    `beside` at each of its flushes.
    """

    def __init__(
        self,
        journal: Journal,
        writer: bytes,
        *,
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        flush_interval_s: float = 1.0,
        sync_interval_s: float = 5.0,
        on_flush: Callable[[int], None] | None = None,
    ) -> None:
        self.writer = writer
        self._journal = journal
        self._clock = clock
        self._strict = strict
        self._on_flush = on_flush
        self.is_said: Callable[[bytes], bool] | None = None  # whether another rank has said this; it is then left out
        self.beside: Callable[[], None] = lambda: None
        self.beside_cpu_s: Callable[[], float] = lambda: 0.0  # of what else works beside the training, for `own_time`
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._disk = threading.RLock()  # held while syncing, taken before _lock: nobody waits for the disk in `use`
        self._buffers: dict[tuple[int, int, bool], UseBuffer] = {}
        self._settled: deque[tuple[Any, ...]] = deque()
        self.take: Callable[..., None] = lambda *_: None  # makes a `use` of what was settled
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._seq = 0
        self._lost_from: int | None = None
        self._failure: OSError | IndexError | None = None
        self._closed = threading.Event()
        self.events = 0
        self.entries = 0
        self.background_cpu_s = 0.0
        self._thread: threading.Thread | None = None
        if flush_interval_s > 0:
            self._thread = threading.Thread(
                target=self._keep_flushed, args=(flush_interval_s, sync_interval_s), name="fgtrac-flush", daemon=True
            )
            self._thread.start()

    @property
    def next_seq(self) -> int:
        """The number that the next entry of this writer will carry."""
        return self._seq

    def record(self, kind: str, fields: Mapping[str, Any]) -> Ref:
        """Encode one event now; it reaches the operating system with the next flush. Returns its (writer, seq).

        A field that does not fit is the caller's mistake: ValueError, and nothing is recorded. Nor is what another
        rank has said already, of the kinds that all say alike.
        """
        self.check_open()
        if self.is_said is not None and kind in SHARED:
            said = encode_event({"kind": kind, "time": 0, "writer": bytes(16), "seq": 0, **fields})
            if self.is_said(said):
                return self.writer, self._seq
        with self._lock:
            return self._encode(kind, fields)

    def settle(self, *said: Any) -> None:
        """Remember what `take` makes a use of, before the next flush: the code for it is cold in a training step, and
        several at once take a fraction of the time."""
        self._settled.append(said)
        if len(self._settled) >= SETTLED_AT_ONCE:
            with self._lock:
                self._take_settled()

    def _take_settled(self) -> None:
        while self._settled:
            self.take(*self._settled.popleft())

    def use(
        self,
        placement: Places,
        loader: int,
        optimizer: int,
        row: tuple[int, int, int, int, int],
        positions: array[int],
        losses: NDArray[np.float16] | None = None,
        hops: Hops | None = None,
    ) -> None:
        """Take one settled batch: `row` is (epoch, batch, step, status, attribution); `positions`, and the nodes of its
        `hops`, index `placement`.

        This is the hot path: it copies references, and encodes only when a buffer is full.
        """
        if self._failure is not None:
            self._raise_if_strict()
        with self._lock:
            key = (loader, optimizer, losses is None)
            buffer = self._buffers.get(key)
            if buffer is None or buffer.placement is not placement:
                if buffer is not None:
                    self._encode_uses(key)
                buffer = self._buffers[key] = UseBuffer(placement)
            self.events += len(positions)
            if buffer.add(row, positions, losses, hops):
                self._encode_uses(key)
                self._write()

    def flush(self) -> None:
        """Encode what is settled and hand everything to the operating system.

        Raises CaptureError in strict mode where an earlier or this write failed.
        """
        with self._lock:
            self._take_settled()
            for key in list(self._buffers):
                self._encode_uses(key)
            self._write()
            self._raise_if_strict()

    def hand_over(self) -> None:
        """Hand what has been said to the operating system; settled batches go on waiting. Raises as `flush`."""
        with self._lock:
            self._write()
            self._raise_if_strict()

    def sync(self) -> None:
        """`flush`, then wait until the disk has it."""
        self.flush()
        with self._disk:
            try:
                self._journal.sync()
            except OSError as error:
                self._fail(error, "syncing the journal failed")
        self._raise_if_strict()

    def rotate(self) -> None:
        """`sync`, then continue in a new journal segment, so that a seal can take and delete the older ones."""
        self.sync()  # without the lock: `use` does not wait for the disk
        with self._disk, self._lock:
            self.flush()  # what came since: the seal has it on disk before it signs
            self._journal.rotate()

    def lose(self, reason: str, error: OSError) -> None:
        """Something other than entries could not be written: CaptureError in strict mode, else a `gap` says so."""
        self._failure = error
        self._raise_if_strict()
        self.record("gap", {"reason": reason, "detail": str(error)})

    def miss(self, what: str, error: CaptureError) -> None:
        """Something that belongs into the log cannot be had: `error` in strict mode, else a `gap` entry and a
        RuntimeWarning say so."""
        if self._strict:
            raise error
        self.record("gap", {"reason": what})
        warnings.warn(f"fgtrac: {what}", RuntimeWarning, stacklevel=2)

    def close(self) -> None:
        """Stop the background thread, flush, sync and close the journal. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._disk, self._lock:
            try:
                self.sync()
                if self._pending:
                    raise CaptureError(f"the end of the run is not in the trace: {self._failure}; {self._remedy}")
            finally:
                self._journal.close()

    # -- encoding -----------------------------------------------------------------------------------------------

    def _encode(self, kind: str, fields: Mapping[str, Any]) -> Ref:
        event = {"kind": kind, "time": self._clock(), "writer": self.writer, "seq": self._seq, **fields}
        entry = encode_event(event)  # raises before anything has changed
        self._pending.append(entry)
        self._pending_bytes += len(entry)
        self._seq += 1
        self.entries += 1
        if self._pending_bytes > 16 * ENTRY_PAYLOAD_BYTES:
            self._write()
        return self.writer, self._seq - 1

    def _encode_uses(self, key: tuple[int, int, bool]) -> None:
        buffer = self._buffers.pop(key)
        try:
            told = list(buffer.entries())
        except IndexError:
            told = self._entries_of_each(buffer)
        except (CaptureError, OSError, ValueError) as error:  # of a stream, whose samples are registered now
            failure = error if isinstance(error, OSError) else OSError(str(error))
            reason = (
                f"{len(buffer.rows)} batches of a stream could not be recorded, as their samples were not registered"
            )
            self._encode("gap", {"reason": reason, "detail": str(error)})
            self._fail(failure, reason)
            return
        for fields in told:
            self.events += len(fields.get("hop_ordinals", ()))
            self._encode("use", {"loader": key[0], "optimizer": key[1], **fields})

    def _entries_of_each(self, buffer: UseBuffer) -> list[dict[str, Any]]:
        """Some batch names a position that its data set does not have: have that said, and the others recorded."""
        told: list[dict[str, Any]] = []
        wrong = 0
        for one in buffer.apart():
            try:
                told += one.entries()
            except IndexError as error:
                wrong += 1
                failure = error
        reason = f"{wrong} batches name samples that their data set does not have, and are not recorded"
        self._encode("gap", {"reason": reason, "detail": str(failure)})
        self._fail(failure, reason)
        return told

    # -- writing ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if not self._pending:
            return
        entries, self._pending, self._pending_bytes = self._pending, [], 0
        try:
            self._journal.append(entries)
        except OSError as error:
            self._lose(len(entries), error)
            return
        self._lost_from = None
        if self._on_flush is not None:
            self._on_flush(self._seq)

    def _lose(self, count: int, error: OSError) -> None:
        """The last `count` entries were not written: the next write begins with a `gap` that names them.

        Should that write fail too, the gap is among the lost, and the next one names the longer range.
        """
        stop = self._seq
        if self._lost_from is None:
            self._lost_from = stop - count
        first = self._lost_from
        lost = {"lost_writer": self.writer, "first": first, "stop": stop}
        self._encode("gap", {"reason": "write failed", "detail": str(error), **lost})
        self._fail(error, f"entries {first} to {stop - 1} of this process were not written")

    def _fail(self, error: OSError | IndexError, what: str) -> None:
        first, self._failure = self._failure is None, error
        if first and not self._strict:
            warnings.warn(f"fgtrac: {what}: {error}; a gap entry will say so", RuntimeWarning, stacklevel=3)

    def _raise_if_strict(self) -> None:
        if self._strict and self._failure is not None:
            raise CaptureError(f"the trace cannot be written: {self._failure}; {self._remedy}, then begin again")

    @property
    def _remedy(self) -> str:
        if isinstance(self._failure, IndexError):
            return "leave data as they are once they are watched"
        if isinstance(self._failure, ConnectionError):
            return "start all ranks anew, with resume=True"
        refused = self._failure is not None and self._failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        return "make it writable for you" if refused else "free the disk"

    def check_open(self) -> None:
        """CaptureError where nothing more can be recorded: in another process, or after the end."""
        if os.getpid() != self._pid:
            raise CaptureError(
                f"this run belongs to process {self._pid}, not to {os.getpid()}; start one run a process"
            )
        if self._closed.is_set():
            raise CaptureError("this run is closed: nothing more can be recorded; start a new run, or resume this one")

    def _keep_flushed(self, flush_interval_s: float, sync_interval_s: float) -> None:
        last_sync = time.monotonic()
        while not self._closed.wait(flush_interval_s):
            try:
                self.beside()
                if time.monotonic() - last_sync >= sync_interval_s:
                    self.sync()
                    last_sync = time.monotonic()
                else:
                    self.flush()
            except CaptureError:
                return  # strict: the failure is kept, and the training thread raises it at its next call
            except RuntimeWarning:
                continue  # warnings are errors here: the failure is kept all the same, and a gap will name it
            self.background_cpu_s = time.thread_time()
