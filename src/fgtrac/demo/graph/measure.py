"""What the demo measures of its graph: what went in, what was left out, and what the words were fitted on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from fgtrac.demo.graph.features import fit_vocabulary, forms_of, words_of
from fgtrac.demo.graph.icons import Icons
from fgtrac.demo.graph.prepare import DEDUPLICATED, FITTED, MASKS, NAME, cleaned_tags, least_of, owners
from fgtrac.demo.truth import Told


def data_figures(icons: Icons, graph: Data, trace: Path) -> dict[str, Any]:
    """What went in and what came of it; of the stages, what the log of `trace` says."""
    sources, targets = graph.edge_index
    told = Told(trace, NAME, {name: node for node, name in enumerate(icons.names)}.__getitem__)
    without_role = np.flatnonzero(~sum(graph[mask] for mask in MASKS.values()).bool().numpy())
    return {
        "icons": len(icons),
        "categories": len(icons.categories),
        "words": graph.words.shape[1],
        "pixels": graph.image.shape[1],
        "edges": graph.num_edges,
        "in_category": float((graph.y[sources] == graph.y[targets]).float().mean()),
        "largest": float(torch.bincount(graph.y).max() / len(graph.y)),
        "owners": len(set(owners(len(icons)))),
        **{role: int(graph[mask].sum()) for role, mask in MASKS.items()},
        "dropped": len(without_role),
        "dropped_in_log": np.array_equal(told.stage(DEDUPLICATED, "dropped"), without_role),
        "equal_sources_left": equal_sources(icons, graph),
        "category_words_left": category_words(icons, graph),
        "fitted_on_train": is_fitted_on_train(icons, graph),
        "fitted_on_train_in_log": np.array_equal(told.stage(FITTED), graph.train_mask.nonzero().flatten().numpy()),
    }


def equal_sources(icons: Icons, graph: Data) -> int:
    """How many of the nodes with a role have the tags and the drawing of another one."""
    nodes = np.concatenate([graph[mask].nonzero().flatten().numpy() for mask in MASKS.values()])
    return len(nodes) - len({hashlib.sha256(icons.source(int(node))).digest() for node in nodes})


def category_words(icons: Icons, graph: Data) -> list[str]:
    """The words of categories' names that are left in the tags, which make the edges, or among the network's words."""
    left = {word for tags in cleaned_tags(icons) for word in words_of(tags)} | set(graph.vocabulary.words)
    return sorted(left & forms_of(icons.all_categories))


def is_fitted_on_train(icons: Icons, graph: Data) -> bool:
    """Whether the training nodes alone give the words that the network knows, and their weights."""
    tags = cleaned_tags(icons)
    texts = [words_of(tags[node]) for node in graph.train_mask.nonzero().flatten().tolist()]
    again = fit_vocabulary(texts, least_of(len(texts)))
    known = graph.vocabulary
    return bool(again.words == known.words and np.array_equal(again.weights, known.weights))
