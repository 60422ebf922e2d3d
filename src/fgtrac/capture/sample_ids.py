"""Ids made in bulk, some at a time: under which secret, in which order, and what the log calls a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.byte_order import order_of
from fgtrac.events.identity import (
    block_id,
    check_key,
    content_preimages,
    make_ids,
    number_preimages,
    preimages,
    subject_commitment,
)

AT_ONCE = 1 << 16  # samples named together: no more Python objects than these are there at a time
Preimages = Callable[[range], Sequence[bytes]]  # of these rows
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class IdKeys:
    """What ids are keyed by: one secret for all samples, or each sample's own, (n,) uint32 `owner` in `secrets`."""

    scheme: str
    secrets: Sequence[bytes]
    owner: NDArray[np.uint32] | None = None

    def make(self, preimages: Sequence[bytes], first: int) -> NDArray[np.uint8]:
        """(n, 32) uint8: the ids (or content digests) of the samples from number `first` on."""
        if self.owner is None:
            return _rows(make_ids(self.scheme, self.secrets[0], preimages))
        owner = self.owner[first : first + len(preimages)]
        order = np.argsort(owner, kind="stable")
        out = np.empty((len(preimages), 32), dtype=np.uint8)
        if not len(order):
            return out
        for mine in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            out[mine] = _rows(make_ids(self.scheme, self.secrets[owner[mine[0]]], [preimages[n] for n in mine]))
        return out

    def owner_of(self, samples: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """For these samples, the numbers of their secrets."""
        return np.zeros(len(samples), dtype=np.uint32) if self.owner is None else self.owner[samples]

    def pseudonyms(self) -> NDArray[np.uint8]:
        """(secrets, 32) uint8: what the log calls the subject behind each secret."""
        return _rows(b"".join(map(subject_commitment, self.secrets)))


def ids_of(keys: IdKeys, preimages: Preimages, out: NDArray[np.uint8], progress: Progress | None = None) -> None:
    """Fill `out`, (n, 32) uint8, with the ids (or content digests) of the preimages."""
    for part in parts(len(out)):
        out[part.start : part.stop] = keys.make(preimages(part), part.start)
        if progress is not None:
            progress(part.stop, len(out))


def preimages_of(name: str, keys: Sequence[Any]) -> Preimages:
    """The preimages of these keys in the data set of that name. TypeError and ValueError for what is no key, with its
    row, as they are made."""
    if isinstance(keys, range):
        return lambda part: number_preimages(name, np.arange(part.start, part.stop, dtype=np.uint64))

    def made(part: range) -> Sequence[bytes]:
        try:
            return preimages(name, keys[part.start : part.stop])
        except (TypeError, ValueError):
            for row in part:
                _check_key(keys[row], row, name)
            raise

    return made


def _check_key(key: Any, row: int, name: str) -> None:
    try:
        check_key(key)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the key of row {row} of {name!r:.60}: {error}") from error


def content_preimages_of(digests: NDArray[np.uint8]) -> Preimages:
    """The preimages of the content digests of these (n, 32) digests of sources."""
    return lambda part: content_preimages(digests[part.start : part.stop])


def sort_ids(ids: NDArray[np.uint8], keys: Sequence[Any]) -> NDArray[np.uint32]:
    """Row numbers in ascending order of id. ValueError names the rows of a key that stands twice."""
    order, repeated = order_of(ids)
    if len(repeated):
        first, second = sorted(order[repeated[0] - 1 : repeated[0] + 1].tolist())
        raise ValueError(
            f"rows {first} and {second} both have the key {keys[first]!r:.60}; a key names one sample: "
            "add what tells them apart, or leave key= out to use row numbers"
        )
    return order


def in_order(rows: NDArray[np.uint8], order: NDArray[np.uint32]) -> Iterator[NDArray[np.uint8]]:
    """The rows in that order, piece by piece."""
    return (np.take(rows, order[part.start : part.stop], axis=0) for part in parts(len(order)))


def block_of(ids: NDArray[np.uint8], order: NDArray[np.uint32]) -> bytes:
    """The id of the block of these ids."""
    return block_id(in_order(ids, order))


def parts(rows: int) -> Iterator[range]:
    """The numbers below `rows`, `AT_ONCE` together."""
    return (range(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE))


def rows_of(ids: NDArray[np.uint8]) -> list[bytes]:
    """The rows of an (n, 32) array as bytes."""
    found: list[bytes] = np.ascontiguousarray(ids).view("V32").reshape(-1).tolist()
    return found


def _rows(joined: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)
