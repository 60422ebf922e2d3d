"""How well scores agree with retraining: the linear datamodeling score (arXiv:2303.14186 section 2.2), and its error.

The model is trained anew on random parts of the training samples. A score is faithful where the sum of scores over a
part ranks the parts as the retrained models do. What this measures is of one training recipe, and of one scored model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgtrac.errors import ScoreError
from fgtrac.score.functions import Function, identify
from fgtrac.score.kernel import Progress
from fgtrac.score.retrainings import Retrainings

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Retrain = Callable[[Rows, int], ArrayLike]

GROUPS = 64  # parts are left out of the jackknife in at most so many groups


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The mean over `tests` targets of the rank correlation over `subsets` retrained parts, between -1 and 1.

    `standard_error` covers the choice of targets (their spread) and of parts (a jackknife over parts, ranks computed
    anew); their variances are added, which counts what both share twice and so rather overstates it. It does not cover
    another scored model or another recipe. Targets whose loss was the same in every retraining rank nothing: they are
    left out and not among `tests`.
    """

    value: float
    standard_error: float
    subsets: int
    tests: int

    @property
    def lower95(self) -> float:
        """The lower bound of the 95 % interval, by a normal distribution."""
        return self.value - 1.96 * self.standard_error

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.standard_error:.3f}"


def lds(predicted: ArrayLike, actual: ArrayLike) -> Fidelity:
    """The score of predictions (subsets, tests) against what retraining gave, (subsets, tests) in the same sense: the
    higher, the better for the target (minus the loss).

    ValueError for shapes that differ, fewer than 4 subsets, numbers that are not finite, or nothing that varies.
    """
    found, outcome = _checked(predicted, actual)
    return _estimate(lambda rows: spearman(found[rows], outcome[rows]), outcome)


def gain(predicted: ArrayLike, baseline: ArrayLike, actual: ArrayLike) -> Fidelity:
    """How much better one prediction is than another, on the same parts and targets: the mean of the differences, with
    the error of the pair. ValueError as for `lds`."""
    found, outcome = _checked(predicted, actual)
    other, _ = _checked(baseline, actual)

    def differences(rows: NDArray[np.bool_]) -> Doubles:
        return spearman(found[rows], outcome[rows]) - spearman(other[rows], outcome[rows])

    return _estimate(differences, outcome)


def spearman(predicted: ArrayLike, actual: ArrayLike) -> Doubles:
    """(m,): the rank correlation of each column, (subsets, m) both; 0 where a column is constant."""
    a, b = (_centred(ranks(values)) for values in (predicted, actual))
    lengths = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    products: Doubles = np.einsum("ij,ij->j", a, b)
    out: Doubles = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return out


