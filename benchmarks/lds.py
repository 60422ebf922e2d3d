"""How faithful contribution scores are: the linear datamodeling score (LDS) on two tasks, beside three peers.

For each TASK in digits, image14, on the same 128 random halves x 3 retraining seeds and 200 test samples:

TASK_tracin, _fisher, _ggn, _ekfac   fgtrac's methods, from the factors in a trace of the scored model's training
TASK_tracin_reference                plain torch: the paper's formula over the last layer, the same checkpoints
TASK_ekfac_ensemble                  the mean over three scored models
TASK_gain, TASK_gain_lower95         fisher minus tracin, paired, and its lower 95 % bound
TASK_kronfluence, _no_damping        kronfluence's EKFAC at the final model, by default and with damping_factor=None
TASK_kronfluence_checkpoints         the latter at the checkpoints that ekfac uses
TASK_trak, TASK_captum               TRAK (512 dimensions) and TracInCPFast at the validation-improving checkpoints
TASK_..._se                          standard errors: over tests, and over halves by a jackknife, added
TASK_fisher_by_default, ...          the built-in damping at the validation-improving checkpoints
TASK_tracin_every_epoch              tracin at all 20 checkpoints
TASK_ceiling                         the LDS that the retrainings' own noise leaves to a perfect prediction

Damping and checkpoints of fisher, ggn and ekfac are chosen on 128 other halves, retrained with other seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import peers
from fgtrac.demo.training import one_thread
from fgtrac.score.fidelity import Fidelity, gain, lds, spearman
from fgtrac.score.kernel import traces
from fgtrac.score.methods import Method, prepare
from harness import parse_arguments, report
from retrainings import (
    Doubles,
    Floats,
    Recorded,
    Task,
    Trained,
    check_batched,
    digits,
    image14,
    record,
    retrained,
)

SUBSETS, SEEDS, DESIGN = 128, (1, 2, 3), 1
CHOOSING = (128, (11, 12, 13), 2)  # halves, seeds and design that only choose
SCORED, MORE_SCORED = 100, (101, 102)  # seeds of the scored models
GRID = {"fisher": (0.03, 0.1, 0.3), "ggn": (0.01, 0.03, 0.1), "ekfac": (0.1, 0.3, 1.0, 3.0)}


@dataclass(frozen=True, slots=True)
class Halves:
    """Random halves as a mask (subsets, n) float32, and what retraining on them gave, (subsets, tests)."""

    mask: Floats
    actual: Doubles

    def predicted(self, scores: Floats) -> Doubles:
        """(subsets, tests): sums of scores (n, tests) over each half."""
        return (self.mask @ scores).astype(np.float64)


def halves(task: Task, subsets: int, seeds: Sequence[int], design: int) -> Halves:
    """Retrained, or from the cache."""
    parts, actual = retrained(task, subsets, seeds, design)
    mask = np.zeros((subsets, len(task.train)), dtype=np.float32)
    np.put_along_axis(mask, parts, 1, axis=1)
    return Halves(mask, actual)


def method_of(name: str, damping: float | None = None) -> Method:
    """fgtrac's method of that figure."""
    return Method("fisher", damping, ggn=True) if name == "ggn" else Method(name, damping)


def shares(recorded: Recorded, method: Method) -> Floats:
    """(states, n, tests): each checkpoint's scores, in the order of the task's samples, by fgtrac's engine."""
    cache, m = recorded.cache, len(recorded.test_rows)
    ready = [prepare(cache, k, cache.read(k, "test", 0, m), method) for k in range(len(cache.states))]
    found = traces(cache, ready, np.arange(len(recorded.train_rows)))
    out = np.empty_like(found)
    out[:, recorded.train_rows[:, None], recorded.test_rows[None]] = found
    return out


