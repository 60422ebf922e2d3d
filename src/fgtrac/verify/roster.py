"""Who is registered in a log, and as what: one place a sample id, in columns that a policy decides on.

Places follow ascending ids, and an id that several blocks register has one place. A log is read once for it, whatever
order its entries are in: roles may be given after the uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import NO_STEP, ROLES, TRAINING, decode_event
from fgtrac.verify.facts import Facts
from fgtrac.verify.tree import Log

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
Progress = Callable[[int, int], None]
PROGRESS_ENTRIES = 256
UNDESCRIBED = ("unknown", None)  # of a data set that no `dataset` entry describes


@dataclass(slots=True)
class Block:
    """What the entries say of the samples of one block, by ordinal."""

    dataset: str
    ids: NDArray[np.uint8]
    roles: NDArray[np.uint8]  # a bit for each role, 1 << its code
    places: Places = field(default_factory=lambda: np.empty(0, np.intp))


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erased subject: its pseudonym, its samples as the entry lists them, and since when."""

    number: int
    time: int
    pseudonym: bytes
    block: bytes
    ordinals: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Drop:
    """Samples of a block that a stage dropped, as entry `number` says."""

    number: int
    stage: str
    block: bytes
    ordinals: NDArray[np.uint32]


class Kin:
    """Which samples were made from which: pairs of places, parent and child."""

    def __init__(self, parents: Places, children: Places) -> None:
        self._down = _sorted_pairs(parents, children)
        self._up = _sorted_pairs(children, parents)
        self.parents, self.children = parents, children

    def below(self, start: Mask, through: Mask | None = None) -> Mask:
        """`start`, and whatever was made from it, directly or not; with `through`, only by way of these."""
        return _spread(start, *self._down, through)

    def least(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """For each sample the least of its own value and of those of whatever it was made from."""
        out, (sources, targets) = values.copy(), self._down
        edge = np.unique(sources)
        while len(edge):
            pairs = _pairs_from(edge, sources)
            pairs = pairs[out[sources[pairs]] < out[targets[pairs]]]
            np.minimum.at(out, targets[pairs], out[sources[pairs]])
            edge = np.unique(targets[pairs])
        return out

    def above(self, start: Mask) -> Mask:
        """`start`, and whatever it was made from, directly or not."""
        return _spread(start, *self._up, None)


def _sorted_pairs(sources: Places, targets: Places) -> tuple[Places, Places]:
    order = np.argsort(sources, kind="stable")
    return sources[order], targets[order]


def _pairs_from(edge: Places, sources: Places) -> Places:
    """Which of the pairs, which ascend by source, begin at one of these places."""
    first, last = np.searchsorted(sources, edge, "left"), np.searchsorted(sources, edge, "right")
    counts = last - first
    pairs: Places = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    return pairs


def _spread(start: Mask, sources: Places, targets: Places, through: Mask | None) -> Mask:
    """Breadth first: each place is passed once, so that no circle is followed forever."""
    reached = start.copy()
    edge = np.unique(sources[start[sources]])
    while len(edge):
        found = targets[_pairs_from(edge, sources)]
        found = found[~reached[found] if through is None else through[found] & ~reached[found]]
        reached[found] = True
        edge = np.unique(found)
    return reached


class Roster:
    """The samples of a log as columns of length n, and what its entries say of the run as a whole."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, Block] = {}
        self.datasets: dict[str, tuple[str, str | None]] = {}  # name -> id scheme, what contents are digests of
        self.beside: set[str] = set()  # data sets whose rows hold more than what their content digests are of
        self.keys: dict[str, str | None] = {}  # name -> what its keys are; None where entries do not say, or disagree
        self.erasures: list[Erasure] = []
        self.drops: list[Drop] = []
        self.resumes: list[tuple[int, int]] = []  # entry, and the step from which training went on
        self.use_entries: list[int] = []
        self.has_ended = False  # and nothing was trained afterwards
        self.ids = np.empty(0, "V32")
        self.roles = np.empty(0, np.uint8)
        self.dataset = np.empty(0, np.intp)  # an index into `datasets`
        self.kin = Kin(np.empty(0, np.intp), np.empty(0, np.intp))
        self._columns: dict[tuple[str, bytes, int], list[bytes]] = {}  # contents, subjects: by block and first ordinal
        self._pairs: list[tuple[bytes, NDArray[np.uint32], bytes, NDArray[np.uint32]]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: bytes | NDArray[np.uint8]) -> Places:
        """The places of those ids (32 bytes each) that are registered, in the order they are given."""
        return find_rows(self.ids, np.frombuffer(ids, "V32"))[1]

    def id(self, place: int) -> bytes:
        """The id at a place."""
        return bytes(self.ids[place].tobytes())

    def mask(self, places: Places) -> Mask:
        """(n,) true at these places."""
        out = np.zeros(len(self), np.bool_)
        out[places] = True
        return out

    def in_role(self, *roles: str) -> Mask:
        """(n,) the samples that ever had one of these roles."""
        held: Mask = (self.roles & np.uint8(sum(1 << ROLES[role] for role in roles))) != 0
        return held

    def in_dataset(self, name: str) -> Mask:
        """(n,) the samples of a data set."""
        names = list(self.datasets)
        here: Mask = self.dataset == (names.index(name) if name in names else -1)
        return here

    def column(self, name: str) -> tuple[Places, NDArray[np.void]]:
        """The `contents` or `subjects` that `samples` entries give: places, and values of 32 bytes. A sample may stand
        there more than once, with other values."""
        places, values = [np.empty(0, np.intp)], [np.empty(0, "V32")]
        for (column, block, start), pieces in self._columns.items():
            for piece in pieces if column == name else ():
                mine = np.frombuffer(piece, "V32")
                places.append(self.blocks[block].places[start : start + len(mine)])
                values.append(mine)
        return np.concatenate(places), np.concatenate(values)

    def of_subjects(self, pseudonyms: list[bytes]) -> Mask:
        """(n,) the samples of subjects with these pseudonyms."""
        places, values = self.column("subjects")
        wanted = np.unique(np.frombuffer(b"".join(pseudonyms), "V32"))
        return self.mask(places[find_rows(wanted, values)[0]])

    def dropped(self) -> tuple[dict[str, Mask], Mask]:
        """(n,) the samples that each stage dropped while uses were still to come, and those that any dropped later:
        behind the last use a drop is no reason why a sample was not used."""
        last, stages, late = max(self.use_entries, default=NO_STEP), dict[str, Mask](), np.zeros(len(self), np.bool_)
        for drop in self.drops:
            mine = late if drop.number > last else stages.setdefault(drop.stage, np.zeros(len(self), np.bool_))
            mine[self.blocks[drop.block].places[drop.ordinals]] = True
        return stages, late

    # -- reading --------------------------------------------------------------------------------------------------

    def add(self, number: int, event: Mapping[str, Any], facts: Facts) -> None:
        """Take entry `number`; `facts` knows every block of the log."""
        kind = event["kind"]
        if kind == "samples":
            self._add_samples(event, facts)
        elif kind == "roles":
            self.blocks[event["block"]].roles[event["ordinals"]] |= np.uint8(1 << ROLES[event["role"]])
        elif kind == "transform":
            self._add_transform(number, event)
        elif kind == "dataset":
            said = event["id_scheme"], event.get("content")
            self.datasets[event["name"]] = said if self.datasets.get(event["name"], said) == said else (said[0], None)
            self.beside |= {event["name"]} if event.get("beside") else set()
            keys = event.get("keys")
            self.keys[event["name"]] = keys if self.keys.get(event["name"], keys) == keys else None
        elif kind == "use":
            self.use_entries.append(number)
        elif kind == "resume":
            self.resumes.append((number, event["step"]))
        elif kind == "erasure":
            fields = event["time"], event["pseudonym"], event["block"], event["ordinals"].copy()
            self.erasures.append(Erasure(number, *fields))
        self.has_ended = kind == "end" or (self.has_ended and kind not in TRAINING)

    def _add_samples(self, event: Mapping[str, Any], facts: Facts) -> None:
        name = event["block"]
        if name not in self.blocks:
            try:
                ids = facts.ids_of(name)
            except ProofError:
                return  # a registration that was cut short: no other entry names its samples
            n = len(ids)
            self.blocks[name] = Block(event["dataset"], ids, np.zeros(n, np.uint8))
        ids = self.blocks[name].ids.view("V32").reshape(-1)
        start = int(np.searchsorted(ids, np.frombuffer(event["ids"][:32], "V32"))[0])
        for column in ("contents", "subjects"):
            if column in event:
                pieces = self._columns.setdefault((column, name, start), [])
                if event[column] not in pieces:  # a resumed run registers its samples again
                    pieces.append(event[column])

    def _add_transform(self, number: int, event: Mapping[str, Any]) -> None:
        if "dropped" in event:
            self.drops.append(Drop(number, event["stage"], event["block"], event["dropped"].copy()))
        if "children" in event:
            pair = event["block"], event["parents"].copy(), event["child_block"], event["children"].copy()
            self._pairs.append(pair)

    def close(self) -> None:
        """Give every sample its place, once all entries are taken."""
        blocks = list(self.blocks.values())
        joined = np.concatenate([np.empty((0, 32), np.uint8), *(block.ids for block in blocks)])
        self.ids, places = np.unique(joined.view("V32").reshape(-1), return_inverse=True)
        self.roles = np.zeros(len(self), np.uint8)
        self.dataset = np.zeros(len(self), np.intp)
        for block in blocks:
            self.datasets.setdefault(block.dataset, UNDESCRIBED)
        number_of = {name: number for number, name in enumerate(self.datasets)}
        for block, mine in zip(blocks, np.split(places, np.cumsum([len(b.ids) for b in blocks])[:-1]), strict=False):
            block.places = mine
            self.roles[mine] |= block.roles
            self.dataset[mine] = number_of[block.dataset]
        parents = [self.blocks[block].places[ordinals] for block, ordinals, _, _ in self._pairs]
        children = [self.blocks[block].places[ordinals] for _, _, block, ordinals in self._pairs]
        none = np.empty(0, np.intp)
        self.kin = Kin(np.concatenate([none, *parents]), np.concatenate([none, *children]))


def read_roster(log: Log, facts: Facts, progress: Progress | None = None) -> Roster:
    """The roster of a log whose entries and registrations have been checked. `progress`: entries read, and in all."""
    roster = Roster()
    for number, entry in log.entries():
        roster.add(number, decode_event(entry), facts)
        if progress is not None and number % PROGRESS_ENTRIES == 0:
            progress(number, log.head.size)
    roster.close()
    return roster


def find_rows(table: NDArray[np.void], wanted: NDArray[np.void]) -> tuple[Places, Places]:
    """Which of the wanted rows are in an ascending table, and where each of them stands there."""
    if not len(table) or not len(wanted):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    which = np.flatnonzero(table[at] == wanted)
    return which, at[which]
