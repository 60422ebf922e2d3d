"""What a `sampler` entry's state is made of: the commitment to it, and the parts that it names by their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode

UNREAD = "unread"  # in place of a sampler's name: a batch of the announced order could not be read
SALT_BYTES = 32
_PREFIX = b"fgtrac sampler v1\n"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the positions of a loader's data set lead: (n,) `ordinals` in the blocks that (n,) `which` indexes."""

    blocks: tuple[bytes, ...]
    ordinals: NDArray[np.uint32]
    which: NDArray[np.uint16]


def batches_announced(event: Mapping[str, Any]) -> int | None:
    """How many batches the order of a `sampler` entry has, from its parameters; None where they do not tell."""
    said = event.get("parameters", {})
    values = [said.get(name) for name in ("num_samples", "rows", "num_replicas", "batch_size")]
    samples, rows, replicas, size = (v if type(v) is int and v > 0 else None for v in values)
    count = rows if samples is None else samples
    if count is None:
        return None
    if replicas is not None:  # of a DistributedSampler: its share, padded or cut
        count = count // replicas if said.get("sampler_drop_last") else -(-count // replicas)
    return count // size if size is not None and said.get("drop_last") else -(-count // (size or 1))


def state_commitment(opening: bytes) -> bytes:
    """SHA-256("fgtrac sampler v1\\n" || opening); an opening is 32 random bytes and the state."""
    return hashlib.sha256(_PREFIX + opening).digest()


def opening_name(writer: bytes, seq: int) -> str:
    """What the vault calls the opening of that entry's commitment."""
    return f"sampler/{writer.hex()}/{seq}"


def part_name(digest: bytes) -> str:
    """What the vault calls a part of that SHA-256."""
    return f"placement/{digest.hex()}"


def encode_placement(
    blocks: tuple[bytes, ...], ordinals: NDArray[np.uint32], which: NDArray[np.uint16] | None
) -> bytes:
    """The canonical bytes of a placement: `ordinals` (n,) by position, and the block ids; `which` (n,) says where there
    are several blocks which of them each position leads to."""
    said: dict[str, Any] = {"blocks": list(blocks), "ordinals": ordinals.astype("<u4")}
    return encode(said if which is None else said | {"which": which.astype("<u2")})


def decode_placement(data: bytes) -> Places:
    """The places that `encode_placement` wrote. FormatError for anything else."""
    said = decode(data)
    if not isinstance(said, dict) or not {"blocks", "ordinals"} <= said.keys() <= {"blocks", "ordinals", "which"}:
        raise FormatError("a placement is a map of blocks and ordinals, and of which block each is in")
    blocks, ordinals = said["blocks"], said["ordinals"]
    is_list = isinstance(blocks, list) and blocks and all(type(b) is bytes and len(b) == 16 for b in blocks)
    if not (is_list and isinstance(ordinals, np.ndarray) and ordinals.dtype == np.dtype("<u4")):
        raise FormatError("a placement holds block ids of 16 bytes, and ordinals as a uint32 array")
    which = said.get("which")
    if len(blocks) == 1 and which is None:
        which = np.zeros(len(ordinals), "<u2")
    elif len(blocks) == 1:
        raise FormatError("a placement over 1 block does not say of each ordinal which block it is in")
    if not (isinstance(which, np.ndarray) and which.dtype == np.dtype("<u2") and len(which) == len(ordinals)):
        raise FormatError(f"a placement over {len(blocks)} blocks says of each ordinal which, as a uint16 array")
    if which.max(initial=0) >= len(blocks):
        raise FormatError(f"a placement over {len(blocks)} blocks names block {which.max()}, counted from 0")
    return Places(tuple(blocks), ordinals, which)
