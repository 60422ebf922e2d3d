"""The log against the truth: what a model really received in each update, and what the trace says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.naming import key_of
from fgtrac.api.trace import open_trace
from fgtrac.events.postings import KIND
from fgtrac.events.schema import STATUS, decode_event
from fgtrac.query.blocks import Blocks
from fgtrac.query.seals import open_full_seal
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import read_entries

ASKED = 20  # samples whose history is asked for as a user asks
Rows = NDArray[np.int64]
Roles = NDArray[np.int64]  # (k, 2) by (hop, step): where one sample took part; hop 0 is a seed


@dataclass(frozen=True, slots=True)
class Update:
    """The rows of the data set that took part in one update, ascending: as seeds (or as the only samples there are),
    and as neighbours hop by hop."""

    seeds: Rows
    hops: tuple[Rows, ...] = ()

    @property
    def groups(self) -> tuple[Rows, ...]:
        """Seeds, then the neighbours of each hop."""
        return (self.seeds, *self.hops)


@contextmanager
def received(kind: type[torch.nn.Module], remember: Callable[..., object]) -> Iterator[None]:
    """Call `remember` with the arguments of every training forward pass of modules of that class."""

    def hook(module: torch.nn.Module, args: Any) -> None:
        if isinstance(module, kind) and module.training and torch.is_grad_enabled():
            remember(*args)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def compare(path: Path, dataset: str, row_of: Callable[[Any], int], truth: Sequence[Update]) -> dict[str, Any]:
    """Every update in the log, every sample's rows in the index, and some histories against the truth, which is there
    for each step from 1. Rows are those of `dataset`; `row_of` gives the row behind a key."""
    told = Told(path, dataset, row_of)
    logged = told.updates()
    steps = range(1, max([len(truth), *logged]) + 1)
    wrong = [s for s in steps if s > len(truth) or s not in logged or not same(logged[s], truth[s - 1])]
    roles = roles_in(truth, len(told.ids))
    different = [row for row, id in told.ids.items() if not np.array_equal(told.roles(id), roles[row])]
    used = np.array([row for row in told.ids if len(roles[row])])
    asked = np.random.default_rng(0).permutation(used)[:ASKED].tolist()
    return {
        "updates": len(truth),
        "updates_that_differ": len(wrong),
        "first_that_differs": min(wrong, default=None),
        "uses": sum(len(update.seeds) for update in truth),
        "neighbours": sum(len(rows) for update in truth for rows in update.hops),
        "samples": len(told.ids),
        "samples_that_differ": len(different),
        "histories": len(asked),
        "histories_that_differ": sum(not np.array_equal(told.history(told.ids[row]), roles[row]) for row in asked),
    }


def same(first: Update, second: Update) -> bool:
    """Whether two updates name the same rows in the same places; a hop without any may be left out."""
    depth = max(len(first.groups), len(second.groups))
    empty = (np.array([], dtype=np.int64),) * depth
    pairs = zip((*first.groups, *empty)[:depth], (*second.groups, *empty)[:depth], strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def roles_in(truth: Sequence[Update], rows: int) -> list[Roles]:
    """For each row of the data set where it took part."""
    parts = [
        np.stack([group, np.full_like(group, hop), np.full_like(group, step)], axis=1)
        for step, update in enumerate(truth, 1)
        for hop, group in enumerate(update.groups)
    ]
    every = np.concatenate(parts)
    every = every[np.lexsort((every[:, 2], every[:, 1], every[:, 0]))]
    return np.split(every[:, 1:], np.searchsorted(every[:, 0], np.arange(1, rows)))


class Told:
    """What a trace tells, in row numbers of one data set instead of ids. `ids` are its samples' by row."""

    def __init__(self, path: Path, dataset: str, row_of: Callable[[Any], int]) -> None:
        self._directory, self._trace = TraceDir.open(path), open_trace(path)
        self._seal = open_full_seal(self._directory)
        self._blocks = Blocks(self._seal.log, self._seal.event["counts"]["samples"])
        vault = Vault.open(self._directory.vault_path, self._trace.id)
        rows = {name.id: row_of(key_of(name.key)) for name in vault.names() if name.dataset == dataset}
        self.ids = {row: id for id, row in sorted(rows.items(), key=lambda item: item[1])}
        self._rows = rows
        self._of_block: dict[bytes, Rows] = {}

    def updates(self) -> dict[int, Update]:
        """The applied updates by step, from the log's own entries."""
        size = self._seal.head.size
        found: dict[int, list[list[Rows]]] = {}
        for event in map(decode_event, read_entries(self._directory, 0, size, size)):
            if event["kind"] == "use":
                rows = self._block(bytes(event["block"]))
                for step, groups in batches_of(event):
                    found.setdefault(step, []).append([rows[group] for group in groups])
        return {step: joined(parts) for step, parts in found.items()}

    def roles(self, id: bytes) -> Roles:
        """What the index, proved against the sealed root, says of one sample."""
        rows = self._seal.rows(id)
        assert rows is not None
        hops = np.where(rows["kind"] == KIND["used"], 0, rows["detail"])
        here = np.isin(rows["kind"], (KIND["used"], KIND["neighbour"]))
        return in_order(np.stack([hops[here], rows["step"][here]], axis=1).astype(np.int64))

    def history(self, id: bytes) -> Roles:
        """What `fgtrac.open(...).history(...)` says of it: hops are in its events' details."""
        events = self._trace.history("id:" + id.hex(), details=True).events
        said = [(0, e.step) for e in events if e.kind == "used"]
        said += [(e.details["hop"], e.step) for e in events if e.kind == "neighbour"]
        return in_order(np.array(said, dtype=np.int64).reshape(-1, 2))

    def stage(self, name: str, column: str = "kept") -> Rows:
        """The rows that the entries of a preprocessing stage keep, or have `dropped`, ascending."""
        size = self._seal.head.size
        events = map(decode_event, read_entries(self._directory, 0, size, size))
        mine = [e for e in events if e["kind"] == "transform" and e["stage"] == name and column in e]
        rows = [self._block(bytes(e["block"]))[e[column]] for e in mine]
        return np.sort(np.concatenate([np.array([], dtype=np.int64), *rows]))

    def _block(self, block: bytes) -> Rows:
        """The row of every ordinal of a block; -1 for samples of another data set."""
        if block not in self._of_block:
            ids = self._blocks.ids(block)
            self._of_block[block] = np.array([self._rows.get(id.tobytes(), -1) for id in ids], dtype=np.int64)
        return self._of_block[block]


def in_order(roles: Roles) -> Roles:
    """By hop, then step."""
    return roles[np.lexsort((roles[:, 1], roles[:, 0]))]


def batches_of(event: Any) -> Iterator[tuple[int, list[Any]]]:
    """The applied batches of a `use` entry: step, and the ordinals of seeds and of each hop."""
    batches, hops = len(event["count"]), event.get("hops", 0)
    seeds = np.split(event["ordinals"], np.cumsum(event["count"], dtype=np.int64)[:-1])
    around: list[Any] = []
    if hops:
        around = np.split(event["hop_ordinals"], np.cumsum(event["hop_count"], dtype=np.int64)[:-1])
    for batch in range(batches):
        if event["status"][batch] == STATUS["applied"]:
            yield int(event["step"][batch]), [seeds[batch], *around[batch * hops : (batch + 1) * hops]]


def joined(parts: list[list[Rows]]) -> Update:
    """The parts of one update, from entries of one block each, sorted."""
    depth = max(map(len, parts))
    groups = [np.sort(np.concatenate([p[k] for p in parts if k < len(p)])) for k in range(depth)]
    return Update(groups[0], tuple(groups[1:]))
