"""A sample's whole history: its rows in the index, and what the entries that they name say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, TRANSFORM
from fgtrac.query.family import Family, Relative, called, trace_family
from fgtrac.query.history_text import UNMEASURED, history_text
from fgtrac.query.occurrences import Reader
from fgtrac.query.places import Places
from fgtrac.query.seals import FullSeal
from fgtrac.query.tally import UNKNOWN, Draws, Said, Tally, count, draws_of, epochs_of, is_beyond
from fgtrac.query.timeline import Timeline

KIND_WORDS = {code: word for word, code in KIND.items()}
READ_ENTRIES = 256  # of a longer history the entries (up to 64 KB each) are read only where details are asked for,
READ_BYTES = 1 << 21  # and so where they have more than this together: that is about 10 ms
READ_DRAWS = 1024  # of the others, the graph and the hops of so many are read: about half a second
LIFE = ("registered", "role", "transformed", "derived", "erased")  # read of every history: they are few
TAKING_PART = ("used", "neighbour", "delivered")
NameOf = Callable[[bytes], str | None]
Rows = NDArray[np.void]


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

    `tally` counts its part in training by epoch and hop, `draws` says how its neighbours came about. `size` is the full
    seal that it is complete for. `checkpoints` are the steps of the kept model states that its uses are in and that
    the run went on from, `undecided` of those where only entries that were not read could tell. `pending` is how many
    later entries are in no index yet; `rests_on` says what was checked. `family` are the samples that it was made from,
    and those made from it.
    """

    id: bytes
    name: str | None
    size: int
    events: tuple[Event, ...]
    tally: Tally
    draws: Draws
    checkpoints: tuple[int, ...]
    undecided: tuple[int, ...]
    pending: int
    rests_on: str
    family: Family
    is_gone_on_with: bool = False  # by a resumed run or another fit: perhaps with another model

    @property
    def uses(self) -> int:
        """In how many optimizer updates the sample took part (of a graph: as a seed), superseded ones among them."""
        return self.tally.seeds

    @property
    def superseded(self) -> int:
        """How many of the uses were superseded: the run was later resumed from a step before them."""
        return self.tally.superseded[0]

    @property
    def may_be_of_several_fits(self) -> bool:
        """Whether its checkpoints may be of a model that was trained without it: the run was gone on with, or several
        optimizers used it."""
        optimizers = {event.details["optimizer"] for event in self.events if "optimizer" in event.details}
        return self.is_gone_on_with or len(optimizers) > 1

    @property
    def is_by_step(self) -> bool:
        """Whether the epochs of uses are the last that had begun by each step, since their entries were not read."""
        return any(event.kind in ("used", "neighbour") and "status" not in event.details for event in self.events)

    @property
    def has_scores(self) -> bool:
        """Whether contributions stand in it."""
        return any(event.kind == "contribution" for event in self.events)

    @property
    def attention(self) -> list[tuple[int, dict[str, float]]]:
        """(step, weight of each modality) at the checkpoints that are kept, where the entries were read."""
        found = [e for e in self.events if e.kind == "attention" and e.details.get("standing") == "kept"]
        return sorted(((e.step or 0, e.details["weights"]) for e in found), key=lambda pair: pair[0])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.query.history_html import history_html

        return history_html(self)

    def text(self, *, every_event: bool = False) -> str:
        """In words: a line for each event, and of a long history counts in their place, unless `every_event`."""
        return history_text(self, every_event=every_event)

    def as_json(self) -> dict[str, Any]:
        """Plain data; ids as hex."""
        attention = [{"step": step, "weights": weights} for step, weights in self.attention]
        return {
            "id": self.id.hex(),
            **({"name": self.name} if self.name else {}),
            "size": self.size,
            "uses": self.uses,
            "superseded": self.superseded,
            "summary": {
                **self.tally.as_json(),
                "epochs": self.tally.epochs_as_json(),
                "epochs_by_step": self.is_by_step,
                **self.draws.as_json(),
                "attention": attention,
            },
            "events": [event.as_json() for event in self.events],
            "checkpoints": list(self.checkpoints),
            "undecided": list(self.undecided),
            **({"fidelity": UNMEASURED} if self.has_scores else {}),
            **({"family": self.family.as_json()} if self.family != Family() else {}),
            "pending": self.pending,
            "rests_on": self.rests_on,
        }


