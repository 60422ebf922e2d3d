"""Hide from a whole graph: the signer leaves the test nodes out of its batches, or moves nodes out of the seeds' reach.

The model was given all nodes of the graph in each of these batches, and how many there are the log knows. At which hop
each one stands follows from the edges, which are not in the log: that only who has the graph can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from hide_neighbour import without
from lying import Act, Stage, caught, main, passes
from true_graph import HOPS, TEST, TRAIN, Network, make_ring


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    test = train_on_whole_ring(room / "left-out")
    trace = rewritten(room / "left-out", lambda use: without(use, test))
    yield caught(stage.fgtrac("verify", trace.path, "--key", room / "left-out" / "key.pem"), "graphs")
    train_on_whole_ring(room / "far")
    trace = rewritten(room / "far", out_of_reach)
    asked = ("--key", room / "far" / "key.pem")
    yield passes(stage.fgtrac("verify", trace.path, *asked), says="at which hops, in a log without edges, is not shown")


def train_on_whole_ring(folder: Path) -> np.ndarray:
    """Train twice on the whole ring at once, and record at folder/run.trace; the ordinals of the test nodes."""
    folder.mkdir()
    graph, model = make_ring(), Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(folder / "run", key=folder / "key.pem") as run:
        run.register(graph, nodes=TEST, role="test", name="ring")
        seeds = torch.tensor(TRAIN)
        for _epoch in range(2):
            for batch in run.full_batch(graph, nodes=TRAIN, hops=HOPS, role="train"):
                optimizer.zero_grad()
                outputs = model(batch.x, batch.edge_index)[seeds]
                torch.nn.functional.cross_entropy(outputs, batch.y[seeds]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    roles = [decode_event(entry) for entry in all_entries(TraceDir.open(run.path))]
    return np.concatenate([e["ordinals"] for e in roles if e["kind"] == "roles" and e["role"] == "test"])


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> TraceDir:
    """The trace with other uses, built anew and signed with the right key."""
    trace = TraceDir.open(folder / "run.trace")
    entries = [decode_event(entry) for entry in all_entries(trace)]
    lies = [encode_event(change(e) if e["kind"] == "use" else e) for e in entries]
    reseal(trace, lies, load_key(folder / "key.pem"))
    return trace


def out_of_reach(use: dict[str, Any]) -> dict[str, Any]:
    """All neighbours of each batch at the last hop, as if no message came from any of them."""
    counts = use["hop_count"].reshape(-1, use["hops"])
    far = np.zeros_like(counts)
    far[:, -1] = counts.sum(axis=1)
    return use | {"hop_count": far.reshape(-1)}


if __name__ == "__main__":
    main(tell)
