"""What became of a run: which entries of a kind there are, where it was resumed, which kept states it went on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import NO_STEP
from fgtrac.query.seals import FullSeal


class Timeline:
    """The entries of a kind, the resumes and the kept states of one full seal, looked up once."""

    def __init__(self, seal: FullSeal) -> None:
        self._seal = seal
        self._numbers: dict[str, list[int]] = {}

    @cached_property
    def resumes(self) -> Sequence[tuple[int, int]]:
        """Every `resume` entry, ascending, and the step from which it goes on."""
        return [(n, int(e["step"])) for n, e in self.entries("resume")]

    @cached_property
    def kept(self) -> Sequence[tuple[int, int]]:
        """The `checkpoint` entries of states that were kept, neither displaced nor superseded, and their steps:
        ascending by step."""
        kept: dict[tuple[int, bytes], list[int]] = {}
        for number, event in self.entries("checkpoint"):
            mark = (int(event["step"]), event.get("digest", b""))
            if event["kept"]:
                kept.setdefault(mark, []).append(number)
            elif mark[1]:
                kept.pop(mark, None)  # a second entry of a state says that it was displaced
        live = ((step, n) for (step, _), numbers in kept.items() for n in numbers if not self.superseding(n, step))
        return [(n, step) for step, n in sorted(live)]

    def superseding(self, entry: int, step: int) -> tuple[int, int] | None:
        """The first `resume` entry behind `entry` that went on from before `step`, and from which step. A resumed run
        seals what the one before it left, so that the log's order tells the two apart."""
        return next(((n, start) for n, start in self.resumes if n > entry and start < step), None)

    def superseded(self, entries: NDArray[np.uint64], steps: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """As `superseded` below, by the resumes of this seal."""
        return superseded(self.resumes, entries, steps)

    def standing(self, writer: bytes, seq: int) -> str:
        """What became of the model state that a `checkpoint` entry tells of: "kept"; "superseded" where the run was
        resumed from before it; "dropped" where another took its place. ProofError where there is no such entry."""
        if (writer, seq) not in self._checkpoints:
            raise ProofError(f"number {seq} of writer {writer.hex()} is named as a checkpoint; run fgtrac verify")
        number, step = self._checkpoints[writer, seq]
        if self.superseding(number, step):
            return "superseded"
        return "kept" if (number, step) in self.kept else "dropped"

    @cached_property
    def _checkpoints(self) -> Mapping[tuple[bytes, int], tuple[int, int]]:
        """(writer, seq) of each `checkpoint` entry -> its number and step."""
        return {(e["writer"], e["seq"]): (number, e["step"]) for number, e in self.entries("checkpoint")}

    def entries(self, kind: str) -> list[tuple[int, Mapping[str, Any]]]:
        """Every entry of a kind with its number, ascending."""
        return [(number, self._seal.log.event(number)) for number in self.numbers(kind)]

    def numbers(self, kind: str) -> list[int]:
        """The numbers of every entry of a kind, ascending."""
        if kind not in self._numbers:
            self._numbers[kind] = self._seal.log.find_kind(kind, self._seal.event["counts"].get(kind, 0))
        return self._numbers[kind]


def superseded(
    resumes: Sequence[tuple[int, int]], entries: NDArray[np.uint64], steps: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """(n,) whether a later one of the `resumes` (entry, step) went on from before each entry's step; not where there is
    no step."""
    found = np.zeros(len(entries), dtype=bool)
    for number, start in resumes:
        found |= (entries < number) & (steps > start) & (steps != NO_STEP)
    return found
