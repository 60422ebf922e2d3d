"""How often a sample took part in training, by epoch: as a seed, and as a neighbour by hop. Columnar throughout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.postings import KIND
from fgtrac.events.schema import ATTRIBUTION, NO_STEP

UNKNOWN = -1  # the epoch of a step that no epoch of the seal begins before
SHOWN_ROWS = 20  # of a table of epochs; more are laid together
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Draw:
    """How `use` entries say that their neighbours came about: `graph` is "sampled" or "whole", `hops` how many hops
    they tell apart (from a whole graph's last no message reaches a seed); `entries` counts those that say so."""

    graph: str
    hops: int
    entries: int


Said = tuple[str, int] | None  # the `graph` and `hops` of a `use` entry, where it has them


@dataclass(frozen=True, slots=True)
class Reach:
    """How often samples were neighbours at a hop: where messages reached a seed from it, where the entry says that none
    did, and where the entry was not read."""

    within: int
    beyond: int
    unread: int

    @property
    def words(self) -> str:
        """What a heading adds to the hop."""
        if not self.beyond:
            return ""
        if self.within:
            return ", in part beyond reach"
        return ", beyond reach" if not self.unread else f", beyond reach in {self.beyond:,} that were read"


@dataclass(frozen=True, slots=True)
class Draws:
    """How samples' neighbours came about, from `read` of the `named` entries in which they took part; `reach` is hop ->
    what that makes of their parts as a neighbour."""

    each: tuple[Draw, ...] = ()
    read: int = 0
    named: int = 0
    reach: Mapping[int, Reach] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        each = [{"graph": draw.graph, "hops": draw.hops, "entries": draw.entries} for draw in self.each]
        reach = {
            str(hop): {"within": r.within, "beyond": r.beyond, "unread": r.unread} for hop, r in self.reach.items()
        }
        return {"drawn": each, "reach": reach, "entries_read": self.read, "entries_named": self.named}


def is_beyond(said: Said, hop: int) -> bool:
    """Whether an entry that says so much of its neighbours says that no message reaches a seed from that hop."""
    return said is not None and said == ("whole", hop)


def draws_of(rows: NDArray[np.void], said: Mapping[int, Said]) -> Draws:
    """How neighbours came about, of samples with these rows of the index, as the entries in `said` have it."""
    neighbours = rows[rows["kind"] == KIND["neighbour"]]
    named = np.unique(rows["entry"][(rows["kind"] == KIND["used"]) | (rows["kind"] == KIND["neighbour"])]).tolist()
    read = [said[number] for number in named if number in said]
    each = sorted(Counter(one for one in read if one is not None).items())
    pairs, counts = np.unique(neighbours[["detail", "entry"]], return_counts=True)
    reach: dict[int, list[int]] = {}
    for (hop, number), n in zip(pairs.tolist(), counts.tolist(), strict=True):
        which = 2 if number not in said else int(is_beyond(said[number], hop))
        reach.setdefault(hop, [0, 0, 0])[which] += n
    draws = tuple(Draw(graph, hops, entries) for (graph, hops), entries in each)
    return Draws(draws, len(read), len(named), {hop: Reach(*parts) for hop, parts in sorted(reach.items())})


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """A sample's part in applied updates, the superseded ones among them.

    `epochs` ascend (UNKNOWN first where it is among them) and `hops` too; `counts[e, 0]` is how often it was a seed in
    epoch e, `counts[e, 1 + h]` how often a neighbour at hop h of `hops`. `steps` are the first and last step as a seed
    and as a neighbour; `superseded` the counts as a seed and as a neighbour that no later state rests on; `delivered`
    how often it was delivered and not applied; `perhaps` how often it was drawn for a batch of an update that may have
    left it out, which is not among the counts.
    """

    epochs: tuple[int, ...]
    hops: tuple[int, ...]
    counts: Ints
    steps: tuple[tuple[int, int] | None, tuple[int, int] | None]
    superseded: tuple[int, int]
    delivered: int
    perhaps: int = 0

    @property
    def seeds(self) -> int:
        """How often its own loss took part."""
        return int(self.counts[:, 0].sum())

    @property
    def neighbours(self) -> int:
        """How often only its features took part."""
        return int(self.counts[:, 1:].sum())

    def at_hop(self, hop: int) -> int:
        """How often it was a neighbour at that hop."""
        return int(self.counts[:, 1 + self.hops.index(hop)].sum()) if hop in self.hops else 0

    def as_json(self) -> dict[str, Any]:
        """Plain data: the sums."""
        spans = zip(("seed", "neighbour"), self.steps, strict=True)
        return {
            "seed": self.seeds,
            "neighbour": self.neighbours,
            "hops": {str(hop): self.at_hop(hop) for hop in self.hops},
            "delivered": self.delivered,
            "perhaps": self.perhaps,
            "superseded": {"seed": self.superseded[0], "neighbour": self.superseded[1]},
            "steps": {word: list(span) for word, span in spans if span is not None},
        }

    def epochs_as_json(self) -> list[dict[str, Any]]:
        """Plain data: a row for each epoch with a part in it."""
        return [
            {
                "epoch": None if epoch == UNKNOWN else epoch,
                "seed": row[0],
                "neighbour": {str(hop): n for hop, n in zip(self.hops, row[1:], strict=True)},
            }
            for epoch, row in zip(self.epochs, self.counts.tolist(), strict=True)
        ]

    def table(self) -> list[tuple[str, list[int]]]:
        """Rows for people: which epochs, and the counts. Of many epochs several make a row, in ascending order."""
        per_row = -(-len(self.epochs) // SHOWN_ROWS)
        rows = []
        for at in range(0, len(self.epochs), max(1, per_row)):
            first, last = self.epochs[at], self.epochs[at : at + per_row][-1]
            words = "unknown" if first == UNKNOWN else str(first)
            rows.append(
                (words if first == last else f"{words} to {last}", self.counts[at : at + per_row].sum(0).tolist())
            )
        return rows


def count(
    kinds: NDArray[np.uint8],
    details: NDArray[np.uint16],
    steps: NDArray[np.uint64],
    epochs: Ints,
    superseded: NDArray[np.bool_],
) -> Tally:
    """The tally of occurrences, columns (n,): kind and detail as in the index, step, epoch, superseded."""
    perhaps = (kinds == KIND["used"]) & (details == ATTRIBUTION["among"])
    parts = [(kinds == KIND["used"]) & ~perhaps, kinds == KIND["neighbour"]]
    taken = parts[0] | parts[1]
    found_epochs, row = np.unique(epochs[taken], return_inverse=True)
    found_hops = np.unique(details[parts[1]])
    column = np.where(parts[0][taken], 0, 1 + np.searchsorted(found_hops, details[taken]))
    width = 1 + len(found_hops)
    counts = np.bincount(row * width + column, minlength=len(found_epochs) * width).reshape(-1, width)
    spans = [(int(steps[p].min()), int(steps[p].max())) if p.any() else None for p in parts]
    return Tally(
        tuple(found_epochs.tolist()),
        tuple(found_hops.tolist()),
        counts.astype(np.int64),
        (spans[0], spans[1]),
        (int((parts[0] & superseded).sum()), int((parts[1] & superseded).sum())),
        int((kinds == KIND["delivered"]).sum()),
        int(perhaps.sum()),
    )


def epochs_of(steps: NDArray[np.uint64], first_steps: NDArray[np.uint64]) -> Ints:
    """(n,) the last epoch whose first step is not behind each step; UNKNOWN without a step, or before all of them.
    `first_steps` are a seal's `epoch_steps`, in which an epoch without updates has NO_STEP."""
    least = np.minimum.accumulate(first_steps[::-1])[::-1]  # the last epoch begun by a step: also where they overlap
    found = np.searchsorted(least, steps, side="right").astype(np.int64) - 1
    found[steps == np.uint64(NO_STEP)] = UNKNOWN
    return found
