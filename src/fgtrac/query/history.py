"""A sample's whole history: its rows in the index, and what the entries that they name say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.postings import KIND
from fgtrac.events.schema import NO_STEP
from fgtrac.query.occurrences import Reader
from fgtrac.query.places import Places
from fgtrac.query.seals import FullSeal
from fgtrac.query.timeline import Timeline

KIND_WORDS = {code: word for word, code in KIND.items()}
READ_ENTRIES = 256  # of a longer history the entries (up to 64 KB each) are read only where details are asked for
UNMEASURED = "fidelity not measured here; fgtrac score says what the log has of it"  # of contributions
NameOf = Callable[[bytes], str | None]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a sample: its kind (as in the index), the entry that says so, the optimizer's step
    and the epoch where it has them, a readable line, and what the entry says (plain data).

    `superseded_by` is the `resume` entry that went on from an earlier step: no later model state contains this one."""

    kind: str
    entry: int
    step: int | None
    epoch: int | None
    words: str
    details: dict[str, Any] = field(default_factory=dict)
    superseded_by: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is not known is left out."""
        said = {"kind": self.kind, "entry": self.entry, "step": self.step, "epoch": self.epoch, "words": self.words}
        said["superseded_by"] = self.superseded_by
        return {k: v for k, v in said.items() if v is not None} | {"details": self.details}


@dataclass(frozen=True, slots=True)
class History:
    """Everything that a trace's index says of one sample, in the order of the log.

    `size` is the full seal that it is complete for; `checkpoints` are the steps of the kept model states that it
    contributed to and that the run went on from; `pending` is how many later entries are in no index yet; `rests_on`
    says what was checked.
    """

    id: bytes
    name: str | None
    size: int
    events: tuple[Event, ...]
    checkpoints: tuple[int, ...]
    pending: int
    rests_on: str

    @property
    def uses(self) -> int:
        """In how many optimizer updates the sample took part, the superseded ones among them."""
        return sum(event.kind == "used" for event in self.events)

    @property
    def superseded(self) -> int:
        """How many of the uses were superseded: the run was later resumed from a step before them."""
        return sum(event.kind == "used" and event.superseded_by is not None for event in self.events)

    @property
    def has_scores(self) -> bool:
        """Whether contributions stand in it."""
        return any(event.kind == "contribution" for event in self.events)

    def __str__(self) -> str:
        lines = [f"sample {self.id.hex()}" + (f" ({self.name})" if self.name else "")]
        lines += [f"  entry {event.entry:>7}  {event.words}" for event in self.events]
        if self.superseded:
            lines.append(f"  {self.superseded} of its {self.uses} uses were superseded: no later model rests on them")
        if self.checkpoints:
            lines.append(f"  contributed to the kept checkpoints at steps {', '.join(map(str, self.checkpoints))}")
        if self.has_scores:
            lines.append(f"  contributions are estimates: {UNMEASURED}")
        lines.append(f"  complete up to entry {self.size - 1}, {self.rests_on}")
        if self.pending:
            lines.append(f"  not yet in the index: {self.pending} entries; run fgtrac seal")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain data; ids as hex."""
        return {
            "id": self.id.hex(),
            **({"name": self.name} if self.name else {}),
            "size": self.size,
            "uses": self.uses,
            "superseded": self.superseded,
            "events": [event.as_json() for event in self.events],
            "checkpoints": list(self.checkpoints),
            **({"fidelity": UNMEASURED} if self.has_scores else {}),
            "pending": self.pending,
            "rests_on": self.rests_on,
        }


class Historian:
    """Answers for many samples of one full seal; what it has read it keeps."""

    def __init__(self, seal: FullSeal, name_of: NameOf) -> None:
        self._seal = seal
        self._name_of = name_of
        self._reader = Reader(seal, Places(seal.log), name_of)
        self.timeline = Timeline(seal)

    def history(
        self, sample_id: bytes, *, pending: int = 0, rests_on: str = "", details: bool | None = None
    ) -> History | None:
        """The history of a sample, or None where it is not registered (shown by its neighbours in the index).

        `details` reads the entries (default: where there are at most READ_ENTRIES). ProofError where the index or an
        entry is not what was sealed, or the two contradict each other.
        """
        rows = self._seal.rows(sample_id)
        if rows is None:
            return None
        if details is None:
            details = len(set(rows["entry"].tolist())) <= READ_ENTRIES
        events = self._read(sample_id, rows) if details else [self._outline(row) for row in rows.tolist()]
        events = [self._mark(event) for event in events]
        live = [event for event in events if event.kind in ("used", "neighbour") and event.superseded_by is None]
        steps = [event.step for event in live if event.step is not None]
        kept = tuple(s for s in self.kept_checkpoints() if s >= min(steps)) if steps else ()
        name = self._name_of(sample_id)
        return History(sample_id, name, self._seal.head.size, tuple(events), kept, pending, rests_on)

    def kept_checkpoints(self) -> Sequence[int]:
        """The steps of the checkpoints that were kept, neither displaced nor superseded, ascending."""
        return sorted({step for _, step in self.timeline.kept})

    def _mark(self, event: Event) -> Event:
        """The event, said to be superseded where it is."""
        by = None if event.step is None else self.timeline.superseding(event.entry, event.step)
        if by is None:
            return event
        words = f"{event.words} (superseded: the run was resumed from step {by[1]})"
        return replace(event, words=words, superseded_by=by[0])

    def _read(self, sample_id: bytes, rows: NDArray[np.void]) -> list[Event]:
        """One event a row, with what its entry says; within an entry by step."""
        self._seal.log.prefetch(sorted(set(rows["entry"].tolist())))
        registered: dict[bytes, int] = {}
        events = []
        for (entry, kind), group in groupby(rows.tolist(), key=lambda row: (row[2], row[0])):
            occurrences = self._reader.read(sample_id, entry, KIND_WORDS[kind], list(group), registered)
            events += [Event(KIND_WORDS[kind], entry, o.step, o.epoch, o.words, o.details) for o in occurrences]
        return sorted(events, key=lambda event: (event.entry, event.step or 0))  # stable: else as in the index

    def _outline(self, row: tuple[int, int, int, int]) -> Event:
        """A row without its entry: the epoch comes from the first steps that the seal lists."""
        kind, detail, entry, step = row
        word = KIND_WORDS[kind]
        known = None if step == NO_STEP else step
        epoch = self._epoch_of(step) if known is not None and word in ("used", "neighbour") else None
        where = f" in step {known}" + (f" (epoch {epoch})" if epoch is not None else "") if known is not None else ""
        return Event(word, entry, known, epoch, f"{word}{where}", {"code": detail})

    def _epoch_of(self, step: int) -> int | None:
        firsts = self._seal.event["epoch_steps"]
        begun = np.flatnonzero(firsts <= np.uint64(step))
        return int(begun[-1]) if len(begun) else None
