"""What `neighbour_contributions` answers: what the features of other nodes do to one node's loss, state by state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.drawing.charts import signed_bars
from fgtrac.drawing.notebook import shown, words
from fgtrac.events.one_line import one_line
from fgtrac.score.gradients import Floats

NO_HOP = -1  # of a node from which no edges lead to the target
CAUTION = (
    "this is no training contribution: it says what features do in the forward pass of a kept state, not what training "
    "on a node did; it is never added to scores, nor are occlusions of several nodes to each other"
)


@dataclass(frozen=True, slots=True)
class NeighbourRow:
    """One node: `hop` message-passing steps from the target (0: the target itself; None where no edges lead to it),
    and at each state its `estimates` and `occlusions`, in the unit of the loss. Above 0: its features lowered the
    target's loss. `id` is None, and `roles` are not known, for a node of an erased subject."""

    node: int
    id: bytes | None
    name: str | None
    roles: tuple[str, ...]
    hop: int | None
    estimates: tuple[float, ...]
    occlusions: tuple[float, ...]

    @property
    def occlusion(self) -> float:
        """At the last state."""
        return self.occlusions[-1]

    @property
    def estimate(self) -> float:
        """At the last state."""
        return self.estimates[-1]

    @property
    def words(self) -> str:
        """What to call it, with its hop and its role."""
        called = self.name or (f"id:{self.id.hex()[:16]}" if self.id else f"node {self.node}, of an erased subject")
        return f"{called} ({', '.join([_where(self.hop), *self.roles])})"

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        sample_id = None if self.id is None else self.id.hex()
        said = {"node": self.node, "id": sample_id, "name": self.name, "roles": list(self.roles), "hop": self.hop}
        return said | {"estimates": list(self.estimates), "occlusions": list(self.occlusions)}


@dataclass(frozen=True, slots=True)
class HopSum:
    """All `nodes` of one hop: the sum of their estimates at the last state, which (alone of all these numbers) is the
    estimate of replacing them together."""

    hop: int | None
    nodes: int
    estimate: float

    def __str__(self) -> str:
        return f"{_where(self.hop)}: {self.nodes:,} node{'s' if self.nodes > 1 else ''}, estimate {self.estimate:+.4g}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"hop": self.hop, "nodes": self.nodes, "estimate": self.estimate}


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourContributions:
    """The answer for one target node at the kept states of `steps`, with its `losses` there.

    The receptive field, without the target: `nodes` (m,) their numbers, `hops` (m,) (NO_HOP where no edges lead to
    the target), `estimates` (states, m). `rows` are those whose occlusion was computed, the largest at the last state
    first; `itself` is the target. `fidelity` is the rank correlation of estimates and occlusions over `rows`, at each
    state (None for fewer than 3 rows, or where one of the two is the same for all). The baseline is the mean of
    `baseline_nodes` training nodes; the `erased_nodes`, of erased subjects, are in no mean, as nobody can tell which
    samples they are.
    """

    target: str
    features: tuple[str, ...]
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    nodes: NDArray[np.int64]
    hops: NDArray[np.int64]
    estimates: Floats
    itself: NeighbourRow
    rows: tuple[NeighbourRow, ...]
    fidelity: tuple[float | None, ...]
    baseline_nodes: int
    erased_nodes: int

    @property
    def lowered(self) -> tuple[NeighbourRow, ...]:
        """The rows whose features lowered the target's loss at the last state, the strongest first."""
        return tuple(row for row in self.rows if row.occlusion > 0)

    @property
    def raised(self) -> tuple[NeighbourRow, ...]:
        """The rows whose features raised it, the strongest first."""
        return tuple(row for row in reversed(self.rows) if row.occlusion < 0)

    @property
    def by_hop(self) -> tuple[HopSum, ...]:
        """Each hop of the receptive field, the nearest first."""
        found = []
        for hop in sorted(set(self.hops.tolist()), key=lambda hop: (hop < 0, hop)):
            here = self.hops == hop
            total = float(self.estimates[-1, here].sum(dtype=np.float64))
            found.append(HopSum(hop if hop >= 0 else None, int(here.sum()), total))
        return tuple(found)

    @property
    def basis(self) -> str:
        """What the numbers rest on, in words."""
        known = self.fidelity[-1]
        return (
            f"occlusion: the loss with {' and '.join(self.features)} of one node replaced by the mean of "
            f"{self.baseline_nodes:,} training nodes, minus the loss; of {len(self.rows):,} of {len(self.nodes):,} "
            f"nodes of its receptive field, those with the largest estimates (gradient times difference) at step "
            f"{self.steps[-1]}; "
            + ("too few for a rank correlation" if known is None else f"their rank correlation there is {known:.3f}")
            + "; the graph's nodes have the ids of the log, its features and edges are as they were given"
            + (f"; {self.erased_nodes:,} nodes, of erased subjects, could not be compared" if self.erased_nodes else "")
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data: `rows` and sums by hop; the whole field is in the arrays of this object only."""
        return {
            "kind": "neighbour contributions",
            "target": self.target,
            "features": list(self.features),
            "steps": list(self.steps),
            "losses": list(self.losses),
            "receptive_field": len(self.nodes),
            "by_hop": [one.as_json() for one in self.by_hop],
            "itself": self.itself.as_json(),
            "rows": [row.as_json() for row in self.rows],
            "fidelity": list(self.fidelity),
            "baseline_nodes": self.baseline_nodes,
            "erased_nodes": self.erased_nodes,
            "basis": self.basis,
            "caution": CAUTION,
        }

    def _repr_html_(self) -> str:
        """For notebooks."""
        items = [(row.words, row.occlusion) for row in self.rows]
        return shown(signed_bars(items, title=f"occlusion at step {self.steps[-1]}", lying=True), words(str(self)))

    def __str__(self) -> str:
        lines = [
            f"through message passing toward {self.target}, whose loss at step {self.steps[-1]} is "
            f"{self.losses[-1]:.4g}",
            *_listed("lowered by the features of", self.lowered),
            *_listed("raised by the features of", self.raised),
            f"  its own features: {self.itself.occlusion:+.4g}",
            *(f"  {one}" for one in self.by_hop),
        ]
        return "\n".join(map(one_line, [*lines, self.basis, CAUTION]))


def _where(hop: int | None) -> str:
    return "beyond the edges" if hop is None else f"hop {hop}"


def _listed(title: str, rows: Sequence[NeighbourRow]) -> list[str]:
    return [f"  {title}: " + ", ".join(f"{row.words} {row.occlusion:+.4g}" for row in rows)] if rows else []
