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

from fgtrac.capture.contents import code_digest
from fgtrac.capture.graph import nodes_of
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.sample_ids import rows_of
from fgtrac.capture.sources import Registry, Resolved, count_rows
from fgtrac.capture.use_entries import pieces


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

    def __init__(
        self, recorder: Recorder, registry: Registry, name: str, data: Any, parameters: dict[str, Any] | None
    ) -> None:
        self._recorder = recorder
        self._registry = registry
        self._name = name
        self._data = nodes_of(data)
        self._parameters = parameters
        self._resolved: Resolved = registry.resolve(data)

    def filter(self, predicate: Callable[[Any], Any]) -> View:
        """Keep the items for which `predicate(item)` is true."""
        keep = np.fromiter(
            (bool(predicate(item)) for item in self._items()), dtype=bool, count=len(self._resolved.rows)
        )
        return self._keep("filter", np.flatnonzero(keep), np.flatnonzero(~keep), predicate)

    def map(self, function: Callable[[Any], Any]) -> View:
        """Pass every item through `function` when it is read; each sample stays itself."""
        everything = np.arange(len(self._resolved.rows))
        self._write("map", everything, None, code=function)
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
        places = np.arange(len(values))
        dropped = np.flatnonzero(same != places)
        return self._keep("deduplicate", np.flatnonzero(same == places), dropped, by, same_as=same[dropped])

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
        dropped = np.array(parts.pop(None, []), dtype=np.int64)
        code = part_of if callable(part_of) else None
        for name, positions in parts.items():
            self._write("split", np.array(positions), None, code=code, output=name)
        if len(dropped):
            self._write("split", None, dropped, code=code)
        return {str(name): View(self._data, positions) for name, positions in parts.items()}

    def record(self, children: Any, parents: Sequence[int | Sequence[int]]) -> Any:
        """Register `children`, new samples made from this stage's: `parents[i]` is the position (or positions) behind
        child i. Each child is named by [stage, [parent ids], n]. A child whose parents are all one subject's is that
        subject's too, and is erased with it; one of several subjects' is nobody's: its name and content stay under the
        run's key when one of them is erased. Returns `children`.

        ValueError where the lengths differ or a parent is no position of the stage's data set.
        """
        rows, limit = count_rows(children), len(self._resolved.rows)
        lists = [[p] if isinstance(p, int | np.integer) else list(p) for p in parents]
        if len(lists) != rows:
            raise ValueError(
                f"record() got parents for {len(lists)} children, but there are {rows}; give one entry each"
            )
        for child, positions in enumerate(lists):
            if not positions or min(positions) < 0 or max(positions) >= limit:
                raise ValueError(
                    f"child {child} names parents {positions}; positions are 0 to {limit - 1}, at least one"
                )
        ids = rows_of(self._resolved.ids())
        seen: dict[tuple[bytes, ...], int] = defaultdict(int)
        keys: list[Any] = []
        for positions in lists:
            family = tuple(ids[p] for p in positions)
            keys.append((self._name, family, seen[family]))
            seen[family] += 1
        subject = _subjects_of(lists, self._resolved.subjects())
        root = self._registry.register_root(children, name=self._name, key=keys, subject=subject)
        flat = np.array([p for positions in lists for p in positions], dtype=np.int64)
        owner = np.repeat(np.arange(rows), [len(positions) for positions in lists])
        placement = self._resolved.placement
        for block, here in self._resolved.by_block(flat):
            for piece in pieces(here, 8):
                self._entry(
                    "record",
                    block,
                    child_block=root.block,
                    parents=placement.ordinals[flat[piece]],
                    children=root.ordinals[owner[piece]],
                )
        return children

    # -- writing ------------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Any]:
        return (self._data[i] for i in range(len(self._resolved.rows)))

    def _keep(
        self,
        operation: str,
        kept: NDArray[np.intp],
        dropped: NDArray[np.intp],
        code: Callable[..., Any] | None,
        same_as: NDArray[np.int64] | None = None,
    ) -> View:
        self._write(operation, kept, dropped, code=code, same_as=same_as)
        return View(self._data, kept.tolist())

    def _write(
        self,
        operation: str,
        kept: NDArray[Any] | None,
        dropped: NDArray[Any] | None,
        *,
        code: Callable[..., Any] | None = None,
        output: str | None = None,
        same_as: NDArray[np.int64] | None = None,
    ) -> None:
        """One entry for each column, block and piece that fits; `same_as` are positions, written as ids."""
        placement = self._resolved.placement
        ids = self._resolved.ids() if same_as is not None else None
        for column, positions in (("kept", kept), ("dropped", dropped)):
            if positions is None:
                continue
            for block, here in self._resolved.by_block(positions):
                twins = same_as[here] if same_as is not None and column == "dropped" else None
                for piece in pieces(np.arange(len(here)), 4 if twins is None else 36):
                    fields: dict[str, Any] = {column: placement.ordinals[positions[here[piece]]]}
                    if twins is not None and ids is not None:
                        fields["same_as"] = ids[twins[piece]].tobytes()
                    self._entry(operation, block, code=code, output=output, **fields)

    def _entry(
        self,
        operation: str,
        block: bytes,
        *,
        code: Callable[..., Any] | None = None,
        output: str | None = None,
        **columns: Any,
    ) -> None:
        optional = {
            "parameters": self._parameters,
            "code": None if code is None else code_digest(code),
            "output": output,
        }
        said = {name: value for name, value in optional.items() if value is not None}
        if self._registry.adds:
            said |= {"stage": self._name, "operation": operation, "block": block}
            self._recorder.record("transform", {**said, **columns})


def _subjects_of(parents: Sequence[Sequence[int]], subjects: Sequence[Any] | None) -> list[Any] | None:
    """The subject of each child: None for one of several, which no one key can name. None where no child has one."""
    if subjects is None:
        return None
    of_child = [{subjects[p] for p in positions} for positions in parents]
    found = [one.pop() if len(one) == 1 else None for one in of_child]
    return found if any(subject is not None for subject in found) else None


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
