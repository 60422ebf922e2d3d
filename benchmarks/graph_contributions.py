"""What contributions on the demo's graph cost, and how well the neighbours' estimates stand for their occlusions.

forward_s              one pass over the whole graph without gradients, processor seconds on one thread as all here
factors_s              factors of all nodes, and contributions, at one kept checkpoint, with all rows in one batch;
                       factors_256_s with batches of 256 rows, each of which takes a pass over the graph
bytes_per_sample       of factors at one checkpoint
neighbours_s           one answer of `neighbour_contributions` at one checkpoint, 20 neighbours occluded
found_of_ten           of the ten neighbours with the largest occlusions, how many are among the twenty with the largest
                       estimates; the mean over wrong predictions of test nodes, all of whose field is occluded
rank_correlation       of estimates and occlusions over all of the field, the mean; _of_twenty over those twenty
same_sign              the share of these twenty whose estimate has the sign of the occlusion
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

import fgtrac
from fgtrac.api.neighbour_answer import NeighbourContributions
from fgtrac.api.run import Run
from fgtrac.demo.graph.network import MODALITIES
from fgtrac.demo.graph.training import predict, train
from fgtrac.demo.training import one_thread
from fgtrac.score.fidelity import spearman
from harness import parse_arguments, report
from reproduced.graph import make_data, read_graph

EPOCHS = 4
TARGETS = 8
MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}


def forward(model: nn.Module, nodes: torch.Tensor, graph: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and labels of some nodes, from a pass over the whole graph."""
    return model(graph)[nodes], graph.y[nodes]


def train_and_score(graph: Data, folder: Path, batch_size: int) -> tuple[nn.Module, float, int]:
    """A training under trace, scored behind it: the model, seconds and bytes of factors at each kept checkpoint."""

    def score_with(run: Run) -> None:
        data = {role: fgtrac.GraphNodes(graph, mask) for role, mask in MASKS.items()}
        how: dict[str, Any] = {"forward": lambda model, nodes: forward(model, nodes, graph), "factors": "later"}
        run.score_with(loss=cross_entropy, batch_size=batch_size, **data, **how)

    with fgtrac.start_run(folder / "run", key=folder / "key.pem", keep="all") as run:
        for role, mask in MASKS.items():
            run.register(graph, mask, role=role)
        score_with(run)
        model = train(
            graph, seed=0, epochs=EPOCHS, watch=lambda loader: run.watch(loader, role="train"),
            after_epoch=lambda model, optimizer, loss: run.checkpoint(model, optimizer, val_loss=loss),
        ).model  # fmt: skip
        began = time.process_time()
        run.score(model)
        took, cost = time.process_time() - began, run.scoring_cost
    assert cost is not None
    return model, took / EPOCHS, cost.measured_bytes // cost.checkpoints


def ask(trace: Any, graph: Data, model: nn.Module, node: int, k: int | None) -> NeighbourContributions:
    """One node's answer at the last checkpoint."""
    last = [trace._explainer.ledger.states[-1].step]
    answer: NeighbourContributions = trace.neighbour_contributions(
        f"graph:{node}", model=model, data=graph, loss=cross_entropy, forward=forward, features=MODALITIES, k=k,
        checkpoints=last,
    )  # fmt: skip
    return answer


def judge(answer: NeighbourContributions) -> tuple[float, float, float, float]:
    """found_of_ten, rank_correlation, rank_correlation_of_twenty and same_sign of one answer over its whole field."""
    numbers = np.array([(row.estimate, row.occlusion) for row in answer.rows])
    estimates, occlusions = numbers.T
    twenty, ten = (np.argsort(-np.abs(values), kind="stable")[:k] for values, k in ((estimates, 20), (occlusions, 10)))
    over = [float(spearman(estimates[some, None], occlusions[some, None])[0]) for some in (slice(None), twenty)]
    same = np.sign(estimates[twenty]) == np.sign(occlusions[twenty])
    return float(np.isin(ten, twenty).sum()) * 10 / len(ten), *over, float(same.mean())


def main() -> None:
    figures: dict[str, float | None] = {}
    with one_thread(), tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        make_data(Path(one), parse_arguments().data_dir)
        graph = read_graph(Path(one))
        nodes = int(graph.num_nodes or 0)
        figures["factors_256_s"] = train_and_score(graph, Path(other), 256)[1]
        model, figures["factors_s"], size = train_and_score(graph, Path(one), nodes)
        figures["bytes_per_sample"] = size / nodes
        began = time.process_time()
        said = predict(model, graph)[0].argmax(1)
        figures["forward_s"] = time.process_time() - began
        trace = fgtrac.open(Path(one) / "run.trace")
        wrong = torch.nonzero(graph.test_mask & (said != graph.y)).flatten().numpy()
        targets = np.random.default_rng(0).choice(wrong, TARGETS, replace=False).tolist()
        began = time.process_time()
        ask(trace, graph, model, targets[0], 20)
        figures["neighbours_s"] = time.process_time() - began
        found = [judge(ask(trace, graph, model, node, None)) for node in targets]
    means = np.mean(found, axis=0).tolist()
    figures |= zip(("found_of_ten", "rank_correlation", "rank_correlation_of_twenty", "same_sign"), means, strict=True)
    report("graph_contributions", figures, f"{nodes:,} nodes, {EPOCHS} epochs, {TARGETS} wrong predictions")


if __name__ == "__main__":
    main()
