"""What the tests of tables share: one frame in each library, and what a stage's entries say of its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

Make = Callable[[dict[str, list[Any]]], Any]
LIBRARIES: dict[str, Make] = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "polars lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "pyarrow": pa.table,
}


def in_each_library(case: str, *, lazy: bool = True, **said: Any) -> Any:
    """Parametrizes `make`; a row of the matrix for each library."""
    chosen = {name: make for name, make in LIBRARIES.items() if lazy or name != "polars lazy"}
    rows = []
    for name, make in chosen.items():
        part, _, how = name.partition(" ")
        row = pytest.mark.matrix(part, f"{case} ({how})" if how else case, **said)
        rows.append(pytest.param(make, id=name.replace(" ", "-"), marks=row))
    return pytest.mark.parametrize("make", rows)


def column(frame: Any, name: str) -> list[Any]:
    """A column's values, None for what is missing."""
    if isinstance(frame, pa.Table):
        return frame.column(name).to_pylist()
    if isinstance(frame, pd.DataFrame):
        return [None if value is None or value != value else value for value in frame[name].tolist()]
    return (frame.collect() if isinstance(frame, pl.LazyFrame) else frame)[name].to_list()


def same(one: Any, other: Any) -> bool:
    """Whether two frames of one library are equal, names, types, order and index included."""
    if isinstance(other, pl.LazyFrame):
        other = other.collect()
    return type(one) is type(other) and bool(one.equals(other)) and str(_schema(one)) == str(_schema(other))


def _schema(frame: Any) -> Any:
    return frame.dtypes if isinstance(frame, pd.DataFrame) else frame.schema


def ids_at(run: Any, frame: Any) -> list[bytes]:
    """The sample id at each row, as the run knows it."""
    return [row.tobytes() for row in run._registry.resolve(frame).ids()]


def fate(said: Any, stage: str) -> dict[str, list[tuple[str, Any]]]:
    """What became of the samples at a stage: "kept" (or "kept OUTPUT") and "dropped" -> (data set, key), sorted."""
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for entry in (e for e in said.kind("transform") if e["stage"] == stage):
        for outcome in ("kept", "dropped"):
            word = outcome + (f" {entry['output']}" if "output" in entry and outcome == "kept" else "")
            found[word] += [said.names[said.blocks()[entry["block"]][o]][:2] for o in entry.get(outcome, ())]
    return {word: sorted(samples, key=repr) for word, samples in sorted(found.items()) if samples}


def parents(said: Any, stage: str) -> dict[bytes, list[tuple[str, Any]]]:
    """Child id -> (data set, key) of its parents, sorted."""
    found: dict[bytes, list[tuple[str, Any]]] = defaultdict(list)
    for entry in (e for e in said.kind("transform") if e["stage"] == stage and "parents" in e):
        blocks = said.blocks()
        for parent, child in zip(entry["parents"], entry["children"], strict=True):
            found[blocks[entry["child_block"]][child]].append(said.names[blocks[entry["block"]][parent]][:2])
    return {child: sorted(those, key=repr) for child, those in found.items()}


def spans(said: Any, stage: str) -> dict[bytes, list[tuple[Any, int, int]]]:
    """Child id -> (parent's key, start, stop), sorted."""
    found: dict[bytes, list[tuple[Any, int, int]]] = defaultdict(list)
    for entry in (e for e in said.kind("transform") if e["stage"] == stage and "starts" in e):
        blocks = said.blocks()
        for parent, child, start, stop in zip(
            *(entry[n] for n in ("parents", "children", "starts", "stops")), strict=True
        ):
            key = said.names[blocks[entry["block"]][parent]][1]
            found[blocks[entry["child_block"]][child]].append((key, int(start), int(stop)))
    return {child: sorted(those) for child, those in found.items()}
