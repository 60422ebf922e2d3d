"""The random matrices of a projected layer: every machine makes the same ones from the layer's own description."""

from __future__ import annotations

import hashlib

import numpy as np

from fgtrac.score.gradients import Floats, Layer

KEPT = 32  # directions kept on either side, where the layer has more


def projected_form(name: str, d_in: int, d_out: int, bias: bool, seed: int) -> Layer:
    """A large layer's gradients as `P_out G P_in^T`, of at most 32 x 32 numbers."""
    return Layer(name, "projected", d_in, d_out, bias, min(KEPT, d_in + bias), min(KEPT, d_out), seed)


def matrices(layer: Layer) -> tuple[Floats, Floats]:
    """P_out (k_out, d_out) and P_in (k_in, d_in + bias), float32, of a projected layer.

    A side of which every direction is kept has the identity. Otherwise the entries are +-1/sqrt(k), so that inner
    products are right on average; their signs are the bits of Philox, whose key is the digest of (seed, layer name,
    side) and its sizes. Signs, not normal numbers: they err less, and no library's logarithm has a part in them.
    """
    return (
        _signs(layer, "out", layer.k_out, layer.d_out),
        _signs(layer, "in", layer.k_in, layer.d_in + layer.bias),
    )


def _signs(layer: Layer, side: str, kept: int, size: int) -> Floats:
    if kept == size:
        return np.eye(size, dtype=np.float32)
    named = f"{layer.seed} {side} {kept} {size} {layer.name}"
    key = np.frombuffer(hashlib.sha256(named.encode()).digest()[:16], dtype="<u8")
    words = np.random.Philox(key=key.astype(np.uint64)).random_raw(-(-kept * size // 64))
    bits = np.unpackbits(np.asarray(words, dtype="<u8").view(np.uint8), bitorder="little")[: kept * size]
    scale = np.float32(1 / np.sqrt(kept))
    return np.where(bits.reshape(kept, size) == 1, scale, -scale)
