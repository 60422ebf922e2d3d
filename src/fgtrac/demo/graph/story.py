"""`fgtrac demo graph`: a multimodal graph network trained with and without fgtrac, its trace questioned and attacked.

Every figure is measured in the run that prints it. A claim that does not hold stands in `failures`, and the command
then fails.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn
from torch_geometric.data import Data

from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.run import Run, start_run
from fgtrac.api.trace import open_trace
from fgtrac.capture.graph import GraphNodes
from fgtrac.capture.own_time import own_time
from fgtrac.commit.keys import default_key_path, load_key
from fgtrac.demo import anchoring
from fgtrac.demo import show as shared
from fgtrac.demo.figures import Recorded, bar, beside, cost_figures, scoring_figures, timed, verification_figures
from fgtrac.demo.graph import explained, questions, show
from fgtrac.demo.graph.fetch import cache_folder, fetch_icons
from fgtrac.demo.graph.icons import Icons, load_icons
from fgtrac.demo.graph.measure import data_figures
from fgtrac.demo.graph.network import MODALITIES, IconNetwork
from fgtrac.demo.graph.prepare import MASKS, prepare
from fgtrac.demo.graph.questions import Finished
from fgtrac.demo.graph.training import BATCH_SIZE, EPOCHS, FAN_OUT, Trained, predict, train
from fgtrac.demo.graph.witness import Witness, counts_of
from fgtrac.demo.own_data import ui_command
from fgtrac.demo.training import one_thread, weights_digest
from fgtrac.demo.truth import Update, received
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict

SEED = 20260121
WHOLE_GRAPH = 1 << 13  # rows of a scoring batch: every batch takes a pass over the graph, so let there be one a role
FEW = 200  # test nodes: with fewer, which network is right more often is a matter of luck, and nothing is claimed
ALONE = (("words",), ("image",))  # what is trained for comparison, without the graph

Tick = Callable[[str], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Traced:
    """The traced training: its graph, what it came to, and what recording took."""

    graph: Data
    trained: Trained
    recorded: Recorded


def run_demo(
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    small: bool = False,
    key: Path | None = None,
    anchor: Literal["evm"] | None = None,
    console: Console | None = None,
    progress: Console | None = None,
) -> dict[str, Any]:
    """Run the whole demo and return its figures; `failures` among them is empty where every claim holds.

    `out` keeps the trace at OUT.trace (otherwise it goes with a temporary folder), a page of pictures at OUT.html, and
    the policies at OUT.policy.toml. `data_dir` holds the two npm packages, which are otherwise fetched into the user's
    cache folder; `small` takes the six smallest categories; `key` is the signing key's file (default: the user's).
    `anchor` also anchors the trace on a chain in this process. Tables go to `console`, progress to `progress` if that
    is a terminal. The training without fgtrac comes first: nothing is written before every source was read.
    FileExistsError where one of the files exists already, ValueError without the extra that `anchor` needs and for
    icons of another version or damaged ones, FileNotFoundError for missing ones, FetchError where npm failed.
    """
    quiet = Console(quiet=True)
    console, progress = console or quiet, progress or quiet
    with tempfile.TemporaryDirectory(prefix="fgtrac-demo-") as temporary, one_thread(), bar(progress) as tick:
        folder = Path(temporary)
        page, policy = (None, folder / "policy.toml") if out is None else beside(out, ".html", ".policy.toml")
        base = out if out is not None else folder / "icons"
        chain = None if anchor is None else LocalChain(folder)
        given = data_dir
        if data_dir is None:
            tick("fetching the icons with npm")()
            data_dir = fetch_icons(cache_folder(os.environ), os.environ)
        icons = load_icons(data_dir, small)
        plain, updates = train_plain(icons, tick("training without"))
        traced = train_traced(base, icons, key, tick("training with fgtrac"))
        key_path = key or default_key_path(os.environ)
        private = load_key(key_path)
        public_key = private.public_key().public_bytes_raw()
        opened = open_trace(traced.recorded.path, key=public_key.hex())
        done = Finished(opened, icons, traced.graph, traced.trained, public_key)
        figures = recorded_figures(done, traced.recorded, plain, console, tick)
        figures |= answers(done, traced.recorded, updates, page, console)
        tick("holding it to policies")()
        figures |= policy_figures(done, folder, policy, key)
        command = (
            None
            if out is None
            else shlex.join(["fgtrac", "check", str(opened.path), "--policy", str(policy), "--key", public_key.hex()])
        )
        show.policies(console, figures["policies"], figures["leak"], figures["data"]["dropped"], command)
        if chain is not None:
            tick("anchoring")()
            figures["anchor"] = anchoring.anchored(TraceDir.open(opened.path), chain, private, key_path)
            shared.anchored(console, figures["anchor"])
    figures["failures"] = failures(figures)
    shared.closing(console, figures["failures"])
    if out is not None:
        shared.look(console, ui_command(opened.path, "icons", given))
    return figures


# -- training -----------------------------------------------------------------------------------------------------


def train_traced(base: Path, icons: Icons, key: Path | None, progress: Callable[[], object]) -> Traced:
    """Prepare and train under a run, with scores, modality weights and predictions at every kept checkpoint; seal."""
    config = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "fan_out": list(FAN_OUT), "seed": SEED, "icons": len(icons)}
    checkpoints: list[float] = []
    with own_time() as own, start_run(base, config=config, key=key) as run:
        graph = prepare(icons, SEED, run)
        passes = promise(run, graph)

        def after_epoch(model: Any, optimizer: torch.optim.Optimizer, loss: float) -> None:
            kept = []
            checkpoints.append(timed(lambda: kept.append(run.checkpoint(model, optimizer, val_loss=loss))))
            if kept[0]:
                record_predictions(run, model, graph)

        trained = train(graph, seed=SEED, watch=run.watch, after_epoch=after_epoch, progress=progress)
        seal_s = timed(run.close)
    assert run.scoring_cost is not None
    seals_s = run._sealer.cpu_s, seal_s
    recorded = Recorded(run.path, trained.loop_s, own, tuple(checkpoints), *seals_s, run.scoring_cost, sum(passes))
    return Traced(graph, trained, recorded)


def promise(run: Run, graph: Data) -> list[float]:
    """Say what is to be recorded at every kept checkpoint: contributions, and modality weights of all nodes. The list
    has the seconds of each of the model's own passes for these weights, once they are over."""
    passes: list[float] = []

    def forward(model: nn.Module, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return model(graph)[nodes], graph.y[nodes]

    def weights(model: Any) -> torch.Tensor:
        found: list[torch.Tensor] = []
        passes.append(timed(lambda: found.append(model.modality_weights(graph))))
        return found[0]

    samples: dict[str, Any] = {role: GraphNodes(graph, mask) for role, mask in MASKS.items()}
    run.score_with(loss=nn.CrossEntropyLoss(), **samples, forward=forward, layer="output", batch_size=WHOLE_GRAPH)
    run.attention_with(weights=weights, data=GraphNodes(graph), modalities=MODALITIES)
    return passes


def record_predictions(run: Run, model: nn.Module, graph: Data) -> None:
    """What the model of the checkpoint just kept says about the test nodes."""
    logits, losses = predict(model, graph)
    mask = graph.test_mask
    run.predictions(GraphNodes(graph, mask), logits[mask], losses=losses[mask])


def train_plain(icons: Icons, progress: Callable[[], object]) -> tuple[Trained, list[Update]]:
    """The same from the source, with nothing of fgtrac in it; and what its forward pass received in each update."""
    graph, witness = prepare(icons, SEED), Witness()
    with received(IconNetwork, witness):
        return train(graph, seed=SEED, progress=progress), witness.updates


# -- figures ------------------------------------------------------------------------------------------------------


def recorded_figures(
    done: Finished, recorded: Recorded, plain: Trained, console: Console, tick: Tick
) -> dict[str, Any]:
    """Sections 1 to 4: the data, both trainings, what recording took, and a full verification."""
    trace, step = TraceDir.open(recorded.path), tick("training on one modality")
    alone = [train(done.graph, seed=SEED, modalities=some, edges=False, progress=step) for some in ALONE]
    tick("verifying")()
    figures: dict[str, Any] = {
        "data": data_figures(done.icons, done.graph, recorded.path),
        "training": training_figures(done.trained, plain, alone),
        "cost": cost_figures(trace, recorded),
        "verification": verification_figures(trace, done.public_key),
    }
    show.data(console, figures["data"])
    show.trained(console, figures["training"])
    shared.cost(console, figures["cost"])
    shared.verified(console, figures["verification"])
    return figures


def answers(
    done: Finished, recorded: Recorded, updates: list[Update], page: Path | None, console: Console
) -> dict[str, Any]:
    """Sections 5 to 10: a training node's and a test node's history, an owner's, scores, weights and proofs; `updates`
    are what the forward pass received."""
    first, held_out = (first_of(done.graph, role) for role in ("train", "test"))
    counts = counts_of(updates, len(done.icons))
    figures: dict[str, Any] = {
        "histories": [questions.node_history(done, node, counts) for node in (first, held_out)],
        "truth": questions.truth(done, updates),
        "owner": questions.one_owner(done),
        "scoring": scoring_figures(TraceDir.open(recorded.path), recorded),
    }
    show.histories(console, figures["histories"], figures["truth"])
    show.owner(console, figures["owner"])
    shared.scoring(console, figures["scoring"])
    figures["mistake"] = mistake_figures(done, page, console)
    figures["attention"] = questions.modality_weights(done)
    show.attention(console, figures["attention"])
    figures["proofs"] = questions.proofs(done, first, held_out)
    shared.proofs(console, figures["proofs"])
    return figures


def policy_figures(done: Finished, folder: Path, policy: Path, key: Path | None) -> dict[str, Any]:
    """Section 11: the run held to the policies that are written to a file, and another one, in `folder`, in which a
    test label leaks."""
    return {
        "policies": questions.policies(done.trace.path, policy, done.public_key),
        "leak": questions.leak(done, folder, policy, first_of(done.graph, "test"), seed=SEED, key=key),
    }


def first_of(graph: Data, role: str) -> int:
    """The first node of a role."""
    return int(torch.nonzero(graph[MASKS[role]])[0])


def training_figures(traced: Trained, plain: Trained, alone: list[Trained]) -> dict[str, Any]:
    """Both trainings side by side, and what one modality comes to without the graph."""
    return {
        "epochs": traced.epochs,
        "steps": traced.steps,
        "best_step": traced.best_step,
        "accuracy_with": traced.test_accuracy,
        "accuracy_without": plain.test_accuracy,
        "weights_with": weights_digest(traced.model),
        "weights_without": weights_digest(plain.model),
        "weights_identical": weights_digest(traced.model) == weights_digest(plain.model),
        "generators_with": traced.random_state,
        "generators_without": plain.random_state,
        "generators_identical": traced.random_state == plain.random_state,
        "alone": {", ".join(one.model.modalities): one.test_accuracy for one in alone},
    }


def mistake_figures(done: Finished, page: Path | None, console: Console) -> dict[str, Any] | None:
    """One wrong prediction explained, by training and by messages; None where the network made no mistake."""
    mistake = explained.worst_mistake(done.trained.model, done.graph)
    if mistake is None:
        return None
    found, messages = explained.by_training(done, mistake, page), explained.by_messages(done, mistake)
    show.mistake(console, found, messages)
    return {name: value for name, value in found.items() if name != "pictures"} | {"messages": messages}


def failures(f: dict[str, Any]) -> list[str]:
    """The claims of the demo that did not hold, in words."""
    data, training, mistake, leak, truth = f["data"], f["training"], f["mistake"], f["leak"], f["truth"]
    claims = {
        "no two nodes with a role have equal sources, and the log names those that were dropped": data["dropped_in_log"]
        and not data["equal_sources_left"],
        "no word of a category's name is left in tags and words": not data["category_words_left"],
        "the words were fitted on the training nodes and on no others": data["fitted_on_train"]
        and data["fitted_on_train_in_log"],
        "the weights are bit-identical with and without fgtrac": training["weights_identical"],
        "the generators' states are the same": training["generators_identical"],
        "with image, words and graph the network is right more often than with one modality alone": all(
            training["accuracy_with"] > accuracy for accuracy in training["alone"].values()
        )
        or data["test"] < FEW,
        "the trace verifies": f["verification"]["verdict"] == Verdict.HOLDS,
        "the histories are what the forward pass received": all(h["agrees"] for h in f["histories"]),
        "the log has every seed and every neighbour that the forward pass received, in each step at each hop": not any(
            truth[what] for what in ("updates_that_differ", "samples_that_differ", "histories_that_differ")
        )
        and truth["samples"] == data["icons"]
        and f["cost"]["events"] == truth["uses"] + truth["neighbours"],
        "the answer about a subject has all of its icons": f["owner"]["complete"],
        "every kept checkpoint was scored": f["scoring"]["states"] > 1,
        "the contribution traces add up": mistake is None or mistake["adds_up"],
        "recorded modality weights are those of the committed checkpoint": f["attention"]["equal"]
        == f["attention"]["recomputed"],
        "every proof holds": all(p["as_foretold"] for p in f["proofs"]),
        "the honest run keeps to the policies": f["policies"]["verdict"] == Verdict.HOLDS,
        "the leaked label is caught, by its node and its step": leak["refuted"] == ["held-out"]
        and [row["sample"] for row in leak["violations"]] == [leak["sample"]]
        and f"step {leak['violations'][0]['step']}" in leak["policies"][0]["words"],
    }
    if "anchor" in f:
        claims |= anchoring.claims(f["anchor"])
    return [words for words, holds in claims.items() if not holds]
