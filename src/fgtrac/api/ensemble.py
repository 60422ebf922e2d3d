"""Several trainings on the same samples: the mean of their scores is steadier than any one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer, check_unseen, further_progress, mean_losses, shares_of, words_of_layer
from fgtrac.api.explanation import Explanation, Scored, Share, Toward
from fgtrac.api.groups import check_group, group_rows, ids_of
from fgtrac.api.targets import Target, prepare_group, target_groups
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Prepared, Progress, block_rows, traces
from fgtrac.score.methods import Method
from fgtrac.score.topk import TopK

Steps = Sequence[int] | Sequence[Sequence[int] | None] | None


class Ensemble:
    """Traces that scored the same training samples; made by `fgtrac.ensemble`."""

    def __init__(self, explainers: Sequence[Explainer], names: Sequence[str]) -> None:
        if not explainers:
            raise ValueError("an ensemble of no traces has no scores; pass at least one")
        self._explainers = tuple(explainers)
        self._names = tuple(names)
        self._known: dict[tuple[tuple[int, ...] | None, ...], _Joined] = {}
        self._joined(None)

    def explain(
        self,
        *targets: Any,
        model: Any = None,
        loss: Callable[..., Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        k: int = 10,
        checkpoints: Steps = None,
        by: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Explanation:
        """As `Trace.explain`, with the mean of the traces' scores; `trace` of each sample has the score of each trace.

        `checkpoints` are steps that every trace has, or a list of steps (None: all) for each trace. Every trace must
        know every target by the name given; a batch of unseen data with `model` is put through the states of all, so
        that their architecture is one. The fidelity of a mean is not measured. Errors as there.
        """
        how = Method(method, damping, ggn)
        check_group(by)
        check_unseen("explain", targets, model, loss, forward)
        joined = self._joined(checkpoints)
        if model is None:
            pairs = zip(self._explainers, joined.caches, strict=True)
            resolved = [explainer.resolve(cache, targets) for explainer, cache in pairs]
            first, groups = resolved[0], _named(joined, resolved, how)
        else:
            first, groups = _unseen(joined, (targets[0], model, loss, forward), how)
        found: dict[int, Toward] = {}
        for numbers, prepared in groups:
            further = further_progress(progress, joined.n, len(found), len(first))
            found |= zip(numbers, joined.toward([first[i] for i in numbers], prepared, k, by, further), strict=True)
        layers = tuple(dict.fromkeys(words_of_layer(layer) for cache in joined.caches for layer in cache.layers))
        steps = tuple(tuple(state.step for state in cache.states) for cache in joined.caches)
        toward = tuple(found[i] for i in range(len(first)))
        sampled = any(e.is_sampled(cache) for e, cache in zip(self._explainers, joined.caches, strict=True))
        return Explanation(
            toward, str(how), layers, (), self._names, joined.n, by, steps_of_traces=steps, is_sampled=sampled
        )

    def _joined(self, checkpoints: Steps) -> _Joined:
        chosen = _each(checkpoints, len(self._explainers))
        key = tuple(None if steps is None else tuple(steps) for steps in chosen)
        if key not in self._known:
            self._known[key] = self._join(chosen)
        return self._known[key]

    def _join(self, chosen: Sequence[Sequence[int] | None]) -> _Joined:
        caches = []
        for explainer, steps, name in zip(self._explainers, chosen, self._names, strict=True):
            try:
                caches.append(explainer.cache(steps))
            except (ValueError, ScoreError) as error:
                raise type(error)(f"{name}: {error}") from error
        return _Joined(self._explainers, tuple(caches), _aligned(self._explainers, caches, self._names))


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """The factors of all traces, and for each the rows in the order of the first one's."""

    explainers: tuple[Explainer, ...]
    caches: tuple[Cache, ...]
    rows: tuple[NDArray[np.int64], ...]

    @property
    def n(self) -> int:
        return len(self.rows[0])

    def toward(
        self,
        targets: Sequence[Target],
        prepared: Sequence[list[Prepared]],
        k: int,
        by: str | None,
        progress: Progress | None,
    ) -> list[Toward]:
        if k < 1:
            raise ValueError(f"the {k} strongest are none; ask for at least 1")
        explainer, cache, m = self.explainers[0], self.caches[0], len(targets)
        groups = None if by is None else group_rows(cache.rows("train"), explainer.blocks, by)
        sums = np.zeros((0 if groups is None else len(groups[1]), m))
        best, worst = TopK(m, min(k, self.n), largest=True), TopK(m, min(k, self.n), largest=False)
        size = block_rows(prepared[0][0])
        for start in range(0, self.n, size):
            block = self.scores(prepared, np.arange(start, min(self.n, start + size))).mean(axis=0)
            best.add(start, block)
            worst.add(start, block)
            if groups is not None:
                np.add.at(sums, groups[0][start : start + size], block)
            if progress is not None:
                progress((start + len(block)) * m, self.n * m)
        shares = [()] * m if groups is None else shares_of(sums, *groups)
        listed = zip(targets, best.result()[0], worst.result()[0], shares, strict=True)
        free = {label: self._highest_losses(label, k) for label in {target.label for target in targets}}
        return [
            self._answer(target, [[p.cut(j, j + 1) for p in mine] for mine in prepared], pro, con, free, share)
            for j, (target, pro, con, share) in enumerate(listed)
        ]

    def _answer(
        self,
        target: Target,
        prepared: Sequence[list[Prepared]],
        pro: NDArray[np.int64],
        con: NDArray[np.int64],
        free: Mapping[int | None, tuple[Scored, ...]],
        shares: tuple[Share, ...],
    ) -> Toward:
        rows = np.concatenate([pro, con])
        parts = self.scores(prepared, rows)[:, :, 0]
        own = set(target.rows.get("train", np.empty(0)).tolist()) if target.is_single else set()
        listed = [
            self.explainers[0].scored(self.caches[0], row, float(each.mean()), each.tolist(), itself=row in own)
            for row, each in zip(rows.tolist(), parts.T, strict=True)
        ]
        proponents = tuple(s for s in listed[: len(pro)] if s.score > 0)
        opponents = tuple(s for s in listed[len(pro) :] if s.score < 0)
        return Toward(
            target.words, target.samples, target.label, proponents, opponents, free[target.label], tuple(shares)
        )

    def scores(self, prepared: Sequence[list[Prepared]], rows: NDArray[np.intp]) -> Floats:
        """(traces, len(rows), m): each trace's scores of some rows of the first trace."""
        found = [
            traces(cache, ready, order[rows]).sum(axis=0)
            for cache, ready, order in zip(self.caches, prepared, self.rows, strict=True)
        ]
        return np.stack(found)

    def _highest_losses(self, label: int | None, k: int) -> tuple[Scored, ...]:
        """The free baseline: as of one trace, by the mean over all; empty where one has no losses."""
        pairs = zip(self.caches, self.rows, strict=True)
        known = [losses[order] for cache, order in pairs if (losses := mean_losses(cache)) is not None]
        if len(known) < len(self.caches):
            return ()
        return self.explainers[0].highest_losses(self.caches[0], np.mean(known, axis=0), label, k)


