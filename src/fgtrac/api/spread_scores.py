"""Answers about scores by the workers of an engine: what is given out (`score_units`), and what comes of the files.

Units are cut by the size of the work alone and put together in their order, so every engine gives the same bytes. Work
that is done sooner than a process is started stays in this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer
from fgtrac.api.explanation import Explanation
from fgtrac.api.groups import check_group
from fgtrac.api.questions import Question, frozen, query_text
from fgtrac.api.score_units import ScoreUnit, bases_path, do_unit, forget
from fgtrac.api.scratch import scratch_folder
from fgtrac.api.targets import Target, prepare_targets, target_groups
from fgtrac.api.whole_files import is_whole, remove_whole, write_whole
from fgtrac.engine.alone import Alone
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import Doubles
from fgtrac.score.curvature_files import curvature_path, encode_curvatures
from fgtrac.score.curvature_sums import Sums, add_ranges, encode_bases, find_bases, from_sums, passes, read_bases
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Prepared, Progress, Ranking, block_rows, check_count, merge_rankings
from fgtrac.score.methods import DAMPING, Method, check_self_influence, compute_curvatures
from fgtrac.score.one_thread import one_thread
from fgtrac.score.suspects import BLOCK, Pairs, check_pairs, merge_pairs, pairs_of
from fgtrac.store.object_storage import is_url
from fgtrac.store.tensor_files import open_tensors

UNIT_ROWS = 1 << 16  # training rows of a unit, which is a shard of most traces
UNIT_SCORES = 1 << 26  # and the most scores
UNIT_BLOCKS = 16  # whose pairs with as many are a unit
MOST_RANGES = 64  # of rows whose sums, or pairs with those of others, are a unit
LEAST_ROWS = 1 << 17  # gone over, each state's counted: less is done in this process
AT_ONCE = 16  # units of sums before a curvature is made of them and their files go

WORDS = {"sums": "curvature", "turned": "curvature", "influence": "self-influence"}

Arrays = dict[str, NDArray[Any]]


@contextmanager
def asking(
    explainer: Explainer,
    engine: str | Engine,
    method: Method,
    targets: Sequence[Any] | None,
    checkpoints: Sequence[int] | None,
    *,
    k: int = 0,
    by: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Asking]:
    """A question that is open to an engine's workers inside the block, where this process computes with one thread as
    they do; without `targets` it is about the training rows alone. Cut short, the same question goes on with what was
    done.

    Errors as `Explainer.cache` and `resolve`, OSError where no scratch files can be made (FGTRAC_CACHE), EngineError.
    """
    cache = explainer.cache(checkpoints, apart=True)
    named = () if targets is None else tuple(map(frozen, targets))
    resolved = [] if targets is None else explainer.resolve(cache, named)
    steps = None if checkpoints is None else tuple(checkpoints)
    text = query_text(explainer, cache, resolved, method)
    path = explainer.trace.path if explainer.trace.is_far else explainer.trace.path.resolve()
    question = Question(str(path), named, method, steps, text, k=k, by=by)
    name = hashlib.sha256(f"{k} {by} {text}".encode()).hexdigest()[:32]
    opening = open_engine(engine) if isinstance(engine, str) else nullcontext(engine)
    with opening as opened, one_thread(), scratch_folder(None, f"score-{name}") as folder:
        if method.name in DAMPING:
            question = replace(question, curvatures=str(folder))
        try:
            yield Asking(cache, resolved, opened, question, folder, progress)
        finally:
            forget()


@dataclass(slots=True)
class Asking:
    """What the workers are asked. `cache` and `targets` are those of the question."""

    cache: Cache
    targets: list[Target]
    engine: Engine
    question: Question
    folder: Path
    progress: Progress | None
    _is_shared: bool = field(default=False, init=False)
    _done: int = field(default=0, init=False)  # rows gone over, each state's counted
    _total: int = field(default=0, init=False)

    @property
    def rows(self) -> int:
        """How many training rows there are."""
        return len(self.cache.rows("train"))

    @property
    def states(self) -> range:
        """The numbers of the states."""
        return range(len(self.cache.states))

    def curvatures(self, passes_after: int = 0) -> None:
        """Have the method's curvatures computed at every state, for the cache and for all workers. `passes_after` tells
        the progress how often the rows will be gone over then."""
        method, at_once = self.question.method, max(1, AT_ONCE // len(self._parts))
        self._total = (passes(method) + passes_after) * self.rows * len(self.states)
        if method.name not in DAMPING:
            return
        for first in self.states[::at_once]:
            some = [k for k in self.states[first : first + at_once] if not is_whole(curvature_path(self.folder, k))]
            if method.name == "ekfac":
                lacking = [k for k in some if not is_whole(bases_path(self.folder, k))]
                for k, sums in self._sums("sums", lacking):
                    write_whole(bases_path(self.folder, k), encode_bases(find_bases(sums, self.rows)), sync=False)
            for k, found in self._curved(some):
                write_whole(curvature_path(self.folder, k), encode_curvatures(found), sync=False)
        self.cache.curvatures[method] = self.folder
        self._done = passes(method) * self.rows * len(self.states)  # also of what was there before

    def self_influence(self) -> Floats:
        """As `methods.self_influence`."""
        self.curvatures(1)
        out = np.zeros(self.rows, dtype=np.float32)
        units = [(k, *ends) for k in self.states for ends in self._ranges(UNIT_ROWS)]
        for (_k, start, stop), found in zip(units, self._collect("influence", units), strict=True):
            out[start:stop] += found["scores"]
        return out

    def ranked(self, group: int, ready: Sequence[Prepared]) -> tuple[Ranking, Doubles | None]:
        """As `explain.Ranked`. Units end where the blocks of one process do, for the same bits."""
        m, block = len(ready[0]), block_rows(ready[0])
        size = max(1, min(UNIT_ROWS, UNIT_SCORES // m))
        units = [(group, *ends) for ends in self._ranges(size - size % block if size > block else size)]
        best, sums = None, None
        for found in self._collect("ranking", units, states=len(self.states), weight=1 + m // 256):
            part = Ranking(*(found[name] for name in Ranking.__slots__))
            best = part if best is None else merge_rankings(best, part, self.question.k)
            if "sums" in found:
                sums = found["sums"] + (0.0 if sums is None else sums)
        assert best is not None
        return best, sums

    def pairs(self) -> Pairs:
        """As `suspects.near_duplicates`, at the last state."""
        k, last = self.question.k, len(self.states) - 1
        size = BLOCK * max(UNIT_BLOCKS, -(-self.rows // (BLOCK * MOST_RANGES)))
        ranges = self._ranges(size)
        units = [(last, *left, *right) for i, left in enumerate(ranges) for right in ranges[i:]]
        self._total = sum(unit[2] - unit[1] for unit in units)
        best = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
        for found in self._collect("pairs", units, weight=LEAST_ROWS):
            best = merge_pairs([best, (found["rows"], found["cosines"])], k)
        return pairs_of(lambda start, stop: self.cache.read(last, "train", start, stop), best[0])

    def _curved(self, states: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """The inverse curvatures at some states."""
        method, layers = self.question.method, self.cache.layers
        if not passes(method):
            yield from ((k, compute_curvatures(self.cache, k, method)) for k in states)
            return
        kind = "turned" if method.name == "ekfac" else "sums"
        for k, sums in self._sums(kind, states):
            bases = read_bases(bases_path(self.folder, k)) if kind == "turned" else None
            yield k, from_sums(layers, method, sums, self.rows, bases)

    def _sums(self, kind: str, states: Sequence[int]) -> Iterator[tuple[int, Sums]]:
        """The sums over all rows at some states; the files of their parts are removed."""
        files = self._collect(kind, [(k, *ends) for k in states for ends in self._parts])
        for k in states:
            yield k, add_ranges((next(files) for _ in self._parts), len(self.cache.layers))
            for ends in self._parts:
                remove_whole(self._unit(kind, (k, *ends)).path)

    def _collect(
        self, kind: str, numbers: Sequence[tuple[int, ...]], *, states: int = 1, weight: int = 1
    ) -> Iterator[Arrays]:
        """Have units done, and give what each found, in their order. Their rows are gone over at `states` states, and
        are worth `weight` times as many."""
        units = [self._unit(kind, mine) for mine in numbers]
        missing = [unit for unit in units if not is_whole(unit.path)]
        gone_over = sum(unit.numbers[2] - unit.numbers[1] for unit in missing) * states
        self._tell(sum(unit.numbers[2] - unit.numbers[1] for unit in units) * states - gone_over)
        engine = self.engine if len(missing) > 1 and gone_over * weight >= LEAST_ROWS else Alone()
        if engine is self.engine and not self._is_shared:
            for seen in (self.question.trace, self.folder):
                if not is_url(seen):
                    engine.check_shared(Path(seen))
            self._is_shared = True
        for number, _none in engine.results(do_unit, missing, what=WORDS.get(kind, "scores")):
            _first, start, stop, *_more = missing[number].numbers
            self._tell((stop - start) * states)
        for unit in units:
            yield {name: tensor.array for name, tensor in open_tensors(unit.path).tensors.items()}

    def _unit(self, kind: str, numbers: tuple[int, ...]) -> ScoreUnit:
        return ScoreUnit(self.question, str(self.folder), kind, numbers)

    @property
    def _parts(self) -> list[tuple[int, int]]:
        """The ranges of rows that sums are over: their files are large."""
        return self._ranges(max(UNIT_ROWS, -(-self.rows // MOST_RANGES)))

    def _ranges(self, size: int) -> list[tuple[int, int]]:
        return [(start, min(self.rows, start + size)) for start in range(0, self.rows, size)]

    def _tell(self, rows: int) -> None:
        self._done += rows
        if self.progress is not None and rows:
            self.progress(self._done, max(self._done, self._total))


def explain_by(
    explainer: Explainer,
    engine: str | Engine,
    targets: Sequence[Any],
    method: Method,
    *,
    k: int,
    checkpoints: Sequence[int] | None,
    by: str | None,
    progress: Progress | None,
) -> Explanation:
    """As `Explainer.explain`."""
    check_group(by)
    check_count(k)
    with asking(explainer, engine, method, targets, checkpoints, k=k, by=by, progress=progress) as asked:
        asked.curvatures(len(list(target_groups([asked.cache], asked.targets, method))))
        ready = prepare_targets(asked.cache, asked.targets, method)
        return explainer.answer(asked.cache, asked.targets, ready, method, k, by, ranked=asked.ranked)


def self_influence_by(
    explainer: Explainer,
    engine: str | Engine,
    method: Method,
    checkpoints: Sequence[int] | None,
    progress: Progress | None,
) -> Floats:
    """As `methods.self_influence`."""
    check_self_influence(method)
    with asking(explainer, engine, method, None, checkpoints, progress=progress) as asked:
        return asked.self_influence()


def near_duplicates_by(
    explainer: Explainer,
    engine: str | Engine,
    k: int,
    *,
    checkpoint: int | None,
    by: str,
    progress: Progress | None,
) -> Pairs:
    """As `suspects.near_duplicates` of the training rows at one state, by default the last."""
    check_pairs(k, by)
    steps = None if checkpoint is None else [checkpoint]
    with asking(explainer, engine, Method(), None, steps, k=k, by=by, progress=progress) as asked:
        return asked.pairs()
