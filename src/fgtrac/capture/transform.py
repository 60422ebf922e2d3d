"""Preprocessing under trace: each stage says which samples it kept, dropped, or turned into new ones.

    clean = run.transform("deduplicate", data).deduplicate()
    parts = run.transform("split", clean).split(lambda item: "train" if ... else "test")

A filter, a split or a one-to-one map keeps the samples' ids; `record` names new samples by their parents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from fgtrac.capture.graph import nodes_of
from fgtrac.capture.lineage import Lineage, ended
from fgtrac.capture.roots import Resolved
from fgtrac.capture.sample_ids import rows_of


class View(Subset[Any]):
    """What a stage hands on: chosen positions of a data set, each item passed through `function` if there is one.

    A `torch.utils.data.Subset`, so it goes wherever one goes; traced samples are found through it.
    """

    def __init__(self, data: Any, positions: Sequence[int], function: Callable[[Any], Any] | None = None) -> None:
        super().__init__(data, positions)
        self.function = function

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return item if self.function is None else self.function(item)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        items = super().__getitems__(indices)
        return items if self.function is None else [self.function(i) for i in items]


class Stage:
    """One named preprocessing stage over one data set; call exactly one of its verbs."""

    def __init__(self, lineage: Lineage, data: Any) -> None:
        self._lineage = lineage
        self._data = nodes_of(data)
        self._resolved: Resolved = lineage.registry.resolve(data)

    def filter(self, predicate: Callable[[Any], Any]) -> View:
        """Keep the items for which `predicate(item)` is true."""
        keep = np.fromiter(
            (bool(predicate(item)) for item in self._items()), dtype=bool, count=len(self._resolved.rows)
        )
        return self._keep("filter", keep, predicate)

    def map(self, function: Callable[[Any], Any]) -> View:
        """Pass every item through `function` when it is read; each sample stays itself."""
        everything = np.arange(len(self._resolved.rows))
        self._lineage.keep("map", self._resolved, everything, None, code=function)
        return View(self._data, everything.tolist(), function)

    def deduplicate(self, by: Callable[[Any], Any] | None = None) -> View:
        """Keep the first of equal items: equal in `by(item)`, or by default in their registered source content.

        Tensors and arrays from `by` are compared by type, shape and bytes, those of no dimension by their value.
        ValueError where `by` is missing and some source content is unknown, TypeError for values without equality.
        """
        if by is not None:
            values: Sequence[Hashable] = [_comparable(by(item)) for item in self._items()]
        else:
            contents = self._resolved.contents()
            if contents is None:
                names = ", ".join(r.name for r in self._resolved.roots if r.contents is None)
                raise ValueError(
                    f"the source content of {names} is not known; register it with source=, or pass by= to deduplicate"
                )
            values = rows_of(contents)
        first: dict[Hashable, int] = {}
        same = np.fromiter((first.setdefault(v, n) for n, v in enumerate(values)), dtype=np.int64, count=len(values))
        return self._keep("deduplicate", same == np.arange(len(values)), by, same)

    def split(self, part_of: Callable[[Any], str | None] | Sequence[str | None]) -> dict[str, View]:
        """Cut the data set into named parts: `part_of(item)`, or a list with a name for each position.

        None drops the item. Returns the parts by name, in order of first appearance. ValueError for a list of
        another length.
        """
        rows = len(self._resolved.rows)
        names = [part_of(item) for item in self._items()] if callable(part_of) else list(part_of)
        if len(names) != rows:
            raise ValueError(f"split() got {len(names)} names for {rows} items; give one for each")
        parts: dict[str | None, list[int]] = defaultdict(list)
        for position, name in enumerate(names):
            parts[name].append(position)
        reached = np.ones(rows, dtype=bool)
        reached[parts.pop(None, [])] = False
        code = part_of if callable(part_of) else None
        for name, positions in parts.items():
            self._lineage.keep("split", self._resolved, np.array(positions), None, code=code, output=name)
        self._lineage.drop("split", self._resolved, reached, code=code)
        return {str(name): View(self._data, positions) for name, positions in parts.items()}

    def record(self, children: Any, parents: Sequence[int | Sequence[int]]) -> Any:
        """Register `children`, new samples made from this stage's: `parents[i]` is the position (or positions) behind
        child i. Each child is named by [stage, [parent ids], n]. A child whose parents are all one subject's is that
        subject's too, and is erased with it; one of several subjects' is nobody's: its name and content stay under the
        run's key when one of them is erased. Returns `children`.

        ValueError where the lengths differ or a parent is no position of the stage's data set.
        """
        return self._lineage.record(self._resolved, children, parents)

    def _items(self) -> Iterator[Any]:
        return (self._data[i] for i in range(len(self._resolved.rows)))

    def _keep(
        self,
        operation: str,
        keep: NDArray[np.bool_],
        code: Callable[..., Any] | None,
        same: NDArray[np.int64] | None = None,
    ) -> View:
        """The positions to keep, (n,), and the position that each one repeats, if that is why."""
        kept, dropped = np.flatnonzero(keep), ended(self._resolved, keep)
        same_as = None if same is None else same[dropped]
        self._lineage.keep(operation, self._resolved, kept, dropped, code=code, same_as=same_as)
        return View(self._data, kept.tolist())


def _comparable(value: Any) -> Hashable:
    """The value as one that is equal where its content is; TypeError where only identity would be compared."""
    if isinstance(value, list | tuple):
        return tuple([_comparable(v) for v in value])
    if isinstance(value, torch.Tensor):
        if not value.dim():
            return _comparable(value.item())
        octets = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), octets
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return (value.dtype.str, value.shape, value.tobytes()) if value.ndim else _comparable(value.item())
    kind: Any = type(value)
    if value is not None and kind.__hash__ in (None, object.__hash__):
        raise TypeError(f"deduplicate(by=...) got a {kind.__name__}, which says nothing of its content; return bytes")
    hashed: Hashable = value
    return hashed
