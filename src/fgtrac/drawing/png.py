"""Pictures as PNG files (ISO/IEC 15948), by the standard library: 8 bits grey or RGB."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types


def grey_or_rgb(pixels: NDArray[Any]) -> bytes:
    """The PNG file of pixels (H, W) or (H, W, 3), uint8. ValueError for any other array, and for an empty one."""
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_rgb or pixels.ndim == 2) or pixels.size == 0:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape}; they are uint8, (H, W) or (H, W, 3), and some")
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), dtype=np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, RGB if is_rgb else GREY, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