def selections(trained: Trained) -> dict[str, list[int]]:
    """The checkpoints that may be chosen: by name, epochs."""
    improving = list(trained.improving)
    return {
        "validation-improving": improving,
        "the later two thirds of these": improving[len(improving) // 3 :],
        "the later half of these": improving[len(improving) // 2 :],
        "every epoch": list(range(len(trained.states))),
        "the final one": [len(trained.states) - 1],
    }


@dataclass(frozen=True, slots=True)
class Chosen:
    """A method with the damping and the checkpoints that were best on the halves that choose, and its scores."""

    damping: float
    checkpoints: str
    scores: Floats
    by_default: Floats  # the default damping, validation-improving checkpoints


def choose(recorded: Recorded, name: str, choosing: Halves) -> Chosen:
    """Over the grid of dampings and the selections of checkpoints."""
    best: tuple[float, Chosen] | None = None
    default = method_of(name).damped_by
    by_default = np.zeros(0, dtype=np.float32)
    for damping in sorted({*GRID[name], default}):
        parts = shares(recorded, method_of(name, damping))
        for words, epochs in selections(recorded.trained).items():
            scores = parts[epochs].sum(axis=0)
            if damping == default and words == "validation-improving":
                by_default = scores
            value = float(spearman(choosing.predicted(scores), choosing.actual).mean())
            if best is None or value > best[0]:
                best = value, Chosen(damping, words, scores, by_default)
    assert best is not None
    return Chosen(best[1].damping, best[1].checkpoints, best[1].scores, by_default)


def reference(task: Task, trained: Trained) -> Floats:
    """TracInCP over the last layer (arXiv:2002.08484 eq. 1), in plain torch."""
    total = torch.zeros(len(task.train), len(task.test))
    body, last = trained.model[:-1], trained.model[-1]
    for epoch in trained.improving:
        trained.model.load_state_dict(trained.states[epoch])
        sides = []
        with torch.no_grad():
            for part in (task.train, task.test):
                inputs = body(part.inputs)
                sides.append((inputs, last(inputs).softmax(1) - nn.functional.one_hot(part.labels, 10)))
        (a, e), (b, f) = sides
        total += task.learning_rate * (e @ f.T) * (a @ b.T + 1)
    return total.numpy()


def ceiling(task: Task) -> float:
    """What the noise of retraining leaves: the reliability of the mean over three seeds, from that of single seeds."""
    each = [retrained(task, SUBSETS, (seed,), DESIGN)[1] for seed in SEEDS]
    pairs = [(0, 1), (0, 2), (1, 2)]
    one = float(np.mean([spearman(each[i], each[j]).mean() for i, j in pairs]))
    return float(np.sqrt(3 * one / (1 + 2 * one)))


def ensemble(task: Task, chosen: Chosen, first: Floats) -> Floats:
    """EKFAC with the same damping and selection, the sum over further scored models."""
    total = first.copy()
    for seed in MORE_SCORED:
        with tempfile.TemporaryDirectory() as folder:
            recorded = record(task, seed, Path(folder), layer="all")
            epochs = selections(recorded.trained)[chosen.checkpoints]
            total += shares(recorded, Method("ekfac", chosen.damping))[epochs].sum(axis=0)
    return total


def score(task: Task, choosing: Halves) -> tuple[dict[str, Floats], list[str]]:
    """The scores (n, tests) behind every figure, and what was chosen, in words."""
    found, words = {}, []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        last = record(task, SCORED, Path(one), ggn=True)
        whole = record(task, SCORED, Path(other), layer="all")
        improving = list(last.trained.improving)
        found["tracin"] = shares(last, Method("tracin"))[improving].sum(axis=0)
        found["tracin_every_epoch"] = shares(last, Method("tracin")).sum(axis=0)
        found["tracin_reference"] = reference(task, last.trained)
        for name in GRID:
            chosen = choose(whole if name == "ekfac" else last, name, choosing)
            found[name], found[f"{name}_by_default"] = chosen.scores, chosen.by_default
            words.append(f"{task.name}: {name} with damping {chosen.damping:g} at {chosen.checkpoints}")
    found["ekfac_ensemble"] = ensemble(task, chosen, chosen.scores)
    used = selections(last.trained)[chosen.checkpoints]
    found |= of_peers(task, last.trained, used)
    words.append(f"{task.name}: {len(improving)} of {len(last.trained.states)} checkpoints improve the validation loss")
    return found, words


def of_peers(task: Task, trained: Trained, used: Sequence[int]) -> dict[str, Floats]:
    """The same by the peers' own packages."""
    states = [trained.states[epoch] for epoch in trained.improving]
    final, same = [trained.states[-1]], [trained.states[epoch] for epoch in used]
    return {
        "captum": peers.captum_fast(task, trained.model, states),
        "trak": peers.trak(task, trained.model, states),
        "kronfluence": peers.kronfluence_ekfac(task, trained.model, final, 1e-8),
        "kronfluence_no_damping": peers.kronfluence_ekfac(task, trained.model, final, None),
        "kronfluence_checkpoints": peers.kronfluence_ekfac(task, trained.model, same, None),
    }


def measure(task: Task) -> tuple[dict[str, float], list[str]]:
    """All figures of one task, and words about it."""
    check_batched(task)
    reported, choosing = halves(task, SUBSETS, SEEDS, DESIGN), halves(task, *CHOOSING)
    scores, words = score(task, choosing)
    predicted = {name: reported.predicted(s) for name, s in scores.items()}
    figures = {f"{task.name}_ceiling": ceiling(task)}

    def add(name: str, found: Fidelity) -> None:
        figures[f"{task.name}_{name}"] = found.value
        figures[f"{task.name}_{name}_se"] = found.standard_error

    for name, prediction in predicted.items():
        add(name, lds(prediction, reported.actual))
    paired = gain(predicted["fisher"], predicted["tracin"], reported.actual)
    add("gain", paired)
    figures[f"{task.name}_gain_lower95"] = paired.lower95
    return figures, [f"{task.name}: {task.origin}", *words]


def main() -> None:
    arguments = parse_arguments()
    peers.check_installed()
    figures: dict[str, float] = {}
    words: list[str] = []
    makers: tuple[Callable[[], Task], ...] = (digits, lambda: image14(arguments.data_dir))
    with one_thread():
        for make in makers:
            found, said = measure(make())
            figures |= found
            words += said
    words.append(f"damping and checkpoints were chosen on {CHOOSING[0]} other halves with seeds {CHOOSING[1]}; ")
    words[-1] += "those of the peers were not, compare them with ..._by_default"
    report("lds", figures, "\n".join(words))


if __name__ == "__main__":
    main()
