"""Ordinals back to ids and ids to ordinals: where a sample stands in its block, from the block's `samples` entries.

Every part of a block but the last holds the same number of samples (docs/spec/entries.md), so that one entry, or for
the last part two, say where any of its samples stands: a million samples have about 1,000 parts of 64 KB each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from fgtrac.errors import ProofError
from fgtrac.events.codec import encode
from fgtrac.query.log import SealedLog
from fgtrac.verify.evidence import find_id

_IDS = encode("ids")


class Places:
    """Looks registrations up in a sealed log; every entry that it uses is checked against the root."""

    def __init__(self, log: SealedLog) -> None:
        self._log = log
        self._sizes: dict[tuple[bytes, int], int] = {}

    def ordinal(self, sample_id: bytes, registered: int) -> int:
        """The ordinal of a sample in the block that entry `registered` registers it in."""
        event = self._log.event(registered)
        place = find_id(event["ids"], sample_id)
        if place is None:
            raise ProofError(f"entry {registered} does not register {sample_id.hex()}, which the index says it does")
        part: int = event["part"]
        return part * self._size(registered) + place if part else place

    def ids(self, block: bytes, ordinals: Sequence[int], before: int) -> list[bytes]:
        """The ids at ordinals of a block that is registered before entry `before`."""
        registered = self._find(block, None, before)
        parts, size = self._log.event(registered)["parts"], self._size(registered)
        out: list[bytes] = []
        events: dict[int, Mapping[str, Any]] = {}
        for ordinal in ordinals:
            part = min(ordinal // size, parts - 1)
            if part not in events:
                events[part] = self._log.event(self._find(block, part, before))
            event = events[part]
            at = 32 * (ordinal - part * size)
            if event["parts"] != parts or at >= len(event["ids"]):
                raise ProofError(f"ordinal {ordinal} is named, which block {block.hex()} does not have")
            out.append(bytes(event["ids"][at : at + 32]))
        return out

    def first_part(self, registered: int) -> int:
        """The entry of part 0 of the block of which `registered` registers a later part."""
        return self._find(self._log.event(registered)["block"], 0, registered)

    def _size(self, registered: int) -> int:
        """How many samples each part but the last holds, of the block of which `registered` registers a part."""
        event = self._log.event(registered)
        key: tuple[bytes, int] = event["block"], event["parts"]
        if key not in self._sizes:
            last = event["part"] == event["parts"] - 1 and event["parts"] > 1
            other = self._log.event(self._find(event["block"], 0, registered)) if last else event
            if other["parts"] != event["parts"]:
                raise ProofError(
                    f"block {key[0].hex()} is registered in {event['parts']} and in {other['parts']} parts"
                )
            self._sizes[key] = len(other["ids"]) // 32
        return self._sizes[key]

    def _find(self, block: bytes, part: int | None, before: int) -> int:
        """The last entry before `before` that registers a part (None: any) of the block. ProofError without one."""
        for number in chain(self._near(block, part, before), range(before - 1, -1, -1)):
            if _may_register(self._log.peek(number), block):
                event = self._log.event(number)
                if _registers(event, block, part):
                    return number
        raise ProofError(f"part {part} of block {block.hex()} is not registered by any entry before {before}")

    def _near(self, block: bytes, part: int | None, before: int) -> tuple[int, ...]:
        """Where a part lies if a process registered the block in one go: parts stand side by side."""
        if part is None:
            return ()
        if _registers(event := self._log.event(before), block, None):
            at = before - int(event["part"]) + part
        else:
            any_part = self._find(block, None, before)
            at = any_part - int(self._log.event(any_part)["part"]) + part
        return (at,) if 0 <= at < before else ()


def _registers(event: Mapping[str, Any], block: bytes, part: int | None) -> bool:
    return event["kind"] == "samples" and event["block"] == block and part in (None, event["part"])


def _may_register(data: bytes, block: bytes) -> bool:
    """Whether an unchecked entry looks like one that registers a part of the block, without reading its ids.

    A `samples` entry begins with its ids, since the encoding sorts map keys by length.
    """
    if len(data) < 16 or data[1:5] != _IDS:
        return False
    size_bytes = {0x58: 1, 0x59: 2}.get(data[5], 0)
    after = 6 + size_bytes + int.from_bytes(data[6 : 6 + size_bytes], "big")
    return block in data[after : after + 256]
