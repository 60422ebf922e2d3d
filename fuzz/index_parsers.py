"""Parsers of the index: its columns as .npy files, all five together, and the rows of a leaf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgtrac.events.postings import decode_rows
from fgtrac.store.index_files import load_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.npy import COLUMNS, column_path, npy_header
from target import Real, Target, filled, scratch_folder

_SCRATCH = scratch_folder()
_TRACE = TraceDir(Path(_SCRATCH.name))


def column(data: bytes) -> bytes:
    """One .npy column, mapped from a file; given back as it would be written."""
    (_TRACE.path / "column.npy").write_bytes(data)
    array = _TRACE.mapped("column.npy")
    return npy_header(array) + array.tobytes()


def columns(data: bytes) -> object:
    """Five columns, each behind its length in four bytes, as the index of one seal."""
    for name in COLUMNS:
        size = int.from_bytes(data[:4], "big")
        path = _TRACE.path / column_path(1, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[4 : 4 + size])
        data = data[4 + size :]
    return load_index(_TRACE.mapped, 1, bytes(32))


def column_files(real: Real) -> dict[str, bytes]:
    folder = max((p for p in (real.trace / "index").iterdir()), key=lambda p: int(p.name))
    return {name: (folder / f"{name}.npy").read_bytes() for name in COLUMNS}


def all_columns(real: Real) -> Iterator[bytes]:
    yield b"".join(len(d).to_bytes(4, "big") + d for d in column_files(real).values())


def rows(real: Real) -> Iterator[bytes]:
    folder = max((p for p in (real.trace / "index").iterdir()), key=lambda p: int(p.name))
    offsets, values = np.load(folder / "offsets.npy"), np.load(folder / "values.npy").tobytes()
    for start, stop in zip(offsets[:40].tolist(), offsets[1:41].tolist(), strict=True):
        yield values[start:stop]


def worst_columns() -> Iterator[bytes]:
    yield b"\x93NUMPY\x01\x00\xff\xff" + filled(b"(")
    yield b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u8', 'fortran_order': False, 'shape': (" + filled(b"9") + b",), }"
    yield npy_header(np.broadcast_to(np.uint8(0), (1 << 62,)))
    yield npy_header(np.broadcast_to(np.uint8(0), (1 << 40, 33))) + bytes(1 << 20)
    yield npy_header(np.empty(1 << 17, "<u8")) + bytes(1 << 20)


TARGETS = [
    Target("index column", column, lambda r: column_files(r).values(), bytes, worst=worst_columns),
    Target("index columns together", columns, all_columns, worst=lambda: [bytes(1 << 20), filled(b"\0\1\0\0")]),
    Target(
        "rows of a leaf", lambda data: decode_rows(data), rows, lambda v: v.tobytes(),
        worst=lambda: [bytes(19 * 55_188), filled(b"\x01" + bytes(17) + b"\xff"), filled(b"\xff", 19 * 55_188)],
    ),
]  # fmt: skip
