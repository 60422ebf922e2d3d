"""Who takes part in a batch of a graph beside its seeds: read off a sampled batch, or counted over the edges."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.graph import GraphNodes, node_count, open_batch
from fgtrac.errors import CaptureError

MOST_HOPS = 1000  # that a batch is told apart by; what is farther away stands one hop beyond


@dataclass(frozen=True, slots=True, eq=False)
class Hops:
    """The neighbours of one batch: `nodes` (m,) uint32 node numbers, hop after hop, `counts[h]` of them at hop h + 1.
    `graph` is "sampled" or "whole". A sampler may have drawn a node several times, and its seeds again: see `once`."""

    graph: str
    nodes: NDArray[np.uint32]
    counts: tuple[int, ...]

    def once(self, seeds: NDArray[np.uint32], scratch: NDArray[np.uint32]) -> Hops:
        """Each node once, at its lowest hop, and no seed; `scratch` has a place for each node of the graph."""
        if self.graph == "whole":
            return self
        drawn = np.concatenate([seeds, self.nodes])
        places = np.arange(len(drawn), dtype=np.uint32)
        scratch[drawn[::-1]] = places[::-1]  # where a node stands first
        stays = (scratch[drawn] == places)[len(seeds) :]
        if stays.all():
            return self
        kept = np.concatenate([[0], np.cumsum(stays)])[np.cumsum([0, *self.counts])]
        return Hops(self.graph, self.nodes[stays], tuple(np.diff(kept).tolist()))


class SampledNodes:
    """Reads the batches of one PyG loader over `nodes`; on the hot path, so what can wait for the entries waits."""

    def __init__(self, nodes: GraphNodes) -> None:
        """CaptureError where the graph has an attribute that hides which nodes are drawn."""
        if getattr(nodes.data, "n_id", None) is not None:
            raise CaptureError(
                "the graph has an attribute n_id, which PyG's loaders deliver in the place of the nodes drawn; "
                "call it otherwise"
            )
        self._nodes = nodes
        self._seeds = nodes.numbers.astype(np.uint32)
        self._count = node_count(nodes.data)

    def are_of(self, loader: Any) -> bool:
        """Whether another of PyG's loaders draws these seeds, of this graph."""
        seeds = getattr(getattr(loader, "input_data", None), "node", None)
        if getattr(loader, "data", None) is not self._nodes.data or not isinstance(seeds, torch.Tensor):
            return False
        return np.array_equal(seeds.numpy(force=True), self._nodes.numbers)

    def read(self, positions: array[int], batch: Any, changed: bool) -> tuple[array[int], Hops]:
        """The seeds, as node numbers, and the neighbours in a batch as the loop receives it; `positions` are those that
        the loader's sampler drew; `changed` if a transform may have put the nodes into another order since.

        CaptureError where the batch does not say which nodes it holds, or holds others than were drawn.
        """
        held = open_batch(batch) or {}
        try:
            given = (held["n_id"] if held else batch.n_id).numpy(force=True)
            if given.dtype.kind not in "iu":
                raise TypeError(f"n_id holds {given.dtype}")
            drawn = given.astype(np.uint32)
            size = int(held["batch_size"] if held else batch.batch_size)
            told = held.get("num_sampled_nodes") if held else getattr(batch, "num_sampled_nodes", None)
        except (AttributeError, KeyError, TypeError) as error:
            raise CaptureError(
                f"the loader delivers a {type(batch).__name__} that does not say which nodes it holds ({error}); let "
                "its transform keep n_id and batch_size"
            ) from error
        seeds = self._seeds[np.frombuffer(positions, dtype=np.uint32)]
        if len(seeds) != size or len(drawn) < size or not (drawn[:size] == seeds).all():
            raise CaptureError(
                f"the batch begins with the nodes {_some(drawn[:size])}, and its seeds are {_some(seeds)}: nobody can "
                "tell whose labels take part; let sampler and transform leave the seeds first, in their order"
            )
        wide = given.view(np.uint64) if given.dtype == np.int64 else given.astype(np.int64).view(np.uint64)
        if wide.max(initial=0) >= self._count:  # a negative number is a very large one there
            wrong = given[(given < 0) | (given >= self._count)][0]
            raise CaptureError(
                f"the batch holds node {wrong} of a graph of {self._count} nodes (n_id); let the transform keep n_id, "
                "and watch the loader when the graph is whole"
            )
        counts = () if told is None else tuple(map(int, told))
        if told is not None and (sum(counts) != len(drawn) or counts[0] != size):
            raise CaptureError(
                f"the batch holds {len(drawn)} nodes with {size} seeds, and num_sampled_nodes counts {list(told)}: "
                "let the loader's transform keep them together, or drop num_sampled_nodes"
            )
        if told is None or (changed and _is_out_of_order(batch, counts)):
            steps = steps_to(batch.edge_index, len(drawn), np.arange(size))
            drawn, counts = drawn[np.argsort(steps, kind="stable")], tuple(np.bincount(steps).tolist())
        return array("I", seeds.tobytes()), Hops("sampled", drawn[size:], counts[1:])


def _is_out_of_order(batch: Any, counts: tuple[int, ...]) -> bool:
    """Whether an edge goes from a node to one that is two hops nearer, which no sampler draws that late. False where
    the batch has no edge_index to tell by."""
    edges = getattr(batch, "edge_index", None)
    if not isinstance(edges, torch.Tensor):
        return False
    hop = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    sources, targets = edges.numpy(force=True)
    return bool((hop.take(sources) - hop.take(targets)).max(initial=0) > 1)


def whole_graph(data: Any, seeds: NDArray[np.int64], steps: int) -> Hops:
    """The neighbours of a forward pass over a whole graph with so many message-passing steps: hop `steps` + 1 holds the
    nodes whose messages reach no seed."""
    count = node_count(data)
    reach = steps_to(data.edge_index, count, seeds, steps)
    order = np.argsort(reach, kind="stable")
    counts = np.bincount(reach, minlength=steps + 2)
    return Hops("whole", order[counts[0] :].astype(np.uint32), tuple(counts[1:].tolist()))


def steps_to(edge_index: Any, count: int, seeds: NDArray[np.int64], most: int | None = None) -> NDArray[np.int64]:
    """(count,) int64: after how many message-passing steps each node's messages first reach a seed: 0 for the seeds,
    and one more than `most`, or without it than the largest, for those that do not. Messages go from `edge_index[0]` to
    `edge_index[1]`, a tensor (2, edges): PyG's default flow. CaptureError where there is none."""
    if not isinstance(edge_index, torch.Tensor):
        raise CaptureError(f"the graph's edge_index is {type(edge_index).__name__}; fgtrac counts hops over a tensor")
    sources, targets = edge_index.numpy(force=True)
    reach = np.full(count, -1, dtype=np.int64)
    reach[seeds] = 0
    last = 0
    for step in range(1, (MOST_HOPS if most is None else most) + 1):
        found = sources[reach[targets] == step - 1]
        found = found[reach[found] < 0]
        if not len(found):
            break
        reach[found] = last = step
    reach[reach < 0] = (last if most is None else most) + 1
    return reach


def _some(nodes: NDArray[np.uint32]) -> str:
    more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
    return ", ".join(map(str, nodes[:5].tolist())) + more