def ranks(values: ArrayLike) -> Doubles:
    """Ranks within each column (n, m), from 0; equal values have the mean of their ranks."""
    columns = np.asarray(values).T
    order = np.argsort(columns, axis=1, kind="stable")
    ordered = np.take_along_axis(columns, order, axis=1)
    n = columns.shape[1]
    places = np.broadcast_to(np.arange(n), columns.shape)
    starts = np.ones(columns.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    ends = np.ones(columns.shape, dtype=bool)
    ends[:, :-1] = starts[:, 1:]
    last = np.minimum.accumulate(np.where(ends, places, n)[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(columns.shape)
    np.put_along_axis(out, order, (first + last) / 2, axis=1)
    return out.T


def leave_some_out(n: int, subsets: int, *, keep: float = 0.5, seed: int = 0) -> Rows:
    """(subsets, round(keep * n)) positions below n, ascending in each part: random parts of the training samples.

    Part i depends on seed and i only, so that more parts can be added later. ValueError for parts of none or of all.
    """
    size = round(keep * n)
    if not 0 < size < n:
        raise ValueError(f"keeping {keep:g} of {n} samples keeps {size}; a part has some of them and not all")
    if subsets < 1:
        raise ValueError(f"{subsets} subsets; ask for at least 1")
    parts = (np.random.default_rng((seed, i)).permutation(n)[:size] for i in range(subsets))
    return np.stack([np.sort(part) for part in parts]).astype(np.int64)


def predict(scores: ArrayLike, parts: Rows) -> Doubles:
    """(subsets, m): the sums of scores (n, m) over parts (subsets, k) of positions."""
    whole = np.asarray(scores)
    return np.stack([whole[part].sum(axis=0, dtype=np.float64) for part in parts])


def measure(
    retrain: Retrain,
    rows: ArrayLike,
    targets: Sequence[str],
    scores: ArrayLike,
    *,
    subsets: int = 64,
    seeds: Sequence[int] = (1,),
    keep: float = 0.5,
    seed: int = 0,
    progress: Progress | None = None,
    resume_path: Path | None = None,
    function: Function | None = None,
    about: str = "",
) -> Fidelity:
    """Retrain on `subsets` random parts, with each of `seeds`, and compare with `scores` (n, m).

    `rows` (n,) name the training samples that the scores are of, as `retrain(rows, seed)` takes them; it returns the
    losses (m,) of the targets, whose names are `targets`, after a training on these rows alone. `keep` is the share of
    a part, `seed` draws the parts. Each finished retraining is added to the file at `resume_path`; what stands there
    is not done again, also when more subsets or seeds, or other scores, are asked for. `function` says which function
    this is where `retrain` only calls it, `about` who the rows and targets are. `progress(done, in all)`.

    ValueError for shapes that do not fit, and a file of other retrainings; ScoreError for losses that are not finite.
    """
    names, matrix = np.asarray(rows, dtype=np.int64), np.asarray(scores)
    if names.ndim != 1 or matrix.shape != (len(names), len(targets)):
        raise ValueError(f"scores of shape {matrix.shape} for {len(names)} rows and {len(targets)} targets")
    _check_enough(subsets)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {list(seeds)}; give at least one, and each once")
    parts = leave_some_out(len(names), subsets, keep=keep, seed=seed)
    done = Retrainings(resume_path, function or identify(retrain), names, targets, keep, seed, about)
    losses = np.zeros((subsets, len(targets)))
    wanted = [(part, using) for using in seeds for part in range(subsets)]
    for number, (part, using) in enumerate(wanted):
        found = done.get(part, using)
        if found is None:
            found = _losses(retrain(names[parts[part]], using), part, using, targets)
            done.add(part, using, found)
        losses[part] += found
        if progress is not None:
            progress(number + 1, len(wanted))
    return lds(predict(matrix, parts), -losses / len(seeds))


def _losses(values: ArrayLike, part: int, seed: int, targets: Sequence[str]) -> Doubles:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (len(targets),):
        raise ValueError(f"the training function returned losses of shape {found.shape} for {len(targets)} targets")
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise ScoreError(
            f"the model retrained on part {part} with seed {seed} has {len(bad)} losses that are not finite, "
            f"{targets[bad[0]]} the first; a training that diverges measures nothing"
        )
    return found


def _checked(predicted: ArrayLike, actual: ArrayLike) -> tuple[Doubles, Doubles]:
    """Both as float64, without the targets that never vary."""
    found, outcome = (np.asarray(values, dtype=np.float64) for values in (predicted, actual))
    if found.shape != outcome.shape or found.ndim != 2:
        raise ValueError(f"predictions of shape {found.shape} and outcomes of {outcome.shape}; both (subsets, tests)")
    _check_enough(len(found))
    for name, values in (("predictions", found), ("outcomes", outcome)):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{bad} of {values.size} {name} are not finite")
    varies = outcome.max(axis=0) > outcome.min(axis=0)
    if not varies.any():
        raise ValueError(
            "no target's loss differs between the retrainings, so there is nothing to rank; see that the training "
            "function trains on the rows that it is given and returns the losses after it"
        )
    return found[:, varies], outcome[:, varies]


def _check_enough(subsets: int) -> None:
    if subsets < 4:
        raise ValueError(f"{subsets} subsets rank nothing; take at least 4, and 64 or more for a small error")


def _estimate(each: Callable[[NDArray[np.bool_]], Doubles], outcome: Doubles) -> Fidelity:
    """The mean of a figure of each target, with its error; `each` computes it on some of the parts."""
    n, m = outcome.shape
    values = each(np.ones(n, dtype=bool))
    by_tests = values.var(ddof=1) / m if m > 1 else 0.0
    without = np.array([each(rows).mean() for rows in _left_out(n)])
    by_parts = (len(without) - 1) * without.var()
    return Fidelity(float(values.mean()), float(np.sqrt(by_tests + by_parts)), n, m)


def _left_out(n: int) -> Iterator[NDArray[np.bool_]]:
    """All parts but one group, for each group in turn."""
    for group in np.array_split(np.arange(n), min(n, GROUPS)):
        rows = np.ones(n, dtype=bool)
        rows[group] = False
        yield rows


def _centred(values: Doubles) -> Doubles:
    centred: Doubles = values - values.mean(axis=0)
    return centred
