"""The whole matrix of scores, part by part into a folder: an interrupted job goes on where it stopped.

query.json           what was asked: trace, method, checkpoints, layers, targets; how many rows a part has
rows.csv             a line for each training sample, in the order of the scores' rows: row, data set, key, id, label
targets.csv          a line for each target, in the order of the scores' columns: column, target
scores-00000.npy     (rows, targets) float32, the scores of the rows from part * rows_a_part on
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.explain import Explainer
from fgtrac.api.groups import ids_of, rows_by_block
from fgtrac.api.matrix_units import MatrixJob, PartUnit, Ready, hold_ready, write_part_of
from fgtrac.api.naming import key_of, key_text
from fgtrac.api.targets import Target
from fgtrac.engine.units import Engine
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Prepared, Progress, scores
from fgtrac.score.methods import Method
from fgtrac.score.one_thread import one_thread
from fgtrac.store import durable

PART_NUMBERS = 1 << 22  # of one part: 16 MB
FORMAT = "fgtrac scores 1"


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
    cache = explainer.cache(checkpoints)
    resolved = explainer.resolve(cache, targets)
    n, m = len(cache.rows("train")), len(resolved)
    size = max(1, PART_NUMBERS // m) if rows_a_part is None else rows_a_part
    if size < 1:
        raise ValueError(f"rows_a_part={size}; a part has at least 1 row")
    query = query_text(explainer, cache, resolved, method, size)
    parts = [(part, start, min(n, start + size)) for part, start in enumerate(range(0, n, size))]
    missing = [part for part in parts if not _path(folder, part[0]).exists()]
    is_here = engine is None or engine.name == "local:1" or len(missing) < 2
    with nullcontext() if engine is None else one_thread():
        ready = hold_ready(cache, resolved, method) if is_here else None
        _claim(folder, query)
        durable.write_file(folder / "rows.csv", lines(_rows(explainer, cache)).encode())
        durable.write_file(folder / "targets.csv", lines(_columns(resolved)).encode())
        if engine is None or ready is not None:
            assert ready is not None
            made = _write_here(cache, ready, folder, missing, m)
        else:
            steps = None if checkpoints is None else tuple(checkpoints)
            named = tuple(target if isinstance(target, str) else tuple(map(str, target)) for target in targets)
            where = (str(explainer.trace.path.resolve()), named, method, steps, size, str(folder.resolve()))
            made = _write_there(engine, MatrixJob(*where, query), missing)
        done = n - sum(stop - start for _, start, stop in missing)
        for rows in made:
            done += rows
            if progress is not None:
                progress(done, n)
    return folder


def _write_here(
    cache: Cache, ready: Ready, folder: Path, parts: Sequence[tuple[int, int, int]], m: int
) -> Iterator[int]:
    for part, start, stop in parts:
        write_part(cache, ready(), folder, part, start, stop, m)
        yield stop - start


def _write_there(engine: Engine, job: MatrixJob, parts: Sequence[tuple[int, int, int]]) -> Iterator[int]:
    engine.check_shared(Path(job.trace))
    engine.check_shared(Path(job.folder))
    units = [PartUnit(job, *part) for part in parts]
    return (rows for _number, rows in engine.results(write_part_of, units, what="scores"))


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
    durable.write_file(_path(folder, part), _npy(_part(cache, prepared, start, stop, m)))


def _path(folder: Path, part: int) -> Path:
    return folder / f"scores-{part:05d}.npy"


def query_text(explainer: Explainer, cache: Cache, targets: Sequence[Target], method: Method, size: int) -> str:
    """query.json."""
    return json.dumps(_query(explainer, cache, targets, method, size), ensure_ascii=False, indent=1) + "\n"


def _query(explainer: Explainer, cache: Cache, targets: Sequence[Target], method: Method, size: int) -> dict[str, Any]:
    """What tells one query from another: the factor files that it reads, and what it computes of them."""
    roles = {"train"}.union(*(target.rows for target in targets))
    wanted = tuple(f"{state.folder}/{role}-" for state in cache.states for role in roles)
    files = sorted((path, sha.hex()) for path, sha in explainer.ledger.artifacts.items() if path.startswith(wanted))
    return {
        "format": FORMAT,
        "trace": explainer.seal.head.origin,
        "factors": _digest(files),
        "method": str(method),
        "layers": [layer.name for layer in cache.layers],
        "checkpoints": [state.step for state in cache.states],
        "targets": [[t.words, t.samples, _digest([(r, rows.tolist()) for r, rows in t.rows.items()])] for t in targets],
        "rows": len(cache.rows("train")),
        "rows_a_part": size,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _claim(folder: Path, text: str) -> None:
    """Make the folder this query's own, or see that it is. ValueError where it is another's."""
    path = folder / "query.json"
    if path.is_file():
        if path.read_text() != text:
            raise ValueError(f"{folder} has the scores of another query (see query.json in it); name another folder")
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
