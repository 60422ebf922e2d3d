"""What the demo asks of its trace: a node's history, a subject's, modality weights, proofs, and what policies say."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch_geometric.data import Data

from fgtrac.api.check import check_trace
from fgtrac.api.run import start_run
from fgtrac.api.trace import Trace
from fgtrac.demo.graph.icons import Icons
from fgtrac.demo.graph.network import IconNetwork
from fgtrac.demo.graph.prepare import MASKS, NAME, called, naming, owners
from fgtrac.demo.graph.training import Trained, train
from fgtrac.demo.truth import Update, compare
from fgtrac.store import durable
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict

POLICY = """format = "fgtrac-policies/v1"

[held-out-contents]
# Digests of contents are made under each owner's key, and those of two owners cannot be compared. Equal sources were
# dropped before the split instead.
on = false
"""
RECOMPUTED = 20  # nodes whose modality weights are computed again from the committed checkpoint


@dataclass(frozen=True)
class Finished:
    """A traced training that is over: its trace, opened, and what went into it and came of it."""

    trace: Trace
    icons: Icons
    graph: Data
    trained: Trained
    public_key: bytes

    def called(self, node: int) -> str:
        """A node's name in the trace."""
        return called(self.icons, node)

    @cached_property
    def node_of(self) -> dict[str, int]:
        """The node of each name."""
        return {self.called(node): node for node in range(len(self.icons))}


def node_history(done: Finished, node: int, received: NDArray[np.int64]) -> dict[str, Any]:
    """The whole history of one node; `agrees` where its part in training is what the forward pass received."""
    found = done.trace.history(done.called(node))
    counted = [found.tally.seeds, *(found.tally.at_hop(hop) for hop in range(1, received.shape[1]))]
    agrees = counted == received[node].tolist()
    return {"sample": found.name, "counted": counted, "agrees": agrees, "text": found.text()}


def truth(done: Finished, updates: list[Update]) -> dict[str, Any]:
    """The log, the index and some histories against what the forward pass received, step by step and hop by hop."""
    node_of = {name: node for node, name in enumerate(done.icons.names)}
    return compare(done.trace.path, NAME, node_of.__getitem__, updates)


def one_owner(done: Finished) -> dict[str, Any]:
    """What happened to all icons of one owner: the first who has three to six, some for training and some for the test,
    or else the first of all."""
    owned: dict[str, list[int]] = defaultdict(list)
    for node, owner in enumerate(owners(len(done.icons))):
        owned[owner].append(node)
    held = [done.graph[MASKS[role]] for role in ("train", "test")]
    fit = [o for o, mine in owned.items() if 3 <= len(mine) <= 6 and all(bool(mask[mine].any()) for mask in held)]
    owner = min(fit or owned)
    found = done.trace.subject(owner)
    complete = {sample.name for sample in found.samples} == {done.called(node) for node in owned[owner]}
    return {"owner": owner, "icons": len(found.samples), "complete": complete, "text": found.text()}


def modality_weights(done: Finished) -> dict[str, Any]:
    """The mean weights at each kept checkpoint, the nodes that lean most to one side, and random nodes' weights
    recomputed from the last kept checkpoint's file."""
    recorded = done.trace.modality_weights()
    last, nodes = recorded[-1], len(done.icons)
    node_of = {done.trace.find(name).id: node for name, node in done.node_of.items()}
    rows = np.empty((nodes, len(last.modalities)), np.float32)
    rows[[node_of[sample.tobytes()] for sample in last.ids]] = last.weights
    chosen = np.random.default_rng(0).choice(nodes, RECOMPUTED, replace=False)
    recomputed = weights_of(committed(done, last.step), done.graph)
    most = {name: int(rows[:, column].argmax()) for column, name in enumerate(last.modalities)}
    return {
        "modalities": list(last.modalities),
        "nodes": nodes,
        "mean": [{"step": w.step, "weights": w.weights.mean(axis=0, dtype=np.float64).tolist()} for w in recorded],
        "most": {name: {"sample": done.called(n), "weights": rows[n].tolist()} for name, n in most.items()},
        "recomputed": RECOMPUTED,
        "equal": int((rows[chosen] == recomputed[chosen]).all(axis=1).sum()),
    }


def committed(done: Finished, step: int) -> IconNetwork:
    """The network of a kept checkpoint, from its file in the trace."""
    (path,) = (done.trace.path / "artifacts").glob(f"checkpoint-{step:08d}-*.safetensors")
    network = copy.deepcopy(done.trained.model)
    network.load_state_dict(load_file(path))
    return network


@torch.no_grad()
def weights_of(network: IconNetwork, graph: Data) -> NDArray[np.float32]:
    """(n, modalities): each node's modality weights, in eval mode."""
    weights: NDArray[np.float32] = network.eval().modality_weights(graph).numpy()
    return weights


def proofs(done: Finished, trained: int, held_out: int) -> list[dict[str, Any]]:
    """A bundle that a training node was used, and one that a test node's label never was, checked from their bytes."""
    verifier = Verifier(ORIGIN_PREFIX + done.trace.id.hex(), done.public_key)
    out = []
    for node, claim in ((trained, "used"), (held_out, "label never used")):
        data = done.trace.prove(done.called(node), claim)
        bundle = parse_bundle(data)
        report = check_bundle(bundle, verifier)
        said = {"claim": bundle.words, "bytes": len(data), "verdict": str(report.verdict)}
        out.append(said | {"as_foretold": report.verdict is Verdict.HOLDS})
    return out


def policies(path: Path, file: Path, public_key: bytes) -> dict[str, Any]:
    """What the policies of POLICY, which is written to a file, say of a trace."""
    durable.write_file(file, POLICY.encode(), sync=False)
    checked = check_trace(path, public_key.hex(), policy=file)
    found = {finding.check: finding for finding in checked.report.findings}
    said = [found[name] for name in ("held-out", "every-training-sample-used", "erased-subjects")]
    return {
        "verdict": str(checked.report.verdict),
        "refuted": [f.check for f in checked.report.findings if f.verdict is Verdict.REFUTED],
        "policies": [{"policy": f.check, "verdict": str(f.verdict), "words": f.words} for f in said],
        "violations": [row for row in checked.violations(3) if row["policy"] == "held-out"],
    }


def leak(done: Finished, folder: Path, policy: Path, node: int, *, seed: int, key: Path | None) -> dict[str, Any]:
    """Another training under trace, of one epoch, in a folder: the program puts a test node among the seeds. What the
    policies in a file say of that."""
    graph = copy.copy(done.graph)
    with start_run(folder / "leaky", key=key) as run:
        run.register(graph, **naming(done.icons), source=done.icons.source)
        for role, mask in MASKS.items():
            run.register(graph, mask, role=role)
        graph.train_mask = graph.train_mask.clone()
        graph.train_mask[node] = True
        train(graph, seed=seed, epochs=1, watch=run.watch)
    return {"sample": done.called(node), **policies(run.path, policy, done.public_key)}
