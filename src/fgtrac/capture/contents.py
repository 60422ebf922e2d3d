"""Where a sample's content comes from: the source bytes of each row, and the source text of a function."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fgtrac.errors import CaptureError
from fgtrac.events.codec import encode


def source_digests(
    data: Any, rows: int, source: Callable[[int], bytes] | None
) -> tuple[str | None, list[bytes] | None]:
    """SHA-256 of each row's source bytes and a word for what they are, or (None, None) where no source is known.

    Sources are taken before any transform: `source(row)`, the first tensor of a TensorDataset as CBOR
    [dtype, shape, little-endian bytes], or the files of an image folder.
    """
    if source is not None:
        return "source", [hashlib.sha256(source(row)).digest() for row in range(rows)]
    if isinstance(data, TensorDataset):
        return "tensor", tensor_digests(data.tensors[0])
    files = getattr(data, "samples", None)
    if isinstance(files, list) and len(files) == rows and isinstance(files[0], tuple | list):
        paths = [f[0] for f in files]
        if all(isinstance(p, str | os.PathLike) for p in paths):
            return "file", [file_digest(Path(p)) for p in paths]
    return None, None


def tensor_digests(tensor: torch.Tensor) -> list[bytes]:
    """SHA-256 over the canonical CBOR [dtype, shape, little-endian bytes] of each row of `tensor` (n, ...)."""
    flat = tensor.detach().cpu().contiguous()
    n = flat.shape[0]
    raw = flat.reshape(n, -1).view(torch.uint8).numpy() if flat.numel() else np.empty((n, 0), np.uint8)
    first = raw[0].tobytes()
    whole = encode([str(tensor.dtype).removeprefix("torch."), list(tensor.shape[1:]), first])
    prefix = hashlib.sha256(whole[: len(whole) - len(first)])
    digests = []
    for row in raw:
        state = prefix.copy()
        state.update(row.data)
        digests.append(state.digest())
    return digests


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes. CaptureError names the file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise CaptureError(
            f"the source file {path} cannot be read ({error}); repair it or pass content=False"
        ) from error


def code_digest(function: Callable[..., Any]) -> bytes | None:
    """SHA-256 of a function's source text, or None where Python does not have it."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).digest()
    except (OSError, TypeError):
        return None  # a builtin or something typed at a prompt: the entry then has no code digest
