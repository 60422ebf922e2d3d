"""Rows that may be mislabelled, by self-influence and by the mean training loss, and rows that are nearly the same.

Both come with their free baseline. Which of two measures is better shows only where some wrong labels are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgtrac.score.curvature import Scaled
from fgtrac.score.fidelity import ranks, spearman
from fgtrac.score.gradients import Floats, Gradients
from fgtrac.score.kernel import Prepared, Progress, add_scores

Rows = NDArray[np.int64]
Read = Callable[[int, int], Sequence[Gradients]]

MEASURES = ("self-influence", "mean loss")
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """How well one measure finds the labels that are known to be wrong: `auc`, and `precision` among as many rows as
    are wrong."""

    auc: float
    precision: float


@dataclass(frozen=True, slots=True, eq=False)
class Suspects:
    """The most suspicious rows (k,), the first by `by` (one of MEASURES), with both measures (k,).

    `agreement` is the rank correlation of the two measures over all rows. Where wrong labels are known, `found` says
    how well each measure finds them, and `better` names the one with the higher AUC if the difference is more than
    chance (95 %); otherwise it is None, and `words` says why.
    """

    rows: Rows
    self_influence: Floats
    mean_loss: Floats
    by: str
    agreement: float
    found: dict[str, Measured]
    better: str | None
    words: str


def rank_suspects(
    self_influence: ArrayLike, mean_loss: ArrayLike, k: int, *, by: str | None = None, wrong: ArrayLike | None = None
) -> Suspects:
    """The k most suspicious of n rows. `wrong` (n,) bool: the labels that are known to be wrong (and right).

    `by` is one of MEASURES; None takes the better one where that is known, otherwise the mean loss, which costs
    nothing. ValueError for shapes that differ, NaN, k < 1, or `wrong` of none or all.
    """
    values = {
        name: np.asarray(v, dtype=np.float32) for name, v in zip(MEASURES, (self_influence, mean_loss), strict=True)
    }
    n = _check(values)
    if k < 1 or by not in (None, *MEASURES):
        raise ValueError(f"the {k} first by {by!r:.40}; ask for at least 1, by {' or '.join(MEASURES)}")
    agreement = float(spearman(*(v[:, None] for v in values.values()))[0])
    found, better, words = {}, None, f"which measure is better, nobody knows: no label is known to be wrong in {n} rows"
    if wrong is not None:
        known = np.asarray(wrong, dtype=bool)
        found = {name: Measured(auc(v, known), precision_at(v, known)) for name, v in values.items()}
        better, words = _compare(values, known)
    chosen = by or better or MEASURES[1]
    rows = np.argsort(-values[chosen], kind="stable")[:k].astype(np.int64)
    first, second = (v[rows] for v in values.values())
    return Suspects(rows, first, second, chosen, agreement, found, better, words)


def auc(scores: ArrayLike, wrong: ArrayLike) -> float:
    """The chance that a wrong row scores higher than a right one; equal scores count half. ValueError where all rows
    are of one kind."""
    values, known = _both(scores, wrong)
    bad = int(known.sum())
    total = float(ranks(values[:, None])[known, 0].sum())
    return (total - bad * (bad - 1) / 2) / (bad * (len(known) - bad))


def precision_at(scores: ArrayLike, wrong: ArrayLike, k: int | None = None) -> float:
    """The share of wrong rows among the k that score highest (default: as many as are wrong); of rows that are equal
    at the border, the share that a random choice gives. ValueError as for `auc`, and for k outside 1..n."""
    values, known = _both(scores, wrong)
    k = int(known.sum()) if k is None else k
    if not 1 <= k <= len(values):
        raise ValueError(f"the {k} highest of {len(values)} rows; ask for 1 to {len(values)}")
    border = np.partition(values, len(values) - k)[len(values) - k]
    above, at = values > border, values == border
    return float(known[above].sum() + (k - above.sum()) * known[at].mean()) / k


def auc_difference(first: ArrayLike, second: ArrayLike, wrong: ArrayLike) -> tuple[float, float]:
    """The 95 % interval of the first measure's AUC minus the second's, on the same rows (DeLong et al. 1988).
    ValueError as for `auc`."""
    ours, theirs = _placements(*_both(first, wrong)), _placements(*_both(second, wrong))
    by_wrong, by_right = ours[0] - theirs[0], ours[1] - theirs[1]
    middle = float(by_wrong.mean())
    variance = sum(float(by.var(ddof=1)) / len(by) if len(by) > 1 else 1.0 for by in (by_wrong, by_right))
    return middle - 1.96 * variance**0.5, middle + 1.96 * variance**0.5


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The k pairs (k, 2) of rows that are most alike, each with the smaller row first: the cosine of their gradients,
    and the free baseline, the cosine of what the layers read (NaN where a layer's inputs are not kept)."""

    rows: Rows
    gradients: Floats
    inputs: Floats


def near_duplicates(read: Read, n: int, k: int, *, by: str = "gradients", progress: Progress | None = None) -> Pairs:
    """The k most similar of all pairs of n rows at one state, block against block; the matrix is never formed.

    `read(start, stop)` gives the rows' gradients, one a layer (as `Cache.read` does at a state). `by`: "gradients" or
    "inputs". Rows whose gradient is zero are like no other. ValueError for k < 1, unknown `by`, or inputs not kept.
    """
    check_pairs(k, by)
    return pairs_of(read, best_pairs(read, (0, n), (0, n), k, by, progress)[0])


def check_pairs(k: int, by: str) -> None:
    """ValueError for pairs that nobody can find."""
    if k < 1 or by not in ("gradients", "inputs"):
        raise ValueError(f"{k} pairs by {by!r:.40}; ask for at least 1, by 'gradients' or 'inputs'")


