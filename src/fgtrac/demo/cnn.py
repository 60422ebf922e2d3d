"""`fgtrac demo cnn`: a CNN trained with and without fgtrac, its trace sealed, questioned, and lied about.

Every figure is measured in the run that prints it. A claim that does not hold ends up in `failures`, and the
command then fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.api.run import Run, start_run
from fgtrac.capture.own_time import OwnTime, own_time
from fgtrac.demo import training
from fgtrac.demo.data import Planted
from fgtrac.demo.prepare import Prepared, prepare, read_through
from fgtrac.demo.training import Trained

SEED = 20260121
BATCH_SIZE = 128
EPOCHS = 12
SMALL_EPOCHS = 3


@dataclass(frozen=True, slots=True)
class Traced:
    """The traced training: what it was given, what it came to, and what recording cost."""

    path: Path
    prepared: Prepared
    trained: Trained
    own: OwnTime
    checkpoints_s: tuple[float, ...]
    seal_s: float


def train_traced(
    base: Path, planted: Planted, config: dict[str, Any], key: Path | None, progress: Callable[[], object]
) -> Traced:
    """Prepare and train under a run, record predictions, seal."""
    checkpoints: list[float] = []
    with own_time() as own:
        run = start_run(base, config=config, key=key)
        with run:
            prepared = prepare(run, planted, SEED)
            loaders = training.make_loaders(prepared.train, prepared.validation, BATCH_SIZE)
            run.watch(loaders[0], role="train")
            trained = training.train(
                loaders,
                prepared.test,
                epochs=config["epochs"],
                seed=SEED,
                after_epoch=lambda m, o, loss: checkpoints.append(timed(lambda: run.checkpoint(m, o, val_loss=loss))),
                progress=progress,
            )
            record_predictions(run, trained, prepared)
            start = time.perf_counter()
        seal_s = time.perf_counter() - start
    return Traced(run.path, prepared, trained, own, tuple(checkpoints), seal_s)


def record_predictions(run: Run, trained: Trained, prepared: Prepared) -> None:
    """What the final model says about every training and test image."""
    for data in (prepared.train, prepared.test):
        logits, losses = training.predict(trained.model, data)
        run.predictions(data, logits, losses=losses)


def train_plain(prepared: Prepared, epochs: int, progress: Callable[[], object]) -> Trained:
    """The same training on the same images, with nothing of fgtrac in it."""
    train, validation, test = map(read_through, (prepared.train, prepared.validation, prepared.test))
    loaders = training.make_loaders(train, validation, BATCH_SIZE)
    return training.train(loaders, test, epochs=epochs, seed=SEED, progress=progress)


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
