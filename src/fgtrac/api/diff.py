"""`fgtrac.diff`, two trainings side by side, from their logs, and where their samples first part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.difference import (
    Batches,
    Checkpoints,
    Compared,
    Correlation,
    Difference,
    LossDifference,
    Pair,
    Roles,
    Shared,
    Suspects,
)
from fgtrac.api.prior import trace_id_of
from fgtrac.api.said_settings import compare_settings, compare_stages, compare_versions, pair_up
from fgtrac.api.same_contents import compare_contents
from fgtrac.api.same_samples import SameSamples, Side, match_samples
from fgtrac.api.trace import open_trace
from fgtrac.errors import ProofError, ScoreError
from fgtrac.events.schema import ROLES
from fgtrac.query.seals import NotSealedError
from fgtrac.query.step_samples import Numbers, StepSamples, read_step_samples
from fgtrac.query.training import State, TrainingLog
from fgtrac.score.fidelity import spearman
from fgtrac.store.places import open_to_read
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell

NAMED = 5  # samples named where some differ
SUSPECTS = 20
OF_SAMPLES = (
    "samples",
    "contents",
    "used",
    "batches",
    "contributions",
    "suspects",
)  # they ask which samples are the same
VALIDATION = "validation loss"
Path_ = str | os.PathLike[str]
T = TypeVar("T")


def diff_traces(a: Path_, b: Path_, *, suspects: int = SUSPECTS) -> Difference:
    """Compare the trainings that two traces (NAME.trace) record, as far as both are sealed.

    Each entry that is read is checked against its trace's head, and nothing else is verified; names are believed as
    the vaults beside the traces have them. Both logs are streamed: memory grows with the number of samples and of
    steps, not of uses. Batches are compared as sets: of a graph the seeds, not their neighbours. `suspects`: so many
    of the first suspects of both are compared, where both have factors (0: none, which `cannot_tell` says).

    FileNotFoundError, FormatError where one is no trace; NotSealedError (a ValueError) where nothing of it was sealed;
    ProofError, TamperError where its entries are not those of its head.

    What both logs leave open is said to be so: contents whose digests are keyed with two secrets, the state of a
    generator that a vault has which is not here, the configuration that a resumed run went on with. Labels are in no
    log, and neighbours in a graph are not compared.
    """
    with ExitStack() as stack:
        sides = [_open(Path(path), stack) for path in (a, b)]
        unknown: dict[str, str] = {}
        same = _tell(unknown, OF_SAMPLES, lambda: match_samples(*sides))
        steps = [read_step_samples(side.log, *_numbers_of(same, n, side)) for n, side in enumerate(sides)]
        has_one_id = sides[0].log.log.head.origin == sides[1].log.log.head.origin
        is_one = has_one_id and _is_one_log(*sides)
        return Difference(
            a=_compared(sides[0], steps[0]),
            b=_compared(sides[1], steps[1]),
            same_trace=is_one,
            forked=has_one_id and not is_one,
            settings=_partly(unknown, "settings", compare_settings(sides)),
            versions=_partly(unknown, "versions", compare_versions(sides)),
            datasets=pair_up(*(_datasets(side) for side in sides)),
            stages=_partly(unknown, "stages", compare_stages(sides)),
            compared_by=None if same is None else same.by,
            samples=None if same is None else _shared(same, same.registered(0), same.registered(1)),
            contents=None if same is None else compare_contents(same),
            roles=_roles(sides, same),
            used=None if same is None else _shared(same, *(one.used for one in steps)),
            batches=None if same is None else _batches(*steps),
            losses=_losses(*(side.log for side in sides)),
            checkpoints=_checkpoints(*(side.log.states() for side in sides)),
            contributions=None if same is None else _tell(unknown, ("contributions",), lambda: _contributions(same)),
            suspects=None if same is None else _tell(unknown, ("suspects",), lambda: _suspects(same, suspects)),
            cannot_tell=unknown,
        )


def _open(path: Path, stack: ExitStack) -> Side:
    trace = open_to_read(path)
    head = trace.head()
    if head is None or not head.size:
        raise NotSealedError(f"nothing of {trace.path} was sealed yet; run fgtrac seal {trace.path}")
    vault = None
    if trace.vault_path.exists():
        vault = Vault.open(trace.vault_path, trace_id_of(trace))
        stack.callback(vault.close)
    return Side(str(trace.path), TrainingLog(trace, head), vault)


def _tell(unknown: dict[str, str], sections: Sequence[str], make: Callable[[], T]) -> T | None:
    """What `make` makes; where it cannot tell, the reason goes to these sections."""
    try:
        return make()
    except CannotTell as reason:
        unknown.update(dict.fromkeys(sections, str(reason)))
        return None


def _partly(unknown: dict[str, str], section: str, found: tuple[tuple[Pair, ...], list[str]]) -> tuple[Pair, ...]:
    """What differs; the reasons why more may go to the section's name."""
    pairs, untold = found
    if untold:
        unknown[section] = "; ".join(untold)
    return pairs


