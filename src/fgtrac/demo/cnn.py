"""`fgtrac demo cnn`: a CNN trained with and without fgtrac, its trace sealed, questioned, and lied about.

Every figure is measured in the run that prints it. A claim that does not hold stands in `failures`, and the command
then fails.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from torch import nn
from torch.utils.data import Subset

from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.run import Run, start_run
from fgtrac.capture.own_time import own_time
from fgtrac.commit.keys import default_key_path, load_key
from fgtrac.demo import anchoring, show, training
from fgtrac.demo.data import BLANKS, Planted, load_images, plant
from fgtrac.demo.figures import (
    Recorded,
    bar,
    beside,
    cost_figures,
    lie_figures,
    scoring_figures,
    timed,
    verification_figures,
)
from fgtrac.demo.lies import LIES
from fgtrac.demo.own_data import ui_command
from fgtrac.demo.prepare import Prepared, prepare, read_through
from fgtrac.demo.questions import find_equal, histories, proofs
from fgtrac.demo.scores import explained, find_flipped, worst_mistake
from fgtrac.demo.training import Trained
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict

SEED = 20260121
BATCH_SIZE = 128
EPOCHS, SMALL_EPOCHS = 12, 3


@dataclass(frozen=True, slots=True)
class Traced:
    """The traced training: what it was given, what it came to, and what recording took."""

    prepared: Prepared
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

    `out` keeps the trace at OUT.trace (otherwise it goes with a temporary folder), and a page of pictures at OUT.html;
    `data_dir` holds IDX files;
    `small` takes scikit-learn's digits; `key` is the signing key's file (default: the user's). `anchor` also anchors
    the trace on a chain in this process. Tables go to `console`, progress to `progress` if that is a terminal.
    FileExistsError where one of these files exists already, ValueError without the extra that `anchor` needs.
    """
    quiet = Console(quiet=True)
    console, progress = console or quiet, progress or quiet
    with tempfile.TemporaryDirectory(prefix="fgtrac-demo-") as temporary, training.one_thread():
        base = out if out is not None else Path(temporary) / "cnn"
        chain = None if anchor is None else LocalChain(Path(temporary))
        page = None if out is None else beside(out, ".html")[0]
        source = load_images(data_dir, small)
        epochs = SMALL_EPOCHS if small else EPOCHS
        figures = _run(base, plant(source, SEED), source.origin, epochs, key, page, chain, console, progress)
        if out is not None:
            function = "small_digits" if small and data_dir is None else "digits"
            kept = out if out.suffix == ".trace" else out.with_name(out.name + ".trace")
            show.look(console, ui_command(kept, function, data_dir))
        return figures


def _run(
    base: Path,
    planted: Planted,
    origin: str,
    epochs: int,
    key: Path | None,
    page: Path | None,
    chain: LocalChain | None,
    console: Console,
    progress: Console,
) -> dict[str, Any]:
    config = {"epochs": epochs, "batch_size": BATCH_SIZE, "seed": SEED, "source": origin}
    with bar(progress) as tick:
        traced = train_traced(base, planted, config, key, tick("training with fgtrac"))
        plain = train_plain(traced.prepared, epochs, tick("training without"))
        path = traced.recorded.path
        trace = TraceDir.open(path)
        key_path = key or default_key_path(os.environ)
        private = load_key(key_path)
        figures: dict[str, Any] = {
            "data": data_figures(planted, origin, traced.prepared),
            "training": training_figures(traced.trained, plain, epochs),
            "cost": cost_figures(trace, traced.recorded),
        }
        show.data(console, figures["data"])
        show.trained(console, figures["training"])
        show.cost(console, figures["cost"])
        tick("verifying")()
        figures["verification"] = verification_figures(trace, private.public_key().public_bytes_raw())
        show.verified(console, figures["verification"])
        tick("asking for histories")()
        figures["histories"] = histories(path, traced.prepared, epochs, traced.recorded.scoring.checkpoints)
        for number, history in enumerate(figures["histories"]):
            show.history(console, f"5.{number + 1} {history['title']}", history["lines"])
        figures["contents"] = find_equal(path, traced.prepared)
        show.contents(console, figures["contents"])
        figures["scoring"] = scoring_figures(trace, traced.recorded)
        show.scoring(console, figures["scoring"])
        tick("scoring")()
        score_figures(figures, traced, planted, page, console)
        figures["proofs"] = proofs(path, traced.prepared, private.public_key().public_bytes_raw())
        show.proofs(console, figures["proofs"])
        step = tick("telling lies")
        figures["lies"] = [lie_figures(trace, lie, private, step) for lie in LIES]
        show.lies(console, figures["lies"])
        if chain is not None:
            tick("anchoring")()
            figures["anchor"] = anchoring.anchored(trace, chain, private, key_path)
            show.anchored(console, figures["anchor"])
    figures["failures"] = failures(figures)
    show.closing(console, figures["failures"])
    return figures


# -- training -----------------------------------------------------------------------------------------------------


