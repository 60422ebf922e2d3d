"""Ids made in bulk: under which secret, in which order, and what the log calls a subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.identity import make_ids, subject_commitment


def pseudonyms_of(secrets: Sequence[bytes]) -> NDArray[np.uint8]:
    """(n, 32) uint8: what the log calls the subject behind each secret."""
    known = {secret: subject_commitment(secret) for secret in set(secrets)}
    return np.frombuffer(b"".join(known[s] for s in secrets), dtype=np.uint8).reshape(-1, 32)


def ids_of(scheme: str, secrets: Sequence[bytes], preimages: Sequence[bytes]) -> NDArray[np.uint8]:
    """(n, 32) uint8 ids (or content digests) of the preimages, each under its own secret."""
    rows_under: dict[bytes, list[int]] = defaultdict(list)
    for row, secret in enumerate(secrets):
        rows_under[secret].append(row)
    out = np.empty((len(preimages), 32), dtype=np.uint8)
    for secret, rows in rows_under.items():
        ids = make_ids(scheme, secret, [preimages[row] for row in rows])
        out[rows] = np.frombuffer(ids, dtype=np.uint8).reshape(-1, 32)
    return out


def sort_ids(ids: NDArray[np.uint8], keys: Sequence[Any]) -> NDArray[np.intp]:
    """Row numbers in ascending order of id. ValueError names the rows of a key that stands twice."""
    order = np.lexsort(tuple(ids.view(">u8").T[::-1]))
    ordered = ids[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if len(same):
        first, second = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        raise ValueError(
            f"rows {first} and {second} both have the key {keys[first]!r}; a key names one sample: "
            "add what tells them apart, or leave key= out to use row numbers"
        )
    return order


def rows_of(ids: NDArray[np.uint8]) -> list[bytes]:
    """The rows of an (n, 32) array as bytes."""
    joined = ids.tobytes()
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]
