"""What names the samples of a stream while a collate function makes a batch of them: an envelope around both.

Made in the loader's workers, also in those that know nothing of the process that watches; opened as the batch is
delivered, so that the loop gets exactly what the collate function made. Nothing here knows a run.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import pin_memory as torch_pinning

from fgtrac.capture.contents import row_digests
from fgtrac.errors import CaptureError
from fgtrac.events.codec import encode
from fgtrac.events.identity import check_key

Key = Callable[[Any], Any]
DEPTH = 6  # of containers in one sample
_REMEDY = "name the samples by watch(loader, key=...), a function of what the data set yields"


@dataclass(slots=True)
class Envelope:
    """A collated batch, and the names of its samples: keys, or SHA-256 digests of their contents; else the `fault` that
    left them without."""

    keys: list[Any] | None
    digests: list[bytes]
    batch: Any
    fault: str | None = None

    def pin_memory(self, device: Any = None) -> Envelope:
        """The same around the batch in page-locked memory, as torch makes it of a batch without an envelope."""
        pinned: Any = torch_pinning.pin_memory(self.batch, device)  # type: ignore[no-untyped-call]
        return Envelope(self.keys, self.digests, pinned, self.fault)


class Enveloping:
    """A collate function that puts the names of the samples beside what `collate` makes of them.

    `is_batch` says that it gets a list of samples, and not one. `key` gives a sample's key, or of a ready batch a list
    of keys; without it that is (`__url__`, `__key__`) of WebDataset's samples, and otherwise their content.
    """

    def __init__(self, collate: Callable[[Any], Any], key: Key | None, is_batch: bool) -> None:
        self.collate = collate
        self.key = key
        self.is_batch = is_batch

    def __call__(self, given: Any) -> Envelope:
        fault = None
        try:  # before anything is changed in place
            keys, digests = names_of(given if self.is_batch else [given], self.key, is_batch=self.is_batch)
        except CaptureError as error:  # the main process decides what becomes of it
            keys, digests, fault = None, [], str(error)
        return Envelope(keys, digests, self.collate(given), fault)


def names_of(samples: list[Any], key: Key | None, *, is_batch: bool) -> tuple[list[Any] | None, list[bytes]]:
    """The keys of samples, and digests of those; or None and the digests of their contents. Where they are no batch of
    samples, it is one that is ready.

    CaptureError where `key` raises an error, where some samples have keys and others have none, for what is no key, and
    for contents that no digest can be made of.
    """
    keys: list[Any] = []
    for sample in samples:
        found = _webdataset_key(sample) if key is None else _key_of(sample, key, is_batch)
        keys += found if isinstance(found, list) else [found]
    if all(one is None for one in keys):
        return None, [content_digest(sample) for sample in samples]
    try:
        for one in keys:
            check_key(one)
    except (TypeError, ValueError) as error:
        raise CaptureError(f"{error}; a sample of the stream was named so: {_REMEDY}") from error
    return keys, [hashlib.sha256(encode(one)).digest() for one in keys]


def _key_of(sample: Any, key: Key, is_batch: bool) -> Any:
    try:
        found = key(sample)
    except Exception as error:  # the user's function, in whatever way it fails
        raise CaptureError(f"key= raised {type(error).__name__}: {error}; {_REMEDY}") from error
    if found is None or (is_batch and isinstance(found, list)):
        said = "None" if found is None else "a list, as of a ready batch (batch_size=None),"
        raise CaptureError(f"key= gave {said} for a sample; give each a number, a text, bytes, or a tuple of these")
    return found


def _webdataset_key(sample: Any) -> Any:
    """(`__url__`, `__key__`) of a sample, or of each in a batch: the second alone is not unique across shards."""
    if not isinstance(sample, Mapping) or "__key__" not in sample:
        return None
    key, url = sample["__key__"], sample.get("__url__", "")
    if isinstance(key, list | tuple):
        return list(zip(url if isinstance(url, list | tuple) else [url] * len(key), key, strict=True))
    return url, key


def content_digest(sample: Any) -> bytes:
    """SHA-256 that two samples share where they hold equal values of equal types: docs/spec/identity.md.

    A tensor or an array has that of a row of a TensorDataset, bytes and texts that of a file with these bytes.
    CaptureError for a type or dtype without canonical bytes, which it names.
    """
    if isinstance(sample, torch.Tensor | np.ndarray):
        return _array_digest(sample)
    if isinstance(sample, str):
        sample = sample.encode()
    if isinstance(sample, bytes | bytearray):
        return hashlib.sha256(sample).digest()
    return hashlib.sha256(encode(_form(sample, DEPTH))).digest()


def _form(value: Any, depth: int) -> list[Any]:
    """A value as what CBOR can say, its kind first."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return ["array", _array_digest(value)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", hashlib.sha256(value).digest()]
    if isinstance(value, str):
        return ["text", value]
    if value is None or isinstance(value, bool):
        return ["constant", str(value)]
    if isinstance(value, int):
        return ["integer", str(value)]
    if isinstance(value, float):
        return ["float", struct.pack("<d", value)]
    if depth and isinstance(value, list | tuple):
        return ["list", [_form(one, depth - 1) for one in value]]
    if depth and isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return ["map", {name: _form(one, depth - 1) for name, one in value.items()}]
    what = "values nested too deep" if isinstance(value, list | tuple | Mapping) and not depth else "a "
    raise CaptureError(f"a sample of the stream holds {what}{type(value).__name__}, without canonical bytes; {_REMEDY}")


def _array_digest(value: Any) -> bytes:
    try:
        return bytes(row_digests(value[None] if not isinstance(value, np.generic) else np.asarray(value)[None])[0])
    except CaptureError as error:
        raise CaptureError(f"a sample of the stream holds what has no canonical bytes ({error}); {_REMEDY}") from error
