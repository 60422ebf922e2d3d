"""What the neighbours of a node do to its loss through message passing, at each kept state. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer
from fgtrac.api.given_graph import GivenGraph
from fgtrac.api.ledger import read_state
from fgtrac.api.naming import Named
from fgtrac.api.neighbour_answer import NO_HOP, NeighbourContributions, NeighbourRow
from fgtrac.api.unseen import copied
from fgtrac.capture.checkpoint import load_state
from fgtrac.capture.hops import MOST_HOPS, steps_to
from fgtrac.errors import ScoreError
from fgtrac.events.schema import ROLES
from fgtrac.query.tables import Samples
from fgtrac.score.factor_files import State
from fgtrac.score.fidelity import spearman
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Progress
from fgtrac.score.losses import PerSample, per_sample
from fgtrac.score.neighbours import Estimates, LossOf, estimate, occlude
from fgtrac.score.untouched import untouched
from fgtrac.store.trace_dir import TraceDir

GraphForward = Callable[[torch.nn.Module, torch.Tensor, Any], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """How the loss of a node is made: `forward(model, nodes, graph)` gives (outputs, targets) of the nodes whose
    numbers are given, reading `features` of `graph`."""

    model: torch.nn.Module
    loss: Callable[..., Any]
    forward: GraphForward
    features: tuple[str, ...]


def explain_neighbours(
    explainer: Explainer,
    samples: Samples,
    target: Named,
    graph: GivenGraph,
    asked: Asked,
    *,
    k: int | None,
    checkpoints: Sequence[int] | None,
    progress: Progress | None,
) -> NeighbourContributions:
    """The answer for one node. Errors as `Trace.neighbour_contributions`."""
    states, node = _states(explainer, checkpoints), _node_of(graph, target)
    places = _places(graph, samples)
    roles = np.where(graph.is_known, samples.roles[places], 0)
    trained = np.flatnonzero(roles >> ROLES["train"] & 1)
    passes = _Passes(explainer.trace, graph, asked, node, _mean(graph.features, trained))

    found = passes.estimate(states)
    estimates, hops = np.stack([one.values for one in found]), _hops_to(node, graph)
    field = _field(node, hops, np.any([one.acts for one in found], axis=0))
    strongest = field[np.argsort(-np.abs(estimates[-1, field]), kind="stable")[:k]]
    chosen = np.concatenate([[node], strongest])
    occlusions = passes.occlude(states, chosen, estimates[:, chosen], progress)

    def row(number: int, column: int) -> NeighbourRow:
        bits, hop = int(roles[number]), int(hops[number])
        sample_id = graph.ids[number].tobytes() if graph.is_known[number] else None
        return NeighbourRow(
            number, sample_id, None if sample_id is None else explainer.namer.name_of(sample_id),
            tuple(role for role, code in ROLES.items() if bits >> code & 1), None if hop == NO_HOP else hop,
            tuple(estimates[:, number].tolist()), tuple(occlusions[:, column].tolist()),
        )  # fmt: skip

    itself, *others = [row(number, column) for column, number in enumerate(chosen.tolist())]
    return NeighbourContributions(
        itself.name or target.words, asked.features, tuple(state.step for state in states),
        tuple(one.loss for one in found), field, hops[field], estimates[:, field],
        itself, tuple(sorted(others, key=lambda one: -one.occlusion)),
        _fidelity(estimates[:, strongest], occlusions[:, 1:]), len(trained), int((~graph.is_known).sum()),
    )  # fmt: skip


class _Passes:
    """Passes toward one node, at one kept state after another, by a copy of the model in eval mode."""

    def __init__(
        self, trace: TraceDir, graph: GivenGraph, asked: Asked, node: int, baseline: Mapping[str, torch.Tensor]
    ) -> None:
        self._trace = trace
        self._graph = graph
        self._asked = asked
        self._terms: PerSample = per_sample(asked.loss)
        self._nodes = torch.tensor([node])
        self._baseline = baseline

    def estimate(self, states: Sequence[State]) -> list[Estimates]:
        """The loss, and the estimates of all nodes, at each state."""
        found = []
        for state in states:
            with self._at(state) as loss_of:
                found.append(estimate(loss_of, self._graph.features, self._baseline))
        return found

    def occlude(
        self, states: Sequence[State], nodes: NDArray[np.int64], estimates: Floats, progress: Progress | None
    ) -> Floats:
        """(states, nodes): occlusions, where `estimates` are of the same states and nodes."""
        found, done = [], 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(done, len(states) * len(nodes))

        for state, expected in zip(states, estimates, strict=True):
            with self._at(state) as loss_of:
                found.append(occlude(loss_of, self._graph.features, self._baseline, nodes, expected, advance))
        return np.stack(found)

    @contextmanager
    def _at(self, state: State) -> Iterator[LossOf]:
        """The node's loss as a function of features."""
        model = copied(self._asked.model)
        load_state(model, read_state(self._trace, state), f"the checkpoint of step {state.step}")
        with untouched(model):
            yield lambda features: self._loss(model, self._graph.with_features(features))

    def _loss(self, model: torch.nn.Module, graph: Any) -> torch.Tensor:
        losses = self._terms(*self._asked.forward(model, self._nodes, graph))
        if losses.shape != (1,):
            raise ScoreError(
                f"{len(losses)} losses for 1 node; let forward return outputs and targets of the nodes whose numbers "
                "it is given"
            )
        return losses[0]


