"""An index in pieces on disk: sorted runs of postings, and the leaves that the runs of a range of samples give."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.posting_runs import BLOCK, PLACE, Registered, Run
from fgtrac.events.postings import ROW, Bytes2D
from fgtrac.store import durable
from fgtrac.tlog.index import CONTENT, KEY_BYTES, SAMPLE, Columns, Tree, hash_columns, lower_bound, places_in
from fgtrac.tlog.merkle import leaf_hash

ALIGNED = 64  # bytes: where the columns of a file begin
_BARE = np.dtype(f"V{ROW.itemsize}")  # a row that numpy moves whole, not field by field: six times as fast
Write = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Leaves of one range of keys, in order: sizes (n,) uint64 of their values in bytes, digests (n, 32) of the values,
    hashes (n, 32); `keys` (n, 32) and `values` only of contents, whose keys are not known before."""

    sizes: NDArray[np.uint64]
    digests: Bytes2D
    hashes: Bytes2D
    keys: Bytes2D
    values: NDArray[np.uint8]


# -- files: each a map of its columns' lengths, then the columns ------------------------------------------------------


def write_columns(path: Path, said: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """Put a file of columns in place, whole or not at all, and give its SHA-256. What is `said` is encoded as entries
    are."""
    head = encode({**said, "bytes": np.array([a.nbytes for a in arrays], dtype="<u8")})
    pieces = [len(head).to_bytes(8, "little"), head, bytes(-(8 + len(head)) % ALIGNED)]
    flat = [memoryview(np.ascontiguousarray(a).reshape(-1).view(np.uint8)) for a in arrays]  # type: ignore[arg-type]
    digest = hashlib.sha256(b"".join(pieces))
    for column in flat:
        digest.update(column)
    durable.write_file(path, [*pieces, *flat], sync=False)
    return digest.digest()


def read_columns(path: Path) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
    """What a file of columns says, and its columns, memory-mapped. FormatError where it is none.

    The mapping keeps one descriptor until the last of the columns has gone."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        said = decode(file.read(min(length, 1 << 20)))
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    sizes, at = said["bytes"].tolist(), 8 + length + -(8 + length) % ALIGNED
    if len(mapped) != at + sum(sizes):
        raise FormatError(f"{path.name} has {len(mapped):,} bytes; its columns ask for another length")
    columns = []
    for size in sizes:
        columns.append(mapped[at : at + size])
        at += size
    return said, columns


def has_digest(path: Path, digest: bytes) -> bool:
    """Whether a file is there and has that SHA-256."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == digest
    except FileNotFoundError:
        return False


_checked: dict[Path, tuple[bytes, int, int, int]] = {}


def check_digest(path: Path, digest: bytes) -> None:
    """OSError where a file has another SHA-256. It is read for that once in a process, and once more whenever it is
    another file or was written to since."""
    said = path.stat()
    seen = digest, said.st_ino, said.st_size, said.st_ctime_ns
    if _checked.get(path) != seen:
        if not has_digest(path, digest):
            raise OSError(
                f"{path.name} changed while the index was put together; the same command does that part again"
            )
        _checked[path] = seen


def forget_checked() -> None:
    """The files are no longer needed."""
    _checked.clear()


def write_run(path: Path, run: Run, said: Mapping[str, Any]) -> bytes:
    """Put a sorted run in place, with what else its maker says; its SHA-256."""
    return write_columns(path, said, [run.ranks, run.rows, run.table])


def read_run(path: Path) -> tuple[Run, dict[str, Any]]:
    """A sorted run, memory-mapped, and what else is said."""
    said, (ranks, rows, table) = read_columns(path)
    return Run(ranks.view("<u4"), rows.view("<u4"), table.view(ROW)), said


def write_registered(path: Path, registered: Registered) -> bytes:
    """Put what the `samples` entries say in place; the file's SHA-256."""
    return write_columns(path, {}, [registered.blocks, registered.places, registered.ranks])


def read_registered(path: Path) -> Registered:
    """What the `samples` entries say, memory-mapped."""
    _said, (blocks, places, ranks) = read_columns(path)
    return Registered(blocks.view(BLOCK), places.view(PLACE), ranks.view("<u4"))


def write_leaves(path: Path, leaves: Leaves) -> bytes:
    """Put leaves in place; the file's SHA-256."""
    return write_columns(path, {}, [leaves.sizes, leaves.digests, leaves.hashes, leaves.keys, leaves.values])


def read_leaves(path: Path) -> Leaves:
    """Leaves, memory-mapped."""
    _said, (sizes, digests, hashes, keys, values) = read_columns(path)
    return Leaves(
        sizes.view("<u8"), digests.reshape(-1, 32), hashes.reshape(-1, 32), keys.reshape(-1, 32), values
    )  # fmt: skip


# -- merging ----------------------------------------------------------------------------------------------------------


def typed_keys(type: int, keys: Bytes2D) -> Bytes2D:
    """Index keys (n, 33) of one type."""
    out = np.empty((len(keys), KEY_BYTES), dtype=np.uint8)
    out[:, 0], out[:, 1:] = type, keys
    return out


def part_of(tree: Tree, type: int, first: bytes, last: bytes) -> tuple[Tree, int]:
    """The leaves of a tree from the key `first` to the key `last`, both of them too, and how many come before. The
    offsets stay those of the whole values."""
    start = lower_bound(tree, type, first)
    stop = lower_bound(tree, type, last)
    if stop < len(tree) and tree.columns.keys[stop].tobytes() == bytes((type,)) + last:
        stop += 1
    columns = Columns(tree.columns.keys[start:stop], tree.columns.offsets[start : stop + 1], tree.columns.values)
    return Tree(columns, tree.digests[start:stop], tree.nodes[start:stop], b""), start


def count_postings(runs: Sequence[Path], first: int, stop: int) -> int:
    """How many postings of the samples of rank `first` to `stop` the runs in these files have.

    Here and in `merge_samples` a file is mapped while it is looked into: of however many, one is open at a time, and
    what was looked at of it is in this process no more."""
    return sum(b - a for a, b in _spans(runs, first, stop))


def _spans(runs: Sequence[Path], first: int, stop: int) -> list[tuple[int, int]]:
    wanted, spans = np.array([first, stop], dtype=np.uint32), []
    for path in runs:
        a, b = np.searchsorted(read_run(path)[0].ranks, wanted)
        spans.append((int(a), int(b)))
    return spans


def merge_samples(
    runs: Sequence[Path], ids: Bytes2D, first: int, write: Write, previous: Tree | None, at_once: int
) -> Leaves:
    """The leaves of the samples of rank `first` on, whose ascending ids (n, 32) these are: their rows in `previous`,
    then those of the runs, in the order of the log. The values are handed to `write` in order.

    At most `at_once` postings are held in memory, however many a sample has.
    """
    parts: list[_Part] = []
    waiting = [(first, first + len(ids))] if len(ids) else []
    while waiting:
        start, stop = waiting.pop()
        mine = ids[start - first : stop - first]
        old = part_of(previous, SAMPLE, mine[0].tobytes(), mine[-1].tobytes())[0] if previous is not None else None
        spans = _spans(runs, start, stop)
        known = int(old.columns.offsets[-1] - old.columns.offsets[0]) // ROW.itemsize if old is not None else 0
        if known + sum(b - a for a, b in spans) <= at_once:
            parts.append(_merge_part(runs, spans, mine, start, old, write))
        elif stop - start > 1:
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]
            continue
        else:
            parts.append(_stream_sample(runs, spans, mine, old, write, at_once))
    none = np.empty((0, 32), np.uint8)
    sizes = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    digests, hashes = (np.concatenate([none, *(part[n] for part in parts)]) for n in (1, 2))
    return Leaves(sizes, digests, hashes, none, np.empty(0, np.uint8))


