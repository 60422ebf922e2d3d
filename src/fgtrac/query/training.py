"""What a log says of a training, for holding it against another's: its settings, states, losses, roles and blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import KINDS
from fgtrac.query.glance import kind_at
from fgtrac.query.log import SealedLog, whole
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import TreeHead


@dataclass(frozen=True, slots=True)
class State:
    """A model state as the last entry about its step says: its tensors' digest, whether it is kept, and the validation
    loss; None where the log does not say."""

    step: int
    digest: bytes | None
    kept: bool
    val_loss: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A block's data set, and (n, 32) the ids of its samples by ordinal, ascending; `contents` (n, 32) their content
    digests, None where the log has not those of all."""

    dataset: str
    ids: NDArray[np.uint8]
    contents: NDArray[np.uint8] | None


class TrainingLog:
    """The entries of a trace's newest head by kind, and what the short ones say. Each entry that is read is checked
    against the head's root; nothing else is. ProofError, FormatError and TamperError as `SealedLog`."""

    def __init__(self, trace: TraceDir, head: TreeHead) -> None:
        self.log = SealedLog(trace, head)
        self._numbers: dict[str, list[int]] = {}
        with whole("a comparison"):
            for number in range(head.size):
                kind = kind_at(self.log, number)
                kind = kind if kind in KINDS else str(self.log.event(number)["kind"])
                self._numbers.setdefault(kind, []).append(number)
        self.resumes = [(number, int(event["step"])) for number, event in self.events("resume")]

    def events(self, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The entries of a kind in order. ProofError for one that turns out to be of another."""
        for number in self._numbers.get(kind, ()):
            event = self.log.event(number)
            if event["kind"] != kind:
                raise ProofError(f"entry {number} looks like a {kind} entry and is a {event['kind']} entry")
            yield number, event

    def count(self, kind: str) -> int:
        """How many entries of a kind there are."""
        return len(self._numbers.get(kind, ()))

    def is_superseded(self, entry: int, step: int) -> bool:
        """Whether a later entry says that the run went on from before that step."""
        return any(number > entry and start < step for number, start in self.resumes)

    def superseded(self, entry: int, steps: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(n,) the same of many steps of one entry."""
        starts = [start for number, start in self.resumes if number > entry]
        return steps > min(starts) if starts else np.zeros(len(steps), dtype=bool)

    def blocks(self) -> dict[bytes, Block]:
        """The blocks that are registered whole."""
        parts: dict[bytes, list[tuple[bytes, bytes]]] = {}
        found: dict[bytes, Block] = {}
        for _number, event in self.events("samples"):
            block = bytes(event["block"])
            mine = parts.setdefault(block, [])
            mine[event["part"] :] = [(event["ids"], event.get("contents", b""))]  # a registration may be begun anew
            if len(mine) == event["parts"]:
                ids, contents = (
                    np.frombuffer(b"".join(column), np.uint8).reshape(-1, 32) for column in zip(*mine, strict=True)
                )
                found[block] = Block(event["dataset"], ids, contents if len(contents) == len(ids) else None)
                del parts[block]
        return found

    def states(self) -> dict[int, State]:
        """The model states by step, without those that a resumed run went back behind."""
        found: dict[int, State] = {}
        for number, event in self.events("checkpoint"):
            step = int(event["step"])
            if self.is_superseded(number, step):
                continue
            before = found.get(step)
            digest = event.get("digest", before.digest if before else None)
            loss = event.get("val_loss", before.val_loss if before else None)
            found[step] = State(step, digest, event["kept"], loss)
        return dict(sorted(found.items()))

    def kept(self) -> set[tuple[bytes, int]]:
        """Writer and number of the `checkpoint` entries whose states are kept."""
        kept: dict[tuple[int, bytes], set[tuple[bytes, int]]] = {}
        for number, event in self.events("checkpoint"):
            mark = (int(event["step"]), event.get("digest", b""))
            if not event["kept"]:
                kept.pop(mark, None)
            elif not self.is_superseded(number, mark[0]):
                kept.setdefault(mark, set()).add((event["writer"], event["seq"]))
        return set().union(*kept.values())

    def metrics(self) -> dict[str, dict[int, float]]:
        """What `run.log` was given, by name and step, without what a resumed run went back behind."""
        found: dict[str, dict[int, float]] = {}
        for number, event in self.events("metrics"):
            if not self.is_superseded(number, event["step"]):
                for name, value in event["values"].items():
                    found.setdefault(name, {})[int(event["step"])] = float(value)
        return found
