"""CRC-32 of many ranges of one buffer, which overlap as they like, in time linear in the buffer and the ranges.

A checksum is linear over GF(2): what follows a byte string moves its register by a matrix that depends on the length
alone. So the checksum of a range follows from those of two prefixes (zlib's crc32_combine does the same).
"""

from __future__ import annotations

import math
import zlib
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0xEDB88320  # of zlib's CRC-32, reflected
Words = NDArray[np.uint32]
Numbers = NDArray[np.int64]


def prefix_checksums(data: bytes, before: int = 0) -> Words:
    """(n + 1,) the CRC-32 of the first 0 to n bytes of `data`, behind something whose own is `before`."""
    size = max(8, math.isqrt(len(data) // 32))  # of a piece; all pieces go on by a byte at a time, together
    view, count = memoryview(data), len(data) // size + 1
    fronts = accumulate((view[i : i + size] for i in range(0, len(data), size)), _crc_behind, initial=before)
    pieces = np.zeros((count, size), dtype=np.uint8)
    pieces.reshape(-1)[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    registers = ~np.fromiter(fronts, dtype=np.uint32, count=count)
    out = np.empty((size, count), dtype=np.uint32)
    table = _tables(0)[0]
    for inverted, byte in zip(out, np.ascontiguousarray(pieces.T), strict=True):
        np.invert(registers, out=inverted)
        registers = table[registers & 255 ^ byte] ^ registers >> 8
    return out.T.reshape(-1)[: len(data) + 1]


def _crc_behind(before: int, piece: memoryview) -> int:
    return zlib.crc32(piece, before)


def moved(checksums: Words, lengths: Numbers) -> Words:
    """(n,) what each checksum becomes behind so many zero bytes, where the register is not inverted: the part of the
    checksum of a whole that its front makes. `lengths` are below 2^32."""
    out = checksums.copy()
    for power in range(int(lengths.max(initial=0)).bit_length()):
        here = np.flatnonzero(lengths >> power & 1)
        value, table = out[here], _tables(power)
        out[here] = (
            table[0, value & 255] ^ table[1, value >> 8 & 255] ^ table[2, value >> 16 & 255] ^ table[3, value >> 24]
        )
    return out


@cache
def _tables(power: int) -> Words:
    """(4, 256): for each byte of a register, what 2^power zero bytes make of it."""
    if power == 0:
        columns = [_behind_zeros(1 << bit) for bit in range(32)]
    else:
        half = _tables(power - 1)
        once = np.array([1 << bit for bit in range(32)], dtype=np.uint32)
        for _ in range(2):
            once = half[0, once & 255] ^ half[1, once >> 8 & 255] ^ half[2, once >> 16 & 255] ^ half[3, once >> 24]
        columns = once.tolist()
    out = np.zeros((4, 256), dtype=np.uint32)
    for byte in range(4):
        for bit in range(8):
            out[byte, np.arange(256) >> bit & 1 == 1] ^= np.uint32(columns[8 * byte + bit])
    return out


def _behind_zeros(register: int) -> int:
    """A register behind one zero byte."""
    for _ in range(8):
        register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register
