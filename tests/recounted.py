"""A log's totals, counted sample by sample from its decoded entries: slow, and by no code that reports use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries


class Recounted:
    """What the entries of a sealed trace come to: ids by block and ordinal, and counts by id."""

    def __init__(self, path: Path) -> None:
        trace = TraceDir.open(path)
        size = trace.head().size
        self.events = [decode_event(entry) for entry in read_entries(trace, 0, size, size)]
        self.ids: dict[bytes, list[bytes]] = {}
        self.dataset_of: dict[bytes, str] = {}
        self.subject_of: dict[bytes, bytes] = {}
        self.roles: dict[bytes, set[str]] = {}
        self.uses: Counter[bytes] = Counter()
        self.superseded: Counter[bytes] = Counter()
        self.perhaps: Counter[bytes] = Counter()
        self.neighbours: Counter[bytes] = Counter()
        self.children: dict[bytes, set[bytes]] = {}
        self.dropped: set[bytes] = set()
        for event in self.of("samples"):
            self._register(event)
        for number, event in enumerate(self.events):
            if event["kind"] == "roles":
                for sample in self._named(event, "ordinals"):
                    self.roles.setdefault(sample, set()).add(event["role"])
            elif event["kind"] == "transform" and "dropped" in event:
                self.dropped.update(self._named(event, "dropped"))
            elif event["kind"] == "transform" and "children" in event:
                born = [self.ids[event["child_block"]][ordinal] for ordinal in event["children"].tolist()]
                for parent, child in zip(self._named(event, "parents"), born, strict=True):
                    self.children.setdefault(parent, set()).add(child)
            elif event["kind"] == "use":
                self._use(number, event)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    @property
    def samples(self) -> set[bytes]:
        return set(self.dataset_of)

    def with_role(self, role: str) -> set[bytes]:
        return {sample for sample, roles in self.roles.items() if role in roles}

    def in_dataset(self, name: str) -> set[bytes]:
        return {sample for sample, dataset in self.dataset_of.items() if dataset == name}

    def made_from(self, sample: bytes) -> set[bytes]:
        """What was made from a sample, directly or not."""
        found: set[bytes] = set()
        waiting = [sample]
        while waiting:
            new = self.children.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
        return found

    def standing(self, sample: bytes) -> str:
        """The strongest that the entries say of a sample's use."""
        made = self.made_from(sample)
        if sample in self.uses:
            return "used"
        if sample in self.neighbours:
            return "as_neighbours"
        if made & (self.uses.keys() | self.neighbours.keys()):
            return "through"
        return "in_doubt" if (made | {sample}) & self.perhaps.keys() else "never"

    def _register(self, event: dict[str, Any]) -> None:
        ids = [event["ids"][at : at + 32] for at in range(0, len(event["ids"]), 32)]
        known = self.ids.setdefault(event["block"], [])
        if event["part"] == 0:
            known.clear()
        known += ids
        self.dataset_of |= dict.fromkeys(ids, event["dataset"])
        for place, sample in enumerate(ids if "subjects" in event else ()):
            self.subject_of[sample] = event["subjects"][32 * place : 32 * place + 32]

    def _named(self, event: dict[str, Any], column: str) -> list[bytes]:
        return [self.ids[event["block"]][ordinal] for ordinal in event[column].tolist()]

    def _use(self, number: int, event: dict[str, Any]) -> None:
        seeds, others = self._named(event, "ordinals"), self._named(event, "hop_ordinals") if "hops" in event else []
        hops = event.get("hops", 0)
        for batch, count in enumerate(event["count"].tolist()):
            mine, seeds = seeds[:count], seeds[count:]
            beside = sum(event["hop_count"][batch * hops : (batch + 1) * hops].tolist()) if hops else 0
            near, others = others[:beside], others[beside:]
            if event["status"][batch] != STATUS["applied"]:
                continue
            self.neighbours.update(near)
            if event["attribution"][batch] == ATTRIBUTION["among"]:
                self.perhaps.update(mine)
                continue
            self.uses.update(mine)
            later = [event["step"] for event in self.events[number:] if event["kind"] == "resume"]
            if any(start < event["step"][batch] for start in later):
                self.superseded.update(mine)
