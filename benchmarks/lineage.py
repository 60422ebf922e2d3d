"""What lineage costs: a table of a million rows filtered, deduplicated and joined, with a trace and without.

Rows that stay their samples cost a few columns; each new sample of the join an id of its own, made of its parents'
ids, a content digest and a way back in the vault.
"""

from __future__ import annotations

import atexit
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from fgtrac.api.run import Run, start_run
from harness import report

ROWS, LABELS, ROUNDS = 1_000_000, 100_000, 2


def columns() -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows, one in ten of them a repetition, and labels for their keys."""
    generator = np.random.default_rng(0)
    rows = {
        "key": generator.integers(0, LABELS, ROWS), "value": generator.random(ROWS),
        "unit": generator.integers(0, ROWS * 9 // 10, ROWS),
    }  # fmt: skip
    return rows, {"key": np.arange(LABELS), "label": generator.integers(0, 10, LABELS)}


def plain(rows: Any, labels: Any) -> tuple[float, float, Any]:
    """CPU seconds of all threads for filter and deduplication, and for the join, by the library; what comes out."""
    start = time.process_time()
    if isinstance(rows, pd.DataFrame):
        once = rows[rows["value"] > 0.2].drop_duplicates("unit")
        middle = time.process_time()
        made = once.merge(labels, on="key")
    elif isinstance(rows, pl.DataFrame):
        once = rows.filter(pl.col("value") > 0.2).unique("unit", keep="first", maintain_order=True)
        middle = time.process_time()
        made = once.join(labels, on="key")
    else:
        some = rows.filter(pc.field("value") > 0.2)
        numbered = some.append_column("row", pa.array(np.arange(len(some))))
        once = some.take(numbered.group_by("unit").aggregate([("row", "min")])["row_min"])
        middle = time.process_time()
        made = once.join(labels, "key", join_type="inner")
    return middle - start, time.process_time() - middle, made


def traced(run: Run, rows: Any, labels: Any) -> tuple[float, float, Any]:
    """The same under trace."""
    condition: Any = {pd.DataFrame: lambda f: f["value"] > 0.2, pl.DataFrame: pl.col("value") > 0.2}.get(
        type(rows), pc.field("value") > 0.2
    )
    start = time.process_time()
    once = run.transform("once", run.transform("some", rows).filter(condition)).deduplicate("unit")
    middle = time.process_time()
    made = run.transform("join", once).join(labels, on="key")
    return middle - start, time.process_time() - middle, made


def measure(make: Callable[[dict[str, Any]], Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """(plain, traced) CPU seconds of [filter and deduplicate, join], the least of some rounds; how many rows."""
    data, extra = columns()
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(ROUNDS):
        rows, labels = make(data), make(extra)
        one, two, alone = plain(rows, labels)
        times[False].append((one, two))
        with tempfile.TemporaryDirectory() as folder:
            run = start_run(Path(folder) / "run", key=Path(folder) / "key.pem", ids="public")
            for name, frame in (("rows", rows), ("labels", labels)):
                run.register(frame, name=name, content=False)
            one, two, made = traced(run, rows, labels)
            times[True].append((one, two))
            if len(made) != len(alone):
                raise SystemExit(f"under trace {len(made)} rows came out, and without {len(alone)}")
            atexit.unregister(run._interrupted)  # the log is not sealed: it is none of what is measured
            run._recorder.close()
    return np.min(times[False], axis=0), np.min(times[True], axis=0), len(made)


def main() -> None:
    figures: dict[str, float | None] = {}
    for name, make in (("pandas", pd.DataFrame), ("polars", pl.DataFrame), ("arrow", pa.table)):
        alone, under, joined = measure(make)
        figures[f"{name}_cpu_ms"] = float(alone.sum() * 1e3)
        figures[f"{name}_kept_added_ms"] = float((under - alone)[0] * 1e3)
        figures[f"{name}_us_per_new_sample"] = float((under - alone)[1] / joined * 1e6)
    report("lineage", figures)


if __name__ == "__main__":
    main()
