"""A trace of a made-up graph, written without torch: who was seed and who neighbour in each update, whose the nodes
are, and what a model weighed of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.commit.signer import Signer
from fgtrac.events.codec import encode
from fgtrac.events.identity import keyed_id, preimage, subject_commitment
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from traces import TRACE_ID, Made, Writing

GRAPH = "icons"
OWNERS: tuple[str | int, ...] = ("ada", "bob", 7)
MODALITIES = ("image", "words")
HELD_OUT = 2  # the last nodes are never a seed


@dataclass(frozen=True, slots=True)
class Update:
    """One applied batch: who was a seed, and who a neighbour at hop 1, 2, ..."""

    epoch: int
    step: int
    graph: str
    seeds: tuple[int, ...]
    hops: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class GraphLife:
    """The trace, and what is true of it."""

    made: Made
    updates: tuple[Update, ...]
    pseudonyms: dict[str | int, bytes]

    @property
    def path(self) -> Path:
        return self.made.trace.path

    def name(self, node: int) -> str:
        return f"id:{self.made.ids[node].hex()}"

    def owned(self, owner: str | int) -> list[int]:
        return [node for node in range(len(self.made.ids)) if owner_of(node) == owner]


def owner_of(node: int) -> str | int:
    return OWNERS[node % len(OWNERS)]


def weights_of(node: int, step: int) -> list[float]:
    image = ((node + step) % 8 + 1) / 16
    return [image, 1 - image]


def graph_life(
    folder: Path,
    *,
    nodes: int = 12,
    epochs: int = 3,
    graph: Sequence[str] = ("sampled",),
    batches_an_entry: int = 4,
    weighed: bool = True,
    ended: bool = True,
    one_drawn: bool = False,
) -> GraphLife:
    """Two updates an epoch; each loader (`graph` says of what kind) has its own epochs, one after the other. Of a whole
    graph hop 3 is beyond reach; with `one_drawn` the second update is a sampler's, of three hops and with the last node
    at the third, which is not. After each epoch a state is kept, with every node's weights of two modalities."""
    made, vault, secrets = _begin(folder, nodes)
    writing = Writing(made, bytes((1,)) * 16)
    _register(writing, secrets)
    rng, updates, epoch = np.random.default_rng(3), list[Update](), 0
    for loader, kind in enumerate(graph, 1):
        for _ in range(epochs):
            mine = [_update(rng, nodes, epoch, len(updates) + n + 1, kind) for n in range(2)]
            if one_drawn and not updates:
                mine[1] = Update(epoch, mine[1].step, "sampled", (0,), ((1,), (2,), (nodes - 1,)))
            for at in range(0, len(mine), batches_an_entry):
                record_use(writing, loader, mine[at : at + batches_an_entry])
            updates += mine
            reference = _keep(writing, updates[-1].step)
            if weighed:
                _weigh(writing, reference, updates[-1].step)
            epoch += 1
    if ended:
        writing.end()
    made.seal()
    vault.close()
    return GraphLife(made, tuple(updates), {o: subject_commitment(s) for o, s in secrets.items()})


def record_use(writing: Writing, loader: int, updates: Sequence[Update]) -> None:
    """One `use` entry for these updates."""
    n, ordinal = len(updates), writing.placement.ordinals
    hops = [hop for update in updates for hop in update.hops]
    writing.recorder.record(
        "use",
        {
            "loader": loader, "optimizer": 1, "block": writing.block, "graph": updates[0].graph,
            "epoch": np.array([u.epoch for u in updates], "<u4"), "batch": np.arange(n, dtype="<u4"),
            "step": np.array([u.step for u in updates], "<u8"),
            "status": np.full(n, STATUS["applied"], "<u1"), "attribution": np.full(n, ATTRIBUTION["exact"], "<u1"),
            "count": np.array([len(u.seeds) for u in updates], "<u4"),
            "ordinals": ordinal[[s for u in updates for s in u.seeds]],
            "hops": len(updates[0].hops), "hop_count": np.array([len(hop) for hop in hops], "<u4"),
            "hop_ordinals": ordinal[[node for hop in hops for node in hop]],
        },
    )  # fmt: skip


def _update(rng: np.random.Generator, nodes: int, epoch: int, step: int, graph: str) -> Update:
    """Seeds among the nodes that are not held out; of the others half at two hops, of a whole graph all at three."""
    seeds = rng.choice(nodes - HELD_OUT, max(1, nodes // 4), replace=False)
    others = rng.permutation(np.setdiff1d(np.arange(nodes), seeds))
    if graph == "sampled":
        others = others[: nodes // 2]
    hops = np.array_split(others, 2 if graph == "sampled" else 3)
    return Update(epoch, step, graph, tuple(seeds.tolist()), tuple(tuple(h.tolist()) for h in hops))


def _begin(folder: Path, nodes: int) -> tuple[Made, Vault, dict[str | int, bytes]]:
    signer, vault = Signer.open(TRACE_ID, folder / "key.pem"), Vault.create(folder / "run.vault", TRACE_ID)
    vault.secret("run")
    secrets = {owner: vault.secret(f"subject:{encode(owner).hex()}") for owner in OWNERS}
    ids = [keyed_id(secrets[owner_of(node)], preimage(GRAPH, node)) for node in range(nodes)]
    vault.put_names((i, GRAPH, encode(node), str(owner_of(node))) for node, i in enumerate(ids))
    return Made(TraceDir.create(folder / "run.trace"), signer, tuple(ids)), vault, secrets


def _register(writing: Writing, secrets: dict[str | int, bytes]) -> None:
    writing.run_entry("public")
    record, ids, ordinal = writing.recorder.record, writing.made.ids, writing.placement.ordinals
    record("dataset", {"name": GRAPH, "id_scheme": "subject", "rows": len(ids), "keys": "rows"})
    order = np.argsort(ordinal)
    size = 900  # samples a part: an entry has 65,535 bytes
    cuts = range(0, len(ids), size)
    for part, at in enumerate(cuts):
        here = order[at : at + size]
        columns = {
            "ids": b"".join(ids[n] for n in here),
            "subjects": b"".join(subject_commitment(secrets[owner_of(int(n))]) for n in here),
        }
        record("samples", {"dataset": GRAPH, "block": writing.block, "part": part, "parts": len(cuts), **columns})
    for role, mine in (("train", ordinal[:-HELD_OUT]), ("test", ordinal[-HELD_OUT:])):
        record("roles", {"role": role, "block": writing.block, "ordinals": mine})


def _keep(writing: Writing, step: int) -> Any:
    return writing.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "kept: improved"})


def _weigh(writing: Writing, reference: Any, step: int) -> None:
    nodes = len(writing.made.ids)
    weights = np.array([weights_of(node, step) for node in range(nodes)], "<f4")
    said = {"checkpoint": list(reference), "step": step, "modalities": list(MODALITIES), "block": writing.block}
    writing.recorder.record(
        "attention", {**said, "ordinals": writing.placement.ordinals, "weights": weights.reshape(-1)}
    )
