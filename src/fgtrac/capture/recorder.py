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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import CaptureError
from fgtrac.events.schema import encode_event

ENTRY_PAYLOAD_BYTES = 60_000  # of columns in one entry; the rest of the 65,535 is for its fixed fields
BATCH_COLUMN_BYTES = 22  # epoch, batch, step, status, attribution, count of one batch

Ref = tuple[bytes, int]


class Journal(Protocol):
    """What the recorder needs of a journal: one write call a flush, and a sync."""

    def append(self, entries: list[bytes]) -> None: ...
    def sync(self) -> None: ...
    def rotate(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the positions of one data set lead: position -> (block, ordinal).

    `blocks` are block ids; `ordinals` is (n,) uint32; `which` is (n,) uint16, an index into `blocks`,
    or None where there is only one block.
    """

    blocks: tuple[bytes, ...]
    ordinals: NDArray[np.uint32]
    which: NDArray[np.uint16] | None


@dataclass(slots=True)
class _UseBuffer:
    """Settled batches of one (loader, optimizer), waiting to become entries."""

    placement: Placement
    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)  # epoch, batch, step, status, attribution
    positions: list[array[int]] = field(default_factory=list)
    losses: list[NDArray[np.float16]] = field(default_factory=list)
    bytes: int = 0


class Recorder:
    """Turns events into journal entries of one writer, in order, without holes.

    Safe to call from several threads. `strict` decides what a failed write means: an error, or a `gap` entry that
    names the lost range as soon as writing works again. Clock and journal are handed in; the background thread calls
    `beside` at each of its syncs.
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
        self.beside: Callable[[], None] = lambda: None
        self.beside_cpu_s: Callable[[], float] = lambda: 0.0  # of what else works beside the training, for `own_time`
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._disk = threading.RLock()  # held while syncing, taken before _lock: nobody waits for the disk in `use`
        self._buffers: dict[tuple[int, int, bool], _UseBuffer] = {}
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._seq = 0
        self._lost_from: int | None = None
        self._failure: OSError | None = None
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

        A field that does not fit is the caller's mistake: ValueError, and nothing is recorded.
        """
        self.check_open()
        with self._lock:
            return self._encode(kind, fields)

    def use(
        self,
        placement: Placement,
        loader: int,
        optimizer: int,
        row: tuple[int, int, int, int, int],
        positions: array[int],
        losses: NDArray[np.float16] | None = None,
    ) -> None:
        """Take one settled batch: `row` is (epoch, batch, step, status, attribution); `positions` index `placement`.

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
                buffer = self._buffers[key] = _UseBuffer(placement)
            buffer.rows.append(row)
            buffer.positions.append(positions)
            n = len(positions)
            buffer.bytes += 4 * n + BATCH_COLUMN_BYTES
            if losses is not None:
                buffer.losses.append(losses)
                buffer.bytes += 2 * n
            self.events += n
            if buffer.bytes >= ENTRY_PAYLOAD_BYTES - 4 * n:
                self._encode_uses(key)
                self._write()

    def flush(self) -> None:
        """Encode what is settled and hand everything to the operating system.

        Raises CaptureError in strict mode where an earlier or this write failed.
        """
        with self._lock:
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
        rows = np.array(buffer.rows, dtype=np.uint64)
        counts = np.fromiter(map(len, buffer.positions), dtype=np.uint32, count=len(buffer.positions))
        positions = np.frombuffer(b"".join(buffer.positions), dtype=np.uint32)
        losses = np.concatenate(buffer.losses) if buffer.losses else None
        placement = buffer.placement
        ordinals = placement.ordinals[positions]
        if placement.which is None:
            self._encode_block(key, placement.blocks[0], rows, counts, ordinals, losses)
            return
        which = placement.which[positions]
        batch_of = np.repeat(np.arange(len(counts)), counts)
        for number in np.unique(which).tolist():
            mine = which == number
            here = np.bincount(batch_of[mine], minlength=len(counts)).astype(np.uint32)
            some = here > 0
            part = None if losses is None else losses[mine]
            self._encode_block(key, placement.blocks[number], rows[some], here[some], ordinals[mine], part)

    def _encode_block(
        self,
        key: tuple[int, int, bool],
        block: bytes,
        rows: NDArray[np.uint64],
        counts: NDArray[np.uint32],
        ordinals: NDArray[np.uint32],
        losses: NDArray[np.float16] | None,
    ) -> None:
        width = 4 if losses is None else 6
        for first, last, start, stop, sizes in split_batches(counts, width):
            columns = rows[first:last]
            fields: dict[str, Any] = {
                "loader": key[0],
                "optimizer": key[1],
                "block": block,
                "epoch": columns[:, 0].astype(np.uint32),
                "batch": columns[:, 1].astype(np.uint32),
                "step": np.ascontiguousarray(columns[:, 2]),
                "status": columns[:, 3].astype(np.uint8),
                "attribution": columns[:, 4].astype(np.uint8),
                "count": sizes,
                "ordinals": ordinals[start:stop],
            }
            if losses is not None:
                fields["losses"] = losses[start:stop]
            self._encode("use", fields)

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

    def _fail(self, error: OSError, what: str) -> None:
        first, self._failure = self._failure is None, error
        if first and not self._strict:
            warnings.warn(f"fgtrac: {what}: {error}; a gap entry will say so", RuntimeWarning, stacklevel=3)

    def _raise_if_strict(self) -> None:
        if self._strict and self._failure is not None:
            raise CaptureError(f"the trace cannot be written: {self._failure}; {self._remedy}, then begin again")

    @property
    def _remedy(self) -> str:
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
                if time.monotonic() - last_sync >= sync_interval_s:
                    self.beside()
                    self.sync()
                    last_sync = time.monotonic()
                else:
                    self.flush()
            except CaptureError:
                return  # strict: the failure is kept, and the training thread raises it at its next call
            except RuntimeWarning:
                continue  # warnings are errors here: the failure is kept all the same, and a gap will name it
            self.background_cpu_s = time.thread_time()


def split_batches(
    counts: NDArray[np.uint32], bytes_a_sample: int
) -> Iterable[tuple[int, int, int, int, NDArray[np.uint32]]]:
    """Cut batches into entries that fit: yields (first batch, stop batch, first ordinal, stop ordinal, counts).

    A batch too large for one entry is cut; its pieces carry the same batch and step.
    """
    room = ENTRY_PAYLOAD_BYTES
    most = (room - BATCH_COLUMN_BYTES) // bytes_a_sample
    costs = np.cumsum(counts.astype(np.int64) * bytes_a_sample + BATCH_COLUMN_BYTES)
    ends = np.cumsum(counts.astype(np.int64))
    first, start = 0, 0
    while first < len(counts):
        before = int(costs[first - 1]) if first else 0
        last = int(np.searchsorted(costs, before + room, side="right"))
        if last > first:
            stop = int(ends[last - 1])
            yield first, last, start, stop, counts[first:last]
            first, start = last, stop
            continue
        whole = int(counts[first])
        for piece in range(0, whole, most):
            size = min(most, whole - piece)
            yield first, first + 1, start + piece, start + piece + size, np.array([size], dtype=np.uint32)
        first, start = first + 1, start + whole


def pieces(column: NDArray[Any], bytes_each: int) -> Iterator[NDArray[Any]]:
    """A long column cut into pieces that fit one entry, at `bytes_each` a row of at most `ENTRY_PAYLOAD_BYTES`."""
    size = ENTRY_PAYLOAD_BYTES // bytes_each
    for start in range(0, len(column), size):
        yield column[start : start + size]
