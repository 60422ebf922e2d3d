"""One wrong prediction of the graph network: who taught it by training, and, apart from that, whose messages did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data

from fgtrac.api.explanation import Scored
from fgtrac.api.neighbour_answer import CAUTION
from fgtrac.demo.graph.network import MODALITIES, IconNetwork
from fgtrac.demo.graph.prepare import naming
from fgtrac.demo.graph.questions import Finished
from fgtrac.demo.graph.training import predict
from fgtrac.demo.pictures import MARGIN, Picture, teachers

METHOD = "tracin"  # the paper's; the Fisher matrix of this head, 2,910 x 2,910, takes seconds a checkpoint
SHOWN = 5
OCCLUDED = 8  # neighbours whose features are replaced, each by a pass over the graph


@dataclass(frozen=True, slots=True)
class Mistake:
    """The test node with the highest loss among those that the model got wrong, and the class that it said."""

    node: int
    said: int
    loss: float


def worst_mistake(model: IconNetwork, graph: Data) -> Mistake | None:
    """The mistake, if there is any."""
    logits, losses = predict(model, graph)
    said = logits.argmax(1)
    wrong = torch.nonzero(graph.test_mask & (said != graph.y)).flatten()
    if not len(wrong):
        return None
    worst = int(wrong[losses[wrong].argmax()])
    return Mistake(worst, int(said[worst]), float(losses[worst]))


def by_training(done: Finished, mistake: Mistake, out: Path | None) -> dict[str, Any]:
    """Proponents and opponents of the mistake, with their pictures; also as a page at `out`."""
    icons, graph = done.icons, done.graph
    answer = done.trace.explain(done.called(mistake.node), method=METHOD, k=SHOWN)
    (toward,) = answer.toward
    label, said = (icons.categories[n] for n in (int(icons.labels[mistake.node]), mistake.said))
    title = f"{icons.names[mistake.node]}: {label}, taken for {said}"
    target = Picture(drawn(graph, mistake.node), (icons.names[mistake.node], f"{label}, taken for {said}"))
    question = "Who taught the network this wrong answer?"
    return {
        "title": title,
        "mistake": {"sample": done.called(mistake.node), "label": label, "said": said, "loss": mistake.loss},
        "categories": list(icons.categories),
        "weights": [{"step": one.step, "weights": one.weights[0].tolist()} for one in toward.attention],
    } | teachers(answer, target, lambda one: picture(done, one), question, out)


def by_messages(done: Finished, mistake: Mistake) -> dict[str, Any]:
    """What the features of its neighbours did to the mistake's loss, in the model that made it."""

    def forward(network: nn.Module, nodes: torch.Tensor, seen: Data) -> tuple[torch.Tensor, torch.Tensor]:
        return network(seen)[nodes], seen.y[nodes]

    step = done.trained.best_step
    found = done.trace.neighbour_contributions(
        done.called(mistake.node), model=done.trained.model, data=done.graph, loss=functional.cross_entropy,
        forward=forward, features=MODALITIES, k=OCCLUDED, checkpoints=[step], **naming(done.icons),
    )  # fmt: skip
    category = [done.icons.categories[label] for label in done.icons.labels.tolist()]
    rows = [row.as_json() | {"category": category[row.node]} for row in found.rows]
    return {
        "step": step,
        "receptive_field": len(found.nodes),
        "rows": rows,
        "fidelity": found.fidelity[-1],
        "basis": found.basis,
        "caution": CAUTION,
    }


def picture(done: Finished, sample: Scored) -> Picture:
    """A training icon with its category and its score."""
    node = done.node_of[str(sample.name)]
    category = done.icons.categories[done.icons.labels[node]]
    return Picture(drawn(done.graph, node), (done.icons.names[node], category, f"{sample.score:+.3g}"), sample.trace)


def drawn(graph: Data, node: int) -> NDArray[np.uint8]:
    """What the network sees of an icon, brighter, with a margin around it."""
    bright = np.minimum(2 * 255 * graph.image[node].numpy(), 255).astype(np.uint8)
    return np.pad(bright, MARGIN)