def best_pairs(
    read: Read, left: tuple[int, int], right: tuple[int, int], k: int, by: str, progress: Progress | None = None
) -> tuple[Rows, Floats]:
    """The k most similar pairs (k, 2) of a row of one range and a later row of another, which is the same or lies
    behind it; and their cosines (k,). Both ranges begin at a multiple of BLOCK."""
    likeness = _gradients_alike if by == "gradients" else _inputs_alike
    rows, cosines = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    starts = range(*left, BLOCK)
    for number, first in enumerate(starts):
        mine = read(first, min(left[1], first + BLOCK))
        for second in range(max(first, right[0]), right[1], BLOCK):
            block = likeness(mine, mine if second == first else read(second, min(right[1], second + BLOCK)))
            if second == first:
                block[np.tril_indices(len(block), m=block.shape[1])] = -np.inf
            rows, cosines = _merge(rows, cosines, block, first, second, k)
        if progress is not None:
            progress(number + 1, len(starts))
    return rows, cosines


def merge_pairs(parts: Sequence[tuple[Rows, Floats]], k: int) -> tuple[Rows, Floats]:
    """The k best of several parts; equal ones in the order of rows."""
    rows, cosines = (np.concatenate(column) for column in zip(*parts, strict=True))
    best = np.lexsort((rows[:, 1], rows[:, 0], -cosines))[:k]
    return rows[best], cosines[best]


def pairs_of(read: Read, rows: Rows) -> Pairs:
    """Both cosines of these pairs."""
    pairs = [_pair(read, *row) for row in rows.tolist()]
    gradients, inputs = (np.array([p[i] for p in pairs], dtype=np.float32) for i in range(2))
    return Pairs(rows, gradients, inputs)


def _merge(rows: Rows, cosines: Floats, block: Floats, first: int, second: int, k: int) -> tuple[Rows, Floats]:
    """The k best of those so far and a block's; equal ones in the order of rows."""
    bar = cosines[-1] if len(cosines) == k else -np.inf
    some = np.flatnonzero(block > bar)
    if len(some) > k:
        values = block.reshape(-1)[some]
        some = some[values >= np.partition(values, len(values) - k)[len(values) - k]]
    left, right = np.divmod(some, block.shape[1])
    found = np.stack([left + first, right + second], axis=1), block.reshape(-1)[some]
    return merge_pairs([(rows, cosines), found], k)


def _pair(read: Read, first: int, second: int) -> tuple[float, float]:
    """Both cosines of one pair."""
    a, b = read(first, first + 1), read(second, second + 1)
    kept = all(g.inputs is not None for g in a)
    return float(_gradients_alike(a, b)[0, 0]), float(_inputs_alike(a, b)[0, 0]) if kept else float("nan")


def _gradients_alike(left: Sequence[Gradients], right: Sequence[Gradients]) -> Floats:
    """(a, b): cosines of the gradients, all layers together."""
    lengths = np.sqrt(sum(g.squared_norms() for g in right))
    by = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)
    ready = Prepared(tuple(Scaled(1.0).apply(g.scaled(by)) for g in right), unit_rows=True)
    out = np.zeros((len(left[0]), len(right[0])), dtype=np.float32)
    add_scores(left, ready, out)
    return out


def _inputs_alike(left: Sequence[Gradients], right: Sequence[Gradients]) -> Floats:
    """(a, b): cosines of what the layers read, all layers together."""
    sides = []
    for side in (left, right):
        parts = [g.inputs for g in side if g.inputs is not None]
        if len(parts) < len(side):
            raise ValueError("a layer's inputs are not kept where it sees a sample at several positions")
        whole = np.concatenate(parts, axis=1)
        lengths = np.linalg.norm(whole, axis=1, keepdims=True)
        sides.append(np.divide(whole, lengths, out=np.zeros_like(whole), where=lengths > 0))
    alike: Floats = sides[0] @ sides[1].T
    return alike


def _check(values: dict[str, Floats]) -> int:
    shapes = {v.shape for v in values.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"the measures have shapes {sorted(shapes)}; both have one number a row")
    for name, v in values.items():
        if bad := int((~np.isfinite(v)).sum()):
            raise ValueError(f"{bad} of {len(v)} values of {name} are not finite")
    return int(next(iter(shapes))[0])


def _both(scores: ArrayLike, wrong: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if values.shape != known.shape or values.ndim != 1:
        raise ValueError(f"scores of shape {values.shape} and labels known of {known.shape}; both have one a row")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN")
    if not known.any() or known.all():
        raise ValueError(f"{int(known.sum())} of {len(known)} labels are wrong; some and not all must be")
    return values, known


def _compare(values: dict[str, Floats], known: NDArray[np.bool_]) -> tuple[str | None, str]:
    """Which measure has the higher AUC, and in words how sure that is."""
    found = {name: auc(v, known) for name, v in values.items()}
    low, high = auc_difference(values[MEASURES[0]], values[MEASURES[1]], known)
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    ahead, sure = max(found, key=lambda name: found[name]), f"95 % of the difference from {low:.3f} to {high:.3f}"
    if low <= 0 <= high:
        return None, f"AUC {told}: {ahead} is ahead by no more than chance ({sure}); nobody can tell which is better"
    return ahead, f"AUC {told}: {ahead} is better ({sure})"


def _placements(
    values: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each wrong row the share of right rows below it, for each right row the share of wrong rows above it."""
    among_all, bad, good = ranks(values[:, None])[:, 0], int(known.sum()), int((~known).sum())
    below = among_all[known] - ranks(values[known, None])[:, 0]
    above = bad - (among_all[~known] - ranks(values[~known, None])[:, 0])
    return below / good, above / bad
