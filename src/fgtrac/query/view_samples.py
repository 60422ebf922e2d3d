"""Who the samples of a trace are: their numbers, and what their registrations say; the `samples` view's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import rank_ids

Bytes2D = NDArray[np.uint8]


class BlockNumbers:
    """The numbers of the samples of every whole block, by ordinal."""

    def __init__(self, blocks: Mapping[bytes, NDArray[np.uint32]]) -> None:
        self._blocks = blocks

    def items(self) -> Iterable[tuple[bytes, NDArray[np.uint32]]]:
        """Every block with its numbers."""
        return self._blocks.items()

    def block(self, number: int, block: bytes) -> NDArray[np.uint32]:
        """The numbers of a block's samples by ordinal. ProofError, naming the entry that asks, where no entries
        register all of it."""
        if block not in self._blocks:
            raise ProofError(
                f"entry {number} names block {block.hex()}, and no entries register all of it; run fgtrac verify"
            )
        return self._blocks[block]

    def numbers(self, number: int, event: Mapping[str, Any], column: str = "ordinals") -> NDArray[np.uint32]:
        """The numbers of the samples that an entry's column of ordinals names. ProofError for one that is not there."""
        samples, ordinals = self.block(number, event["block"]), event[column]
        if len(ordinals) and int(ordinals.max()) >= len(samples):
            raise ProofError(
                f"entry {number} names ordinal {ordinals.max()} of a block of {len(samples)} samples; run fgtrac verify"
            )
        found: NDArray[np.uint32] = samples[ordinals]
        return found


class Registry(BlockNumbers):
    """Every registered sample, numbered by ascending id: n samples.

    `ids` (n, 32); `datasets` the data sets' names and `dataset` (n,) an index into them, `registered` (n,) the first
    entry that registers each, `contents` and `subjects` (n, 32) and where they are not known, of the last registration
    that has them.
    """

    def __init__(self, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        groups = [np.frombuffer(event["ids"], np.uint8).reshape(-1, 32) for _, event in entries]
        self.ids, ranks = rank_ids(groups)
        n = len(self.ids)
        self.dataset, self.registered = np.zeros(n, np.int32), np.zeros(n, np.uint64)
        self.contents, self.no_content = _column(n, any("contents" in event for _, event in entries))
        self.subjects, self.no_subject = _column(n, any("subjects" in event for _, event in entries))
        names: dict[str, int] = {}
        parts: dict[bytes, list[NDArray[np.uint32]]] = {}
        whole: dict[bytes, NDArray[np.uint32]] = {}
        for (_, event), rank in zip(entries, ranks, strict=True):
            self.dataset[rank] = names.setdefault(event["dataset"], len(names))
            for field, column, missing in (
                ("contents", self.contents, self.no_content),
                ("subjects", self.subjects, self.no_subject),
            ):
                if field in event:
                    column[rank] = np.frombuffer(event[field], np.uint8).reshape(-1, 32)
                    missing[rank] = False
            mine = parts.setdefault(event["block"], [])
            mine[event["part"] :] = [rank]  # a registration that was cut short begins again from part 0
            if len(mine) == event["parts"]:
                whole[event["block"]] = np.concatenate(mine)
        for (number, _), rank in zip(reversed(entries), reversed(ranks), strict=True):
            self.registered[rank] = number
        self.datasets = tuple(names)
        super().__init__(whole)

    def __len__(self) -> int:
        return len(self.ids)


def _column(n: int, is_there: bool) -> tuple[Bytes2D, NDArray[np.bool_]]:
    """Room for digests; where no entry has any, of rows that take none."""
    rows = np.zeros((n, 32), np.uint8) if is_there else np.broadcast_to(np.zeros(32, np.uint8), (n, 32))
    return rows, np.ones(n, bool)
