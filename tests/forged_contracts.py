"""Contracts by hand: one that is deployed with heads that nobody gave, and an account that is itself a contract.

The first runs code that makes up events and fills the memory, and then leaves the code that everybody knows, byte for
byte, at its address.
"""

from __future__ import annotations

from collections.abc import Iterable

from eth_utils.crypto import keccak

from fgtrac.anchor.contract.calls import artifact, event_topics

Head = tuple[bytes, bytes, int, bytes]
"""Sender (20 bytes), trace id (16 bytes), size and root of a head."""

PLACES, ROOTS = 1, 2  # the slots of the contract's two maps, behind vyper's own
SHL, OR, TIMESTAMP, NUMBER, MSTORE, SSTORE, LOG3 = (bytes([n]) for n in (0x1B, 0x17, 0x42, 0x43, 0x52, 0x55, 0xA3))


def forging_code(heads: Iterable[Head], *, is_planted: bool = True) -> bytes:
    """Deploys the contract with the events of these heads, and where `is_planted` with a memory that tells of them."""
    body = b"".join(_event(*head) + (_memory(*head) if is_planted else b"") for head in heads)
    return body + _leaving(artifact().runtime, len(body))


def forwarding_code(contract: bytes) -> bytes:
    """Deploys an account that hands on to the contract whatever it is told."""
    copied = "366000600037"  # the data of the call
    return _leaving(bytes.fromhex(copied + "600060003660006000" + "73") + contract + bytes.fromhex("5af100"), 0)


def _leaving(runtime: bytes, before: int) -> bytes:
    """Leaves this code at the address; `before` bytes stand in front."""
    size, start = _push(len(runtime), 2), _push(before + 15, 2)
    return size + start + b"\x60\x00\x39" + size + b"\x60\x00\xf3" + runtime


def _event(sender: bytes, trace_id: bytes, size: int, root: bytes) -> bytes:
    words = _push(size), _push(int.from_bytes(root)), TIMESTAMP, _push(0)
    stored = b"".join(word + _push(32 * at, 1) + MSTORE for at, word in enumerate(words))
    topics = b"".join(_push(int.from_bytes(topic)) for topic in reversed(event_topics(sender, trace_id)))
    return stored + topics + _push(128, 1) + _push(0, 1) + LOG3


def _memory(sender: bytes, trace_id: bytes, size: int, root: bytes) -> bytes:
    place = _push(size) + _push(128, 1) + SHL + TIMESTAMP + _push(64, 1) + SHL + OR + NUMBER + OR
    kept = place + _slot(PLACES, sender, trace_id) + SSTORE
    return kept + _push(int.from_bytes(root)) + _slot(ROOTS, sender, trace_id) + SSTORE


def _slot(of: int, sender: bytes, trace_id: bytes) -> bytes:
    """Where a map keeps a log's value."""
    mine = keccak(of.to_bytes(32) + sender.rjust(32, b"\0"))
    return _push(int.from_bytes(keccak(mine + trace_id.ljust(32, b"\0"))))


def _push(value: int, size: int = 32) -> bytes:
    return bytes([0x5F + size]) + value.to_bytes(size)
