"""The `uses` view as it is built: every place of every sample in every batch.

Rows wait in buckets of neighbouring samples, in memory or in a file, and each row group is of one bucket: whoever asks
for one sample reads few of them. What a batch says stands once, in a table of the batches that still have rows waiting,
until they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import ATTRIBUTION, NO_STEP, ROLES, STATUS
from fgtrac.query.view_files import GROUP_ROWS, ViewFile, optional, words
from fgtrac.query.view_setting import Setting
from fgtrac.store import durable

BUCKET_SAMPLES = 1 << 15  # neighbouring samples whose rows wait together
MOST_BUCKETS = 64
AT_ONCE = 1 << 17  # rows that are dealt out together
BATCHES = 1 << 20  # whose rows may wait
_ROW = np.dtype([("sample", "<u4"), ("batch", "<u4"), ("hop", "<u2"), ("loss", "<f2"), ("role", "u1")], align=True)
_BATCH = {
    "entry": "<u8", "step": "<u8", "epoch": "<u4", "batch": "<u4", "loader": "<u8", "optimizer": "<u8", "status": "u1",
    "attribution": "u1", "superseded": "?", "rank": "<u8", "writer": "<i4", "fit": "<i4",
}  # fmt: skip
NO_RANK = 2**64 - 1


def bucket_width(n: int) -> int:
    """How many of n samples share a bucket."""
    return max(BUCKET_SAMPLES, -(-n // MOST_BUCKETS))


def waiting_bytes(n: int) -> int:
    """What the rows of n samples take while they wait, at most."""
    return _buckets_of(n) * GROUP_ROWS * _ROW.itemsize


def _buckets_of(n: int) -> int:
    return -(-n // bucket_width(n))


class _Waiting(Protocol):
    """The rows that wait in each bucket, GROUP_ROWS at most."""

    def put(self, bucket: int, at: int, rows: NDArray[np.void]) -> None:
        """Put rows behind the `at` that are there."""

    def rows(self, bucket: int, count: int) -> NDArray[np.void]:
        """The first so many, good until the next `put`."""


class _InMemory:
    def __init__(self, buckets: int) -> None:
        self._rows = [np.empty(GROUP_ROWS, _ROW) for _ in range(buckets)]

    def put(self, bucket: int, at: int, rows: NDArray[np.void]) -> None:
        self._rows[bucket][at : at + len(rows)] = rows

    def rows(self, bucket: int, count: int) -> NDArray[np.void]:
        return self._rows[bucket][:count]


class _InFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, bucket: int, at: int, rows: NDArray[np.void]) -> None:
        durable.write_at(self._path, self._offset(bucket, at), [rows.tobytes()])

    def rows(self, bucket: int, count: int) -> NDArray[np.void]:
        found = np.fromfile(self._path, _ROW, count, offset=self._offset(bucket, 0))
        if len(found) != count:
            raise OSError(f"{self._path} was cut while tables were built; ask again")
        return found

    def _offset(self, bucket: int, at: int) -> int:
        return (bucket * GROUP_ROWS + at) * _ROW.itemsize


class UsesBuilder:
    """Takes `use` entries in the order of the log."""

    def __init__(self, file: ViewFile, setting: Setting, waiting: Path | None = None) -> None:
        """`waiting` is the file where rows wait, for the caller to remove (default: in memory); it changes no byte of
        what is written. OSError where the disk refuses."""
        self._file, self._setting, n = file, setting, setting.samples
        self._width = bucket_width(n)
        self._buckets: _Waiting = _InMemory(_buckets_of(n)) if waiting is None else _InFile(waiting)
        self._filled = [0] * _buckets_of(n)
        self._waiting: list[NDArray[np.void]] = []
        self._waiting_rows = 0
        self._batches = {name: np.empty(BATCHES, dtype) for name, dtype in _BATCH.items()}
        self._batch_count = 0
        self._writers: dict[bytes, int] = {}
        self._fits: dict[str, int] = {}

    def add(self, number: int, event: Mapping[str, Any], roles: NDArray[np.uint8]) -> None:
        """Take an entry; `roles` (n,) are the codes of the roles in force. ProofError as `BlockNumbers`."""
        first, batches = self._take_batches(number, event), len(event["count"])
        owner = np.repeat(np.arange(first, first + batches, dtype=np.uint32), event["count"])
        self._wait(self._setting.blocks.numbers(number, event), owner, 0, event.get("losses"), roles)
        if "hops" in event and len(event["hop_ordinals"]):
            cells = np.repeat(np.arange(batches * event["hops"], dtype=np.int64), event["hop_count"])
            batch, hop = np.divmod(cells, event["hops"])
            hop = np.minimum(hop + 1, 2**16 - 1)  # as in the index, whose hops have 16 bits
            self._wait(self._setting.blocks.numbers(number, event, "hop_ordinals"), batch + first, hop, None, roles)

    def finish(self) -> None:
        """Write what waits."""
        self._deal()
        for bucket in range(len(self._filled)):
            self._write(bucket)

    def _take_batches(self, number: int, event: Mapping[str, Any]) -> int:
        """Put what an entry says of its batches into the table; where its first one stands."""
        count = len(event["count"])
        if self._batch_count + count > BATCHES:
            self.finish()
            self._batch_count = 0
        first, writer = self._batch_count, event["writer"]
        here = slice(first, first + count)
        rank = self._setting.ranks.get(writer)
        said = {
            name: event[name] for name in ("step", "epoch", "batch", "loader", "optimizer", "status", "attribution")
        }
        said["superseded"] = self._setting.superseded(np.full(count, number, np.uint64), event["step"])
        said |= {"entry": number, "rank": NO_RANK if rank is None else rank}
        said["writer"] = self._writers.setdefault(writer, len(self._writers))
        said["fit"] = self._fits.setdefault(event["fit"], len(self._fits)) if "fit" in event else -1
        for name, values in said.items():
            self._batches[name][here] = values
        self._batch_count += count
        return first

    def _wait(self, samples: NDArray[Any], batches: NDArray[Any], hop: Any, losses: Any, roles: NDArray[Any]) -> None:
        rows = np.empty(len(samples), _ROW)
        rows["sample"], rows["batch"], rows["hop"], rows["role"] = samples, batches, hop, roles[samples]
        rows["loss"] = np.nan if losses is None else losses
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= AT_ONCE:
            self._deal()

    def _deal(self) -> None:
        """Deal the rows that wait out to their buckets, in the order of the log."""
        if not self._waiting_rows:
            return
        rows = np.concatenate(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        bucket = (rows["sample"] // np.uint32(self._width)).astype(np.uint8)
        rows = rows[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._filled)))
        for place, mine in enumerate(np.split(rows, ends[:-1])):
            self._fill(place, mine)

    def _fill(self, bucket: int, rows: NDArray[np.void]) -> None:
        at = 0
        while at < len(rows):
            filled = self._filled[bucket]
            piece = rows[at : at + GROUP_ROWS - filled]
            self._buckets.put(bucket, filled, piece)
            self._filled[bucket] += len(piece)
            at += len(piece)
            if self._filled[bucket] == GROUP_ROWS:
                self._write(bucket)

    def _write(self, bucket: int) -> None:
        """Write a bucket's rows as one row group."""
        count, self._filled[bucket] = self._filled[bucket], 0
        if not count:
            return
        rows = self._buckets.rows(bucket, count)
        sample, batch, hop, loss, role = (np.ascontiguousarray(rows[name]) for name in _ROW.names or ())
        places = batch.astype(np.intp)  # once, and not for each column
        said = {name: values.take(places) for name, values in self._batches.items()}
        self._file.add(
            sample=sample, hop=hop, entry=said["entry"], epoch=said["epoch"], batch=said["batch"],
            step=optional(said["step"], said["step"] == NO_STEP), loader=said["loader"], optimizer=said["optimizer"],
            status=words(said["status"].astype(np.int8) - 1, list(STATUS)),
            attribution=words(said["attribution"].astype(np.int8) - 1, list(ATTRIBUTION)),
            role=words(role.astype(np.int8) - 1, list(ROLES)), loss=optional(loss.astype(np.float32), np.isnan(loss)),
            superseded=said["superseded"], rank=optional(said["rank"], said["rank"] == NO_RANK),
            writer=words(said["writer"], [writer.hex() for writer in self._writers]),
            fit=words(said["fit"], list(self._fits)),
        )  # fmt: skip
        self._file.write()
