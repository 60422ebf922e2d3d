"""The check `contributions`: every score that the log records is computed again from the factor files it commits to.

Nothing but numpy is needed: no model, no training data, no torch. What holds then is that a score follows from the
factors in the log. Whether the factors follow from the model state and the data is another question, which takes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.score_tolerance import tolerances
from fgtrac.errors import EngineError, FgtracError, FormatError, ProofError, ScoreError
from fgtrac.events.schema import decode_event
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import Doubles
from fgtrac.score.factor_files import FOLDER, Rows, State
from fgtrac.score.gradients import Floats, Gradients
from fgtrac.score.kernel import Progress, scores
from fgtrac.score.methods import Method, mean_target, parse_method, prepare, read_all
from fgtrac.score.target_files import target_of
from fgtrac.store.tensor_files import open_tensors
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles, is_of_machine
from fgtrac.verify.facts import Checkpoint, Facts
from fgtrac.verify.report import Verdict
from fgtrac.verify.tree import Log

KEPT_SCORES = 2  # results for (target, method) at a state: entries of one stand together in the log
ROLES = ("train", "validation", "test")

Ref = tuple[bytes, int]


def check_contributions(trace: TraceFiles, audit: Audit, progress: Progress | None = None) -> str:
    """Compute every recorded score again, within what rounding explains for that score alone (`tolerances`).

    ProofError naming entry and sample for one that is not what the factors give; CannotTell where some could not be
    computed, with why. `progress` is called with contribution entries done and in all.
    """
    facts = audit.facts
    if not facts.contributions:
        return "no entry records contributions"
    if any(f.check == "artifacts" and f.verdict is Verdict.REFUTED for f in audit.checks.findings):
        raise CannotTell("not checked, since the check of artifacts does not hold")
    if not isinstance(trace, TraceDir):
        raise CannotTell("not checked: factors are read from a trace that lies in a folder")
    assert audit.log is not None
    again, right, near, left = Recomputation(trace, facts), 0, 0, []
    total = sum(map(len, facts.contributions.values()))
    for done, (number, event) in enumerate(_by_state(audit.log, facts.contributions.values()), 1):
        try:
            near += again.check(number, event)
            right += len(event["scores"])
        except CannotTell as reason:
            left.append(f"entry {number} (contribution): {reason}")
        if progress is not None:
            progress(done, total)
    words = f"{right:,} scores in {total - len(left)} entries were computed again from the factors in the log"
    words += f" (the sign of {near:,} is within rounding)" if near else ""
    if left:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise CannotTell(left[0] + more + (f"; {words} and are right" if right else ""))
    return words


def _by_state(log: Log, groups: Iterable[Sequence[int]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Entries in the order of the log, but those of one model state together: its factors are opened once."""
    for numbers in groups:
        for number, entry in log.entries(numbers):
            yield number, decode_event(entry)


@contextmanager
def deciding(number: int, method: str) -> Iterator[None]:
    """What goes wrong inside is known to be wrong with entry `number` (ProofError), or cannot be told (CannotTell, and
    the system's own error). EngineError is as it is."""
    try:
        yield
    except (CannotTell, EngineError):
        raise
    except ScoreError as error:
        raise CannotTell(str(error)) from error
    except MemoryError as error:
        raise CannotTell(f"recomputing {method} takes more memory than there is") from error
    except (FgtracError, OSError, ValueError) as error:  # LinAlgError too: no mistake of the caller
        if is_of_machine(error):
            raise
        raise ProofError(f"entry {number} (contribution): {error}") from error


class _Found:
    """What the factors give: the scores (n,) of the rows that were scored, and how far each may be off; or why that
    cannot be told."""

    def __init__(self, rows: Rows, found: Floats, within: Doubles | CannotTell) -> None:
        self._scores = found
        self._within = within
        self._blocks = rows.blocks
        self._keys = rows.ordinals.astype(np.uint64)
        if rows.which is not None:
            self._keys += rows.which.astype(np.uint64) << np.uint64(32)
        self._order = np.argsort(self._keys, kind="stable")

    def of(self, block: bytes, ordinals: NDArray[np.uint32]) -> tuple[Floats, Doubles]:
        """The scores of some samples of a block, and how far they may be off. CannotTell for one without factors."""
        place = self._blocks.index(block) if block in self._blocks else 1 << 16  # no row is there
        wanted = ordinals.astype(np.uint64) + np.uint64(place << 32)
        at = np.searchsorted(self._keys, wanted, sorter=self._order)
        rows = self._order[np.minimum(at, len(self._keys) - 1)]
        lacking = ordinals[self._keys[rows] != wanted]
        if len(lacking):
            words = f"{len(lacking)} of its samples have no factors"
            raise CannotTell(f"{words}, the first is ordinal {lacking[0]} of block {block.hex()}")
        if isinstance(self._within, CannotTell):
            raise self._within
        return self._scores[rows], self._within[rows]


