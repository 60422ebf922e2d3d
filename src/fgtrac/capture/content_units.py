"""Content digests by an engine: of sources that a worker can open again by itself, file by file or part by part.

These are the files that an image folder lists, an array that `numpy.load(..., mmap_mode="r")` maps, and the Arrow files
that a Dataset of `datasets` maps. Digests and errors are those of one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from fgtrac.capture.contents import (
    PLAIN_KINDS,
    array_digests,
    described,
    file_digest,
    files_digested,
    labelled_rows,
    listed_files,
    source_digests,
)
from fgtrac.capture.hf_rows import is_hf_dataset
from fgtrac.capture.table_rows import digest_table
from fgtrac.engine.units import Engine
from fgtrac.errors import CaptureError

FILES_AT_ONCE = 1024  # of a unit
PART_BYTES = 1 << 26  # of a mapped file
SAME_ROWS = ("replace_schema_metadata",)  # of what `datasets` does to a mapped table: these leave rows and columns

U = TypeVar("U")
Digested = tuple[bytes, str, CaptureError | None]  # digests end to end, of what, and what went wrong


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file lay at a path: its number, bytes and last change (ns)."""

    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, path: str | Path) -> Stamp:
        """The file's stamp. OSError where it cannot be read."""
        said = os.stat(path)
        return cls(said.st_ino, said.st_size, said.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class FilePart:
    """Files as they are listed, seen from a folder."""

    folder: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArrayPart:
    """Rows of an array in a file, C order, whose first byte is at `offset`."""

    path: str
    stamp: Stamp
    dtype: str
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArrowPart:
    """Rows `start` to `stop` of an Arrow file of `datasets`."""

    path: str
    stamp: Stamp
    start: int
    stop: int


def digests_by(
    engine: Engine, data: Any, rows: int, source: Callable[[int], bytes] | None
) -> tuple[str | None, NDArray[np.uint8] | None]:
    """As `source_digests`, by an engine where each worker can open the source by itself, else in this process."""
    if source is not None:
        return source_digests(data, rows, source)
    if is_hf_dataset(data):
        arrows = _arrow_parts(data)
        return source_digests(data, rows, None) if arrows is None else _spread(engine, digest_arrow, arrows)
    if isinstance(data, np.ndarray):
        values: Any = data
    elif isinstance(data, TensorDataset | torch.Tensor):
        return source_digests(data, rows, None)
    elif (paths := listed_files(data, rows)) is not None:
        return _spread(engine, digest_files, _file_parts(paths))
    else:
        values = labelled_rows(data, rows)
    arrays = _array_parts(values)
    if arrays is None:
        return source_digests(data, rows, None)
    return _spread(engine, digest_array, arrays, described(values))


def _spread(
    engine: Engine, work: Callable[[U], Digested], units: Sequence[U], of: str | None = None
) -> tuple[str, NDArray[np.uint8]]:
    """What the units digest, in their order. The error of the first that fails, as in one process."""
    found: list[Digested | None] = [None] * len(units)
    failed = len(units)
    for number, done in engine.results(work, units, what="digesting contents"):
        found[number] = done
        if done[2] is not None:
            failed = min(failed, number)
        if failed < len(units) and None not in found[:failed]:
            break
    for one in found:
        if one is not None and one[2] is not None:
            raise one[2]
    every = [one for one in found if one is not None]
    digests = np.frombuffer(b"".join(one[0] for one in every), dtype=np.uint8).reshape(-1, 32)
    return of or every[0][1], digests


def digest_files(part: FilePart) -> Digested:
    """The digests of files."""
    here = os.getcwd() == part.folder  # then what is said of one has its name as it was listed
    try:
        return (
            b"".join(file_digest(Path(path) if here else Path(part.folder, path)) for path in part.paths),
            "file",
            None,
        )
    except CaptureError as error:
        return b"", "", error


def digest_array(part: ArrayPart) -> Digested:
    """The digests of rows of an array."""
    try:
        _check_stamp(part.path, part.stamp)
        values = np.memmap(part.path, np.dtype(part.dtype), "r", part.offset, part.shape)
        digests = array_digests(values).tobytes()
        _check_stamp(part.path, part.stamp)
        return digests, "", None
    except CaptureError as error:
        return b"", "", error


def digest_arrow(part: ArrowPart) -> Digested:
    """The digests of rows of an Arrow file."""
    from datasets import Dataset

    try:
        _check_stamp(part.path, part.stamp)
        whole = Dataset.from_file(part.path)
        some = Dataset(whole.data.slice(part.start, part.stop - part.start), info=whole.info)
        found = digest_table(files_digested(some))
        _check_stamp(part.path, part.stamp)
        assert found is not None  # a Dataset has a table
        return found[1].tobytes(), f"table {found[0]}", None
    except CaptureError as error:
        return b"", "", error


def _file_parts(paths: Sequence[Path]) -> list[FilePart]:
    folder, named = os.getcwd(), tuple(map(str, paths))
    return [FilePart(folder, named[at : at + FILES_AT_ONCE]) for at in range(0, len(named), FILES_AT_ONCE)]


def _array_parts(values: Any) -> list[ArrayPart] | None:
    """The parts of an array that maps a file for reading; None for any other, and where another file has its name."""
    is_mapped = isinstance(values, np.memmap) and values.mode == "r" and values.flags.c_contiguous
    if not is_mapped or not values.nbytes or values.dtype.kind not in PLAIN_KINDS:
        return None
    path = os.path.abspath(str(values.filename))
    found = _mapped(values.__array_interface__["data"][0], path)
    if found is None:
        return None
    stamp, offset = found
    row = values.nbytes // len(values)
    step = max(1, PART_BYTES // row)
    return [
        ArrayPart(path, stamp, values.dtype.str, offset + at * row, (min(step, len(values) - at), *values.shape[1:]))
        for at in range(0, len(values), step)
    ]


def _arrow_parts(data: Any) -> list[ArrowPart] | None:
    """The parts of a Dataset whose rows are those of the Arrow files that it maps, one behind the other, with the same
    columns; None for any other."""
    tables, kind = sys.modules["datasets.table"], sys.modules["datasets"].Dataset
    table, units = data.data, []
    for row in table.blocks if isinstance(table, tables.ConcatenationTable) else [[table]]:
        if len(row) != 1 or not isinstance(row[0], tables.MemoryMappedTable):
            return None
        block = row[0]
        path, addresses = os.path.abspath(block.path), _addresses(block.table)
        mapped = [_mapped(address, path) for address in addresses]
        if not mapped or None in mapped or any(replay[0] not in SAME_ROWS for replay in block.replays or ()):
            return None
        if kind.from_file(path).features != data.features:
            return None
        step = max(1, PART_BYTES * len(block) // max(block.nbytes, 1))
        stamp = Stamp.of(path)
        units += [ArrowPart(path, stamp, at, min(at + step, len(block))) for at in range(0, len(block), step)]
    return units or None


def _addresses(table: Any) -> list[int]:
    """Where the memory of a table's first column is."""
    chunks = table.column(0).chunks[:1] if table.num_columns else []
    return [buffer.address for chunk in chunks for buffer in chunk.buffers() if buffer is not None and buffer.size]


def _mapped(address: int, path: str) -> tuple[Stamp, int] | None:
    """The file at a path, and where in it this process maps an address; None where it maps there no file, or another
    than has that name now."""
    try:
        stamp = Stamp.of(path)
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        bounds, _rights, offset, _device, inode = line.split(maxsplit=5)[:5]
        first, end = (int(bound, 16) for bound in bounds.split("-"))
        if first <= address < end:
            return (stamp, address - first + int(offset, 16)) if int(inode) == stamp.inode else None
    return None


def _check_stamp(path: str, stamp: Stamp) -> None:
    """CaptureError where a file is not the one that was mapped when its data were registered."""
    try:
        found = Stamp.of(path)
    except OSError as error:
        raise CaptureError(
            f"the source file {path} cannot be read ({error}); repair it or pass content=False"
        ) from error
    if found != stamp:
        raise CaptureError(
            f"the source file {path} was changed while it was read: it had {stamp.size:,} bytes at first, and has "
            f"{found.size:,}; register it when it is whole, or pass content=False"
        )
