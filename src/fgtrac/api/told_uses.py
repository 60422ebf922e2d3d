"""How often and how surely training used each sample, and what was made from it: counted from the entries of a log, as
`fgtrac check` counts the uses of samples that must have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.through import WORDS, Pair, kin_of, used_through
from fgtrac.query.timeline import Timeline
from fgtrac.query.view_samples import Registry
from fgtrac.verify.roster import Kin

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
KINDS = ("uses", "superseded", "perhaps", "neighbours", "far")


@dataclass(frozen=True, slots=True, eq=False)
class ToldUses:
    """Of n samples, by ascending id, (n,) each: `uses` in applied updates in which its own loss took part, `superseded`
    those that a resume undid, `perhaps` uses in batches that may have left it out, `neighbours` updates with its
    features alone, `far` those of them out of the seeds' reach. `through` is a code of `query.through.WORDS`."""

    ids: NDArray[np.void]
    uses: Ints
    superseded: Ints
    perhaps: Ints
    neighbours: Ints
    far: Ints
    through: NDArray[np.int8]
    kin: Kin

    def standing(self) -> tuple[tuple[str, Mask], ...]:
        """The samples by the strongest that can be said of them, each once: its own loss took part, only its features
        did, only what was made from it was used, one of these perhaps, none."""
        left, found = np.ones(len(self.ids), dtype=bool), []
        for name, mine in (
            ("used", self.uses > 0),
            ("as_neighbours", self.neighbours > 0),
            ("through", self.through == WORDS.index("used")),
            ("in_doubt", (self.perhaps > 0) | (self.through == WORDS.index("perhaps"))),
        ):
            found.append((name, left & mine))
            left = left & ~mine
        return (*found, ("never", left))

    def held(self, some: Mask) -> Held:
        """What the log says of these samples and of all that was made from them."""
        made = self.kin.below(some)
        counts = (int(getattr(self, name)[made].sum()) for name in KINDS)
        return Held(int(some.sum()), int(made.sum() - some.sum()), *counts)

    def sources(self, some: Mask) -> Mask:
        """(n,) what these were made from that was itself made from nothing; those of them that were not made, too."""
        found: Mask = self.kin.above(some)
        found[self.kin.children] = False
        return found


@dataclass(frozen=True, slots=True)
class Held:
    """Samples, how many more were made from them, and the uses of both; see `ToldUses`."""

    samples: int
    made: int
    uses: int
    superseded: int
    perhaps: int
    neighbours: int
    far: int

    def as_json(self) -> dict[str, int]:
        """Plain data."""
        return {name: getattr(self, name) for name in Held.__slots__}


class UseCounter:
    """Takes the entries of a log in order."""

    def __init__(self, timeline: Timeline) -> None:
        self._registry = Registry(timeline.entries("samples"))
        self._timeline = timeline
        self._counts = {name: np.zeros(len(self._registry), np.int64) for name in KINDS}
        self._pairs: list[Pair] = []

    def use(self, number: int, event: Mapping[str, Any]) -> None:
        """Count a `use` entry. ProofError for samples that are not registered."""
        seeds, count = self._registry.numbers(number, event), event["count"]
        applied = event["status"] == STATUS["applied"]
        among = event["attribution"] == ATTRIBUTION["among"]
        past = self._timeline.superseded(np.full(len(count), number, np.uint64), event["step"])
        for name, batches in (
            ("uses", applied & ~among), ("superseded", applied & ~among & past), ("perhaps", applied & among),
        ):  # fmt: skip
            np.add.at(self._counts[name], seeds[np.repeat(batches, count)], 1)
        if "hops" in event:
            beside, hops = self._registry.numbers(number, event, "hop_ordinals"), event["hops"]
            last = np.tile(np.arange(1, hops + 1) == hops, len(count)) & (event["graph"] == "whole")
            for name, runs in (("neighbours", np.repeat(applied, hops)), ("far", np.repeat(applied, hops) & last)):
                np.add.at(self._counts[name], beside[np.repeat(runs, event["hop_count"])], 1)

    def transform(self, number: int, event: Mapping[str, Any]) -> None:
        """Take who was made from whom from a `transform` entry. ProofError as `use`."""
        if "children" in event:
            children = {"block": event["child_block"], "children": event["children"]}
            parents = self._registry.numbers(number, event, "parents")
            self._pairs.append((parents, self._registry.numbers(number, children, "children")))

    def finish(self, ids: NDArray[np.uint8]) -> ToldUses:
        """All of it, of the samples (n, 32) that the index has. ProofError where these are not the
        registered ones."""
        known, wanted = (np.ascontiguousarray(some).view("V32").reshape(-1) for some in (self._registry.ids, ids))
        if len(known) != len(wanted) or (known != wanted).any():
            raise ProofError("the index and the entries name other samples; run fgtrac verify")
        counts, kin = self._counts, kin_of(self._pairs)
        through = used_through(kin, counts["uses"] + counts["neighbours"] > 0, counts["perhaps"] > 0)
        return ToldUses(wanted, **counts, through=through, kin=kin)
