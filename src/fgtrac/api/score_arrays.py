"""All scores in memory: an array of training samples by targets, for whoever goes on computing with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer
from fgtrac.api.explanation import UNMEASURED, Fidelity
from fgtrac.api.groups import ids_of
from fgtrac.api.naming import key_of, words_of
from fgtrac.api.targets import prepare_targets
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Progress, block_rows, scores
from fgtrac.score.methods import Method


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of n training samples toward m targets, positive where the sample lowered the target's loss.

    `ids` (n, 32) uint8 and `scores` (n, m) float32, summed over the checkpoints of `steps`, in the order of the rows
    file (and of `write_scores`); `names` (n) where the vault knows them, else None; `labels` (n,) int32 where there are
    classes; `targets` (m) in words.
    """

    ids: NDArray[np.uint8]
    scores: Floats
    names: tuple[str | None, ...]
    labels: NDArray[np.int32] | None
    targets: tuple[str, ...]
    method: str
    steps: tuple[int, ...]
    fidelity: Fidelity | None = None

    def row(self, sample: str | bytes) -> int:
        """The row of a sample by its name or its id (32 bytes). ValueError where it is none of them."""
        if isinstance(sample, str) and sample in self.names:
            return self.names.index(sample)
        found = []
        if isinstance(sample, bytes) and len(sample) == 32:
            found = np.flatnonzero((self.ids == np.frombuffer(sample, dtype=np.uint8)).all(axis=1)).tolist()
        if not found:
            raise ValueError(f"{sample!r:.80} is not among the {len(self.ids):,} training samples that were scored")
        return int(found[0])

    def __str__(self) -> str:
        steps = ", ".join(map(str, self.steps))
        words = f"scores of {len(self.ids):,} training samples toward {len(self.targets):,} targets by {self.method}"
        return f"{words}, the checkpoints of steps {steps}; {self.fidelity or UNMEASURED}"


def compute_scores(
    explainer: Explainer,
    targets: Sequence[Any],
    method: Method,
    *,
    checkpoints: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Every training sample's score toward every target; 4 n m bytes, and what the kernel needs. Errors as
    `Explainer.explain`."""
    cache = explainer.cache(checkpoints)
    resolved, rows = explainer.resolve(cache, targets), cache.rows("train")
    n, m, done = len(rows), len(resolved), 0
    out = np.empty((n, m), dtype=np.float32)
    for numbers, ready in prepare_targets(cache, resolved, method):
        size = 16 * block_rows(ready[0])
        for start in range(0, n, size):
            stop = min(n, start + size)
            out[start:stop, numbers] = scores(cache, ready, start, stop)
            if progress is not None:
                progress(done + stop * len(numbers), n * m)
        done += n * len(numbers)
        del ready  # before the next group is made ready
    ids, known = ids_of(rows, explainer.blocks), explainer.namer.names()
    each = (known.get(sample.tobytes()) for sample in ids)
    names = tuple(None if name is None else words_of(name[0], key_of(name[1])) for name in each)
    steps = tuple(state.step for state in cache.states)
    called = tuple(target.words for target in resolved)
    return Scores(ids, out, names, rows.labels, called, str(method), steps, explainer.fidelity(method, steps))
