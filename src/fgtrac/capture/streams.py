"""Iterable-style loaders: samples that are named as they come, and registered in blocks as the log is written.

A flush registers the samples of the batches that it writes as one block of the stream's data set. Nothing of them stays
in memory but, of each sample, a mark of 12 bytes that it has been met: it tells that a role stands already, and whether
a later pass brings the same samples.
"""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fgtrac.capture.envelope import Envelope, Enveloping, Key
from fgtrac.capture.roots import Resolved
from fgtrac.capture.sources import Registry
from fgtrac.errors import CaptureError

STRANGERS = 32
MOST_MARKS = 1 << 26  # of samples met; then they are forgotten, which costs a role entry for those that come again


class Named(array):  # type: ignore[type-arg]
    """The positions of a batch of a stream, which are its samples' places in the batch, and what names them."""

    keys: list[Any] | None
    digests: list[bytes]
    epoch: int


class Stream:
    """The data set behind one iterable-style loader; as the placement of its batches it registers their samples."""

    def __init__(self, registry: Registry, name: str, role: str | None, key: Key | None) -> None:
        self.name = name
        self.role = role
        self._registry = registry
        self._key = key
        self._met = Marks()
        self._loaders: WeakSet[DataLoader[Any]] = WeakSet()
        self._strangers = 0  # samples of later passes that no pass had met, until one had

    def wrap(self, loader: DataLoader[Any]) -> None:
        """Let the loader's collate function say what names its samples."""
        if not isinstance(loader.collate_fn, Enveloping):
            loader.collate_fn = Enveloping(loader.collate_fn, self._key, loader.batch_sampler is not None)
            self._loaders.add(loader)

    def unwrap(self) -> None:
        """Give the loaders their own collate functions back."""
        for loader in list(self._loaders):
            if isinstance(loader.collate_fn, Enveloping):
                loader.collate_fn = loader.collate_fn.collate

    def open(self, envelope: Envelope, epoch: int) -> Named:
        """The positions of a batch that was delivered in that pass."""
        if self._strangers >= STRANGERS:
            self._strangers = -1  # said
            warnings.warn(
                f"fgtrac: {STRANGERS} samples of the stream {self.name!r} were all new, and it is not its first pass: "
                "named by their contents, samples that a random transform changes are others each time. If that is so, "
                "name them by watch(loader, key=...)",
                RuntimeWarning,
                stacklevel=5,
            )
        positions = Named("I", range(len(envelope.digests)))
        positions.keys, positions.digests, positions.epoch = envelope.keys, envelope.digests, epoch
        return positions

    def places(self, batches: Sequence[array[int]]) -> tuple[tuple[bytes, ...], NDArray[np.uint32], None]:
        """Register the samples of these batches, and where they stand: the block, and the ordinals one after another.
        CaptureError where some have keys and others have none."""
        row: dict[bytes, int] = {}
        keys: list[Any] = []
        rows: list[int] = []
        for batch in batches:
            if not isinstance(batch, Named):
                raise CaptureError(f"a batch of the stream {self.name!r} came without names")
            for place, digest in enumerate(batch.digests):
                found = row.get(digest)
                if found is None:
                    found = row[digest] = len(row)
                    if batch.keys is not None:
                        keys.append(batch.keys[place])
                rows.append(found)
        if keys and len(keys) != len(row):
            raise CaptureError(f"some samples of the stream {self.name!r} have keys, and others have none")
        digests = np.frombuffer(b"".join(row), dtype=np.uint8).reshape(-1, 32)
        root = self._registry.add_block(self.name, keys or None, digests=None if keys else digests)
        fresh = np.flatnonzero(self._met.add(digests))
        if self.role is not None and len(fresh):
            some = Resolved((root,), np.zeros(len(fresh), dtype=np.uint16), fresh)
            self._registry.roles.record(some, self.role)
        if not keys and self._strangers >= 0 and min(b.epoch for b in batches if isinstance(b, Named)):
            self._strangers = self._strangers + len(row) if len(fresh) == len(row) else -1
        return (root.block,), root.ordinals[np.array(rows, dtype=np.intp)], None


def behind_pipeline(loader: Any) -> Any:
    """The DataLoader in a `webdataset.WebLoader`; anything else as it is. CaptureError where the pipeline goes on
    behind it: what it makes of the batches nobody sees."""
    stages = getattr(loader, "pipeline", None)
    if isinstance(loader, DataLoader) or not (
        isinstance(stages, list) and stages and isinstance(stages[0], DataLoader)
    ):
        return loader
    if len(stages) > 1:
        raise CaptureError(
            f"this {type(loader).__name__} has {len(stages) - 1} stages behind its DataLoader, which make other "
            "batches of the delivered ones; let the data set or the DataLoader do that"
        )
    return stages[0]


class Marks:
    """Which of many digests have been met: sorted runs of 96 bits each, merged as they grow."""

    def __init__(self) -> None:
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []

    def __len__(self) -> int:
        return sum(len(run) for run, _ in self._runs)

    def add(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(n,) which of these (n, 32) uint8, each there once, are met for the first time."""
        words = np.ascontiguousarray(digests[:, :16]).view("<u8").reshape(-1, 2)
        first, second = words[:, 0].copy(), words[:, 1].astype(np.uint32)
        fresh = np.ones(len(first), dtype=np.bool_)
        for run, checks in self._runs:
            at = np.minimum(np.searchsorted(run, first), len(run) - 1)
            fresh &= ~((run[at] == first) & (checks[at] == second))
        if len(self) > MOST_MARKS:
            self._runs = []
        if fresh.any():
            self._keep(first[fresh], second[fresh])
        return fresh

    def _keep(self, first: NDArray[np.uint64], second: NDArray[np.uint32]) -> None:
        while True:
            order = np.argsort(first, kind="stable")
            first, second = first[order], second[order]
            if not self._runs or len(self._runs[-1][0]) > 2 * len(first):
                self._runs.append((first, second))
                return
            run, checks = self._runs.pop()
            first, second = np.concatenate([run, first]), np.concatenate([checks, second])
