"""A block of samples: named, put in the order of their ids, and written to the log and to the vault."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Root
from fgtrac.capture.sample_ids import (
    IdKeys,
    Progress,
    block_of,
    content_preimages_of,
    ids_of,
    in_order,
    parts,
    preimages_of,
    rows_of,
    sort_ids,
)
from fgtrac.capture.use_entries import ENTRY_PAYLOAD_BYTES
from fgtrac.events.identity import preimage, preimages
from fgtrac.store import durable

MAPPED_ROWS = 1 << 22  # from here on, ids lie in a file
Room = Callable[[int], NDArray[np.uint8]]  # room for so many ids: (n, 32) uint8


class WayBack(Protocol):
    """Who keeps the way back from ids to keys: the vault."""

    def put_names(self, names: Iterable[tuple[bytes, str, bytes, str | None]]) -> None:
        """Names as (id, data set, CBOR key, subject)."""

    def put_rows(self, dataset: str, block: bytes, scheme: str, rows: NDArray[np.uint32]) -> None:
        """A block whose keys are row numbers: the row of the sample at each ordinal."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Samples of one data set, or some of a stream's. `keys` are their keys in the order of the rows, `ids` (n, 32)
    their ids, `contents` likewise (or None), `order` (n,) uint32 the row at each ordinal, `subjects` whose they are."""

    name: str
    keys: Sequence[Any]
    keyed: IdKeys
    id: bytes
    ids: NDArray[np.uint8]
    order: NDArray[np.uint32]
    contents: NDArray[np.uint8] | None
    subjects: Sequence[Any] | None

    def root(self, data: Any) -> Root:
        """The registered root of `data`, whose rows these are."""
        ordinals = np.empty(len(self.order), dtype=np.uint32)
        ordinals[self.order] = np.arange(len(self.order), dtype=np.uint32)
        return Root(data, self.name, self.keyed.scheme, self.id, ordinals, self.ids, self.contents, self.subjects)

    def content_digest(self) -> bytes | None:
        """SHA-256 over the content digests in the order of the ids; None where there are none."""
        if self.contents is None:
            return None
        found = hashlib.sha256()
        for piece in in_order(self.contents, self.order):
            found.update(piece.data)
        return found.digest()

    def keep(self, way_back: WayBack) -> None:
        """Give the vault the samples' names: a number each where these are the rows of nobody's samples."""
        if isinstance(self.keys, range) and self.subjects is None:
            way_back.put_rows(self.name, self.id, self.keyed.scheme, self.order)
        else:
            way_back.put_names(itertools.chain.from_iterable(map(self._names, parts(len(self.order)))))

    def write(self, recorder: Recorder) -> None:
        """Record the `samples` entries."""
        columns = {"ids": self.ids} | ({} if self.contents is None else {"contents": self.contents})
        size = ENTRY_PAYLOAD_BYTES // (32 * (len(columns) + (self.subjects is not None)))
        count = -(-len(self.order) // size)
        pseudonyms = None if self.subjects is None else self.keyed.pseudonyms()
        for part in range(count):
            mine = self.order[part * size : (part + 1) * size]
            said = {name: np.take(column, mine, axis=0).tobytes() for name, column in columns.items()}
            if pseudonyms is not None:
                said["subjects"] = pseudonyms[self.keyed.owner_of(mine)].tobytes()
            fields = {"dataset": self.name, "block": self.id, "part": part, "parts": count}
            recorder.record("samples", fields | said)

    def _names(self, part: range) -> Iterable[tuple[bytes, str, bytes, str | None]]:
        mine = self.order[part.start : part.stop]
        rows, front = mine.tolist(), len(preimage(self.name, 0)) - 1  # a preimage ends with its key's CBOR
        keys = [written[front:] for written in preimages(self.name, [self.keys[row] for row in rows])]
        whose = [None] * len(rows) if self.subjects is None else [_written(self.subjects[row]) for row in rows]
        return zip(rows_of(np.take(self.ids, mine, axis=0)), itertools.repeat(self.name), keys, whose, strict=False)


def _written(subject: Any) -> str | None:
    return None if subject is None else str(subject)


def name_block(
    name: str,
    keys: Sequence[Any],
    keyed: IdKeys,
    contents: NDArray[np.uint8] | None,
    subjects: Sequence[Any] | None,
    room: Room,
    progress: Progress | None = None,
) -> Block:
    """The block of these keys. ValueError where two are the same, TypeError for what is no key."""
    ids = room(len(keys))
    ids_of(keyed, preimages_of(name, keys), ids, progress)
    order = sort_ids(ids, keys)
    return Block(name, keys, keyed, block_of(ids, order), ids, order, contents, subjects)


def room_in(folder: Path) -> Room:
    """Room for ids: memory, and for many rows the folder's disk (OSError where it is full)."""

    def room(rows: int) -> NDArray[np.uint8]:
        if rows < MAPPED_ROWS:
            return np.empty((rows, 32), dtype=np.uint8)
        return np.frombuffer(durable.scratch(folder, 32 * rows), dtype=np.uint8).reshape(-1, 32)

    return room


def content_ids(keyed: IdKeys, digests: NDArray[np.uint8], room: Room) -> NDArray[np.uint8]:
    """(n, 32) uint8: the content digests that the log gets, of (n, 32) digests of the samples' sources."""
    contents = room(len(digests))
    ids_of(keyed, content_preimages_of(digests), contents)
    return contents