_Part = tuple[NDArray[np.uint64], Bytes2D, Bytes2D]


def _merge_part(
    runs: Sequence[Path], spans: list[tuple[int, int]], ids: Bytes2D, first: int, old: Tree | None, write: Write
) -> _Part:
    """Samples whose postings fit in memory together: one stable sort."""
    keys = typed_keys(SAMPLE, ids)
    counts = np.zeros(len(ids), dtype=np.int64)
    if old is not None and len(old):
        counts[places_in(old.columns.keys, keys) >= 0] = np.diff(old.columns.offsets).astype(np.int64) // ROW.itemsize
    known = int(counts.sum())
    total = known + sum(b - a for a, b in spans)
    rows, places = np.empty(total, dtype=_BARE), np.empty(total, dtype=np.uint64)
    if old is not None and known:
        rows[:known] = old.columns.values[int(old.columns.offsets[0]) : int(old.columns.offsets[-1])].view(_BARE)
        places[:known] = np.repeat(np.arange(len(ids), dtype=np.uint64), counts)
    at = known
    for path, (a, b) in zip(runs, spans, strict=True):
        run = read_run(path)[0]
        np.take(run.table.view(_BARE), run.rows[a:b], out=rows[at : at + b - a], mode="clip")
        places[at : at + b - a] = run.ranks[a:b] - np.uint32(first)
        at += b - a
    counts = np.bincount(places.astype(np.intp), minlength=len(ids))
    places <<= np.uint64(32)
    places |= np.arange(total, dtype=np.uint64)
    places.sort()
    values = rows.take(places.astype(np.uint32)).view(np.uint8)
    del rows, places
    sizes = (counts * ROW.itemsize).astype(np.uint64)
    offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(sizes)])
    digests, hashes = hash_columns(Columns(keys, offsets, values), old)
    write(memoryview(values))  # type: ignore[arg-type]
    return sizes, digests, np.frombuffer(hashes, np.uint8).reshape(-1, 32)


