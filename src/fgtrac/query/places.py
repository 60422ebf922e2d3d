"""Ordinals back to ids and ids to ordinals: where a sample stands in its block, from the block's `samples` entries."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from fgtrac.errors import ProofError
from fgtrac.events.codec import decode, encode, head
from fgtrac.query.log import SealedLog

CHECKED_PARTS = 32
_IDS = encode("ids")


class Places:
    """Looks registrations up. Blocks in few parts are read and checked whole.

    In a block of many parts (a million samples have about 500, 64 KB each) only the parts that are needed are read and
    checked against the root; of those before them, only how long they say they are. Whoever uses such an ordinal
    compares what it finds with the index's rows, so that a length that was tampered with shows as an error.
    """

    def __init__(self, log: SealedLog) -> None:
        self._log = log
        self._known: dict[tuple[bytes, int], tuple[list[int], list[int]]] = {}

    def ordinal(self, sample_id: bytes, registered: int) -> int:
        """The ordinal of a sample in the block that entry `registered` registers it in."""
        event = self._log.event(registered)
        ids, part = event["ids"], event["part"]
        place = _find(ids, sample_id)
        if place is None:
            raise ProofError(f"entry {registered} does not register {sample_id.hex()}, which the index says it does")
        return self._starts(event["block"], event["parts"], registered)[0][part] + place if part else place

    def ids(self, block: bytes, ordinals: Sequence[int], before: int) -> list[bytes]:
        """The ids at ordinals of a block that was registered before entry `before`, all parts checked that are read."""
        registered, parts = self._last_part(block, before)
        starts, numbers = self._starts(block, parts, registered)
        out = []
        for ordinal in ordinals:
            part = bisect.bisect_right(starts, ordinal) - 1
            ids, at = self._log.event(numbers[part])["ids"], 32 * (ordinal - starts[part])
            if at >= len(ids):
                raise ProofError(f"ordinal {ordinal} is named, which block {block.hex()} does not have")
            out.append(bytes(ids[at : at + 32]))
        return out

    def _last_part(self, block: bytes, before: int) -> tuple[int, int]:
        """The last entry before `before` that registers a part of the block, and into how many it is cut."""
        for number in range(before - 1, -1, -1):
            if _peek(self._log.peek(number), block) is not None:
                return number, self._log.event(number)["parts"]
        raise ProofError(f"block {block.hex()} is not registered by any entry before {before}")

    def _starts(self, block: bytes, parts: int, registered: int) -> tuple[list[int], list[int]]:
        """The first ordinal of each part up to the one that `registered` registers, and each one's entry number."""
        known = self._known.get((block, registered))
        if known is None:
            last = self._log.event(registered)["part"]
            found = {last: (registered, len(self._log.event(registered)["ids"]) // 32)}
            for number, part, size in self._earlier(block, parts, registered):
                if part < last:
                    found.setdefault(part, (number, size))
                    if len(found) > last:
                        break
            if len(found) <= last:
                raise ProofError(
                    f"{last + 1 - len(found)} parts of block {block.hex()} are not registered before {registered}"
                )
            starts, at = [], 0
            for part in range(last + 1):
                starts.append(at)
                at += found[part][1]
            known = self._known[block, registered] = (starts, [found[p][0] for p in range(last + 1)])
        return known

    def _earlier(self, block: bytes, parts: int, before: int) -> Iterator[tuple[int, int, int]]:
        """(entry, part, samples) of the block's registrations before an entry, the latest first."""
        for number in range(before - 1, -1, -1):
            said = _peek(self._log.peek(number), block)
            if said is not None and said[1] == parts:
                part, _parts, size = said
                if parts <= CHECKED_PARTS:
                    event = self._log.event(number)
                    part, size = event["part"], len(event["ids"]) // 32
                yield number, part, size


def _peek(data: memoryview, block: bytes) -> tuple[int, int, int] | None:
    """(part, parts, samples) as an unchecked entry says if it registers a part of the block; its ids are not read.

    A `samples` entry begins with its ids, since the encoding sorts map keys by length.
    """
    if len(data) < 16 or data[1:5] != _IDS or data[0] >> 5 != 5:
        return None
    size_bytes = {0x58: 1, 0x59: 2}.get(data[5])
    if size_bytes is None:
        return None
    size = int.from_bytes(data[6 : 6 + size_bytes], "big")
    rest = data[6 + size_bytes + size :]
    if block not in bytes(rest[:512]):
        return None
    said = decode(head(5, (data[0] & 31) - 1) + bytes(rest))
    if said.get("kind") != "samples" or said.get("block") != block:
        return None
    part, parts = said.get("part"), said.get("parts")
    if type(part) is not int or type(parts) is not int:
        return None
    return part, parts, size // 32


def _find(ids: bytes, sample_id: bytes) -> int | None:
    """The place of an id among ascending ids laid end to end."""
    n = len(ids) // 32
    at = bisect.bisect_left(range(n), sample_id, key=lambda i: ids[32 * i : 32 * i + 32])
    return at if at < n and ids[32 * at : 32 * at + 32] == sample_id else None
