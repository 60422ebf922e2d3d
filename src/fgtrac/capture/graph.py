"""Graphs as data sets: the samples are the nodes, named by their numbers.

torch_geometric is looked up among the loaded modules and never imported: who has no graph does not pay for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fgtrac.errors import CaptureError

Nodes = str | Sequence[int] | torch.Tensor | NDArray[Any] | None


class GraphNodes(Dataset[int]):
    """Nodes of a graph as a map-style data set: row i is the number of a node in `data`, an int.

    `data` is a PyG `Data`, or anything with `num_nodes` and `edge_index`. `nodes` is a mask (n,) of booleans, the name
    of one in `data`, or node numbers (m,); None takes all. `numbers` is (m,) int64, the node behind each row.
    TypeError for what is no such graph, and for nodes of another type; ValueError for nodes that it does not have, a
    mask of another length, and for none at all.
    """

    def __init__(self, data: Any, nodes: Nodes = None) -> None:
        self.data = data
        self.numbers = _numbers(data, node_count(data), nodes)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> int:
        return int(self.numbers[row])


def is_graph(data: Any) -> bool:
    """Whether `data` is one graph, and not a data set of several."""
    if isinstance(data, Dataset | torch.Tensor | list | tuple | dict):
        return False
    several = _loaded("torch_geometric.data", "HeteroData")
    if several is not None and isinstance(data, several):
        return True  # refused where its nodes are counted, in words
    return hasattr(data, "edge_index") and hasattr(data, "num_nodes")


def node_count(data: Any) -> int:
    """How many nodes a graph has. TypeError for what is none, and for one of several node types; ValueError for one
    without nodes."""
    several = _loaded("torch_geometric.data", "HeteroData")
    if several is not None and isinstance(data, several):
        raise TypeError("graphs of several node types (HeteroData) are not traced; call to_homogeneous() first")
    if not is_graph(data):
        raise TypeError(f"{type(data).__name__} is no graph: it needs num_nodes and edge_index, as a PyG Data has them")
    count = data.num_nodes
    if not count:
        said = "no known number of" if count is None else count
        raise ValueError(f"the graph has {said} nodes; set its num_nodes to at least 1")
    return int(count)


def nodes_of(data: Any) -> Any:
    """A graph as the data set of all its nodes; anything else as it is."""
    return GraphNodes(data) if is_graph(data) else data


def column_of(data: Any, name: str) -> list[Any]:
    """An attribute of a graph that has a value for each node. ValueError where there is none of that name."""
    values = getattr(data, name, None)
    if values is None:
        raise ValueError(f"the graph has no attribute {name!r}; use a list, with a value for each node")
    return values.tolist() if isinstance(values, torch.Tensor | np.ndarray) else list(values)


def is_node_loader(loader: Any) -> bool:
    """Whether it is PyG's loader over seed nodes. CaptureError for PyG's loaders whose items are no samples of ours."""
    kind = _loaded("torch_geometric.loader", "NodeLoader")
    if kind is not None and isinstance(loader, kind):
        return True
    own = next((k for k in type(loader).__mro__ if k.__module__.startswith("torch_geometric.")), None)
    if own is not None and own.__name__ not in _OF_GRAPHS:
        raise CaptureError(
            f"{own.__name__} delivers parts of a graph whose samples fgtrac cannot tell; use a NodeLoader, or "
            "run.full_batch(...)"
        )
    return False


def is_changed_behind_sampler(loader: Any) -> bool:
    """Whether something of its user's changes the batches of a node loader behind its sampler."""
    return any(getattr(loader, name, None) is not None for name in ("transform", "transform_sampler_output"))


def adds_nodes(transform: Any) -> bool:
    """Whether one of PyG's transforms puts nodes into a batch that are none of the graph's."""
    kind = _loaded("torch_geometric.transforms", "VirtualNode")
    if kind is not None and isinstance(transform, kind):
        return True
    return any(map(adds_nodes, getattr(transform, "transforms", ())))


def is_unfinished(delivered: Any) -> bool:
    """Whether a loader's worker delivered drawn nodes, of which the main process has yet to make the batch."""
    kind = _loaded("torch_geometric.sampler", "SamplerOutput")
    return kind is not None and isinstance(delivered, kind)


def open_batch(item: Any) -> dict[str, Any] | None:
    """What a PyG `Data` holds, by name; None where `item` is none. Read past PyG's attribute access, where that is
    possible: cold code is what the hot path pays for."""
    kind = _loaded("torch_geometric.data.data", "BaseData")
    if kind is None or not isinstance(item, kind):
        return None
    store = item.__dict__.get("_store")
    held: Any = None if store is None else store.__dict__.get("_mapping")
    return held if type(held) is dict else item.to_dict()


_OF_GRAPHS = ("DataLoader", "DenseDataLoader", "DataListLoader")  # of torch_geometric: their items are whole graphs


def _loaded(module: str, name: str) -> Any:
    """A class of torch_geometric, where its user has imported it; else None."""
    return getattr(sys.modules.get(module), name, None)


def _numbers(data: Any, count: int, nodes: Nodes) -> NDArray[np.int64]:
    if nodes is None:
        return np.arange(count, dtype=np.int64)
    what = "nodes="
    if isinstance(nodes, str):
        what, nodes = f"nodes={nodes!r}", np.asarray(column_of(data, nodes))
    found = nodes.detach().cpu().numpy() if isinstance(nodes, torch.Tensor) else np.asarray(nodes)
    if found.dtype == np.bool_:
        if found.shape != (count,):
            raise ValueError(f"{what} is a mask of shape {found.shape}, and the graph has {count} nodes")
        found = np.flatnonzero(found)
    elif found.dtype.kind not in "iu" or found.ndim != 1:
        if found.size:
            raise TypeError(f"{what} holds {found.dtype} of shape {found.shape}; give a mask, or node numbers (m,)")
    elif found.size and not (found.min() >= 0 and found.max() < count):
        wrong = found[(found < 0) | (found >= count)][0]
        raise ValueError(f"{what} names node {wrong}, and the graph has {count} nodes, counted from 0")
    if not found.size:
        raise ValueError(f"{what} selects none of the graph's {count} nodes; give at least one")
    return found.astype(np.int64)
