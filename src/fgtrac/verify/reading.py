"""A log read range by range: what each range of bundles gives, so that it can be read by itself and put in its place.

Of an entry all is decoded and checked; what is kept of it is what `Facts` needs, and of the samples that it names how
many there are and the largest ordinal. What is wrong with a range is raised where it stands, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import STATUS, decode_event
from fgtrac.tlog.merkle import hash_leaves, leaf_hash
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, decode_bundle
from fgtrac.verify.checks import TraceFiles

LEAST_BUNDLES, MOST_BUNDLES = (
    4,
    64,
)  # in a range: entries have at most 64 KiB, so 64 MB, and many small ones go together
RANGES = 256  # that a long log is cut into, at least
_APPLIED = STATUS["applied"]
_LEFT_OUT = {
    "samples": {"contents"},
    "roles": {"ordinals"},
    "transform": {"kept", "dropped", "same_as", "parents", "children", "starts", "stops", "parameters"},
    "use": {"batch", "attribution", "count", "ordinals", "losses"},
    "contribution": {"ordinals", "scores", "parameters"},
    "prediction": {"ordinals", "outputs", "losses"},
}  # and nothing of a use in a graph, whose batches are compared as a whole


@dataclass(frozen=True, slots=True)
class Range:
    """Bundles `first` up to `stop` of a log of `size` entries."""

    first: int
    stop: int
    size: int

    def paths(self) -> Iterator[str]:
        """Where its bundles lie."""
        return (bundle_tile(number, self.size).path for number in range(self.first, self.stop))

    def bundles(self, files: TraceFiles) -> Iterator[list[bytes]]:
        """The entries of each, unchecked. FormatError or FileNotFoundError naming the file."""
        for number in range(self.first, self.stop):
            yield read_bundle(files, number, self.size)


def ranges_of(size: int) -> Iterator[Range]:
    """The ranges that a log of `size` entries, if that is true, is cut into; by its size alone."""
    bundles = -(-size // WIDTH)
    each = min(max(bundles // RANGES, LEAST_BUNDLES), MOST_BUNDLES)
    return (Range(first, min(first + each, bundles), size) for first in range(0, bundles, each))


def bundle_tile(number: int, size: int) -> Tile:
    """The bundle of that number, as wide as a log of `size` entries has it."""
    return Tile(ENTRIES, number, min(WIDTH, size - number * WIDTH))


def read_bundle(files: TraceFiles, number: int, size: int) -> list[bytes]:
    """The entries of a bundle of a log of `size` entries. FormatError or FileNotFoundError naming its file."""
    tile = bundle_tile(number, size)
    try:
        return decode_bundle(files.read(tile.path), tile.width)
    except FormatError as error:
        raise FormatError(f"{tile.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Named:
    """Samples that an entry names: `count` ordinals of a block, the largest of them (-1: none)."""

    block: bytes
    count: int
    largest: int


@dataclass(frozen=True, slots=True)
class Told:
    """An entry as `Facts` take it: its leaf hash, its event without the columns that no fact needs, whom it names."""

    leaf: bytes
    event: Mapping[str, Any]
    named: tuple[Named, ...]


def hash_range(files: TraceFiles, one: Range) -> Iterator[bytes]:
    """The leaf hashes of a bundle after another, end to end. FormatError or OSError for the first that is damaged."""
    for entries in one.bundles(files):
        yield b"".join(hash_leaves(entries))


def tell_range(files: TraceFiles, one: Range) -> Iterator[Told]:
    """Every entry of a range. ProofError for the first that is none, FormatError or OSError for a damaged bundle."""
    for bundle, entries in enumerate(one.bundles(files), one.first):
        for number, entry in enumerate(entries, bundle * WIDTH):
            try:
                event = decode_event(entry)
            except FormatError as error:
                path = bundle_tile(bundle, one.size).path
                raise ProofError(f"entry {number} in {path} is no valid entry: {error}") from error
            yield Told(leaf_hash(entry), _condensed(event), tuple(_named(event)))


def _condensed(event: Mapping[str, Any]) -> dict[str, Any]:
    left_out = set() if "hops" in event else _LEFT_OUT.get(event["kind"], set())
    kept = {name: _own(value) for name, value in event.items() if name not in left_out}
    if "contents" in event:
        kept["contents"] = b""  # that there are some
    return kept


def _own(value: Any) -> Any:
    """The value, not as a view that keeps its whole entry."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _named(event: Mapping[str, Any]) -> Iterator[Named]:
    """Whom an entry names, in the order in which the index takes them."""
    kind, block = event["kind"], event.get("block", b"")
    if kind == "use":
        applied, count = event["status"] == _APPLIED, event["count"]
        yield from _chosen(block, event["ordinals"], count, applied)
        if "hops" in event:
            hop_applied = np.repeat(applied, event["hops"])
            yield from _chosen(block, event["hop_ordinals"], event["hop_count"], hop_applied)
        yield from _chosen(block, event["ordinals"], count, ~applied)
    elif kind == "transform":
        for column in ("kept", "dropped", "parents", "children"):
            if column in event:
                yield _those(event["child_block"] if column == "children" else block, event[column])
    elif "ordinals" in event:
        yield _those(block, event["ordinals"])


def _chosen(
    block: bytes, ordinals: NDArray[np.uint32], counts: NDArray[np.uint32], chosen: NDArray[np.bool_]
) -> Iterator[Named]:
    if chosen.any():
        yield _those(block, ordinals if chosen.all() else ordinals[np.repeat(chosen, counts)])


def _those(block: bytes, ordinals: NDArray[np.uint32]) -> Named:
    return Named(block, len(ordinals), int(ordinals.max(initial=0)) if len(ordinals) else -1)