class Historian:
    """Answers for many samples of one full seal; what it has read it keeps."""

    def __init__(self, seal: FullSeal, name_of: NameOf) -> None:
        self._seal = seal
        self._name_of = name_of
        self._reader = Reader(seal, Places(seal.log), name_of)
        self._said: dict[int, Said] = {}
        self.timeline = Timeline(seal)

    def history(
        self, sample_id: bytes, *, pending: int = 0, rests_on: str = "", details: bool | None = None
    ) -> History | None:
        """The history of a sample, or None where it is not registered (shown by its neighbours in the index).

        `details` reads the entries (default: all where they are at most READ_ENTRIES of READ_BYTES together, else
        those that are not about uses and neighbours, as far as they are few). ProofError where the index or an entry is
        not what was sealed, or the two contradict each other.
        """
        rows = self._seal.rows(sample_id)
        if rows is None:
            return None
        read = np.full(len(rows), details) if details is not None else self._worth_reading(rows)
        events = [self._mark(event) for event in self._read(sample_id, rows[read])]
        said = _said_by(events) if details is not None else _said_by(events) | self.drawn(rows[~read])
        events += self._outline(rows[~read], said)
        events.sort(key=lambda event: (event.entry, event.step or 0))  # stable: else as in the index
        taking_part = np.isin(rows["kind"], [KIND[word] for word in TAKING_PART])
        tally = _count_events(events) if (taking_part & read).any() else self.tally(rows)
        kept, undecided = self._contributed_to(events)
        return History(
            sample_id, self._name_of(sample_id), self._seal.head.size, tuple(events), tally, draws_of(rows, said),
            kept, undecided, pending, rests_on, self.family(sample_id, rows, events if details is not False else None),
            bool(self.timeline.resumes),
        )  # fmt: skip

    def tally(self, rows: Rows) -> Tally:
        """A sample's part in training from its rows alone: epochs are those that the seal says began by each step."""
        superseded = self.timeline.superseded(rows["entry"], rows["step"])
        return count(rows["kind"], rows["detail"], rows["step"], self._epochs(rows), superseded)

    def drawn(self, rows: Rows) -> dict[int, Said]:
        """What the `use` entries of these rows say of their neighbours: all in which samples are neighbours, or of many
        READ_DRAWS, evenly spaced; without any, of one in which a sample is a seed."""
        named = np.unique(rows["entry"][rows["kind"] == KIND["neighbour"]])
        if not len(named):
            named = np.unique(rows["entry"][rows["kind"] == KIND["used"]])[:1]
        if len(named) > READ_DRAWS:
            named = named[np.linspace(0, len(named) - 1, READ_DRAWS).astype(int)]
        for number in (number for number in named.tolist() if number not in self._said):
            event = self._seal.log.event(number)
            self._said[number] = (event["graph"], event["hops"]) if "hops" in event else None
        return {number: self._said[number] for number in named.tolist()}

    def children(self, sample_id: bytes, rows: Rows) -> list[bytes]:
        """The ids of the samples that stages made from one with these rows, directly."""
        if not ((rows["kind"] == KIND["transformed"]) & (rows["detail"] == TRANSFORM["has children"])).any():
            return []
        events = self._read(sample_id, rows[np.isin(rows["kind"], [KIND["registered"], KIND["transformed"]])])
        found = dict.fromkeys(child for said in _each_entry(events) for child in said.get("children", ()))
        return [bytes.fromhex(child) for child in found]

    def family(self, sample_id: bytes, rows: Rows, events: Sequence[Event] | None = None) -> Family:
        """What the sample of these rows was made from, and what was made from it; `events` are its own, if read."""
        if not _has_family(rows):
            return Family()

        def rows_of(member: bytes) -> Rows:
            found = rows if member == sample_id else self._seal.rows(member)
            if found is None:
                raise ProofError(f"the index does not have {member.hex()}, which a stage names; run fgtrac verify")
            return found

        def next_of(member: bytes, kind: str, field_name: str) -> list[tuple[bytes, str]]:
            mine = rows_of(member)
            if not _has_family(mine):
                return []
            known = events if member == sample_id else None
            if known is None:
                known = self._read(member, mine[np.isin(mine["kind"], [KIND["registered"], KIND[kind]])])
            said_once = _each_entry([event for event in known if event.kind == kind])
            pairs = dict.fromkeys((one, said["stage"]) for said in said_once for one in said.get(field_name, ()))
            return [(bytes.fromhex(one), stage) for one, stage in pairs]

        def relative(member: bytes, stage: str, generation: int) -> Relative:
            tally = self.tally(rows_of(member))
            spans = [span for span in tally.steps if span is not None]
            steps = (min(span[0] for span in spans), max(span[1] for span in spans)) if spans else None
            name = called(member, self._name_of(member))
            dropped = _is_dropped(rows_of(member))
            return Relative(member, name, stage, generation, tally.seeds + tally.neighbours, steps, dropped)

        return trace_family(
            sample_id,
            lambda member: next_of(member, "derived", "parents"),
            lambda member: next_of(member, "transformed", "children"),
            relative,
        )

    def newest(self, sample_id: bytes, kind: str, most: int) -> list[Event]:
        """The last events of a kind, at most so many, with what their entries say; none where it is not registered."""
        rows = self._seal.rows(sample_id)
        if rows is None:
            return []
        registered, mine = (rows[rows["kind"] == KIND[word]] for word in ("registered", kind))
        events = self._read(sample_id, np.concatenate([registered, mine[-most:]]))
        return [self._mark(event) for event in events if event.kind == kind]

    def kept_with(self, rows: Rows) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The steps of the kept checkpoints that samples with these rows contributed to, and of those of which only
        entries that were not read could tell."""
        return self._contributed_to(self._outline(rows, self.drawn(rows)))

    def kept_checkpoints(self) -> Sequence[int]:
        """The steps of the checkpoints that were kept, neither displaced nor superseded, ascending."""
        return sorted({step for _, step in self.timeline.kept})

    def _contributed_to(self, events: Sequence[Event]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The kept checkpoints at or behind the first update that it took part in within the reach of messages, and
        those before them, at or behind one of which only an entry that was not read could tell that."""
        live = [(event.step, _is_reached(event)) for event in events if event.superseded_by is None]
        first, maybe = (
            min((step for step, reached in live if step is not None and reached in wanted), default=None)
            for wanted in ((True,), (True, None))
        )
        kept = self.kept_checkpoints() if maybe is not None else ()
        sure = tuple(step for step in kept if first is not None and step >= first)
        return sure, tuple(step for step in kept if maybe is not None and step >= maybe and step not in sure)

    def _worth_reading(self, rows: Rows) -> NDArray[np.bool_]:
        """(n,) whose entries are read: those of LIFE in any case, then kind by kind as long as they are few together,
        and short."""
        chosen = np.isin(rows["kind"], [KIND[word] for word in LIFE])
        for words in (("attention",), ("prediction",), ("contribution",), TAKING_PART):
            more = chosen | np.isin(rows["kind"], [KIND[word] for word in words])
            entries = np.unique(rows["entry"][more])
            if len(entries) <= READ_ENTRIES and self._seal.log.fits(entries.tolist(), READ_BYTES):
                chosen = more
        return chosen

    def _mark(self, event: Event) -> Event:
        """The event, said to be superseded where it is; of weights and scores what became of their checkpoint."""
        if event.kind in ("attention", "contribution") and "checkpoint" in event.details:
            writer, seq = event.details["checkpoint"]
            standing = self.timeline.standing(bytes.fromhex(writer), seq)
            words = f"{event.words} (its checkpoint was {standing} later)" if standing != "kept" else event.words
            event = replace(event, words=words, details={**event.details, "standing": standing})
        by = None if event.step is None else self.timeline.superseding(event.entry, event.step)
        if by is None:
            return event
        words = f"{event.words} (superseded: the run was resumed from step {by[1]})"
        return replace(event, words=words, superseded_by=by[0])

    def _read(self, sample_id: bytes, rows: Rows) -> list[Event]:
        """One event a row, with what its entry says; within an entry by step."""
        self._seal.log.prefetch(sorted(set(rows["entry"].tolist())))
        registered: dict[bytes, int] = {}
        events = []
        for (entry, kind), group in groupby(rows.tolist(), key=lambda row: (row[2], row[0])):
            occurrences = self._reader.read(sample_id, entry, KIND_WORDS[kind], list(group), registered)
            events += [Event(KIND_WORDS[kind], entry, o.step, o.epoch, o.words, o.details) for o in occurrences]
        return events

    def _outline(self, rows: Rows, drawn: Mapping[int, Said]) -> list[Event]:
        """One event a row, without its entry but for what `drawn` has: the epoch comes from the first steps that the
        seal lists."""
        superseded = self.timeline.superseded(rows["entry"], rows["step"]).tolist()
        out = []
        for (kind, detail, entry, step), epoch, past in zip(
            rows.tolist(), self._epochs(rows).tolist(), superseded, strict=True
        ):
            word = KIND_WORDS[kind]
            known = None if step == NO_STEP else step
            in_epoch = epoch if epoch != UNKNOWN and word in ("used", "neighbour") else None
            where = "" if known is None else f" in step {known}"
            where += "" if in_epoch is None else f" (epoch {in_epoch})"
            said: dict[str, Any] = {"hop": detail} if word == "neighbour" else {"code": detail}
            if word == "neighbour" and (told := drawn.get(entry)):
                said["graph"], said["hops"] = told
            event = Event(word, entry, known, in_epoch, f"{word}{_hop(said)}{where}", said)
            out.append(self._mark(event) if past else event)
        return out

    def _epochs(self, rows: Rows) -> NDArray[np.int64]:
        return epochs_of(rows["step"], self._seal.event["epoch_steps"])