class Recomputation:
    """Recomputes the scores of one entry after another; fastest where entries of one model state, target and method
    stand together."""

    def __init__(self, trace: TraceDir, facts: Facts) -> None:
        self._trace = trace
        self._facts = facts
        present = set(trace.names())
        self._withdrawn = {path: n for path, n in facts.withdrawn.items() if path not in present}
        self.artifacts = {a.path: a.sha256 for a in facts.artifacts if a.path not in self._withdrawn}
        self._caches: dict[Ref, Cache] = {}
        self._found: dict[tuple[Ref, str, str], list[_Found]] = {}

    def check(self, number: int, event: Mapping[str, Any]) -> int:
        """One entry: how many of its scores have a sign that rounding decides. ProofError, or CannotTell."""
        with deciding(number, event["method"]):
            cache, method = self.basis(event)
            _compare_parameters(event.get("parameters", {}), cache, method)
            writer, seq = event["checkpoint"]
            return self._compare_any(event, self._scores((writer, seq), cache, event["target"], method))

    def basis(self, event: Mapping[str, Any]) -> tuple[Cache, Method]:
        """The factors that an entry rests on, whose one state is its checkpoint's, and its method."""
        writer, seq = event["checkpoint"]
        method = _method_of(event["method"])
        return self._cache((writer, seq), self._checkpoint((writer, seq), event["step"])), method

    def _compare_any(self, event: Mapping[str, Any], candidates: Sequence[_Found]) -> int:
        """What the factors give must be what the entry says; a target sample in several roles may be meant in any."""
        *others, last = candidates
        unknown: CannotTell | None = None
        for found in others:
            try:
                return self._compare(event, found)
            except CannotTell as reason:
                unknown = reason
            except ProofError:
                continue
        try:
            return self._compare(event, last)
        except ProofError:
            if unknown is not None:
                raise unknown from None
            raise

    def _compare(self, event: Mapping[str, Any], found: _Found) -> int:
        block, ordinals, said = event["block"], event["ordinals"], event["scores"]
        given, within = found.of(block, ordinals)
        off = np.abs(said.astype(np.float64) - given)
        wrong = np.flatnonzero(~((off <= within) & np.isfinite(within)))  # NaN is never within
        if len(wrong):
            first = wrong[0]
            sample = self._facts.ids_of(block)[ordinals[first]].tobytes().hex()
            raise ProofError(
                f"it says {said[first]:.9g} for sample {sample} toward {event['target']:.80} by {event['method']} at "
                f"step {event['step']}; the factors in the log give {given[first]:.9g} ({len(wrong)} of {len(said)} "
                "scores differ)"
            )
        return int(np.count_nonzero((np.abs(given) <= within) & (given != 0)))

    def _checkpoint(self, ref: Ref, step: int) -> Checkpoint:
        """The kept model state that an entry names."""
        found, (writer, seq) = self._facts.checkpoints.get(ref), ref
        if found is None:
            if self._facts.sequences.is_explained(writer, seq, seq + 1):
                raise CannotTell(f"its checkpoint, number {seq} of writer {writer.hex()}, is lost, as a gap entry says")
            raise ProofError(f"it names number {seq} of writer {writer.hex()} as its checkpoint, and that is none")
        if not found.kept or found.step != step:
            said = f"is of step {found.step} and {'' if found.kept else 'not '}kept"
            raise ProofError(f"it rests on a state of step {step}; its checkpoint, entry {found.number}, {said}")
        return found

    def _cache(self, ref: Ref, checkpoint: Checkpoint) -> Cache:
        """The factors at a model state, once they are known to belong to it and to registered samples."""
        if ref not in self._caches:
            if checkpoint.digest is None:
                raise CannotTell(f"its checkpoint, entry {checkpoint.number}, names no model state")
            state = State(ref, checkpoint.step, checkpoint.digest, checkpoint.val_loss)
            for path, erasure in self._withdrawn.items():
                if path.startswith((f"{state.folder}/", f"{FOLDER}/rows-")):
                    raise CannotTell(f"{path} was withdrawn by entry {erasure} (erasure)")
            try:
                cache = Cache(self._trace, self.artifacts, [state])
            except ScoreError as error:
                raise CannotTell(
                    f"no complete factors of training samples at step {state.step} are in the log"
                ) from error
            _check_rates(cache, checkpoint)
            for role in ROLES:
                if cache.has(role):
                    self._check_rows(cache.rows(role), role)
            self._caches = {ref: cache}  # one at a time: every opened file holds a descriptor
        return self._caches[ref]

    def _check_rows(self, rows: Rows, role: str) -> None:
        """ProofError unless each row is a registered sample, and another one."""
        which = np.zeros(len(rows), np.uint16) if rows.which is None else rows.which
        for place, block in enumerate(rows.blocks):
            ordinals, n = rows.ordinals[which == place], len(self._facts.ids_of(block))
            if len(ordinals) and int(ordinals.max()) >= n:
                raise ProofError(
                    f"its {role} factors name ordinal {ordinals.max()} of block {block.hex()}, which has {n} samples"
                )
            if len(np.unique(ordinals)) < len(ordinals) or block in rows.blocks[:place]:
                raise ProofError(f"its {role} factors name samples of block {block.hex()} twice")

    def _scores(self, ref: Ref, cache: Cache, target: str, method: Method) -> list[_Found]:
        """All training rows' scores toward a target at the cache's one state, for each way to read its words."""
        key = (ref, target, str(method))
        if key not in self._found:
            with np.errstate(all="ignore"):  # a stranger's numbers: what is not finite is never within the tolerance
                rows = cache.rows("train")
                if not len(rows):
                    raise CannotTell("its checkpoint has factors of no training sample")
                found = [_found(cache, rows, gradients, method) for gradients in self.targets(cache, target)]
            older = list(self._found.items())[1 - KEPT_SCORES :]
            self._found = {**dict(older), key: found}
        return self._found[key]

    def targets(self, cache: Cache, words: str) -> list[tuple[Gradients, ...]]:
        """The gradients of what an entry's scores are toward; of a sample, in each role that it has factors in."""
        form, _, rest = words.partition(":")
        if words == "validation":
            if not cache.has("validation"):
                raise CannotTell("there are no factors of validation samples at its checkpoint")
            return [mean_target(rows for _start, rows in read_all(cache, 0, "validation"))]
        if form == "id":
            return self._sample(cache, rest)
        if form == "artifact":
            return [self._stored(cache, rest)]
        raise CannotTell(f"its target {words!r:.80} is of a kind that this version cannot compute")

    def _sample(self, cache: Cache, name: str) -> list[tuple[Gradients, ...]]:
        found = [cache.take(0, role, np.array([row])) for role, row in self.rows_of(cache, name)]
        if not found:
            raise CannotTell(f"there are no factors of its target, sample {name:.64}, at its checkpoint")
        return found

    def rows_of(self, cache: Cache, name: str) -> list[tuple[str, int]]:
        """(role, row) of a sample, named by its id in hex digits, in each role that it has factors in."""
        found, sample = [], _id_of(name)
        for role in ROLES:
            rows = cache.rows(role) if cache.has(role) else None
            for block in () if rows is None else rows.blocks:
                ordinal = np.flatnonzero((self._facts.ids_of(block) == sample).all(axis=1))
                row = rows.find(block, int(ordinal[0])) if rows is not None and len(ordinal) else None
                found += [(role, row)] if row is not None else []
        return found

    def _stored(self, cache: Cache, path: str) -> tuple[Gradients, ...]:
        if path not in self.artifacts:
            gone = "was withdrawn" if path in self._withdrawn else "is no file that the log names"
            raise CannotTell(f"its target, {path:.80}, {gone}")
        try:
            return target_of(open_tensors(self._trace.plain(path)), cache.states[0], cache.layers)
        except FormatError as error:
            raise FormatError(f"its target, {path}: {error}") from error