def _states(explainer: Explainer, checkpoints: Sequence[int] | None) -> list[State]:
    states = explainer.ledger.states
    if not states:
        raise ScoreError(f"{explainer.trace.path.name} has no kept checkpoint; record some with run.checkpoint()")
    there = [state.step for state in states]
    wanted = there if checkpoints is None else list(checkpoints)
    if not wanted or (lacking := [step for step in wanted if step not in there]):
        raise ValueError(
            f"no state is kept at step {repr(lacking[0]) if wanted else '(none named)'}; there are {there}"
        )
    return [state for state in states if state.step in wanted]


def _node_of(graph: GivenGraph, target: Named) -> int:
    found = np.flatnonzero((graph.ids == np.frombuffer(target.id, dtype=np.uint8)).all(axis=1))
    if not len(found):
        unknown = "" if graph.is_known.all() else ", or one of an erased subject's, toward which nothing is told"
        raise ValueError(f"{target.words} is no node of this graph{unknown}")
    return int(found[0])


def _places(graph: GivenGraph, samples: Samples) -> NDArray[np.int64]:
    """(n,) where each node stands among the samples of the trace, 0 for one whose id is not known."""
    known = {sample.tobytes(): place for place, sample in enumerate(samples.ids)}
    if not all(node.tobytes() in known for node in graph.ids[graph.is_known][:1]):
        raise ValueError(
            "the graph was registered after the newest full seal; run fgtrac seal, and open the trace anew"
        )
    return np.array([known.get(node.tobytes(), 0) for node in graph.ids], dtype=np.int64)


def _mean(features: Mapping[str, torch.Tensor], nodes: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """The mean features of some nodes; ValueError where there are none."""
    if not len(nodes):
        raise ValueError("no node of the graph has the role train, whose mean features are the baseline")
    return {name: values[torch.from_numpy(nodes)].mean(0) for name, values in features.items()}


def _hops_to(node: int, graph: GivenGraph) -> NDArray[np.int64]:
    """(n,) after how many message-passing steps each node's messages first reach the node; NO_HOP where none do."""
    steps = steps_to(graph.data.edge_index, len(graph.ids), np.array([node]), MOST_HOPS)
    return np.where(steps > MOST_HOPS, NO_HOP, steps)


def _field(node: int, hops: NDArray[np.int64], acts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The receptive field but for the node: all nodes that are no farther than the farthest one with a gradient, and
    those with one to which no edges lead."""
    depth = max(0, int(hops[acts].max(initial=0)))
    inside = ((hops > 0) & (hops <= depth)) | (acts & (hops == NO_HOP))
    inside[node] = False
    return np.flatnonzero(inside)


def _fidelity(estimates: Floats, occlusions: Floats) -> tuple[float | None, ...]:
    """At each state (states, k); None where ranks say nothing."""
    found: list[float | None] = []
    for some, other in zip(estimates, occlusions, strict=True):
        is_known = len(some) >= 3 and np.ptp(some) > 0 and np.ptp(other) > 0
        found.append(float(spearman(some[:, None], other[:, None])[0]) if is_known else None)
    return tuple(found)