def train_traced(
    base: Path, planted: Planted, config: dict[str, Any], key: Path | None, progress: Callable[[], object]
) -> Traced:
    """Prepare and train under a run, record predictions, seal."""
    checkpoints: list[float] = []
    with own_time() as own, start_run(base, config=config, key=key) as run:
        prepared = prepare(run, planted, SEED)
        loaders = training.make_loaders(prepared.train, prepared.validation, BATCH_SIZE)
        run.watch(loaders[0])  # the role is registered already
        samples = {role: getattr(prepared, role) for role in ("train", "validation", "test")}
        run.score_with(loss=nn.CrossEntropyLoss(), **samples)
        trained = training.train(
            loaders,
            prepared.test,
            epochs=config["epochs"],
            seed=SEED,
            after_epoch=lambda m, o, loss: checkpoints.append(timed(lambda: run.checkpoint(m, o, val_loss=loss))),
            progress=progress,
        )
        record_predictions(run, trained, prepared)
        seal_s = timed(run.close)
    assert run.scoring_cost is not None
    seals_s = run._sealer.cpu_s, seal_s
    recorded = Recorded(run.path, trained.loop_s, own, tuple(checkpoints), *seals_s, run.scoring_cost)
    return Traced(prepared, trained, recorded)


def record_predictions(run: Run, trained: Trained, prepared: Prepared) -> None:
    """What the final model says about every training and test image.

    Through a view of each: a loader around the watched data set itself would be watched too, and its batches recorded
    as delivered and never applied.
    """
    for data in (prepared.train, prepared.test):
        view = Subset(data, range(len(data)))
        logits, losses = training.predict(trained.model, view)
        run.predictions(view, logits, losses=losses)


def train_plain(prepared: Prepared, epochs: int, progress: Callable[[], object]) -> Trained:
    """The same training on the same images, with nothing of fgtrac in it."""
    train, validation, test = map(read_through, (prepared.train, prepared.validation, prepared.test))
    loaders = training.make_loaders(train, validation, BATCH_SIZE)
    return training.train(loaders, test, epochs=epochs, seed=SEED, progress=progress)


# -- figures ------------------------------------------------------------------------------------------------------


def data_figures(planted: Planted, origin: str, prepared: Prepared) -> dict[str, Any]:
    """What went in and what came of it."""
    return {
        "origin": origin,
        "archive": len(planted.archive),
        "copies_planted": len(prepared.copies),
        "blanks_planted": BLANKS,
        "blanks_dropped": prepared.blanks,
        "copies_dropped": prepared.duplicates,
        "train": len(prepared.train),
        "validation": len(prepared.validation),
        "test": len(prepared.test),
        "labels_flipped": len(prepared.flipped),
        "late": len(planted.late.labels) + 1,
    }


def training_figures(traced: Trained, plain: Trained, epochs: int) -> dict[str, Any]:
    """Both trainings side by side."""
    return {
        "epochs": epochs,
        "steps": traced.steps,
        "accuracy_with": traced.accuracy,
        "accuracy_without": plain.accuracy,
        "weights_with": training.weights_digest(traced.model),
        "weights_without": training.weights_digest(plain.model),
        "weights_identical": training.same_weights(traced.model, plain.model),
        "generators_with": traced.random_state,
        "generators_without": plain.random_state,
        "generators_identical": traced.random_state == plain.random_state,
    }


def score_figures(
    figures: dict[str, Any], traced: Traced, planted: Planted, page: Path | None, console: Console
) -> None:
    """One wrong prediction explained, and the flipped labels looked for."""
    mistake = worst_mistake(traced.trained, traced.prepared)
    figures["mistake"] = None
    if mistake is not None:
        found = explained(traced.recorded.path, planted, traced.prepared, mistake, page)
        show.explained(console, found)
        figures["mistake"] = {name: value for name, value in found.items() if name != "pictures"}
    figures["suspects"] = find_flipped(traced.recorded.path, traced.prepared)
    show.suspects(console, figures["suspects"])


def failures(f: dict[str, Any]) -> list[str]:
    """The claims of the demo that did not hold, in words."""
    claims = {
        "the weights are bit-identical with and without fgtrac": f["training"]["weights_identical"],
        "the generators' states are the same": f["training"]["generators_identical"],
        "every planted blank and copy was dropped": f["data"]["blanks_dropped"] >= f["data"]["blanks_planted"]
        and f["data"]["copies_dropped"] >= f["data"]["copies_planted"],
        "the record holds every use": f["cost"]["events"] == f["training"]["epochs"] * f["data"]["train"],
        "the trace verifies": f["verification"]["verdict"] == Verdict.HOLDS,
        "every history tells what was done": all(h["complete"] for h in f["histories"]),
        "every planted copy is found by content": f["contents"]["copies_found"] == f["contents"]["copies_planted"],
        "the leak is found by content": f["contents"]["leak_planted"] in f["contents"]["leaks"],
        "every kept checkpoint was scored": f["scoring"]["states"] > 1,
        "the contribution traces add up": f["mistake"] is None or f["mistake"]["adds_up"],
        "flipped labels stand out": f["suspects"]["self_influence"]["precision"] > 3 * f["suspects"]["share"],
        "every proof holds": all(p["as_foretold"] for p in f["proofs"]),
        "every lie is caught by its check": all(lie["as_foretold"] for lie in f["lies"]),
        "seven lies, seven checks": len({lie["check"] for lie in f["lies"]}) == len(f["lies"]) == 7,
    }
    if "anchor" in f:
        claims |= anchoring.claims(f["anchor"])
    return [words for words, holds in claims.items() if not holds]
