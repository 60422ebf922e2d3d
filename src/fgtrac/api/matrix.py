"""The whole matrix of scores, part by part into a folder: an interrupted job goes on where it stopped.

query.json           what was asked: trace, method, checkpoints, layers, targets; a part's rows; how many threads
rows.csv             a line for each training sample, in the order of the scores' rows: row, data set, key, id, label
targets.csv          a line for each target, in the order of the scores' columns: column, target
scores-00000.npy     (rows, targets) float32, the scores of the rows from part * rows_a_part on
scores-00000.sha256  written after it, as sha256sum does: a part that has not this digest is made again
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.explain import Explainer
from fgtrac.api.groups import ids_of, rows_by_block
from fgtrac.api.matrix_units import PartUnit, Ready, hold_ready, write_part_of
from fgtrac.api.naming import key_of, key_text
from fgtrac.api.questions import query_text
from fgtrac.api.spread_scores import Asking, asking
from fgtrac.api.targets import Target
from fgtrac.api.whole_files import is_whole, write_whole
from fgtrac.engine.units import Engine
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Prepared, Progress, scores
from fgtrac.score.methods import Method
from fgtrac.store import durable

PART_NUMBERS = 1 << 22  # of one part: 16 MB


def write_matrix(
    explainer: Explainer,
    targets: Sequence[str | Sequence[str]],
    method: Method,
    folder: Path,
    *,
    checkpoints: Sequence[int] | None = None,
    rows_a_part: int | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the scores of every training sample toward every target; parts that are there already are kept, and never
    more than one is in memory, at each worker of an engine. ValueError where the folder has something else in it, or
    for `rows_a_part` below 1; EngineError where workers are lost, or do not see trace and folder."""
    if engine is None:
        cache = explainer.cache(checkpoints)
        job = _Job(explainer, cache, explainer.resolve(cache, targets), method, folder, rows_a_part)
        _write(job, None, progress)
    else:
        with asking(explainer, engine, method, targets, checkpoints) as asked:
            _write(_Job(explainer, asked.cache, asked.targets, method, folder, rows_a_part), asked, progress)
    return folder


@dataclass(frozen=True, slots=True)
class _Job:
    """What is written into which folder. ValueError where a part is to have no rows."""

    explainer: Explainer
    cache: Cache
    targets: list[Target]
    method: Method
    folder: Path
    rows_a_part: int | None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"rows_a_part={self.size}; a part has at least 1 row")

    @property
    def size(self) -> int:
        """Rows of a part."""
        return max(1, PART_NUMBERS // len(self.targets)) if self.rows_a_part is None else self.rows_a_part


def _write(job: _Job, asked: Asking | None, progress: Progress | None) -> None:
    cache, targets, folder, n = job.cache, job.targets, job.folder, len(job.cache.rows("train"))
    query = query_text(job.explainer, cache, targets, job.method, job.size, by_engine=asked is not None)
    parts = [(part, start, min(n, start + job.size)) for part, start in enumerate(range(0, n, job.size))]
    missing = [part for part in parts if not is_whole(_path(folder, part[0]))]
    if asked is not None and missing:
        asked.curvatures()
    is_here = asked is None or asked.engine.name == "local:1" or len(missing) < 2
    ready = hold_ready(cache, targets, job.method) if is_here else None
    _claim(folder, query)
    durable.write_file(folder / "rows.csv", lines(_rows(job.explainer, cache)).encode())
    durable.write_file(folder / "targets.csv", lines(_columns(targets)).encode())
    if asked is None or ready is not None:
        assert ready is not None
        made = _write_here(cache, ready, folder, missing, len(targets))
    else:
        made = _write_there(asked, folder, missing)
    done = n - sum(stop - start for _, start, stop in missing)
    for rows in made:
        done += rows
        if progress is not None:
            progress(done, n)


def _write_here(
    cache: Cache, ready: Ready, folder: Path, parts: Sequence[tuple[int, int, int]], m: int
) -> Iterator[int]:
    for part, start, stop in parts:
        write_part(cache, ready(), folder, part, start, stop, m)
        yield stop - start


def _write_there(asked: Asking, folder: Path, parts: Sequence[tuple[int, int, int]]) -> Iterator[int]:
    asked.engine.check_shared(Path(asked.question.trace))
    asked.engine.check_shared(folder)
    units = [PartUnit(asked.question, str(folder.resolve()), *part) for part in parts]
    return (rows for _number, rows in asked.engine.results(write_part_of, units, what="scores"))


def write_part(
    cache: Cache,
    prepared: Iterable[tuple[list[int], list[Prepared]]],
    folder: Path,
    part: int,
    start: int,
    stop: int,
    m: int,
) -> None:
    """Write the scores of some rows toward all m targets."""
    write_whole(_path(folder, part), [_npy(_part(cache, prepared, start, stop, m))])


def _path(folder: Path, part: int) -> Path:
    return folder / f"scores-{part:05d}.npy"


def _claim(folder: Path, text: str) -> None:
    """Make the folder this query's own, or see that it is. ValueError where it is another's."""
    path = folder / "query.json"
    if path.is_file():
        if path.read_text() != text:
            raise ValueError(
                f"{folder} has the scores of another query, or made with --engine and now without or the reverse (see "
                "query.json in it); name another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(p for p in folder.iterdir() if p.suffix != ".tmp")):
        raise ValueError(f"{folder} exists and holds no scores; name a new folder")
    durable.write_file(path, text.encode())


def _rows(explainer: Explainer, cache: Cache) -> Iterator[list[Any]]:
    """rows.csv: the user's own keys where the vault has them."""
    rows = cache.rows("train")
    datasets = [""] * len(rows)
    for block, mine in rows_by_block(rows):
        for row in mine.tolist():
            datasets[row] = explainer.blocks.dataset(block)
    known = explainer.namer.names()
    yield ["row", "dataset", "key", "id", "label"]
    for row, sample in enumerate(ids_of(rows, explainer.blocks)):
        name = sample.tobytes()
        label = "" if rows.labels is None else int(rows.labels[row])
        yield [row, datasets[row], key_text(key_of(known[name][1])) if name in known else "", name.hex(), label]


def _columns(targets: Sequence[Target]) -> Iterator[list[Any]]:
    yield ["column", "target", "samples"]
    yield from ([j, target.words, target.samples] for j, target in enumerate(targets))


def lines(rows: Iterator[list[Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _part(cache: Cache, prepared: Iterable[tuple[list[int], list[Prepared]]], start: int, stop: int, m: int) -> Floats:
    out = np.empty((stop - start, m), dtype=np.float32)
    for numbers, ready in prepared:
        out[:, numbers] = scores(cache, ready, start, stop)
        del ready  # before the next group is made ready
    return out


def _npy(values: Floats) -> bytes:
    text = io.BytesIO()
    np.save(text, values)
    return text.getvalue()
