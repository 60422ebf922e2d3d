"""Which rows are scored in each role: resolved to samples, each once, in the order of their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from fgtrac.api.wish import check_data
from fgtrac.capture.graph import is_node_loader, nodes_of
from fgtrac.capture.sources import Registry
from fgtrac.errors import ScoreError
from fgtrac.score.batches import count_rows, read_batches
from fgtrac.score.factor_files import Rows

SEED = 0  # of the choice of a sample of rows
SOME = 16  # rows that are looked at again where a pass goes on


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """The rows of one role: row r is position `positions[r]` of `data`, the sample `ids[r]` ((n, 32) uint8), placed in
    the log as `rows` says (without labels). `about` says in words what they are."""

    role: str
    data: Any
    collate: Callable[[list[Any]], Any] | None
    positions: NDArray[np.int64]
    ids: NDArray[np.uint8]
    rows: Rows
    about: str

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[Any]:
        """Rows `start` up to `stop`, batch by batch."""
        some = Subset(self.data, self.positions[start:stop].tolist())
        return read_batches(some, batch_size, self.collate)

    def some(self, start: int, stop: int) -> tuple[NDArray[np.int64], Any]:
        """A few rows spread over `start` up to `stop`, and the batch that they make."""
        rows = np.unique(np.linspace(start, stop - 1, min(SOME, stop - start)).astype(np.int64))
        few = Subset(self.data, self.positions[rows].tolist())
        return rows, next(iter(read_batches(few, len(rows), self.collate)))


def resolve_rows(registry: Registry, role: str, data: Any, sample: int | None = None) -> ScoredRows:
    """The rows behind a map-style data set or a loader over one, which is then read in row order, with its collate
    function. Registers what is not registered yet, and the role of samples that have none.

    With `sample`, that many of them. ScoreError for rows without identity, ValueError for a data set of no rows,
    TypeError for what is none.
    """
    data = nodes_of(data)
    check_data(role, data)
    collate = None
    if isinstance(data, DataLoader):
        _refuse_sampled(role, data)
        read_batches(data)  # refuses streams
        collate, indices = data.collate_fn, getattr(data.sampler, "indices", None)
        data = data.dataset if indices is None else Subset(data.dataset, list(indices))
    if count_rows(data) == 0:
        raise ValueError(f"{role}= has no rows; give at least 1")
    resolved = registry.resolve(data)
    registry.roles.record(registry.roles.lacking(resolved), role)
    placement = resolved.placement
    which = np.zeros(len(resolved.rows), np.uint16) if placement.which is None else placement.which
    positions, about = _once(which, placement.ordinals), ""
    if sample is not None:
        positions, about = _chosen(positions, sample, role)
    rows = Rows(placement.blocks, placement.ordinals[positions], None if placement.which is None else which[positions])
    about = about or f"the {len(positions):,} {role} samples that are scored"
    return ScoredRows(role, data, collate, positions, resolved.ids()[positions], rows, about)


def _refuse_sampled(role: str, loader: DataLoader[Any]) -> None:
    """ScoreError for a loader that draws neighbours: a sample's factors would be others at each pass."""
    if is_node_loader(loader):
        raise ScoreError(
            f"{role}= is a {type(loader).__name__}, which draws other neighbours at each pass; give GraphNodes(graph, "
            "nodes), and a forward(model, nodes) that takes the whole graph"
        )


def _once(which: NDArray[np.uint16], ordinals: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Positions in the order of (block, ordinal), the first one of each sample: a file of rows does not show in which
    order a data set holds them."""
    order = np.lexsort((ordinals, which))
    blocks, places = which[order], ordinals[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (blocks[1:] != blocks[:-1]) | (places[1:] != places[:-1])
    return order[first].astype(np.int64)


def _chosen(positions: NDArray[np.int64], sample: int, role: str) -> tuple[NDArray[np.int64], str]:
    if sample >= len(positions):
        return positions, ""
    words = f"{sample:,} of {len(positions):,} {role} samples, chosen by numpy's RandomState({SEED}).permutation"
    return positions[chosen_places(len(positions), sample)], words


def chosen_places(n: int, sample: int) -> NDArray[np.int64]:
    """Which of n rows a sample of so many takes, ascending: always the same ones, so that a verifier knows them."""
    chosen = np.random.RandomState(SEED).permutation(n)[:sample]  # its stream is frozen for all versions
    return np.sort(chosen).astype(np.int64)


def read_labels(rows: ScoredRows, batch_size: int, targets_of: Callable[[Any], Any]) -> NDArray[np.int32] | None:
    """(n,) the class of each row, where the targets of every batch are one whole number a sample; otherwise None."""
    found: list[NDArray[np.int32]] = []
    for batch in rows.batches(0, len(rows), batch_size):
        labels = labels_of(targets_of(batch))
        if labels is None:
            return None
        found.append(labels)
    return np.concatenate(found)


def labels_of(targets: Any) -> NDArray[np.int32] | None:
    """(n,) the classes of a batch, where its targets are one whole number a sample; otherwise None."""
    if getattr(targets, "ndim", None) != 1 or str(targets.dtype) not in _WHOLE:
        return None
    labels: NDArray[np.int32] = targets.detach().cpu().numpy().astype(np.int32)
    return labels


def has_labels(rows: ScoredRows, then: Rows, targets_of: Callable[[Any], Any]) -> bool:
    """Whether `then` is of these samples, and a few of them still have the labels in it."""
    if not are_same(rows.rows, then):
        return False
    some, batch = rows.some(0, len(rows))
    now = labels_of(targets_of(batch))
    if now is None or then.labels is None:
        return now is None and then.labels is None
    return np.array_equal(now, then.labels[some])


_WHOLE = frozenset(f"torch.{kind}" for kind in ("uint8", "int8", "int16", "int32", "int64"))


def are_same(a: Rows, b: Rows) -> bool:
    """Whether both are the same samples in the same order, whatever their labels."""
    if (a.which is None) != (b.which is None) or a.blocks != b.blocks or not np.array_equal(a.ordinals, b.ordinals):
        return False
    return a.which is None or np.array_equal(a.which, b.which)  # type: ignore[arg-type]


def check_same(role: str, now: Rows, before: Sequence[Rows]) -> Rows | None:
    """The rows as the trace has them, with their labels, where it has scored this role before. ScoreError where those
    were other samples."""
    for rows in before:
        if are_same(now, rows):
            return rows
    if before:
        raise ScoreError(
            f"the trace has {role} factors of {len(before[0]):,} samples, and {role}= gives {len(now):,} samples that "
            "are not the same ones: pass the data set that was scored before"
        )
    return None