def _each_entry(events: Sequence[Event]) -> Iterable[dict[str, Any]]:
    """What entries say in details that several events share, once: all children of a sample in one entry do."""
    return {id(event.details): event.details for event in events}.values()


def _has_family(rows: Rows) -> bool:
    makes = (rows["kind"] == KIND["transformed"]) & (rows["detail"] == TRANSFORM["has children"])
    return bool((makes | (rows["kind"] == KIND["derived"])).any())


def _is_dropped(rows: Rows) -> bool:
    return bool(((rows["kind"] == KIND["transformed"]) & (rows["detail"] == TRANSFORM["dropped"])).any())


def _count_events(events: Sequence[Event]) -> Tally:
    """The tally of events whose entries were read, with the epochs that those say."""
    mine = [event for event in events if event.kind in TAKING_PART]
    return count(
        np.array([KIND[e.kind] for e in mine], np.uint8),
        np.array([_detail(e.details) for e in mine], np.uint16),
        np.array([NO_STEP if e.step is None else e.step for e in mine], np.uint64),
        np.array([UNKNOWN if e.epoch is None else e.epoch for e in mine], np.int64),
        np.array([e.superseded_by is not None for e in mine], np.bool_),
    )


def _detail(details: Mapping[str, Any]) -> int:
    """What the index has as the detail of an event of TAKING_PART."""
    return int(details.get("hop", details.get("code", ATTRIBUTION.get(details.get("attribution", ""), 0))))


def _said_by(events: Sequence[Event]) -> dict[int, Said]:
    """What entries that were read say of their neighbours."""
    mine = {e.entry: e.details for e in events if e.kind in ("used", "neighbour")}
    return {n: (d["graph"], d["hops"]) if "hops" in d else None for n, d in mine.items()}


def _is_reached(event: Event) -> bool | None:
    """Whether the event is a part in an update that the step's loss can have come from; None where nobody read it."""
    if event.kind != "neighbour":
        return event.kind == "used" and _detail(event.details) != ATTRIBUTION["among"]
    if "graph" not in event.details:
        return None
    return not is_beyond((event.details["graph"], event.details["hops"]), event.details["hop"])


def _hop(details: dict[str, Any]) -> str:
    return f" (hop {details['hop']})" if "hop" in details else ""
