"""What a trace of several ranks says, rank by rank, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.events.codec import decode
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import read_entries


@dataclass(frozen=True)
class Told:
    """The entries of a sealed trace, the writers by rank, and the row that each id stands for."""

    events: list[dict[str, Any]]
    rows: dict[bytes, Any]

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return int(self.kind("join")[0]["ranks"])

    def kind(self, kind: str) -> list[dict[str, Any]]:
        """Every entry of that kind."""
        return [event for event in self.events if event["kind"] == kind]

    def counts(self, *kinds: str) -> list[int]:
        """How many entries there are of each kind."""
        return [len(self.kind(kind)) for kind in kinds]

    @property
    def attributions(self) -> set[str]:
        """How sure the pairings of applied batches are."""
        words = {code: word for word, code in ATTRIBUTION.items()}
        used = [e["attribution"][e["status"] == STATUS["applied"]] for e in self.kind("use")]
        return {words[code] for code in np.concatenate(used).tolist()}

    def trained(self, rank: int, start: int | None = None) -> list[tuple[int, int, int, list[int]]]:
        """Epoch, batch, step and rows of each batch of a rank that took part in an update, in order; of all starts of
        the run, or of one."""
        joins = [event for event in self.kind("join") if event["rank"] == rank]
        writers = {event["writer"] for event in (joins if start is None else [joins[start]])}
        found: dict[tuple[int, int, int], list[int]] = {}
        ids = {(e["block"], e["part"]): e["ids"] for e in self.kind("samples")}
        blocks = {block for block, _part in ids}
        whole = {b: b"".join(data for (of, _), data in sorted(ids.items()) if of == b) for b in blocks}
        for event in self.kind("use"):
            if event["writer"] not in writers:
                continue
            stops = np.cumsum(event["count"]).tolist()
            for n, stop in enumerate(stops):
                if event["status"][n] == STATUS["applied"]:
                    key = tuple(int(event[name][n]) for name in ("epoch", "batch", "step"))
                    mine = event["ordinals"][stop - int(event["count"][n]) : stop].tolist()
                    rows = [self.rows[whole[event["block"]][32 * o : 32 * o + 32]] for o in mine]
                    found.setdefault(key, []).extend(rows)  # type: ignore[arg-type]
        return [(*key, rows) for key, rows in sorted(found.items())]


def read_told(path: Path) -> Told:
    """Decode every sealed entry, and the vault beside the trace."""
    trace = TraceDir.open(path)
    head = trace.head()
    assert head is not None
    events = [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]
    vault = Vault.open(trace.vault_path, events[0]["trace"])
    try:
        return Told(events, {name.id: decode(name.key) for name in vault.names()})
    finally:
        vault.close()
