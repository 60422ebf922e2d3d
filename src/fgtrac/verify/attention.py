"""The check `attention`: modality weights are of kept checkpoints, finite, and one row for each sample of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.verify.checks import CannotTell, Sequences
from fgtrac.verify.updates import counted

Ref = tuple[bytes, int]
Blocks = dict[bytes, list[NDArray[np.uint32]]]  # block -> the ordinals that entries name


class Attention:
    """What the `attention` entries say, held against the checkpoints that the log keeps at that place."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        self._kept: dict[Ref, tuple[int, bytes]] = {}  # by now: step and digest
        self._checkpoints: dict[Ref, int] = {}  # kept or not -> the entry
        self._ordinals: defaultdict[Ref, Blocks] = defaultdict(dict)
        self._unknown: list[tuple[int, Ref]] = []
        self._problem = ""

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
        kind = event["kind"]
        if kind == "checkpoint":
            self._checkpoint(number, event)
        elif kind == "resume":
            self._kept = {ref: mark for ref, mark in self._kept.items() if mark[0] <= event["step"]}
        elif kind == "attention":
            self.entries.append(number)
            self._problem = self._problem or self._take(number, event)

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        ref, mark = (event["writer"], event["seq"]), (event["step"], event.get("digest", b""))
        self._checkpoints[ref] = number
        if event["kept"]:
            self._kept[ref] = mark
        elif mark[1]:  # displaced, where it was kept
            self._kept = {r: m for r, m in self._kept.items() if m != mark}

    def _take(self, number: int, event: Mapping[str, Any]) -> str:
        """Take an `attention` entry; what is wrong with it, in words."""
        writer, seq = event["checkpoint"]
        ref, step, names, what = (writer, seq), event["step"], event["modalities"], f"entry {number} (attention)"
        if ref not in self._checkpoints:
            self._unknown.append((number, ref))
        elif self._kept.get(ref, ())[:1] != (step,):
            said = f"of step {self._kept[ref][0]}" if ref in self._kept else "not kept at that place of the log"
            return f"{what} gives weights at step {step}; its checkpoint, entry {self._checkpoints[ref]}, is {said}"
        if not names or len(set(names)) < len(names):
            return f"{what} names the modalities {list(names)!r:.100}; there is at least one, and none is named twice"
        if bad := np.flatnonzero(~np.isfinite(event["weights"])).tolist():
            row, column = divmod(bad[0], len(names))
            return f"{what} gives {event['weights'][bad[0]]} for {names[column]!r:.40} in row {row}; weights are finite"
        self._ordinals[ref].setdefault(event["block"], []).append(event["ordinals"].copy())
        return ""

    def check(self, sequences: Sequences, ids_of: Callable[[bytes], NDArray[np.uint8]]) -> str:
        """ProofError naming what is wrong; CannotTell where a checkpoint is lost, as a gap says."""
        if self._problem:
            raise ProofError(self._problem)
        for ref, blocks in self._ordinals.items():
            if (sample := _find_twice(blocks, ids_of)) is not None:
                where = f"the checkpoint of entry {self._checkpoints.get(ref, 'unknown')}"
                raise ProofError(f"sample {sample.hex()} has more than one row of modality weights at {where}")
        self._check_known(sequences)
        rows = {ref: sum(map(len, chain(*blocks.values()))) for ref, blocks in self._ordinals.items()}
        later = [n for ref, n in rows.items() if ref not in self._kept]
        words = f"{counted(sum(rows.values()), 'row')} of modality weights, each of another sample or kept checkpoint"
        if later:
            words += f" ({sum(later)} at {counted(len(later), 'checkpoint')} that the run later dropped or went behind)"
        return words

    def _check_known(self, sequences: Sequences) -> None:
        """ProofError where an entry names no checkpoint before it; CannotTell where that one is lost."""
        lost = ""
        for number, (writer, seq) in self._unknown:
            what = f"entry {number} (attention) names number {seq} of writer {writer.hex()} as its checkpoint"
            if not sequences.is_explained(writer, seq, seq + 1):
                raise ProofError(f"{what}, and there is no checkpoint of that number before it")
            lost = f"{what}, which is lost, as a gap entry says"
        if lost:
            raise CannotTell(lost)


def _find_twice(blocks: Blocks, ids_of: Callable[[bytes], NDArray[np.uint8]]) -> bytes | None:
    """The id of a sample that is named twice, if there is one: in one block, or by its id in two."""
    joined = {block: np.concatenate(parts) for block, parts in blocks.items()}
    for block, ordinals in joined.items():
        if len(twice := _repeated(ordinals)):
            return bytes(ids_of(block)[twice[0]])
    if len(joined) > 1:
        ids = np.concatenate([ids_of(block)[ordinals] for block, ordinals in joined.items()])
        if len(again := _repeated(ids.view("V32").reshape(-1))):
            return bytes(again[0])
    return None


def _repeated(values: NDArray[Any]) -> NDArray[Any]:
    found, counts = np.unique(values, return_counts=True)
    return np.asarray(found[counts > 1])
