"""The check `scores`, made on demand: recorded contributions, chosen at random, computed again down to model and data.

Each chosen score must follow from the committed factors; and where the verifier gives the data and the model's code,
those factors must follow from the committed model state: of a score's own sample, and of all samples of its target.
Nobody who recorded a trace knows beforehand which are chosen: of scores of which a share p rests on invented factors, N
drawn at random all miss it with a chance of (1 - p)^N.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.audit import SCORES, Demand
from fgtrac.api.drawing import Drawn, draw_rows
from fgtrac.api.factor_tolerance import Difference
from fgtrac.api.ledger import state_path
from fgtrac.api.recompute import Recomputation, deciding
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import ProofError
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows
from fgtrac.score.gradients import Gradients
from fgtrac.score.kernel import Progress, add_scores
from fgtrac.score.methods import DAMPING, Method, prepare
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.facts import Facts
from fgtrac.verify.tree import Log

if TYPE_CHECKING:  # they need torch
    from fgtrac.api.remaking import Remaking
    from fgtrac.api.rescore_units import Compared, Comparing

Function = Callable[[Any], Any]
Places = dict[str, NDArray[np.int64]]  # role -> rows among the factors of a state, ascending


def scores_demand(
    count: int,
    seed: int | None = None,
    function: Function | None = None,
    progress: Progress | None = None,
    *,
    named: str | None = None,
    engine: str | Engine | None = None,
) -> Demand:
    """The check `scores` of `count` contributions, chosen by `seed` (default: by the system's randomness). `function`
    is called with what takes the verbs of a run, and returns the model (see `Remaking`); `progress` with rows made
    anew, and how many that will be if every chosen state has as many as this one. With an `engine`, its workers call
    the function too, which is `named` FILE.py:FUNCTION, and make the rows anew where those are many.

    ValueError for a count below 1 or a seed below 0.
    """
    if count < 1:
        raise ValueError(f"{count} scores are none; ask for at least 1")
    if seed is not None and seed < 0:
        raise ValueError(f"the seed {seed} is below 0; name a whole number from 0 on")
    chosen_by = secrets.randbits(64) if seed is None else seed
    spread = None if engine is None or named is None else (engine, named)
    return Demand(
        SCORES, partial(check_scores, count, chosen_by, function, progress, spread), ("entries", "registered")
    )


def check_scores(
    count: int,
    seed: int,
    function: Function | None,
    progress: Progress | None,
    spread: tuple[str | Engine, str] | None,
    trace: TraceFiles,
    audit: Audit,
) -> str:
    """ProofError naming entry, sample, file and both values; CannotTell where something was not made anew, and what."""
    if not audit.facts.contributions:
        raise CannotTell("no entry records contributions: there is none to compute again")
    if not isinstance(trace, TraceDir):
        raise CannotTell("not checked: factors are read from a trace that lies in a folder")
    assert audit.log is not None
    chosen, total = _choose(audit.log, audit.facts, count, seed)
    words = f"{sum(len(one.places) for one in chosen):,} of {total:,} scores, chosen by seed {seed}"
    groups = [list(group) for _ref, group in groupby(chosen, key=lambda one: one.event["checkpoint"])]
    engine = None if spread is None else spread[0]
    with open_engine(engine) if isinstance(engine, str) else nullcontext(engine) as workers:
        by = None if spread is None or workers is None else (workers, spread[1])
        rescoring = _Rescoring(trace, audit.facts, function, by)
        for number, group in enumerate(groups):
            rescoring.check(group, partial(_tell, progress, number, len(groups)))
    if rescoring.left:
        more = f" (and {len(rescoring.left) - 1} more entries)" if len(rescoring.left) > 1 else ""
        raise CannotTell(f"{words}: {rescoring.right:,} are right; {rescoring.left[0]}{more}")
    return f"{words}, {rescoring.words()}"


def _tell(progress: Progress | None, state: int, states: int, done: int, total: int) -> None:
    """Rows done at one of several states, as if all had as many."""
    if progress is not None:
        progress(state * total + done, states * total)


def _tell_more(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _count(places: Places) -> int:
    return sum(map(len, places.values()))


def _choose(log: Log, facts: Facts, count: int, seed: int) -> tuple[list[Drawn], int]:
    """Scores drawn from all that are recorded, those of one state together; and how many are recorded."""
    numbers = sorted(number for group in facts.contributions.values() for number in group)
    found, total = draw_rows(log, numbers, count, seed)
    return sorted(found, key=lambda one: (one.event["checkpoint"], one.event["method"], one.event["target"])), total


def _cut(one: Drawn) -> dict[str, Any]:
    """The event as if it recorded the chosen scores alone."""
    return {**one.event, **{name: one.event[name][one.places] for name in ("ordinals", "scores")}}


@dataclass(slots=True)
class _Rows:
    """Rows of one role at one state, made anew: `rows` (n,) ascending, and what differs most in each. `labelled` (n,)
    is false where a sample has another label in the data than in the rows file. Of training rows `gradients` has what
    was made, piece by piece. `whole` is what `Remaking.compare` says of all rows of the role."""

    role: str
    rows: NDArray[np.int64]
    differences: list[Difference] = field(default_factory=list)
    labelled: list[bool] = field(default_factory=list)
    gradients: list[tuple[Gradients, ...]] = field(default_factory=list)
    whole: str | CannotTell = ""

    def odd(self, among: NDArray[np.int64]) -> list[int]:
        """Where those of some rows stand that are not simply right."""
        at = np.searchsorted(self.rows, among).tolist()
        return [n for n in at if not (self.differences[n].is_rounding and self.labelled[n])]

    def gradient(self, at: int) -> list[Gradients]:
        """What was made anew of the training row that stands there, one `Gradients` a layer."""
        for piece in self.gradients:
            if at < len(piece[0]):
                return [g.rows(slice(at, at + 1)) for g in piece]
            at -= len(piece[0])
        raise IndexError(f"no gradient was kept at {at}")


class _Rescoring:
    """Chosen scores, state by state: `right` counts those that are right, `left` says why others cannot be told."""

    def __init__(
        self, trace: TraceDir, facts: Facts, function: Function | None, spread: tuple[Engine, str] | None
    ) -> None:
        self.right = 0
        self.left: list[str] = []
        self._again = Recomputation(trace, facts)
        self._trace = trace
        self._facts = facts
        self._function = function
        self._spread = spread
        self._comparing: Comparing | None = None
        self._remaking: Remaking | CannotTell | None = None
        self._made = self._states = 0
        self._curved: set[str] = set()
        self._known: set[str] = set()  # which of the given samples are in the committed rows, in words

    def check(self, chosen: Sequence[Drawn], progress: Progress) -> None:
        """Scores at one state."""
        sound: list[tuple[Drawn, Places]] = []
        for one in chosen:
            with self._telling(one):
                self._again.check(one.number, _cut(one))
                with deciding(one.number, one.event["method"]):
                    sound.append((one, self._places(one)))
        wanted: Places = {}
        for _one, places in sound:
            wanted |= {role: np.union1d(rows, wanted.get(role, rows)) for role, rows in places.items()}
        made: dict[str, _Rows | CannotTell] = {}
        for role, rows in wanted.items():
            cache, method = self._again.basis(sound[0][0].event)
            tell = partial(_tell_more, progress, sum(len(wanted[other]) for other in made), _count(wanted))
            try:
                with deciding(sound[0][0].number, str(method)):
                    made[role] = self._remake(cache, role, rows, tell)
            except CannotTell as reason:
                made[role] = reason
        self._states += bool(made)
        for one, places in sound:
            with self._telling(one), deciding(one.number, one.event["method"]):
                self._judge(one, places, made)
                self.right += len(one.places)

    def words(self) -> str:
        """What holds, where every chosen score is right."""
        assert not isinstance(self._remaking, CannotTell | None)
        words = (
            f"follow from the committed factors; and {self._made:,} of these, at {self._states} model states, are what "
            "the committed states, the model and the data that were given make, but for their storage and for rounding "
            "as measured for each"
        )
        if self._curved:
            words += f"; the curvature of {', '.join(sorted(self._curved))} was taken from the committed factors"
        words += "".join(f"; {known}" for known in sorted(self._known))
        names = ", ".join(map(repr, self._remaking.given.unhashed()))
        return words + (f"; data set {names:.200} was compared by its ids alone, without contents" if names else "")

    @contextmanager
    def _telling(self, one: Drawn) -> Iterator[None]:
        try:
            yield
        except CannotTell as reason:
            self.left.append(f"entry {one.number} (contribution): {reason}")

    def _places(self, one: Drawn) -> Places:
        """The rows that its chosen scores rest on: of the samples, and all of its target."""
        cache, method = self._again.basis(one.event)
        rows, block, target = cache.rows("train"), one.event["block"], one.event["target"]
        found = [rows.find(block, int(ordinal)) for ordinal in _cut(one)["ordinals"]]
        places: Places = {"train": np.array(sorted(row for row in found if row is not None), np.int64)}
        form, _, name = target.partition(":")
        if form == "artifact":
            raise CannotTell(f"its target, {name:.80}, is a batch of no data set: its gradients were not made anew")
        if form == "id":
            for role, row in self._again.rows_of(cache, name):
                places[role] = np.union1d(places.get(role, places["train"][:0]), [row])
        else:
            places["validation"] = np.arange(len(cache.rows("validation")))
        self._curved |= {str(method)} if method.name in DAMPING else set()
        return places

    def _remake(self, cache: Cache, role: str, rows: NDArray[np.int64], tell: Callable[[int], None]) -> _Rows:
        """Rows of a role made anew, and compared with what is committed."""
        state, held = cache.states[0], cache.rows(role)
        if state_path(state) in self._facts.withdrawn:
            entry = self._facts.withdrawn[state_path(state)]
            raise CannotTell(f"{state_path(state)} was withdrawn by entry {entry} (erasure)")
        out, at = _Rows(role, rows), 0
        try:
            out.whole = self._ready().compare(role, held)
        except CannotTell as reason:
            out.whole = reason
        for piece in self._compare(cache, role, rows):
            out.differences += piece.differences
            out.labelled += piece.labelled
            out.gradients += [piece.gradients] if role == "train" else []
            tell(at := at + len(piece))
        self._made += len(rows)
        return out

    def _compare(self, cache: Cache, role: str, rows: NDArray[np.int64]) -> Iterator[Compared]:
        """Rows made anew and compared, here or by workers."""
        self._ready()
        from fgtrac.api.rescore_units import Comparing, compare_rows  # with torch, as it is there

        if self._spread is None:
            return compare_rows(self._ready(), cache, role, rows)
        if self._comparing is None:
            engine, named = self._spread
            self._comparing = Comparing.by(engine, self._trace, self._facts.runs[0][1]["id_scheme"], named)
        return self._comparing.compare(self._ready(), cache, self._again.artifacts, role, rows)

    def _ready(self) -> Remaking:
        if self._remaking is None:
            self._remaking = self._begin()
        if isinstance(self._remaking, CannotTell):
            raise self._remaking
        return self._remaking

    def _begin(self) -> Remaking | CannotTell:
        if self._function is None:
            return CannotTell(
                "they follow from the committed factors; whether these follow from the model states and the data was "
                "not checked: name what gives both, --with FILE.py:FUNCTION"
            )
        try:
            from fgtrac.api.remaking import Remaking
        except ImportError as error:
            return CannotTell(f"whether the factors follow from model and data takes torch: {error}")
        try:
            return Remaking(self._trace, self._facts.runs[0][1], self._function)
        except CannotTell as reason:
            return reason

    def _judge(self, one: Drawn, places: Places, made: Mapping[str, _Rows | CannotTell]) -> None:
        """ProofError where a row is not what was made anew; otherwise CannotTell where that does not show of one, or
        where not all that belong to the target or to the training set are there."""
        unknown: CannotTell | None = None
        for role, which in places.items():
            try:
                self._judge_rows(one, made[role], which)
            except CannotTell as reason:
                unknown = unknown or reason
        if unknown is not None:
            raise unknown
        for role in ("train", "validation") if one.event["target"] == "validation" else ("train",):
            rows = made[role]
            assert isinstance(rows, _Rows)
            if isinstance(rows.whole, CannotTell):
                raise rows.whole
            mean = f"the mean is of all {len(rows.rows):,} validation samples that were given"
            self._known |= {mean if role == "validation" else rows.whole} - {""}

    def _judge_rows(self, one: Drawn, rows: _Rows | CannotTell, which: NDArray[np.int64]) -> None:
        if isinstance(rows, CannotTell):
            raise rows
        unknown: CannotTell | None = None
        for at in rows.odd(which):
            try:
                self._judge_row(one, rows, at)
            except CannotTell as reason:
                unknown = unknown or reason
        if unknown is not None:
            raise unknown

    def _judge_row(self, one: Drawn, rows: _Rows, at: int) -> None:
        cache, method = self._again.basis(one.event)
        row, off, held = int(rows.rows[at]), rows.differences[at], cache.rows(rows.role)
        if not rows.labelled[at]:
            raise CannotTell(
                f"the {rows.role} sample {self._id(held, row)} has another label in the data that were given than in "
                "the rows file: nothing in the log tells which is right"
            )
        words = (
            f"row {row} of {cache.shard_of(0, rows.role, row)[0]} (sample {self._id(held, row)}) has {off.said:.9g} as "
            f"number {off.at} of {off.column!r:.80}; the state in {state_path(cache.states[0])} and the data that were "
            f"given make {off.found:.9g}"
        )
        if not off.may_be:
            raise ProofError(words + (self._score_words(one, at, rows, cache, method) if rows.role == "train" else ""))
        if not off.is_rounding:
            raise CannotTell(
                f"{words}: more than float32 rounds, and no more than TF32 or bfloat16 (autocast) may; another "
                "processor or kernel than that of the scoring can do this"
            )

    def _score_words(self, one: Drawn, at: int, rows: _Rows, cache: Cache, method: Method) -> str:
        """What a score is said to be, and would be by the factors that were made anew."""
        out = np.zeros((1, 1), dtype=np.float32)
        target = self._again.targets(cache, one.event["target"])[0]
        add_scores(rows.gradient(at), prepare(cache, 0, target, method), out)
        block, ordinal = cache.rows("train").place(int(rows.rows[at]))
        said = one.event["scores"][(one.event["ordinals"] == ordinal) & (one.event["block"] == block)]
        return (
            f"; its score toward {one.event['target']:.80} by {method} at step {one.event['step']} is said to be "
            f"{said[0]:.9g}, and would be {out[0, 0]:.9g}"
        )

    def _id(self, rows: Rows, row: int | np.int64) -> str:
        block, ordinal = rows.place(int(row))
        return bytes(self._facts.ids_of(block)[ordinal]).hex()
