"""What may be explained, and its gradients: a sample, a group of samples, a class, or a whole role.

digits:17, id:HEX, key:JSON     one sample whose factors are in the trace
[name, name, ...]               a group: the mean of their losses
class:3, class:3:test           all samples of a class, in the role named (else validation, test or train)
role:validation                 all samples of a role
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Gradients, concatenate
from fgtrac.score.methods import Method, Prepared, group_size, mean_target, prepare, read_all

ROLES = ("train", "validation", "test")
BY_CLASS = ("validation", "test", "train")  # where a class is looked for
FORMS = "NAME:ROW, NAME:key:JSON, id:HEX, key:JSON, class:K, class:K:ROLE or role:ROLE"
TAKEN_AT_ONCE = 4096

Find = Callable[[str], Sequence[tuple[bytes, int]]]  # a sample's name -> the (block, ordinal) it is registered at


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is explained: what to call it, and its rows in the factors of each role. `is_single` for one sample, whose
    gradient is kept as it is; otherwise the mean over all rows. `label` is the class where all rows are of one."""

    words: str
    rows: Mapping[str, NDArray[np.int64]]
    label: int | None = None
    is_single: bool = False

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return sum(map(len, self.rows.values()))


def resolve(cache: Cache, wanted: str | Sequence[str], find: Find) -> Target:
    """The target of that name, or a group of names. ValueError for what is none, ScoreError where the trace has no
    factors of it."""
    if not isinstance(wanted, str):
        if isinstance(wanted, bytes) or not isinstance(wanted, (Sequence, Set, Iterator, np.ndarray)):
            words = f"a target is a name ({FORMS}) or a list of names; unseen data need model="
            raise TypeError(f"{wanted!r:.60} is no target: {words}")
        parts = [resolve(cache, name, find) for name in wanted]
        if not parts:
            raise ValueError("a group of no samples cannot be explained; name at least one")
        if len(parts) == 1:
            return parts[0]
        words = ", ".join(p.words for p in parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
        rows = {r: np.concatenate(some) for r in ROLES if (some := [p.rows[r] for p in parts if r in p.rows])}
        labels = {p.label for p in parts}
        return Target(f"the mean of {words}", rows, labels.pop() if len(labels) == 1 else None)
    form, _, rest = wanted.partition(":")
    if form == "role":
        return _role(cache, rest)
    if form == "class":
        return _class(cache, rest)
    return _sample(cache, wanted, find(wanted))


def _role(cache: Cache, role: str) -> Target:
    if role not in ROLES:
        raise ValueError(f"role:{role:.40} is none of {', '.join(f'role:{r}' for r in ROLES)}")
    _check_scored(cache, role)
    return Target(f"all {role} samples", {role: np.arange(len(cache.rows(role)))})


def _class(cache: Cache, text: str) -> Target:
    digits, colon, role = text.partition(":")
    if not digits.removeprefix("-").isdecimal() or (colon and role not in ROLES):
        raise ValueError(f"class:{text:.60} names no class; write class:3, or class:3:test")
    label = int(digits)
    roles = [role] if colon else [r for r in BY_CLASS if cache.has(r) and cache.rows(r).labels is not None]
    for here in roles:
        _check_scored(cache, here)
        labels = cache.rows(here).labels
        if labels is None:
            raise ScoreError(f"the {here} factors have no classes: their targets are no class numbers; name samples")
        found = np.flatnonzero(labels == label)
        if len(found):
            return Target(f"class {label} of the {here} samples", {here: found}, label)
    known = [labels for here in roles if (labels := cache.rows(here).labels) is not None]
    there = np.unique(np.concatenate(known)).tolist() if known else []
    raise ValueError(f"no sample with factors is of class {label}; there are {', '.join(map(str, there)) or 'none'}")


def _sample(cache: Cache, words: str, places: Sequence[tuple[bytes, int]]) -> Target:
    roles = [role for role in ROLES if cache.has(role)]
    for role in roles:
        rows = cache.rows(role)
        for block, ordinal in places:
            row = rows.find(block, ordinal)
            if row is not None:
                label = int(rows.labels[row]) if rows.labels is not None else None
                return Target(words, {role: np.array([row])}, label, is_single=True)
    raise ScoreError(
        f"{words} is registered, but it is among the factors of no role ({', '.join(roles)} have some); give its role "
        "to run.score_with, or explain it as unseen data with model="
    )


def _check_scored(cache: Cache, role: str) -> None:
    if not cache.has(role):
        raise ScoreError(
            f"there are no {role} factors at these checkpoints; give {role}= to run.score_with, or name another target"
        )


def prepare_targets(
    cache: Cache, targets: Sequence[Target], method: Method
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """Targets made ready, a group at a time: (their numbers, one `Prepared` for each state)."""
    for numbers in target_groups([cache], targets, method):
        yield numbers, prepare_group(cache, [targets[i] for i in numbers], method)


def prepare_group(cache: Cache, targets: Sequence[Target], method: Method) -> list[Prepared]:
    """Targets of one kind made ready, one `Prepared` for each state."""
    return [prepare(cache, k, _gradients(cache, k, targets), method) for k in range(len(cache.states))]


def read_targets(cache: Cache, targets: Sequence[Target]) -> Iterator[tuple[list[int], list[tuple[Gradients, ...]]]]:
    """The gradients of targets, a group at a time: (their numbers, for each state one `Gradients` a layer)."""
    for numbers in target_groups([cache], targets, Method()):
        yield numbers, [_gradients(cache, k, [targets[i] for i in numbers]) for k in range(len(cache.states))]


def target_groups(caches: Sequence[Cache], targets: Sequence[Target], method: Method) -> Iterator[list[int]]:
    """The numbers of targets that are held at once, those of one kind together: what is held stays bounded however
    many there are."""
    for single in (True, False):
        mine = [i for i, target in enumerate(targets) if target.is_single == single]
        if mine:
            size = group_size(caches, len(mine), method, dense=not single)
            yield from (mine[start : start + size] for start in range(0, len(mine), size))


def _gradients(cache: Cache, k: int, targets: Sequence[Target]) -> tuple[Gradients, ...]:
    return _taken(cache, k, targets) if targets[0].is_single else _means(cache, k, targets)


def _taken(cache: Cache, k: int, targets: Sequence[Target]) -> tuple[Gradients, ...]:
    """The gradients of single samples at state k, in the order of the targets."""
    where = [next(iter(target.rows)) for target in targets]
    parts, order = [], []
    for role in dict.fromkeys(where):
        mine = [i for i, r in enumerate(where) if r == role]
        parts.append(cache.take(k, role, np.array([int(targets[i].rows[role][0]) for i in mine])))
        order += mine
    back = np.argsort(order)
    return tuple(concatenate([part[i] for part in parts]).rows(back) for i in range(len(cache.layers)))


def _means(cache: Cache, k: int, targets: Sequence[Target]) -> tuple[Gradients, ...]:
    """The mean gradients of groups at state k, one dense row for each."""
    means = [mean_target(_parts(cache, k, target)) for target in targets]
    return tuple(concatenate([mean[i] for mean in means]) for i in range(len(cache.layers)))


def _parts(cache: Cache, k: int, target: Target) -> Iterator[tuple[Gradients, ...]]:
    """The gradients of a group's samples, some at a time."""
    for role, rows in target.rows.items():
        if len(rows) == len(cache.rows(role)):
            yield from (part for _start, part in read_all(cache, k, role))
            continue
        for start in range(0, len(rows), TAKEN_AT_ONCE):
            yield cache.take(k, role, rows[start : start + TAKEN_AT_ONCE])
