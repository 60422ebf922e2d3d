"""Safetensors files without torch: arrays under names, memory-mapped, with a header that is checked before it is used.

Format: https://github.com/huggingface/safetensors#format. Eight bytes give the length of a JSON header (at most
100 MB); it names each tensor's type, shape and place; the tensors follow without holes. bfloat16, which numpy does not
know, is kept as the upper half of a float32.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError

MAX_HEADER_BYTES = 100_000_000
ALIGNED_BYTES = 64  # where the data begins: every type lies on its own boundary, and on a cache line
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U64": "<u8", "U32": "<u4",
    "U16": "<u2", "U8": "|u1",
}  # fmt: skip
_DTYPES = {name: np.dtype(dtype) for name, dtype in TYPES.items()}
_PLACE = {"dtype", "shape", "data_offsets"}
_OF_DTYPE = {dtype: name for name, dtype in _DTYPES.items() if name != "BF16"}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An array with the name of its type in the file: "BF16" is held as uint16."""

    type: str
    array: NDArray[Any]

    def float32(self) -> NDArray[np.float32]:
        """The values as float32, copied unless they are."""
        if self.type != "BF16":
            return self.array.astype(np.float32, copy=False)
        wide = self.array.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TensorFile:
    """What a file holds; arrays are read-only views of its bytes."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]


def bfloat16(values: NDArray[np.float32]) -> Tensor:
    """Values rounded to bfloat16, to nearest and ties to even; infinities and NaN stay what they are."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    finite = np.isfinite(values)
    return Tensor("BF16", np.where(finite, rounded, bits >> np.uint32(16)).astype(np.uint16))


def encode_tensors(tensors: Mapping[str, NDArray[Any] | Tensor], metadata: Mapping[str, str]) -> list[bytes]:
    """The file in pieces. The same bytes for the same content: wide types first, and names in order.

    ValueError for an array of another type than the format's, or the name `__metadata__`.
    """
    held = {name: t if isinstance(t, Tensor) else _tensor(name, t) for name, t in tensors.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    pieces, at = [], 0
    for name in sorted(held, key=lambda n: (-held[n].array.itemsize, n)):
        array = np.asarray(held[name].array, order="C")
        header[name] = {"dtype": held[name].type, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        pieces.append(array.tobytes())
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED_BYTES)
    return [len(text).to_bytes(8, "little"), text, *pieces]


def open_tensors(path: Path) -> TensorFile:
    """A file, memory-mapped. FormatError, naming it, for what is no such file; OSError where it cannot be read."""
    with path.open("rb") as file:
        try:
            data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            data = b""  # an empty file cannot be mapped
    try:
        return parse_tensors(data)
    except FormatError as error:
        raise FormatError(f"{path.name} is no safetensors file: {error}") from error


def parse_tensors(data: bytes | mmap.mmap) -> TensorFile:
    """A file's content. FormatError for a header that is wrong, holes, overlaps, a cut or a longer file."""
    size = len(data)
    length = int.from_bytes(data[:8], "little")
    if size < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
        raise FormatError(f"{size} bytes, with a header of {length}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError(f"its header is no map but {header!r:.40}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        raise FormatError("its metadata is no map from text to text")
    places = {name: _place(name, said) for name, said in header.items()}
    at = 0
    for start, stop in sorted(place[2:] for place in places.values()):
        if start != at:
            raise FormatError(f"its tensors have a hole or overlap at byte {at}: the next begins at {start}")
        at = stop
    if 8 + length + at != size:
        raise FormatError(f"{size} bytes, of which its header names {8 + length + at}")
    front = 8 + length
    return TensorFile(metadata, {name: _view(data, front, place) for name, place in places.items()})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a repeated name one reader would take the first and another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _place(name: str, said: Any) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's type, shape, and where it starts and stops."""
    if not isinstance(said, dict) or said.keys() != _PLACE:
        raise FormatError(f"tensor {name!r:.60} is described by {said!r:.60}")
    kind, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise FormatError(f"tensor {name!r:.60} is of type {kind!r:.20}; known are {', '.join(TYPES)}")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers) or len(offsets) != 2 or len(shape) > 32:
        raise FormatError(f"tensor {name!r:.60} has shape {shape!r:.40} at {offsets!r:.40}")
    if math.prod(shape) * _DTYPES[kind].itemsize != offsets[1] - offsets[0]:
        raise FormatError(f"tensor {name!r:.60} of shape {shape} does not fill bytes {offsets[0]} to {offsets[1]}")
    return kind, tuple(shape), offsets[0], offsets[1]


def _view(data: bytes | mmap.mmap, front: int, place: tuple[str, tuple[int, ...], int, int]) -> Tensor:
    kind, shape, start, _stop = place
    flat = np.frombuffer(data, dtype=_DTYPES[kind], count=math.prod(shape), offset=front + start)
    try:
        return Tensor(kind, flat.reshape(shape))
    except ValueError as error:  # more elements than memory has addresses, with a zero among the sizes
        raise FormatError(f"a tensor of shape {shape!r:.60}: {error}") from error


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    kind = _OF_DTYPE.get(array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype)
    if kind is None or name == "__metadata__":
        raise ValueError(f"tensor {name!r:.60} of {array.dtype} has no place in a safetensors file")
    return Tensor(kind, array.astype(TYPES[kind], copy=False))
