"""The samples of whole blocks: the id of every ordinal, with the data set, subjects and contents of its block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.query.log import SealedLog


class Blocks:
    """Looks samples up by (block, ordinal); reads the `samples` entries of a block when it is first asked for.

    `count` is how many `samples` entries the seal counts; each is checked against the root when it is read.
    """

    def __init__(self, log: SealedLog, count: int) -> None:
        self._log = log
        self._datasets: dict[bytes, str] = {}
        self._parts: dict[bytes, list[int]] = {}  # the entries of each block's newest complete registration
        self._columns: dict[tuple[bytes, str], NDArray[np.uint8] | None] = {}
        coming: dict[bytes, list[int]] = {}
        for number in log.find_kind("samples", count):
            event = log.event(number)
            block = bytes(event["block"])
            parts = coming.setdefault(block, [])
            parts[event["part"] :] = [number]
            self._datasets[block] = event["dataset"]
            if len(parts) == event["parts"]:
                self._parts[block] = list(parts)

    def dataset(self, block: bytes) -> str:
        """The name of the block's data set. ProofError where the block is not registered."""
        self._check(block)
        return self._datasets[block]

    def ids(self, block: bytes) -> NDArray[np.uint8]:
        """(n, 32) the ids by ordinal. ProofError where the block is not registered, or not whole."""
        found = self._column(block, "ids")
        assert found is not None
        return found

    def contents(self, block: bytes) -> NDArray[np.uint8] | None:
        """(n, 32) the content digests by ordinal, None where the source is not known."""
        return self._column(block, "contents")

    def subjects(self, block: bytes) -> NDArray[np.uint8] | None:
        """(n, 32) the pseudonyms of the subjects by ordinal, None where there are none."""
        return self._column(block, "subjects")

    def id(self, block: bytes, ordinal: int) -> bytes:
        """The id of one sample."""
        ids = self.ids(block)
        if not 0 <= ordinal < len(ids):
            raise ProofError(
                f"ordinal {ordinal} is named, which block {block.hex()} of {len(ids)} samples does not have"
            )
        sample_id: bytes = ids[ordinal].tobytes()
        return sample_id

    def whole(self) -> list[bytes]:
        """Every block of which all parts are registered, in the order of the log."""
        return list(self._parts)

    def pseudonyms(self) -> list[bytes]:
        """Every subject that a whole block names, ascending."""
        columns = [column for block in self._parts if (column := self.subjects(block)) is not None]
        return sorted({pseudonym for column in columns for pseudonym in column.view("V32").reshape(-1).tolist()})

    def of_subject(self, pseudonym: bytes) -> dict[bytes, str]:
        """The ids of a subject's samples, and the data set that each is in."""
        found: dict[bytes, str] = {}
        for block in self._parts:
            column = self.subjects(block)
            mine = () if column is None else np.flatnonzero((column == np.frombuffer(pseudonym, np.uint8)).all(axis=1))
            ids = self.ids(block)
            found |= {ids[place].tobytes(): self._datasets[block] for place in mine}
        return found

    def find(self, sample_id: bytes) -> list[tuple[bytes, int]]:
        """Every (block, ordinal) at which an id is registered."""
        found = []
        key = np.void(sample_id)
        for block in self._parts:
            rows = np.ascontiguousarray(self.ids(block)).view("V32").reshape(-1)
            at = int(np.searchsorted(rows, key))
            if at < len(rows) and rows[at] == key:
                found.append((block, at))
        return found

    def _check(self, block: bytes) -> None:
        if block not in self._parts:
            raise ProofError(f"block {block.hex()} is named, and no entries register all of it; run fgtrac verify")

    def _column(self, block: bytes, name: str) -> NDArray[np.uint8] | None:
        if (block, name) not in self._columns:
            self._check(block)
            events = [self._log.event(number) for number in self._parts[block]]
            parts = [event[name] for event in events if name in event]
            whole = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, 32)
            self._columns[block, name] = whole if len(parts) == len(events) else None
        return self._columns[block, name]
