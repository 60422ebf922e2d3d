"""The icon graph from its source, every stage of it under trace: render, split, fit on training nodes, tokenise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
DEDUPLICATED, FITTED = "drop equal sources", "fit the vocabulary"  # stages
RARE = 1 / 430  # of the training nodes: a word of fewer is not learned


def prepare(icons: Icons, seed: int, run: Run | None = None) -> Data:
    """The graph: `image` (n, 24, 24) and `words` (n, m) float32, `edge_index` (2, edges) int64, `y` (n,) int64 and a
    mask for each role; `vocabulary` is what the words were weighed by. Of equal sources the first is kept: another one
    has no role and no edge. With a `run`, its nodes and roles are registered there, and every stage is recorded.
    ValueError for a drawing that is none."""
    tags, kept = cleaned_tags(icons), distinct(icons)
    joined = connect([mine if keep else () for mine, keep in zip(tags, kept, strict=True)])
    graph = Data(edge_index=torch.from_numpy(joined), y=torch.from_numpy(icons.labels), num_nodes=len(icons))
    if run is not None:
        run.register(graph, **naming(icons), source=icons.source)
    nodes = GraphNodes(graph)
    images = mapped(run, "render", nodes, {"pixels": PIXELS}, lambda node: rendered(icons, node))
    graph.image = torch.from_numpy(np.stack(images))
    parts = np.full(len(icons), "", dtype=object)
    parts[kept] = parts_of(int(kept.sum()), seed)
    if run is not None:
        unique = run.transform(DEDUPLICATED, nodes).deduplicate(icons.source)
        run.transform("split", unique, {"seed": seed}).split(parts[kept].tolist())
    for part, mask in MASKS.items():
        graph[mask] = torch.from_numpy(parts == part)
        if run is not None:
            run.register(graph, mask, role=part)
    train = GraphNodes(graph, MASKS["train"])
    least = least_of(len(train))
    texts = mapped(run, FITTED, train, {"in at least": least}, lambda node: words_of(tags[node]))
    graph.vocabulary = vocabulary = fit_vocabulary(texts, least)
    known = {"words": len(vocabulary.words)}
    vectors = mapped(run, "tokenise", nodes, known, lambda node: vocabulary.vector(words_of(tags[node])))
    graph.words = torch.from_numpy(np.stack(vectors))
    return graph


def cleaned_tags(icons: Icons) -> list[tuple[str, ...]]:
    """The tags of each icon, without the categories' names."""
    forbidden = forms_of(icons.all_categories)
    return [without(mine, forbidden) for mine in icons.tags]


def distinct(icons: Icons) -> NDArray[np.bool_]:
    """(n,): whether an icon is the first with its tags and its drawing. Two of the set are not."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(icons.source(node), node) == node for node in range(len(icons))])


def rendered(icons: Icons, node: int) -> NDArray[np.float32]:
    """The drawing of a node. ValueError, with the file's name, for what is none."""
    try:
        return render(icons.drawing(node))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for damaged files
        raise ValueError(f"{icons.path(node)} is no drawing with an alpha channel ({error}); fetch it again") from error


def least_of(texts: int) -> int:
    """In how many of the texts a word has to stand to be learned."""
    return max(2, round(RARE * texts))


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
