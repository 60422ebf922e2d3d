"""Explaining targets by the factors of an opened trace: without the model, the training data or torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explanation import Explanation, Fidelity, Scored, Share, Toward
from fgtrac.api.groups import check_group, check_rows, group_rows
from fgtrac.api.ledger import Ledger
from fgtrac.api.measured import find_fidelity
from fgtrac.api.naming import Namer, UnknownSampleError
from fgtrac.api.targets import Target, prepare_targets, resolve
from fgtrac.events.postings import KIND
from fgtrac.query.attention import AttentionReader, ModalityWeights
from fgtrac.query.blocks import Blocks
from fgtrac.query.seals import FullSeal
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats, Layer
from fgtrac.score.kernel import Prepared, Progress, Ranking, block_rows, rank, scores, traces
from fgtrac.score.methods import Method
from fgtrac.store.trace_dir import TraceDir

TRACED_TARGETS, TRACED_ROWS = 8, 1 << 15  # whose contribution traces are computed together
SOME_ROWS = 8  # where a use is looked for
KINDS = ("checkpoint", "resume", "artifact", "erasure")

Ranked = Callable[[int, Sequence[Prepared]], tuple[Ranking, NDArray[np.float64] | None]]
"""Of a group of targets, by its number and as they are made ready: their ranking, and where training samples are
grouped, the sums (groups, targets) of scores."""


class Explainer:
    """The scores that one full seal's factors give; each factor file that is used is checked against the log once."""

    def __init__(
        self, trace: TraceDir, seal: FullSeal, blocks: Blocks, namer: Namer, attention: AttentionReader
    ) -> None:
        self.trace = trace
        self.seal = seal
        self.blocks = blocks
        self.namer = namer
        self._attention = attention
        self._caches: dict[tuple[int, ...] | None, Cache] = {}

    @cached_property
    def ledger(self) -> Ledger:
        """The kept model states and the files that the log names; every entry is checked against the root."""
        ledger, log, counts = Ledger(), self.seal.log, self.seal.event["counts"]
        for number in sorted(n for kind in KINDS for n in log.find_kind(kind, counts.get(kind, 0))):
            event = log.event(number)
            ledger.take(event["kind"], event, (event["writer"], event["seq"]))
        return ledger

    def cache(self, checkpoints: Sequence[int] | None = None, *, apart: bool = False) -> Cache:
        """The factors at the checkpoints of these steps, by default at all; `apart` for one whose curvatures are not
        those of other answers. ScoreError where there are none, ValueError for a step at which no state with factors
        is kept."""
        chosen = None if checkpoints is None else tuple(sorted(set(checkpoints)))
        if apart:
            return Cache(self.trace, self.ledger.artifacts, self.cache(chosen).states)
        if chosen not in self._caches:
            states = self.ledger.states
            if chosen is not None:
                there = [state.step for state in self.cache().states]
                if not chosen:
                    raise ValueError(f"no step named in checkpoints=[]; there are {there}")
                if lacking := [step for step in chosen if step not in there]:
                    raise ValueError(f"no state with factors is kept at step {lacking[0]!r}; there are {there}")
                states = tuple(state for state in states if state.step in chosen)
            cache = Cache(self.trace, self.ledger.artifacts, states)
            check_rows(cache.rows("train"), self.blocks)
            self._caches[chosen] = cache
        return self._caches[chosen]

    def resolve(self, cache: Cache, targets: Sequence[str | Sequence[str]]) -> list[Target]:
        """The targets of these names. ValueError without any."""
        if not targets:
            raise ValueError("nothing was named to be explained; name a sample, a class or a role")
        return [resolve(cache, target, self.find) for target in targets]

    def find(self, name: str) -> list[tuple[bytes, int]]:
        """Where the sample of that name is registered. UnknownSampleError where it is not."""
        sample = self.namer.find(name)
        places = self.blocks.find(sample.id)
        if not places:
            raise UnknownSampleError(f"no sample {name} is registered (id {sample.id.hex()})")
        return places

    def explain(
        self,
        targets: Sequence[str | Sequence[str]],
        method: Method,
        *,
        k: int = 10,
        checkpoints: Sequence[int] | None = None,
        by: str | None = None,
        progress: Progress | None = None,
    ) -> Explanation:
        """The k strongest proponents and opponents of each target."""
        check_group(by)
        cache = self.cache(checkpoints)
        resolved = self.resolve(cache, targets)
        return self.answer(cache, resolved, prepare_targets(cache, resolved, method), method, k, by, progress)

    def answer(
        self,
        cache: Cache,
        targets: Sequence[Target],
        prepared: Iterable[tuple[list[int], list[Prepared]]],
        method: Method,
        k: int,
        by: str | None = None,
        progress: Progress | None = None,
        ranked: Ranked | None = None,
    ) -> Explanation:
        """The answer toward targets that are made ready (as `prepare_targets` gives them, group by group); with
        `ranked`, whose training rows somebody else has ranked."""
        groups = None if by is None else group_rows(cache.rows("train"), self.blocks, by)
        found: dict[int, Toward] = {}
        for number, (numbers, ready) in enumerate(prepared):
            if ranked is not None:
                ranking, sums = ranked(number, ready)
            else:
                further = further_progress(progress, len(cache.rows("train")), len(found), len(targets))
                ranking = rank(cache, ready, k, progress=further)
                sums = None if groups is None else group_sums(cache, ready, groups[0], len(groups[1]))
            shares = [()] * len(numbers) if groups is None or sums is None else shares_of(sums, *groups)
            mine = [targets[i] for i in numbers]
            found |= zip(numbers, self._toward(cache, mine, ready, k, ranking, shares), strict=True)
            del ready  # before the next group is made ready
        steps = tuple(state.step for state in cache.states)
        return Explanation(
            tuple(found[i] for i in range(len(targets))), str(method), tuple(map(words_of_layer, cache.layers)), steps,
            tuple(f"step {step}" for step in steps), len(cache.rows("train")), by, self.fidelity(method, steps),
            is_sampled=self.is_sampled(cache),
        )  # fmt: skip

    def is_sampled(self, cache: Cache) -> bool:
        """Whether a neighbour sampler drew some of what trained, as all uses of the first sample that has any say."""
        rows = cache.rows("train")
        for row in range(min(len(rows), SOME_ROWS)):
            found = self.seal.rows(self.blocks.id(*rows.place(row)))
            used = [] if found is None else np.unique(found["entry"][found["kind"] == KIND["used"]]).tolist()
            if used:
                return any(self.seal.log.event(number).get("graph") == "sampled" for number in used)
        return False

    def fidelity(self, method: Method, steps: tuple[int, ...]) -> Fidelity | None:
        """What was measured of this method at these checkpoints, if the trace says so."""
        return find_fidelity(self.trace, self.ledger.artifacts, str(method), steps)

    def scored(
        self, cache: Cache, row: int, score: float, trace: Sequence[float] = (), *, itself: bool = False
    ) -> Scored:
        """A training row with its score."""
        rows = cache.rows("train")
        sample_id = self.blocks.id(*rows.place(row))
        label = int(rows.labels[row]) if rows.labels is not None else None
        name = self.namer.name_of(sample_id)
        return Scored(sample_id, name, "train", label, score, tuple(trace), itself)

    def _toward(
        self,
        cache: Cache,
        targets: Sequence[Target],
        prepared: Sequence[Prepared],
        k: int,
        ranking: Ranking,
        shares: Sequence[tuple[Share, ...]],
    ) -> list[Toward]:
        baselines = {label: self._highest_losses(cache, label, k) for label in {t.label for t in targets}}
        out = []
        for j, (rows, whole, parts) in enumerate(_with_traces(cache, prepared, ranking)):
            target, half = targets[j], len(rows) // 2
            own = set(target.rows.get("train", np.empty(0)).tolist()) if target.is_single else set()
            listed = [
                self.scored(cache, row, score, parts[:, i].tolist(), itself=row in own)
                for i, (row, score) in enumerate(zip(rows.tolist(), whole.tolist(), strict=True))
            ]
            pro, con = [s for s in listed[:half] if s.score > 0], [s for s in listed[half:] if s.score < 0]
            said = (target.words, target.samples, target.label, tuple(pro), tuple(con))
            out.append(Toward(*said, baselines[target.label], shares[j], self._modality_weights(cache, target)))
        return out

    def _modality_weights(self, cache: Cache, target: Target) -> tuple[ModalityWeights, ...]:
        """Of a target that is one sample of the trace, at the checkpoints that are kept."""
        if not target.is_single:
            return ()
        role, rows = next(iter(target.rows.items()))
        if not cache.has(role):
            return ()
        found = self._attention.of_sample(self.blocks.id(*cache.rows(role).place(int(rows[0])))) or ()
        return tuple(one for one in found if one.standing == "kept")

    def _highest_losses(self, cache: Cache, label: int | None, k: int) -> tuple[Scored, ...]:
        """The training samples (of a class) with the highest loss, the mean over checkpoints."""
        losses = mean_losses(cache)
        return () if losses is None else self.highest_losses(cache, losses, label, k)

    def highest_losses(self, cache: Cache, losses: Floats, label: int | None, k: int) -> tuple[Scored, ...]:
        """The training rows (of a class) with the highest of these losses (n,)."""
        labels = cache.rows("train").labels
        rows = np.arange(len(losses)) if label is None or labels is None else np.flatnonzero(labels == label)
        order = rows[np.argsort(-losses[rows], kind="stable")[:k]]
        return tuple(self.scored(cache, row, float(losses[row])) for row in order.tolist())


