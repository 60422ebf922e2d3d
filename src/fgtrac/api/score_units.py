"""Answers about scores as units of work: a range of training rows, toward some targets or against other rows.

Whoever does a unit opens the question once, computes with one thread and writes what it found into a file; whoever
asked puts the files together in the order of the units. So the bytes are the same wherever a unit is done, and what is
done stays when the asking is cut short.

    sums, turned    STATE FROM TO          what a curvature is the mean of (`score.curvature_sums`); of ekfac's 2nd pass
    influence       STATE FROM TO          the self-influence of the rows
    pairs           STATE FROM TO FROM TO  the most similar pairs of rows of two ranges
    ranking         GROUP FROM TO          the strongest rows toward each target of a group, and the sums by `by`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import group_sums
from fgtrac.api.groups import group_rows
from fgtrac.api.questions import Question, open_question
from fgtrac.api.targets import prepare_group, target_groups
from fgtrac.api.whole_files import write_whole
from fgtrac.score.curvature_sums import read_bases, sum_range
from fgtrac.score.kernel import Prepared, rank
from fgtrac.score.methods import add_self_influence
from fgtrac.score.one_thread import one_thread
from fgtrac.score.suspects import best_pairs
from fgtrac.store.tensor_files import encode_tensors

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ScoreUnit:
    """One of the units above, whose file is put into `folder`."""

    question: Question
    folder: str
    kind: str
    numbers: tuple[int, ...]

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.folder) / f"{self.kind}-{'-'.join(map(str, self.numbers))}.safetensors"


def do_unit(unit: ScoreUnit) -> None:
    """Write the unit's file. Errors as those of the question in one process; ScoreError where the trace does not hold
    here what it holds for the caller."""
    with one_thread():
        found = _KINDS[unit.kind](unit, *unit.numbers)
        write_whole(unit.path, encode_tensors(found, {}), sync=False)


def forget() -> None:
    """Let go of the question that was open in this process."""
    for known in (open_question, _ready, _groups):
        known.cache_clear()


def bases_path(folder: str | Path, k: int) -> Path:
    """Where the eigenbases at a state lie."""
    return Path(folder) / f"bases-{k}.safetensors"


def _sums(unit: ScoreUnit, k: int, start: int, stop: int) -> Arrays:
    return sum_range(open_question(unit.question).cache, k, unit.question.method, start, stop)


def _turned(unit: ScoreUnit, k: int, start: int, stop: int) -> Arrays:
    bases = read_bases(bases_path(unit.folder, k))
    return sum_range(open_question(unit.question).cache, k, unit.question.method, start, stop, bases)


def _influence(unit: ScoreUnit, k: int, start: int, stop: int) -> Arrays:
    out = np.zeros(stop - start, dtype=np.float32)
    for _done in add_self_influence(open_question(unit.question).cache, k, unit.question.method, out, start):
        pass
    return {"scores": out}


def _pairs(unit: ScoreUnit, k: int, start: int, stop: int, start_too: int, stop_too: int) -> Arrays:
    cache, asked = open_question(unit.question).cache, unit.question
    rows, cosines = best_pairs(
        lambda first, last: cache.read(k, "train", first, last),
        (start, stop), (start_too, stop_too), asked.k, str(asked.by),
    )  # fmt: skip
    return {"rows": rows, "cosines": cosines}


def _ranking(unit: ScoreUnit, group: int, start: int, stop: int) -> Arrays:
    cache, ready = open_question(unit.question).cache, _ready(unit.question, group)
    found = rank(cache, ready, unit.question.k, rows=(start, stop))
    arrays = {name: getattr(found, name) for name in found.__slots__}
    if unit.question.by is not None:
        codes, names = _groups(unit.question)
        arrays["sums"] = group_sums(cache, ready, codes, len(names), start, stop)
    return arrays


@lru_cache(maxsize=1)
def _ready(question: Question, group: int) -> list[Prepared]:
    opened = open_question(question)
    numbers = list(target_groups([opened.cache], opened.targets, question.method))[group]
    return prepare_group(opened.cache, [opened.targets[i] for i in numbers], question.method)


@lru_cache(maxsize=1)
def _groups(question: Question) -> tuple[NDArray[np.intp], list[str]]:
    opened = open_question(question)
    return group_rows(opened.cache.rows("train"), opened.explainer.blocks, str(question.by))


_KINDS: Mapping[str, Callable[..., Arrays]] = {
    "sums": _sums, "turned": _turned, "influence": _influence, "pairs": _pairs, "ranking": _ranking,
}  # fmt: skip
