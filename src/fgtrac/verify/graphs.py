"""The check `graphs`: no batch names a node twice, and a batch on the whole graph names every node of it.

Batches are taken in as they come. A batch that is cut lies in several entries of its loader and optimizer, one behind
the other, with others' between them; it is whole once that loader goes on, or the process writes its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.schema import STATUS
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.updates import counted

Nodes = NDArray[np.uint32]
Numbers = NDArray[np.uint64]
Stream = tuple[bytes, int, int, bytes, str, bool]  # writer, loader, optimizer, block, graph, whether with losses
_GROUP = np.uint64(32)  # codes are batch * 2^32 + node
_KEY = ("epoch", "batch", "step", "status")


@dataclass(frozen=True, slots=True, eq=False)
class _Batches:
    """Batches of one stream, one after another: their keys (n, 4) and the entries they begin in (n,); of each seed and
    each neighbour the node, and which batch it is in."""

    keys: Numbers
    entries: Numbers
    seeds: Nodes
    seeds_in: NDArray[np.intp]
    near: Nodes
    near_in: NDArray[np.intp]

    def part(self, first: int, stop: int) -> _Batches:
        """Batches from `first` up to `stop`, in columns of their own."""
        seeds = slice(*np.searchsorted(self.seeds_in, (first, stop)))
        near = slice(*np.searchsorted(self.near_in, (first, stop)))
        rows, columns = slice(first, stop), (self.seeds[seeds].copy(), self.seeds_in[seeds] - first)
        beside = self.near[near].copy(), self.near_in[near] - first
        return _Batches(self.keys[rows].copy(), self.entries[rows].copy(), *columns, *beside)


@dataclass(slots=True)
class Graphs:
    """What the `use` entries of graphs say, held against each other and against how many nodes there are."""

    entries: int = 0
    batches: int = 0  # that are there as a whole
    whole: int = 0
    _open: dict[Stream, list[_Batches]] = field(default_factory=dict)  # the pieces of the last batch
    _twice: tuple[str, bytes, int] | None = None  # in words, block and ordinal of a node that a batch names twice
    _sizes: dict[tuple[bytes, int], str] = field(default_factory=dict)  # block, nodes named -> the first such batch

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
        if event["kind"] == "end":
            for stream in [s for s in self._open if s[0] == event["writer"]]:
                *pieces, last = self._open.pop(stream)
                self._judge(stream, _join(pieces, last))
        elif event["kind"] == "use" and "hops" in event and len(event["count"]):
            self.entries += 1
            self._take(number, event)

    def _take(self, number: int, event: Mapping[str, Any]) -> None:
        names = (event[name] for name in ("writer", "loader", "optimizer", "block", "graph"))
        stream: Stream = (*names, "losses" in event)
        found, waiting = _read(number, event), self._open.get(stream, [])
        if waiting and len(found.keys) == 1 and (found.keys[0] == waiting[0].keys[0]).all():
            waiting.append(found.part(0, 1))
            return
        found = _join(waiting, found)
        last = len(found.keys) - 1
        self._open[stream] = [found.part(last, last + 1)]
        if last:
            self._judge(stream, found.part(0, last))

    def _judge(self, stream: Stream, found: _Batches) -> None:
        """Look at batches that are whole."""
        n, block, graph = len(found.keys), stream[3], stream[4]
        self.batches += n
        codes = self._named(block, found)
        if graph == "whole":
            self.whole += n
            sizes, first = np.unique(np.bincount((codes >> _GROUP).astype(np.intp), minlength=n), return_index=True)
            for size, at in zip(sizes.tolist(), first.tolist(), strict=True):
                self._sizes.setdefault((block, size), _words(found, at))

    def _named(self, block: bytes, found: _Batches) -> Numbers:
        """The codes of all nodes that batches name, each once."""
        codes = np.concatenate([_codes(found.seeds, found.seeds_in), _codes(found.near, found.near_in)])
        codes.sort()
        again = codes[1:] == codes[:-1]
        if again.any():
            self._look_twice(block, found, codes[1:][again])
            codes = codes[np.append(True, ~again)]
        return codes

    def _look_twice(self, block: bytes, found: _Batches, again: Numbers) -> None:
        """Seeds may be drawn twice, and one optimizer may discard a batch as often as it likes: all of it each time."""
        near, seeds = _codes(found.near, found.near_in), _codes(found.seeds, found.seeds_in)
        for at in np.unique(again >> _GROUP).tolist() if self._twice is None else ():
            mine = near[found.near_in == at]
            nodes, times = np.unique(mine, return_counts=True)
            most = times.max(initial=1) if found.keys[at, 3] == STATUS["discarded"] else 1
            wrong = nodes[(times != most) | np.isin(nodes, seeds)]
            if len(wrong):
                self._twice = _words(found, at), block, int(wrong[0] & np.uint64(0xFFFFFFFF))
                return

    def check(self, gaps: Sequence[str], ids_of: Callable[[bytes], NDArray[np.uint8]]) -> str:
        """ProofError naming entry and batch; CannotTell where nodes are missing and entries are lost, as `gaps` say."""
        for stream, (*pieces, last) in self._open.items():
            self._named(stream[3], _join(pieces, last))  # a piece of a batch names nobody twice either
        if self._twice is not None:
            words, block, ordinal = self._twice
            raise ProofError(f"{words}, names the node {bytes(ids_of(block)[ordinal]).hex()} more than once")
        for (block, size), words in self._sizes.items():
            if (all_of_them := len(ids_of(block))) != size:
                said = f"{words}, is on the whole graph, and names {size} of its {all_of_them} nodes"
                if gaps:
                    raise CannotTell(f"{said}: the others may be in what is lost; {gaps[0]}")
                raise ProofError(said)
        cut = f"; of {counted(len(self._open), 'batch', 'es')} the end may be missing" if self._open else ""
        told = (
            f"{counted(self.batches, 'batch', 'es')} of a graph, none with a neighbour twice; {self.whole} of them on "
        )
        return f"{told}the whole graph, with all its nodes{cut}; at which hops, in a log without edges, is not shown"


def _read(number: int, event: Mapping[str, Any]) -> _Batches:
    """The batches of an entry; rows with one key, one behind the other, are one batch."""
    keys = np.stack([event[name].astype(np.uint64) for name in _KEY], axis=1)
    is_new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
    batch = np.cumsum(is_new) - 1
    keys = keys[is_new]
    near_in = np.repeat(np.repeat(batch, event["hops"]), event["hop_count"])
    seeds = event["ordinals"], np.repeat(batch, event["count"])
    return _Batches(keys, np.full(len(keys), number, np.uint64), *seeds, event["hop_ordinals"], near_in)


def _join(pieces: Sequence[_Batches], last: _Batches) -> _Batches:
    """The pieces of one batch, and `last` behind them, which goes on with it or begins another."""
    if not pieces:
        return last
    is_same = bool((pieces[0].keys[0] == last.keys[0]).all())
    every = [*pieces, last]
    seeds, near = np.concatenate([one.seeds for one in every]), np.concatenate([one.near for one in every])
    seeds_in, near_in = (
        np.concatenate([*(getattr(one, name) for one in pieces), getattr(last, name) + (not is_same)])
        for name in ("seeds_in", "near_in")
    )
    keys = np.concatenate([pieces[0].keys, last.keys[is_same:]])
    entries = np.concatenate([pieces[0].entries, last.entries[is_same:]])
    return _Batches(keys, entries, seeds, seeds_in, near, near_in)


def _codes(nodes: Nodes, batch: NDArray[np.intp]) -> Numbers:
    return (batch.astype(np.uint64) << _GROUP) | nodes


def _words(found: _Batches, at: int) -> str:
    epoch, batch, *_ = found.keys[at].tolist()
    return f"entry {found.entries[at]} (use): batch {batch} of epoch {epoch}"
