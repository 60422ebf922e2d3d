"""What the rows of views come to for each sample: units by ranges of samples, and sums in the order of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.engine.units import Engine
from fgtrac.events.schema import NO_STEP
from fgtrac.query.view_files import columns_of
from fgtrac.query.view_uses import bucket_width

TARGET, STANDING = "validation", "kept"  # of the contributions that are summed
_COUNTS = {"uses": "<u4", "perhaps": "<u4", "neighbours": "<u4", "deliveries": "<u4"}
_COUNT = np.dtype([*_COUNTS.items(), ("first_step", "<u8"), ("last_step", "<u8")])


@dataclass(frozen=True, slots=True)
class CountUnit:
    """Samples `start` to `stop`, which are those of a bucket of the `uses` view, and its files."""

    start: int
    stop: int
    files: tuple[str, ...]


def count_uses(unit: CountUnit) -> bytes:
    """What uses come to for each sample of a bucket, as an array of records."""
    within = range(unit.start, unit.stop)
    found = np.zeros(len(within), _COUNT)
    found["first_step"] = NO_STEP
    names = ("sample", "hop", "status", "attribution", "step")
    for said in columns_of(map(Path, unit.files), names, NO_STEP, within):
        _count(found, said["sample"] - np.uint32(unit.start), said["hop"], said)
    return found.tobytes()


def _count(found: NDArray[np.void], sample: NDArray[np.uint32], hop: NDArray[Any], said: dict[str, Any]) -> None:
    applied, seed = _is(said["status"], "applied"), hop == 0
    perhaps = _is(said["attribution"], "among")
    taking_part = applied & ~(seed & perhaps)
    for name, chosen in (
        ("uses", taking_part & seed),
        ("perhaps", applied & seed & perhaps),
        ("neighbours", applied & ~seed),
        ("deliveries", ~applied & seed),
    ):
        if chosen.any():
            found[name] += np.bincount(sample[chosen], minlength=len(found)).astype(np.uint32)
    steps = said["step"]
    if not taking_part.all():
        sample, steps = sample[taking_part], steps[taking_part]
    np.minimum.at(found["first_step"], sample, steps)
    np.maximum.at(found["last_step"], sample, steps)


def count_all(engine: Engine, n: int, files: Sequence[Path]) -> NDArray[np.void]:
    """(n,) records of what uses come to: uses, perhaps, neighbours, deliveries, first_step and last_step."""
    width, out = bucket_width(n), np.empty(n, _COUNT)
    names = tuple(map(str, files))
    units = [CountUnit(start, min(start + width, n), names) for start in range(0, n, width)]
    for place, found in engine.results(count_uses, units, what="counting uses"):
        out[units[place].start : units[place].stop] = np.frombuffer(found, _COUNT)
    return out


def sum_contributions(n: int, files: Sequence[Path]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """By method, the sums (n,) of the contributions to the validation loss at kept states, in the order of the log, and
    who has any."""
    sums: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
    for said in columns_of(files, ("sample", "target", "method", "score", "standing")):
        wanted = _is(said["target"], TARGET) & _is(said["standing"], STANDING)
        codes, methods = said["method"]
        for code in np.unique(codes[wanted]).tolist():
            total, some = sums.setdefault(methods[code], (np.zeros(n), np.zeros(n, bool)))
            chosen = wanted & (codes == code)
            np.add.at(total, said["sample"][chosen], said["score"][chosen].astype(np.float64))
            some[said["sample"][chosen]] = True
    return sums


def count_predictions(n: int, files: Sequence[Path]) -> NDArray[np.uint32]:
    """(n,) how many predictions each sample has."""
    found = np.zeros(n, np.uint32)
    for said in columns_of(files, ("sample",)):
        np.add.at(found, said["sample"], np.uint32(1))
    return found


def _is(words: tuple[NDArray[np.int32], Sequence[str]], word: str) -> NDArray[np.bool_]:
    """(n,) where a column of words has this one."""
    codes, texts = words
    return codes == texts.index(word) if word in texts else np.zeros(len(codes), bool)
