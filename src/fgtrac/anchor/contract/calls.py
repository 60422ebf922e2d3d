"""What is said to the contract and what it says, as bytes: Solidity's contract ABI, whose values here are all static.

Everything that the compiler made stands in tree_heads.json; a test compiles the source again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fgtrac.errors import FormatError

ARTIFACT = "tree_heads.json"
WORD = 32


@dataclass(frozen=True, slots=True)
class Artifact:
    """The compiled contract: the code that deploys it, the code that is then at its address, and its names' hashes."""

    creation: bytes
    runtime: bytes
    anchor: bytes
    newest: bytes
    anchored: bytes


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest head of a sender's log, as the contract keeps it; `size` 0 for none."""

    size: int
    root: bytes
    block_time: int
    block_number: int


@cache
def artifact() -> Artifact:
    """The contract as it was compiled."""
    made: dict[str, Any] = json.loads((files(__package__) / ARTIFACT).read_bytes())
    names = {**made["selectors"], **made["topics"]}
    codes = [made["creation"], made["runtime"]]
    hashes = [names[name] for name in (_ANCHOR, _NEWEST, _ANCHORED)]
    return Artifact(*(bytes.fromhex(text[2:]) for text in (*codes, *hashes)))


_ANCHOR = "anchor(bytes16,uint64,bytes32)"
_NEWEST = "newest(address,bytes16)"
_ANCHORED = "Anchored(address,bytes16,uint64,bytes32,uint64,uint64)"


def anchor_call(trace_id: bytes, size: int, root: bytes) -> bytes:
    """The data of a transaction that gives the contract a head."""
    return artifact().anchor + _right_padded(trace_id) + size.to_bytes(WORD) + root


def newest_call(sender: bytes, trace_id: bytes) -> bytes:
    """The data of a call that asks for the newest head."""
    return artifact().newest + _left_padded(sender) + _right_padded(trace_id)


def read_newest(data: bytes) -> Newest:
    """The contract's answer. FormatError for what it cannot have answered."""
    if len(data) != 4 * WORD:
        raise FormatError(f"the contract answers with 128 bytes, not {len(data)}")
    size, root, block_time, block_number = _words(data)
    return Newest(_u64(size, "size"), root, _u64(block_time, "time"), _u64(block_number, "block"))


def event_topics(sender: bytes, trace_id: bytes) -> list[bytes]:
    """The topics of every event about the heads of one sender's log."""
    return [artifact().anchored, _left_padded(sender), _right_padded(trace_id)]


def read_event(topics: Sequence[bytes], data: bytes) -> tuple[bytes, bytes, int, bytes, int, int]:
    """An event's sender, trace id, size, root, time of its block and block of the event before. FormatError for what
    is no event of the contract's."""
    if len(topics) != 3 or topics[0] != artifact().anchored or len(data) != 4 * WORD:
        raise FormatError(f"an event with {len(topics)} topics and {len(data)} bytes is none of the contract's")
    sender, trace_id = topics[1][-20:], topics[2][:16]
    size, root, block_time, previous_block = _words(data)
    if topics[1:] != [_left_padded(sender), _right_padded(trace_id)]:
        raise FormatError("the topics of an event of the contract's are an address and 16 bytes")
    return sender, trace_id, _u64(size, "size"), root, _u64(block_time, "time"), _u64(previous_block, "block")


def _words(data: bytes) -> list[bytes]:
    return [data[i : i + WORD] for i in range(0, len(data), WORD)]


def _u64(word: bytes, what: str) -> int:
    value = int.from_bytes(word)
    if value >= 1 << 64:
        raise FormatError(f"a {what} of the contract's has 64 bits, and {value} has more")
    return value


def _left_padded(value: bytes) -> bytes:
    return value.rjust(WORD, b"\0")


def _right_padded(value: bytes) -> bytes:
    return value.ljust(WORD, b"\0")