def _is_one_log(a: Side, b: Side) -> bool:
    """Whether one of two logs of one trace is the other's beginning, or the other: by the roots of their heads."""
    short, long = sorted((a.log.log, b.log.log), key=lambda log: log.head.size)
    return long.root_at(short.head.size) == short.head.root


def _numbers_of(same: SameSamples | None, which: int, side: Side) -> tuple[Mapping[bytes, Numbers], int]:
    """The numbers of a side's samples; where they cannot be compared, nobody's."""
    if same is None:
        return {block: np.full(len(of.ids), -1, np.int64) for block, of in side.blocks.items()}, 0
    return (same.a, same.b)[which], same.total


def _compared(side: Side, steps: StepSamples) -> Compared:
    head = side.log.log.head
    return Compared(side.name, head.origin.removeprefix(ORIGIN_PREFIX), head.size, steps.last_step)


# -- what is written in few entries ---------------------------------------------------------------------------------


def _datasets(side: Side) -> dict[str, Any]:
    """What is said of each data set, and how many samples are registered under its name. What they hold, and what
    labels they have, is not in it."""
    counts: dict[str, int] = {}
    for block in side.blocks.values():
        counts[block.dataset] = counts.get(block.dataset, 0) + len(block.ids)
    said = ("id_scheme", "rows", "keys", "content")
    found: dict[str, Any] = {f"{name}.samples": count for name, count in counts.items()}
    for _, event in side.log.events("dataset"):
        found |= {f"{event['name']}.{word}": event[word] for word in said if word in event}
    return found


def _checkpoints(a: Mapping[int, State], b: Mapping[int, State]) -> Checkpoints:
    both = sorted(a.keys() & b.keys())
    told = [step for step in both if a[step].digest is not None and b[step].digest is not None]
    other = [step for step in told if a[step].digest != b[step].digest]
    only = len(a) - len(both), len(b) - len(both)
    first = other[0] if other else None
    return Checkpoints(len(both), len(told) - len(other), len(other), first, len(both) - len(told), *only)


def _losses(a: TrainingLog, b: TrainingLog) -> tuple[LossDifference, ...]:
    """The validation loss of checkpoints, and each metric that both logged."""
    found = []
    columns = []
    for log in (a, b):
        logged = {(True, name): values for name, values in log.metrics().items()}
        states = {s.step: s.val_loss for s in log.states().values() if s.val_loss is not None}
        columns.append({(False, VALIDATION): states, **logged})
    for is_logged, name in sorted(columns[0].keys() & columns[1].keys()):
        one, other = (mine[is_logged, name] for mine in columns)
        both = sorted(one.keys() & other.keys())
        if both:
            apart = {step: 0.0 if one[step] == other[step] else abs(one[step] - other[step]) for step in both}
            step = max(both, key=lambda step: (apart[step], -step))
            called = f"{name}, as logged" if is_logged and name == VALIDATION else name
            found.append(LossDifference(called, len(both), apart[step], step, one[step], other[step]))
    return tuple(found)


# -- samples --------------------------------------------------------------------------------------------------------