def _stream_sample(
    runs: Sequence[Path], spans: list[tuple[int, int]], ids: Bytes2D, old: Tree | None, write: Write, at_once: int
) -> _Part:
    """One sample with more postings than fit in memory: what is there of it comes in the order of the log."""
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(runs, spans, old, at_once):
        digest.update(piece)
        size += len(piece)
        write(piece)
    found = np.frombuffer(digest.digest(), np.uint8).reshape(1, 32)
    leaf = leaf_hash(bytes((SAMPLE,)) + ids[0].tobytes() + digest.digest())
    return np.array([size], np.uint64), found, np.frombuffer(leaf, np.uint8).reshape(1, 32)


def _pieces(runs: Sequence[Path], spans: list[tuple[int, int]], old: Tree | None, at_once: int) -> Iterator[memoryview]:
    if old is not None and len(old):
        start, stop = int(old.columns.offsets[0]), int(old.columns.offsets[-1])
        for at in range(start, stop, at_once * ROW.itemsize):
            yield memoryview(np.array(old.columns.values[at : min(at + at_once * ROW.itemsize, stop)]))  # type: ignore[arg-type]
    for path, (a, b) in zip(runs, spans, strict=True):
        run = read_run(path)[0]
        for at in range(a, b, at_once):
            rows = run.table.view(_BARE).take(run.rows[at : min(at + at_once, b)])
            yield memoryview(np.ascontiguousarray(rows).view(np.uint8))  # type: ignore[arg-type]


def hash_contents(keys: Bytes2D, counts: NDArray[np.int64], holders: Bytes2D, previous: Tree | None) -> Leaves:
    """The leaves of contents whose keys ascend, with the ids that hold each, one behind another."""
    sizes = (counts * 32).astype(np.uint64)
    offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(sizes)])
    values = np.ascontiguousarray(holders).reshape(-1)
    digests, hashes = hash_columns(Columns(typed_keys(CONTENT, keys), offsets, values), previous)
    return Leaves(sizes, digests, np.frombuffer(hashes, np.uint8).reshape(-1, 32), keys, values)
