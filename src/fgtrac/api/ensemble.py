"""Several trainings on the same samples: the mean of their scores is steadier than any one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer, words_of_layer
from fgtrac.api.explanation import Explanation, Toward
from fgtrac.api.groups import ids_of
from fgtrac.api.targets import Target, prepare_group, target_groups
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Prepared, Progress, block_rows, traces
from fgtrac.score.methods import Method
from fgtrac.score.topk import TopK


class Ensemble:
    """Traces that scored the same training samples; made by `fgtrac.ensemble`."""

    def __init__(self, explainers: Sequence[Explainer], names: Sequence[str]) -> None:
        if not explainers:
            raise ValueError("an ensemble of no traces has no scores; pass at least one")
        self._explainers = tuple(explainers)
        self._names = tuple(names)
        self._caches = tuple(explainer.cache() for explainer in explainers)
        self._rows = _aligned(self._explainers, self._caches, self._names)

    def explain(
        self,
        *targets: Any,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        k: int = 10,
        progress: Callable[[int, int], None] | None = None,
    ) -> Explanation:
        """As `Trace.explain`, with the mean of the traces' scores; `trace` of each sample has the score of each trace.

        Every trace must know every target by the name given. Errors as there.
        """
        how = Method(method, damping, ggn)
        resolved = [e.resolve(c, targets) for e, c in zip(self._explainers, self._caches, strict=True)]
        found: dict[int, Toward] = {}
        for numbers in target_groups(self._caches, resolved[0], how):
            pairs = zip(self._caches, resolved, strict=True)
            prepared = [prepare_group(cache, [mine[i] for i in numbers], how) for cache, mine in pairs]
            found |= zip(numbers, self._toward([resolved[0][i] for i in numbers], prepared, k, progress), strict=True)
        layers = tuple(dict.fromkeys(words_of_layer(layer) for cache in self._caches for layer in cache.layers))
        toward = tuple(found[i] for i in range(len(targets)))
        return Explanation(toward, str(how), layers, (), self._names, len(self._rows[0]))

    def _toward(
        self, targets: Sequence[Target], prepared: Sequence[list[Prepared]], k: int, progress: Progress | None
    ) -> list[Toward]:
        n, m = len(self._rows[0]), len(targets)
        if k < 1:
            raise ValueError(f"the {k} strongest are none; ask for at least 1")
        best, worst = TopK(m, min(k, n), largest=True), TopK(m, min(k, n), largest=False)
        size = block_rows(prepared[0][0])
        for start in range(0, n, size):
            block = self._scores(prepared, np.arange(start, min(n, start + size))).mean(axis=0)
            best.add(start, block)
            worst.add(start, block)
            if progress is not None:
                progress(start + len(block), n)
        (pro, _), (con, _) = best.result(), worst.result()
        out = []
        for j, target in enumerate(targets):
            rows = np.concatenate([pro[j], con[j]])
            one = [[p.cut(j, j + 1) for p in mine] for mine in prepared]
            parts = self._scores(one, rows)[:, :, 0]
            explainer, cache = self._explainers[0], self._caches[0]
            own = set(target.rows.get("train", np.empty(0)).tolist()) if target.is_single else set()
            listed = [
                explainer.scored(cache, row, float(shares.mean()), shares.tolist(), itself=row in own)
                for row, shares in zip(rows.tolist(), parts.T, strict=True)
            ]
            half = len(listed) // 2
            proponents = tuple(s for s in listed[:half] if s.score > 0)
            opponents = tuple(s for s in listed[half:] if s.score < 0)
            out.append(Toward(target.words, target.samples, target.label, proponents, opponents))
        return out

    def _scores(self, prepared: Sequence[list[Prepared]], rows: NDArray[np.intp]) -> Floats:
        """(traces, len(rows), m): each trace's scores of some rows of the first trace."""
        found = [
            traces(cache, ready, order[rows]).sum(axis=0)
            for cache, ready, order in zip(self._caches, prepared, self._rows, strict=True)
        ]
        return np.stack(found)


def _aligned(
    explainers: Sequence[Explainer], caches: Sequence[Cache], names: Sequence[str]
) -> tuple[NDArray[np.int64], ...]:
    """For each trace the rows that hold the samples of the first trace's rows, in that order.

    Samples are the same by id, or, where ids are keyed and so differ from trace to trace, by data set and key as the
    vaults know them. ValueError where the sets differ.
    """
    known = [_identities(e, c, by_name=False) for e, c in zip(explainers, caches, strict=True)]
    if any(set(one) != set(known[0]) for one in known[1:]):
        known = [_identities(e, c, by_name=True) for e, c in zip(explainers, caches, strict=True)]
    for one, name in zip(known[1:], names[1:], strict=True):
        if set(one) != set(known[0]):
            shared = len(set(one) & set(known[0]))
            raise ValueError(
                f"{names[0]} scored {len(known[0]):,} training samples and {name} {len(one):,}, of which {shared:,} "
                "are the same; an ensemble takes traces that scored the same samples"
            )
    rows = [{sample: row for row, sample in enumerate(one)} for one in known]
    return tuple(np.array([places[sample] for sample in known[0]], dtype=np.int64) for places in rows)


def _identities(explainer: Explainer, cache: Cache, *, by_name: bool) -> list[Any]:
    """Who each training row is, so that rows of several traces can be compared."""
    ids = [row.tobytes() for row in ids_of(cache.rows("train"), explainer.blocks)]
    called = explainer.namer.names() if by_name else {}
    return [called.get(sample, sample) for sample in ids]
