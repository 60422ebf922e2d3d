"""The samples that were made from a sample, and from those in turn: whether a bundle carries all, and no others.

The `transform` entries that a sample's rows name say which ordinals of which block its children have; the rows of every
descendant say which ordinals it has itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND
from fgtrac.events.schema import ATTRIBUTION, TRANSFORM
from fgtrac.verify.bundle import USES, Descendant
from fgtrac.verify.evidence import Event, Registrations, Shown

Place = tuple[bytes, int]  # block, ordinal


def made_into(rows: NDArray[np.void]) -> dict[int, int]:
    """The entries by which a stage made new samples from the sample of these rows -> in how many pairs each."""
    mine = rows["entry"][(rows["kind"] == KIND["transformed"]) & (rows["detail"] == TRANSFORM["has children"])]
    numbers, counts = np.unique(mine, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def registered_by(rows: NDArray[np.void]) -> list[int]:
    """The entries that register the sample of these rows."""
    numbers: list[int] = np.unique(rows["entry"][rows["kind"] == KIND["registered"]]).tolist()
    return numbers


def count_uses(rows: NDArray[np.void]) -> int:
    """The rows of use, as a sample of the batch (a seed) or as a neighbour."""
    return int(np.isin(rows["kind"], USES).sum())


def are_certain(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """(n,) which rows say for certain that the sample took part, and not that a batch may have left it out."""
    among = (rows["kind"] == KIND["used"]) & (rows["detail"] == ATTRIBUTION["among"])
    certain: NDArray[np.bool_] = np.isin(rows["kind"], USES) & ~among
    return certain


def count_seeds(rows: NDArray[np.void]) -> int:
    """The rows of use as a seed: only there a sample's label takes part."""
    return int((rows["kind"] == KIND["used"]).sum())


@dataclass(slots=True)
class Pairs:
    """The pairs of one `transform` entry, found by parent in the time of a search."""

    event: Event
    _parents: NDArray[np.uint32]
    _order: NDArray[np.intp]

    @classmethod
    def of(cls, number: int, event: Event) -> Pairs:
        """ProofError for an entry that makes no new samples."""
        if event["kind"] != "transform" or "parents" not in event:
            raise ProofError(f"a row says that entry {number} makes new samples, and it is no such transform entry")
        order = np.argsort(event["parents"], kind="stable")
        return cls(event, event["parents"][order], order)

    def children(self, ordinals: dict[bytes, int]) -> list[int]:
        """The children's ordinals, one for each pair, of a parent with these ordinals."""
        ordinal = ordinals.get(self.event["block"])
        if ordinal is None:
            return []
        start, stop = np.searchsorted(self._parents, [ordinal, ordinal + 1])
        found: list[int] = self.event["children"][self._order[start:stop]].tolist()
        return found


def check_children(sample_id: bytes, rows: NDArray[np.void], descendants: tuple[Descendant, ...], shown: Shown) -> str:
    """ProofError unless the descendants are exactly the samples that the shown entries say were made from this one."""
    rows_of = {sample_id: rows} | {d.id: d.rows for d in descendants}
    if len(rows_of) != len(descendants) + 1:
        raise ProofError(f"{sample_id.hex()} is carried as a descendant of its own")
    registrations = Registrations(shown.values())
    ordinals = {member: registrations.ordinals(member, its, shown) for member, its in rows_of.items()}
    who: dict[Place, bytes] = {}
    for member, places in ordinals.items():
        for place in places.items():
            if who.setdefault(place, member) != member:
                raise ProofError(f"{member.hex()} and {who[place].hex()} are both ordinal {place[1]} of one block")
    pairs: dict[int, Pairs] = {}
    reached, waiting = {sample_id}, [sample_id]
    while waiting:
        parent = waiting.pop()
        for number, count in made_into(rows_of[parent]).items():
            if number not in pairs:
                pairs[number] = Pairs.of(number, shown[number])
            found = pairs[number].children(ordinals[parent])
            if len(found) != count:
                raise ProofError(f"entry {number} makes {len(found)} samples of {parent.hex()}, its rows say {count}")
            for ordinal in found:
                child = who.get((pairs[number].event["child_block"], ordinal))
                if child is None:
                    raise ProofError(
                        f"entry {number} says that ordinal {ordinal} of block "
                        f"{pairs[number].event['child_block'].hex()} was made from {parent.hex()}, and it is not shown"
                    )
                if child not in reached:
                    reached.add(child)
                    waiting.append(child)
    if left := rows_of.keys() - reached:
        raise ProofError(f"{min(left).hex()} is carried as a descendant, and no entry says that it was made from it")
    return f"{len(descendants)} samples were made from it, as {len(pairs)} transform entries say; all are shown"
