"""What capture costs the demo's graph network, and what that network reaches, with both modalities and with one.

test_accuracy          of image and words with the graph, the mean of three seeds; _error is its standard error
test_accuracy_words    of words alone, test_accuracy_image of images alone, both without the graph
own_time_share         as in capture_overhead.py, with a checkpoint every three passes over the training nodes (a few
                       seconds): hooks, loader patches, flushes, checkpoints with what they write, the thread that
                       writes and the seals, over the loop's time, on one thread; no modality weights are recorded.
                       _each_epoch is the same with a checkpoint after each pass that keeps all nodes' weights, too:
                       checking and writing them is in it, the model's pass that gives them is not.
                       _without_checkpoints is own_time_share with no checkpoint counted
attention_pass_share   those passes, over the time of that same training, which has one after each pass over its nodes
graph_ratio            blocks of half a pass with and without a run, alternating in one process; aa_ratio compares two
                       arms that both train without
weights_identical      1 where a whole training with seed 0 comes to the same weights with and without, bit for bit
events                 of it: uses as a seed, and appearances as a neighbour; bytes_per_event is what the log has of
                       them, index_bytes_per_event the index
attention_ms           one kept checkpoint's modality weights of all nodes, with the pass that gives them

The trainings for accuracy run side by side; those for time run alone.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch_geometric.data import Data

from capture_overhead import Arm, compare, compared, measure_own_time
from fgtrac.api.run import start_run
from fgtrac.demo.figures import count_uses, folder_bytes
from fgtrac.demo.graph.network import MODALITIES, IconNetwork
from fgtrac.demo.graph.training import make_loader, train
from fgtrac.demo.training import one_thread, weights_digest
from fgtrac.store.trace_dir import TraceDir
from harness import parse_arguments, report
from reproduced.graph import make_data, read_graph
from reproduced.measure import Costs

SEEDS = range(3)
PASSES_A_CHECKPOINT = 3
OWN_TIME_S = 20.0
ARM_S = 30.0
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "_words": {"modalities": ("words",), "edges": False},
    "_image": {"modalities": ("image",), "edges": False},
}


class GraphArm(Arm):
    """The graph network in training."""

    def __init__(self, graph: Data) -> None:
        self.loader = make_loader(graph, 0)
        torch.manual_seed(0)
        self.model = IconNetwork(graph.words.shape[1], int(graph.y.max()) + 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-3, weight_decay=1e-4)
        self.seconds = []
        self._graph = graph
        self.restart()

    def loss(self, batch: Data) -> torch.Tensor:
        """Of the seeds."""
        seeds = slice(batch.batch_size)
        return functional.cross_entropy(self.model(batch)[seeds], batch.y[seeds])

    def attend(self, run: Any, costs: Costs) -> None:
        """Have the modality weights of all nodes recorded at each checkpoint, the model's passes kept apart."""
        weigh = costs.passed(lambda model: model.modality_weights(self._graph))
        run.attention_with(weights=weigh, data=self._graph, modalities=MODALITIES)


def train_alone(shared: Path, kind: str, seed: int) -> tuple[float, str]:
    """A whole training without fgtrac: its accuracy on the test nodes, and its weights."""
    with one_thread():
        trained = train(read_graph(shared), seed=seed, **KINDS[kind])
    return trained.test_accuracy, weights_digest(trained.model)


def train_traced(shared: Path) -> tuple[str, dict[str, float]]:
    """The one with seed 0 under trace: its weights, and what was recorded."""
    graph = read_graph(shared)
    with tempfile.TemporaryDirectory() as name, one_thread():
        folder = Path(name)
        with start_run(folder / "run", key=folder / "key.pem") as run:
            trained = train(
                graph,
                seed=0,
                watch=lambda loader: run.watch(loader, role="train"),
                after_epoch=lambda model, optimizer, loss: run.checkpoint(model, optimizer, val_loss=loss),
            )
            run.checkpoint(trained.model, val_loss=0.0)
            began_s = time.perf_counter()
            run.attention(graph, trained.model.modality_weights(graph), MODALITIES)
            attention_s = time.perf_counter() - began_s
        figures = recorded(TraceDir.open(folder / "run.trace"))
    return weights_digest(trained.model), figures | {"attention_ms": 1e3 * attention_s}


def recorded(trace: TraceDir) -> dict[str, float]:
    """Uses and appearances in the log, and their bytes."""
    seeds, neighbours, use_bytes = count_uses(trace)
    events = seeds + neighbours
    index_bytes = folder_bytes(trace, "index")
    return {
        "events_as_seed": seeds,
        "events_as_neighbour": neighbours,
        "bytes_per_event": use_bytes / events,
        "index_bytes_per_event": index_bytes / events,
    }


def measure_trainings(shared: Path) -> dict[str, float]:
    """Whole trainings, as many at once as there are cores."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        traced = pool.submit(train_traced, shared)
        alone = {kind: [pool.submit(train_alone, shared, kind, seed) for seed in SEEDS] for kind in KINDS}
        reached = {kind: [job.result()[0] for job in jobs] for kind, jobs in alone.items()}
        weights, figures = traced.result()
        figures["weights_identical"] = float(weights == alone[""][0].result()[1])
    accuracies = {f"test_accuracy{kind}": statistics.fmean(values) for kind, values in reached.items()}
    error = statistics.stdev(reached[""]) / len(SEEDS) ** 0.5
    return accuracies | {"test_accuracy_error": error} | figures


def measure_times(graph: Data) -> tuple[dict[str, float], str]:
    """Own time, then blocks with and without in turn, on one thread."""
    with one_thread():
        steps = len(GraphArm(graph).loader)  # of a pass
        own = measure_own_time(GraphArm(graph), PASSES_A_CHECKPOINT * steps, OWN_TIME_S)
        each = GraphArm(graph)
        each_epoch = measure_own_time(each, steps, OWN_TIME_S, each.attend)
        plain, control, traced = compare(lambda: GraphArm(graph), steps // 2, ARM_S)
    ratios, verdict = compared("graph", plain, control, traced)
    figures = {
        "own_time_share": own.pop("share"),
        "own_time_share_each_epoch": each_epoch["share"],
        "own_time_share_without_checkpoints": own.pop("without_checkpoints"),
        "attention_pass_share": each_epoch["passes_share"],
    }
    del own["passes_share"]
    return figures | own | ratios, verdict


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fgtrac-graph-") as name:
        shared = Path(name)
        make_data(shared, parse_arguments().data_dir)
        times, verdict = measure_times(read_graph(shared))
        trainings = measure_trainings(shared)
    report("graph_overhead", trainings | times, verdict)


if __name__ == "__main__":
    main()