def _shared(same: SameSamples, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Shared:
    """Of (total,) masks over the samples."""
    alone = [np.flatnonzero(one) for one in (a & ~b, b & ~a)]
    named = [tuple(same.names(numbers[:NAMED])) for numbers in alone]
    nameless = [sum(int((numbers < 0).sum()) for numbers in blocks.values()) for blocks in (same.a, same.b)]
    return Shared(int((a & b).sum()), len(alone[0]), len(alone[1]), named[0], named[1], *nameless)


def _batches(a: StepSamples, b: StepSamples) -> Batches:
    """Of each optimizer the steps that both have, by the optimizer's number."""
    compared, differing, cannot_tell = 0, 0, 0
    first: tuple[int, int] | None = None
    for optimizer in sorted(a.updates.keys() & b.updates.keys()):
        mine, other = a.updates[optimizer], b.updates[optimizer]
        both, in_a, in_b = np.intersect1d(mine.steps, other.steps, assume_unique=True, return_indices=True)
        unsure = mine.unsure[in_a] | other.unsure[in_b]
        differs = (mine.marks[in_a] != other.marks[in_b]).any(axis=1) | (mine.counts[in_a] != other.counts[in_b])
        differs &= ~unsure
        if differs.any():
            at = int(both[differs][0]), optimizer
            first = at if first is None else min(first, at)
        compared, differing, cannot_tell = (
            compared + len(both),
            differing + int(differs.sum()),
            cannot_tell + int(unsure.sum()),
        )
    epochs = a.epochs.keys() & b.epochs.keys()
    is_sure = a.is_sure and b.is_sure
    return Batches(
        optimizers=len(a.updates.keys() | b.updates.keys()),
        seeds_only=a.has_graph or b.has_graph,
        steps_a=a.count,
        steps_b=b.count,
        compared=compared,
        differing=differing,
        first_differing=None if first is None else first[0],
        first_optimizer=None if first is None else first[1],
        cannot_tell=cannot_tell,
        same_uses=bool(np.array_equal(a.times, b.times)) if is_sure else None,
        epochs=len(epochs),
        same_epochs=sum(a.epochs[epoch] == b.epochs[epoch] for epoch in epochs) if is_sure else None,
    )


def _roles(sides: Sequence[Side], same: SameSamples | None) -> Roles:
    """How many samples have each role, and which of both changed it; the latter only where they can be compared."""
    words = list(ROLES)
    counts, bits = [], []
    for which, side in enumerate(sides):
        found = {block: np.zeros(len(of.ids), np.uint8) for block, of in side.blocks.items()}
        for number, event in side.log.events("roles"):
            mine = found.get(bytes(event["block"]))
            if mine is None or (len(event["ordinals"]) and int(event["ordinals"].max()) >= len(mine)):
                raise ProofError(f"entry {number} gives a role to samples that are not registered")
            mine[event["ordinals"]] |= np.uint8(1 << ROLES[event["role"]])
        counts.append([sum(int((mine >> ROLES[word] & 1).sum()) for mine in found.values()) for word in words])
        if same is not None:
            bits.append(np.zeros(same.total + 1, np.uint8))
            for block, numbers in (same.a, same.b)[which].items():
                np.bitwise_or.at(bits[-1], numbers, found[block])
    pairs = tuple(Pair(word, a, b) for word, a, b in zip(words, *counts, strict=True) if a or b)
    if same is None:
        return Roles(pairs, None, ())
    one, other = (mine[:-1] for mine in bits)
    changed = np.flatnonzero((one != other) & same.registered(0) & same.registered(1))
    said = [[_roles_in(int(mine[n])) for n in changed[:NAMED]] for mine in bits]
    return Roles(pairs, len(changed), tuple(map(Pair, same.names(changed[:NAMED]), *said)))


def _roles_in(bits: int) -> str:
    return ", ".join(word for word, code in ROLES.items() if bits >> code & 1) or "none"


# -- scores ---------------------------------------------------------------------------------------------------------


def _contributions(same: SameSamples) -> tuple[Correlation, ...]:
    """Of each method and target for which both logs have contributions. CannotTell where there is none."""
    sums = [_sums(side.log, blocks, same.total) for side, blocks in zip(same.sides, (same.a, same.b), strict=True)]
    for side, mine in zip(same.sides, sums, strict=True):
        if not mine:
            where = (
                "fgtrac score --record where it was recorded" if side.is_far else f"fgtrac score {side.name} --record"
            )
            raise CannotTell(f"{side.name} has no recorded contributions; with factors, {where} makes some")
    found = []
    for method, target in sorted(sums[0].keys() & sums[1].keys()):
        (a, has_a), (b, has_b) = sums[0][method, target], sums[1][method, target]
        both = has_a & has_b
        if both.sum() > 1:
            is_ranked = bool(np.ptp(a[both]) and np.ptp(b[both]))
            value = float(spearman(a[both][:, None], b[both][:, None])[0]) if is_ranked else None
            found.append(Correlation(method, target, int(both.sum()), value))
    if not found:
        raise CannotTell("by no method and toward no target are there contributions of two of the same samples in both")
    return tuple(found)


Sums = dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.bool_]]]


def _sums(log: TrainingLog, numbers: Mapping[bytes, Numbers], total: int) -> Sums:
    """By method and target: each sample's contributions over the kept checkpoints, and whether it has any."""
    kept, found = log.kept(), Sums()
    for entry, event in log.events("contribution"):
        if (bytes(event["checkpoint"][0]), event["checkpoint"][1]) not in kept:
            continue
        mine = numbers.get(bytes(event["block"]))
        if mine is None or (len(event["ordinals"]) and int(event["ordinals"].max()) >= len(mine)):
            raise ProofError(f"entry {entry} scores samples that are not registered")
        empty = np.zeros(total + 1), np.zeros(total + 1, bool)
        sums, has = found.setdefault((event["method"], event["target"]), empty)
        np.add.at(sums, mine[event["ordinals"]], event["scores"].astype(np.float64))
        has[mine[event["ordinals"]]] = True
    return {key: (sums[:-1], has[:-1]) for key, (sums, has) in found.items()}


def _suspects(same: SameSamples, listed: int) -> Suspects:
    """The samples among the first `listed` suspects of both. CannotTell where one has no factors or no index."""
    if not listed:
        raise CannotTell("none were asked for (--suspects 0)")
    lists = []
    for which, side in enumerate(same.sides):
        try:
            found = open_trace(side.name).suspects(k=listed).suspects
        except (ScoreError, NotSealedError) as error:
            raise CannotTell(f"{side.name}: {error}") from error
        lists.append([same.find(which, suspect.row.id) for suspect in found])
    common = [number for number in lists[0] if number >= 0 and number in lists[1]]
    return Suspects(listed, len(common), tuple(same.names(np.array(common[:NAMED], dtype=np.intp))))