def group_sums(
    cache: Cache,
    prepared: Sequence[Prepared],
    codes: NDArray[np.intp],
    groups: int,
    start: int = 0,
    stop: int | None = None,
) -> NDArray[np.float64]:
    """(groups, m): the sums of the scores of the training rows of each group, `codes` (n,) says which; of all rows, or
    of those from `start` up to `stop`."""
    sums, end = np.zeros((groups, len(prepared[0]))), len(codes) if stop is None else stop
    size = block_rows(prepared[0])
    for first in range(start, end, size):
        last = min(end, first + size)
        np.add.at(sums, codes[first:last], scores(cache, prepared, first, last))
    return sums


def further_progress(progress: Progress | None, n: int, before: int, m: int) -> Progress | None:
    """The progress of one group of targets as that of all m."""
    return None if progress is None else lambda done, _group: progress(before * n + done, m * n)


def _with_traces(
    cache: Cache, prepared: Sequence[Prepared], ranking: Ranking
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """For each target its listed rows (2 k), their scores (2 k), and their contribution traces (states, 2 k); rows of
    some targets at once are read together."""
    rows = np.concatenate([ranking.proponents, ranking.opponents], axis=1)
    whole = np.concatenate([ranking.proponent_scores, ranking.opponent_scores], axis=1)
    size = max(1, min(TRACED_TARGETS, TRACED_ROWS // rows.shape[1]))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        each, back = np.unique(some, return_inverse=True)
        found = traces(cache, [p.cut(start, start + len(some)) for p in prepared], each)
        for j, places in enumerate(back.reshape(some.shape)):
            yield rows[start + j], whole[start + j], found[:, places, j]


def mean_losses(cache: Cache) -> Floats | None:
    """(n,) each training sample's loss, the mean over checkpoints; None where they were not kept at all of them."""
    known = [losses for k in range(len(cache.states)) if (losses := cache.losses(k, "train")) is not None]
    if len(known) < len(cache.states):
        return None
    return np.asarray(np.mean(known, axis=0, dtype=np.float64), dtype=np.float32)


def shares_of(sums: NDArray[np.float64], codes: NDArray[np.intp], names: list[str]) -> list[tuple[Share, ...]]:
    """For each target (column of `sums` (groups, m)) the shares of the groups, largest first."""
    counts = np.bincount(codes, minlength=len(names))
    return [
        tuple(Share(names[i], int(counts[i]), float(column[i])) for i in np.argsort(-column, kind="stable").tolist())
        for column in sums.T
    ]


def check_unseen(verb: str, targets: Sequence[Any], model: Any, loss: Any, forward: Any, engine: Any = None) -> None:
    """ValueError for a batch of unseen data without its model or loss, or more than one, or for an engine's workers,
    who have no model."""
    if model is None:
        if loss is not None or forward is not None:
            raise ValueError("loss= and forward= belong to a batch of unseen data; pass model= too")
        return
    if len(targets) != 1:
        raise ValueError(f"{verb}() with model= takes one batch of unseen data, not {len(targets)} targets")
    if engine is not None:
        raise ValueError(f"{verb}() with model= is answered in this process; leave engine= out")
    if loss is None:
        raise ValueError(f"{verb}() with model= needs loss=, the one that the model was trained with")


def words_of_layer(layer: Layer) -> str:
    """A layer's name (a model that is one layer has none in itself); of a projection with its error."""
    name = layer.name or "the model itself"
    return name if layer.error is None else f"{name} (projected, error {layer.error:.2g})"
