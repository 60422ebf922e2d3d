"""The icon graph from its source, every stage of it under trace: render, split, fit on training nodes, tokenise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from fgtrac.api.run import Run
from fgtrac.capture.graph import GraphNodes
from fgtrac.demo.graph.features import (
    PIXELS,
    connect,
    fit_vocabulary,
    forms_of,
    render,
    without,
    words_of,
)
from fgtrac.demo.graph.icons import Icons

NAME = "icons"
PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
OWNERS = 800
RARE = 1 / 430  # of the training nodes: a word of fewer is not learned


def prepare(icons: Icons, seed: int, run: Run | None = None) -> Data:
    """The graph: `image` (n, 24, 24) and `words` (n, m) float32, `edge_index` (2, edges) int64, `y` (n,) int64 and a
    mask for each role. With a `run`, its nodes and roles are registered there, and every stage is recorded."""
    forbidden = forms_of(icons.all_categories)
    tags = [without(mine, forbidden) for mine in icons.tags]
    graph = Data(edge_index=torch.from_numpy(connect(tags)), y=torch.from_numpy(icons.labels), num_nodes=len(icons))
    if run is not None:
        run.register(graph, **naming(icons), source=icons.source)
    nodes = GraphNodes(graph)
    images = mapped(run, "render", nodes, {"pixels": PIXELS}, lambda node: render(icons.drawing(node)))
    graph.image = torch.from_numpy(np.stack(images))
    parts = parts_of(len(icons), seed)
    if run is not None:
        run.transform("split", nodes, {"seed": seed}).split(parts)
    for part, mask in MASKS.items():
        graph[mask] = torch.tensor([p == part for p in parts])
        if run is not None:
            run.register(graph, mask, role=part)
    train = GraphNodes(graph, MASKS["train"])
    least = max(2, round(RARE * len(train)))
    texts = mapped(run, "fit the vocabulary", train, {"in at least": least}, lambda node: words_of(tags[node]))
    vocabulary = fit_vocabulary(texts, least)
    fitted = {"words": len(vocabulary.words), "fitted on": "train"}
    vectors = mapped(run, "tokenise", nodes, fitted, lambda node: vocabulary.vector(words_of(tags[node])))
    graph.words = torch.from_numpy(np.stack(vectors))
    return graph


def mapped(
    run: Run | None, stage: str, nodes: GraphNodes, parameters: dict[str, Any], function: Callable[[int], Any]
) -> list[Any]:
    """What a function makes of each node; a traced stage, where there is a run."""
    if run is None:
        return [function(node) for node in nodes.numbers.tolist()]
    view = run.transform(stage, nodes, parameters).map(function)
    return [view[row] for row in range(len(view))]


def parts_of(rows: int, seed: int) -> list[str]:
    """The role of each node, drawn from a seed."""
    counts = np.ceil(np.array(list(PARTS.values())) * rows).astype(int)
    names = np.repeat(list(PARTS), counts)[:rows]
    drawn: list[str] = np.random.default_rng(seed).permutation(names).tolist()
    return drawn


def naming(icons: Icons) -> dict[str, Any]:
    """How the nodes are registered: the name of their data set, each one's key and owner."""
    return {"name": NAME, "key": list(icons.names), "subject": owners(len(icons))}


def called(icons: Icons, node: int) -> str:
    """A node's name in the trace."""
    return f'{NAME}:key:"{icons.names[node]}"'


def owners(rows: int) -> list[str]:
    """A made-up owner for each icon: a few have many, and many have one (Zipf's law)."""
    share = 1 / np.arange(1, OWNERS + 1)
    drawn = np.random.default_rng(OWNERS).choice(OWNERS, rows, p=share / share.sum())
    return [f"owner-{number:04d}" for number in drawn.tolist()]
