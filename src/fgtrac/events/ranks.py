"""Which writers of a log are ranks of one training: what their `join` entries say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Began = bytes | tuple[bytes, int]


class RankTable:
    """Takes `join` entries. A writer without one is a training by itself."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int, int, tuple[bytes, int]]] = {}  # rank, ranks, step, what began it

    def add(self, event: Mapping[str, Any]) -> None:
        """Take a `join` entry; others are passed over."""
        if event["kind"] == "join":
            began = event["began"][0], event["began"][1]
            self._known[event["writer"]] = event["rank"], event["ranks"], event["step"], began

    @property
    def count(self) -> int:
        """The most ranks that a training had; 0 where there was none of several."""
        return max((ranks for _rank, ranks, _step, _began in self._known.values()), default=0)

    @property
    def lacking(self) -> int:
        """How many ranks there should be besides those that have joined."""
        starts = {began: ranks for _rank, ranks, _step, began in self._known.values()}
        return max(0, sum(starts.values()) - len(self._known))

    @property
    def steps(self) -> dict[bytes, int]:
        """writer -> the step from which it counts its updates."""
        return {writer: step for writer, (_rank, _ranks, step, _began) in self._known.items()}

    def training(self, writer: bytes) -> Began:
        """What stands for the training that a writer is a rank of: equal for all its ranks."""
        return self._known[writer][3] if writer in self._known else writer

    def together(self, writer: bytes) -> list[bytes]:
        """The writers of a writer's training, by rank."""
        if writer not in self._known:
            return [writer]
        mine = [(said[0], other) for other, said in self._known.items() if said[3] == self._known[writer][3]]
        return [other for _rank, other in sorted(mine)]

    def rank(self, writer: bytes) -> int | None:
        """Which rank a writer is; None where it is none."""
        return self._known[writer][0] if writer in self._known else None

    def words(self, writer: bytes) -> str:
        """Which rank, to stand before what it did; nothing where it is none."""
        return f"rank {self._known[writer][0]}, " if writer in self._known else ""
