"""The ranks of a training as `join` and `leave` entries tell them: what no recording writes, and who is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgtrac.errors import ProofError
from fgtrac.verify.evidence import Event, Shown

Ref = tuple[bytes, int]
_BEFORE = ("run", "resume", "gap")  # what rank 0 may write before it joins


@dataclass(slots=True)
class _Start:
    """One start of a training: the number of its first `join`, what that says, and its writers by rank."""

    number: int
    ranks: int
    step: int
    writers: dict[int, bytes] = field(default_factory=dict)


class Joins:
    """Takes a log's entries in their order."""

    def __init__(self) -> None:
        self._begins: dict[Ref, int | None] = {}  # run and resume entries, with the step that these go on from
        self._starts: dict[Ref, _Start] = {}
        self._left: dict[bytes, int] = {}
        self._acted: set[bytes] = set()  # writers of more than what rank 0 may write before it joins
        self._ended: dict[bytes, int] = {}
        self._problem = ""

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
        kind, writer = event["kind"], event["writer"]
        if writer in self._left:
            self._fail(number, kind, f"stands behind its writer's leave, entry {self._left[writer]}")
        if kind in ("run", "resume"):
            self._begins[writer, event["seq"]] = event.get("step")
        elif kind == "join":
            self._join(number, event)
        elif kind == "leave":
            self._left[writer] = number
            if not any(rank and writer == one for s in self._starts.values() for rank, one in s.writers.items()):
                self._fail(number, kind, "is by a writer that has joined as no rank behind rank 0")
        elif kind == "end":
            self._ended[writer] = number
        if kind not in _BEFORE:
            self._acted.add(writer)

    def _join(self, number: int, event: Mapping[str, Any]) -> None:
        rank, writer, began = event["rank"], event["writer"], (event["began"][0], event["began"][1])
        start = self._starts.setdefault(began, _Start(number, event["ranks"], event["step"]))
        begins_at = self._begins.get(began, -1)
        if begins_at == -1:
            self._fail(number, "join", "was begun by an entry that is no run and no resume entry before it")
        elif begins_at not in (None, event["step"]):
            self._fail(number, "join", f"counts from step {event['step']}, and the training goes on from {begins_at}")
        if (rank == 0) != (writer == began[0]):
            self._fail(number, "join", f"is of rank {rank}, and rank 0 begins a training and nobody else")
        if writer in self._acted or (rank and event["seq"]):
            self._fail(number, "join", "is not the first of its writer's")
        if (event["ranks"], event["step"]) != (start.ranks, start.step):
            said = f"{event['ranks']} ranks from step {event['step']}"
            self._fail(number, "join", f"says {said}; entry {start.number} says {start.ranks} from {start.step}")
        if start.writers.setdefault(rank, writer) != writer:
            self._fail(number, "join", f"is a second rank {rank} of the training that entry {start.number} joins")

    def _fail(self, number: int, kind: str, words: str) -> None:
        self._problem = self._problem or f"entry {number} ({kind}) {words}"

    def missing(self) -> list[str]:
        """Of each start of the training with ranks that did not leave, or never joined, how many these are."""
        return [words for start in self._starts.values() if (words := self._lacks(start))]

    def _lacks(self, start: _Start) -> str:
        there = sum(not rank or writer in self._left for rank, writer in start.writers.items())
        lacking = start.ranks - there
        said = f"entry {start.number} (join) says {start.ranks} ranks, and of {lacking} of them the record is not whole"
        return said if lacking else ""

    def check(self, *, has_gaps: bool) -> None:
        """ProofError where an entry stands where no recording writes it; or where rank 0 wrote the end of a training
        of which a rank is missing, and no `gap` entry says so."""
        if self._problem:
            raise ProofError(self._problem)
        for (writer, _seq), start in self._starts.items():
            if writer in self._ended and (words := self._lacks(start)) and not has_gaps:
                raise ProofError(f"entry {self._ended[writer]} (end) ends a training without a gap entry, and {words}")


def has_all_ranks(shown: Shown) -> bool:
    """Whether every start of the training has each of its ranks once, and each behind rank 0 with a `leave` that the
    last `end` names as its writer's last entry; `shown` has all `join`, `leave` and `end` entries, ascending."""
    of: dict[str, list[Event]] = {kind: [] for kind in ("join", "leave", "end")}
    for event in shown.values():
        of.get(event["kind"], []).append(event)
    joins = of["join"]
    last = {(writer, seq) for end in of["end"][-1:] for writer, seq in end["writers"]}
    left = {e["writer"] for e in of["leave"] if (e["writer"], e["seq"]) in last}
    sizes = Counter(tuple(e["began"]) for e in joins)
    places = {
        (*e["began"], e["rank"])
        for e in joins
        if sizes[tuple(e["began"])] == e["ranks"] > e["rank"] and e["writer"] in (left if e["rank"] else e["began"][:1])
    }
    return len(places) == len({e["writer"] for e in joins}) == len(joins)
