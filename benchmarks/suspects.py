"""How well wrong labels are found: one training label in ten of the image14 task is changed to another class.

image14_self_auc, _precision        self-influence by fisher, at the validation-improving checkpoints
image14_ggn_, _ekfac_, _tracin_     the same by fgtrac's other methods
image14_mean_loss_auc, _precision   the free baseline: the mean training loss over the same checkpoints
image14_difference_lower95, _upper95   AUC of self-influence by fisher minus that of the mean loss (DeLong et al. 1988)
image14_agreement                   rank correlation of the two over all training samples

AUC: the chance that a wrong label scores above a right one. Precision: the share of wrong labels among as many rows
as were changed. Nothing is chosen: dampings are the defaults.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.demo.training import one_thread
from fgtrac.score.cache import Cache
from fgtrac.score.methods import Method, self_influence
from fgtrac.score.suspects import auc, auc_difference, precision_at, rank_suspects
from harness import parse_arguments, report
from retrainings import CLASSES, Floats, Part, Recorded, Task, image14, record

SHARE = 0.1
SEED = 100  # of the scored model
METHODS = {"self": Method("fisher"), "ggn": Method("fisher", ggn=True), "tracin": Method("tracin")}


def flip(task: Task) -> tuple[Task, NDArray[np.bool_]]:
    """The task with some training labels changed to another class, and which."""
    draw, n = np.random.default_rng(10), len(task.train)
    changed = np.zeros(n, dtype=bool)
    changed[draw.permutation(n)[: round(SHARE * n)]] = True
    by = np.where(changed, draw.integers(1, CLASSES, n), 0)
    labels = (task.train.labels + torch.from_numpy(by)) % CLASSES
    return replace(task, name=f"{task.name}-flipped", train=Part(task.train.inputs, labels)), changed


def improving(recorded: Recorded) -> Cache:
    """The factors at the validation-improving checkpoints only."""
    cache = recorded.cache
    states = [cache.states[epoch] for epoch in recorded.trained.improving]
    return Cache(recorded.trace, recorded.artifacts, states)


def measures(task: Task) -> dict[str, Floats]:
    """What each measure says of every training sample, (n,), in the order of the task's rows."""
    found: dict[str, Floats] = {}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        for folder, layer, methods in ((one, None, METHODS), (other, "all", {"ekfac": Method("ekfac")})):
            recorded = record(task, SEED, Path(folder), layer=layer, ggn=layer is None)
            cache = improving(recorded)
            for name, method in methods.items():
                found[name] = np.empty(len(task.train), dtype=np.float32)
                found[name][recorded.train_rows] = self_influence(cache, method)
            losses = [cache.losses(k, "train") for k in range(len(cache.states))]
            found["mean_loss"] = np.empty(len(task.train), dtype=np.float32)
            found["mean_loss"][recorded.train_rows] = np.mean(losses, axis=0)
    return found


def main() -> None:
    arguments = parse_arguments()
    with one_thread():
        task, changed = flip(image14(arguments.data_dir))
        found = measures(task)
    figures: dict[str, float] = {}
    for name, values in found.items():
        figures[f"image14_{name}_auc"] = auc(values, changed)
        figures[f"image14_{name}_precision"] = precision_at(values, changed)
    suspects = rank_suspects(found["self"], found["mean_loss"], 1, wrong=changed)
    low, high = auc_difference(found["self"], found["mean_loss"], changed)
    figures |= {"image14_difference_lower95": low, "image14_difference_upper95": high}
    figures["image14_agreement"] = suspects.agreement
    report("suspects", figures, f"{task.origin}, {int(changed.sum())} labels changed; {suspects.words}")


if __name__ == "__main__":
    main()