def _each(checkpoints: Steps, traces: int) -> list[Sequence[int] | None]:
    """The steps of each trace. ValueError where there are lists, and not one for each."""
    if checkpoints is None or not any(isinstance(steps, Sequence) or steps is None for steps in checkpoints):
        return [cast("Sequence[int] | None", checkpoints)] * traces
    if len(checkpoints) != traces or any(isinstance(steps, int) for steps in checkpoints):
        raise ValueError(
            f"checkpoints= has {len(checkpoints)} items for {traces} traces; give steps, or a list a trace"
        )
    return list(cast("Sequence[Sequence[int] | None]", checkpoints))


Groups = Iterator[tuple[list[int], list[list[Prepared]]]]


def _named(joined: _Joined, resolved: Sequence[Sequence[Target]], method: Method) -> Groups:
    """Targets of the traces made ready, a group at a time: (their numbers, for each trace one `Prepared` a state)."""
    for numbers in target_groups(joined.caches, resolved[0], method):
        pairs = zip(joined.caches, resolved, strict=True)
        yield numbers, [prepare_group(cache, [mine[i] for i in numbers], method) for cache, mine in pairs]


def _unseen(joined: _Joined, batch: tuple[Any, ...], method: Method) -> tuple[list[Target], Groups]:
    """The samples of a batch as targets, and these made ready."""
    from fgtrac.api.unseen import prepare_batch, read_batch  # needs torch

    found = [read_batch(e, c, *batch) for e, c in zip(joined.explainers, joined.caches, strict=True)]
    each = [prepare_batch(c, g, method, joined.caches) for c, (_, g) in zip(joined.caches, found, strict=True)]
    groups = ((parts[0][0], [ready for _, ready in parts]) for parts in zip(*each, strict=True))
    return found[0][0], groups


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
            lost = [e.trace.vault_path for e in explainers if not e.trace.vault_path.exists()]
            if lost and not shared:
                raise ValueError(
                    f"{lost[0]} is missing: without it nobody can tell which training samples of {names[0]} and {name} "
                    "are the same; put it beside its trace"
                )
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
