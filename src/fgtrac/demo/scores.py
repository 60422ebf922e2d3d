"""What the demo asks of the scores: who taught the model one wrong answer, and whether flipped labels stand out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.explanation import Scored
from fgtrac.api.trace import open_trace
from fgtrac.demo import training
from fgtrac.demo.data import Planted
from fgtrac.demo.pictures import Picture, teachers
from fgtrac.demo.prepare import ARCHIVE, Prepared
from fgtrac.demo.training import Trained
from fgtrac.score.suspects import auc, precision_at

METHOD = "fisher"
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Mistake:
    """The test image that the model got most wrong: its row in the archive, its label, and what the model said."""

    row: int
    label: int
    said: int
    loss: float


def worst_mistake(trained: Trained, prepared: Prepared) -> Mistake | None:
    """The test image of the archive with the highest loss among those that the model got wrong."""
    logits, losses = training.predict(trained.model, prepared.test)
    labels = torch.tensor([int(prepared.test[i][1]) for i in range(len(prepared.test_rows))])
    said = logits[: len(labels)].argmax(1)
    wrong = torch.nonzero(said != labels).flatten()
    if not len(wrong):
        return None
    worst = int(wrong[losses[wrong].argmax()])
    return Mistake(prepared.test_rows[worst], int(labels[worst]), int(said[worst]), float(losses[worst]))


def explained(path: Path, planted: Planted, prepared: Prepared, mistake: Mistake, out: Path | None) -> dict[str, Any]:
    """Proponents and opponents of one wrong prediction, with their pictures; also as a page at `out`."""
    trace = open_trace(path)
    answer = trace.explain(f"{ARCHIVE}:{mistake.row}", method=METHOD, k=SHOWN)
    images = planted.archive.tensors[0].numpy()
    flipped = {f"{ARCHIVE}:{row}" for row in prepared.flipped}
    target = Picture(
        images[mistake.row], (f"{ARCHIVE}:{mistake.row}", f"a {mistake.label}, taken for a {mistake.said}")
    )
    said = {
        "sample": f"{ARCHIVE}:{mistake.row}",
        "label": mistake.label,
        "said": mistake.said,
        "loss": mistake.loss,
    }
    question = "Who taught the model this wrong answer?"
    return {"mistake": said} | teachers(answer, target, lambda one: _picture(images, one, flipped), question, out)


def _picture(images: NDArray[np.uint8], sample: Scored, flipped: set[str]) -> Picture:
    name = sample.name or sample.id.hex()[:8]
    row = int(name.rpartition(":")[2])
    label = f"labelled {sample.label}" + (" (flipped)" if name in flipped else "")
    return Picture(images[row], (name, label, f"{sample.score:+.3g}"), sample.trace)


def find_flipped(path: Path, prepared: Prepared) -> dict[str, Any]:
    """How many of the flipped labels stand among as many suspects, by self-influence and by the mean loss."""
    names = sorted(f"{ARCHIVE}:{row}" for row in prepared.flipped)
    found = open_trace(path).suspects(len(prepared.train), method=METHOD, wrong=names)
    is_flipped = np.array([s.row.name in names for s in found.suspects])
    rows: dict[str, dict[str, Any]] = {}
    for name, words in (("self_influence", f"self-influence ({METHOD})"), ("mean_loss", "mean loss, which is free")):
        values = np.array([getattr(s, name) for s in found.suspects])
        precision = precision_at(values, is_flipped)
        hits = round(precision * len(names))
        rows[name] = {"words": words, "found": hits, "precision": precision, "auc": auc(values, is_flipped)}
    return {"flipped": len(names), "share": len(names) / len(is_flipped), **rows, "better": found.words}