def _found(cache: Cache, rows: Rows, target: Sequence[Gradients], method: Method) -> _Found:
    """All training rows' scores toward one target."""
    ready = prepare(cache, 0, target, method)
    given = scores(cache, [ready], 0, len(rows))[:, 0]
    try:
        return _Found(rows, given, tolerances(cache, ready, target, method, given))
    except CannotTell as reason:
        return _Found(rows, given, reason)


def _method_of(words: str) -> Method:
    try:
        return parse_method(words)
    except ValueError as error:
        raise CannotTell(f"this version cannot compute it: {error}") from error


def _id_of(name: str) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(bytes.fromhex(name), dtype=np.uint8).reshape(32)
    except ValueError as error:
        raise ProofError(f"its target id:{name:.80} is no sample id") from error


def _check_rates(cache: Cache, checkpoint: Checkpoint) -> None:
    """ProofError where a layer's learning rate is none of those that the checkpoint's entry has."""
    for layer, rate in zip(cache.layers, cache.learning_rates(0), strict=True):
        if rate not in checkpoint.learning_rates:
            said = ", ".join(f"{r:.9g}" for r in checkpoint.learning_rates[:8]) or "none"
            raise ProofError(
                f"its factors give layer {layer.name!r:.60} the learning rate {rate:.9g}; its checkpoint, entry "
                f"{checkpoint.number}, says {said}"
            )


def _compare_parameters(said: Mapping[str, Any], cache: Cache, method: Method) -> None:
    """ProofError where an entry's parameters are not those of the factors."""
    found: dict[str, Any] = {
        "factors": cache.states[0].folder,
        "layers": [layer.name for layer in cache.layers],
        "learning_rates": list(cache.learning_rates(0)),
        "damping": method.damped_by,
    }
    for name in sorted(found.keys() & said.keys()):
        if said[name] != found[name]:
            raise ProofError(f"it says {name} {said[name]!r:.100}; its factors say {found[name]!r:.100}")
