"""Hugging Face data sets whose rows say who they are, and what a log says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets

from fgtrac.api.run import Run

ROWS = 24

datasets.disable_progress_bars()


def made(rows: int = ROWS, first: int = 0) -> Any:
    """Row i has the id i (from `first` on), a text that says so, and i % 4 words."""
    ids = list(range(first, first + rows))
    return datasets.Dataset.from_dict(
        {"id": ids, "text": [" ".join([f"w{i}"] * (i % 4)) for i in ids], "group": [i % 5 for i in ids]}
    )


def keys_of(run: Run, data: Any) -> list[tuple[str, int]]:
    """(data set, row) of each position, as the run resolves it."""
    found = run._registry.resolve(data)
    return [(found.roots[which].name, int(row)) for which, row in zip(found.which, found.rows, strict=True)]


def ids_in(data: Any) -> list[int]:
    """The truth: what the rows say themselves."""
    return [int(i) for i in data.with_format(None)["id"]]


def stage(log: Any, name: str) -> list[dict[str, Any]]:
    return [e for e in log.kind("transform") if e["stage"] == name]


def said(log: Any, name: str, column: str) -> dict[str | None, list[Any]]:
    """output -> keys that a stage's entries name as kept or dropped."""
    found: dict[str | None, list[Any]] = {}
    for entry in (e for e in stage(log, name) if column in e):
        found.setdefault(entry.get("output"), []).extend(log.keys(entry["block"], entry[column]))
    return {output: sorted(keys) for output, keys in found.items()}


def is_third(row: Any) -> bool:
    return bool(row["id"] % 3 == 0)


def words(batch: Any) -> dict[str, list[Any]]:
    """One row for each word; `of` is the place in the batch of the row that it is from."""
    pairs = [(place, word, row) for place, row in enumerate(batch["id"]) for word in batch["text"][place].split()]
    return {"word": [w for _, w, _ in pairs], "of": [p for p, _, _ in pairs], "from": [r for _, _, r in pairs]}


def pairs_of(log: Any, name: str) -> set[tuple[Any, bytes]]:
    """(parent's key, child's id) of a stage."""
    found = set()
    for entry in (e for e in stage(log, name) if "parents" in e):
        ids = log.blocks()[entry["child_block"]]
        born = [ids[child] for child in entry["children"]]
        found |= set(zip(log.keys(entry["block"], entry["parents"]), born, strict=True))
    return found


def truth_of(run: Run, data: Any, parents: Callable[[Any], list[int]]) -> set[tuple[Any, bytes]]:
    """The same from the rows of what a stage made."""
    ids = run._registry.resolve(data).ids()
    return {(p, bytes(ids[n])) for n, row in enumerate(data.with_format(None)) for p in parents(row)}
