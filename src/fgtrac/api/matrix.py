"""The whole matrix of scores, part by part into a folder: an interrupted job goes on where it stopped.

query.json           what was asked: trace, method, checkpoints, layers, targets; a part's rows; how many threads
rows.csv             a line for each training sample, in the order of the scores' rows: row, data set, key, id, label
targets.csv          a line for each target, in the order of the scores' columns: column, target
scores-00000.npy     (rows, targets) float32, the scores of the rows from part * rows_a_part on
scores-00000.sha256  written after it, as sha256sum does: a part that has not this digest is made again
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
    query = query_text(explainer, cache, resolved, method, size, by_engine=engine is not None)
    parts = [(part, start, min(n, start + size)) for part, start in enumerate(range(0, n, size))]
    missing = [part for part in parts if not _is_whole(folder, part[0])]
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
    data = _npy(_part(cache, prepared, start, stop, m))
    durable.write_file(_path(folder, part), data)
    durable.write_file(_path(folder, part).with_suffix(".sha256"), _digest_line(folder, part, data))


def _path(folder: Path, part: int) -> Path:
    return folder / f"scores-{part:05d}.npy"


def _digest_line(folder: Path, part: int, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {_path(folder, part).name}\n".encode()


def _is_whole(folder: Path, part: int) -> bool:
    path = _path(folder, part)
    kept = path.with_suffix(".sha256")
    if not (path.is_file() and kept.is_file()):
        return False
    return kept.read_bytes() == _digest_line(folder, part, path.read_bytes())


def query_text(
    explainer: Explainer, cache: Cache, targets: Sequence[Target], method: Method, size: int, *, by_engine: bool
) -> str:
    """query.json. All units of any engine compute with one thread; without an engine the last bits are others."""
    query = _query(explainer, cache, targets, method, size) | {"threads": "one" if by_engine else "as many as torch's"}
    return json.dumps(query, ensure_ascii=False, indent=1) + "\n"


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
