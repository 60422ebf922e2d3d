"""What a stage did with samples, as entries: which it kept and dropped, and which new ones it made of which parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.contents import code_digest
from fgtrac.capture.families import Families
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Resolved, Root, select_resolved
from fgtrac.capture.row_keys import count_rows
from fgtrac.capture.sample_ids import rows_of
from fgtrac.capture.sources import Registry
from fgtrac.capture.use_entries import pieces


class Lineage:
    """One stage's entries. `parameters` are the user's; a verb adds its own, which stand where both name one."""

    def __init__(
        self, recorder: Recorder, registry: Registry, stage: str, parameters: Mapping[str, Any] | None
    ) -> None:
        self.registry = registry
        self.stage = stage
        self._recorder = recorder
        self._parameters = parameters

    def keep(
        self,
        operation: str,
        data: Resolved,
        kept: NDArray[Any] | None,
        dropped: NDArray[Any] | None,
        *,
        same_as: NDArray[np.int64] | None = None,
        **said: Any,
    ) -> None:
        """Positions of `data` that go on as the samples that they are, and those that end here; `same_as` (dropped,)
        are the positions that those repeat. `said`: code (a function), output and parameters of the verb."""
        placement, ids = data.placement, None if same_as is None else select_resolved(data, same_as).ids()
        for column, positions in (("kept", kept), ("dropped", dropped)):
            if positions is None:
                continue
            for block, here in data.by_block(positions):
                twins = ids if column == "dropped" else None
                for piece in pieces(here, 4 if twins is None else 36):
                    fields: dict[str, Any] = {column: placement.ordinals[positions[piece]]}
                    if twins is not None:
                        fields["same_as"] = twins[piece].tobytes()
                    self._write(operation, block, said, fields)

    def derive(
        self, operation: str, data: Resolved, children: Any, families: Families, *, content: bool = True, **said: Any
    ) -> Root:
        """Register `children` as new samples, named by [stage, [parent ids], n], with their parents in `data`. A child
        whose parents are all one subject's is that subject's too, and is erased with it; one of several subjects' is
        nobody's. `said` as for `keep`."""
        output = said.get("output")
        name = self.stage if output is None else f"{self.stage}/{output}"
        if self.registry.is_taken(name):
            raise ValueError(
                f"the stage's new samples would be the data set {name!r:.80}, and there is one already: give each "
                "stage a name of its own, run.transform(name, data)"
            )
        keys, subjects = _keys(self.stage, data, families), _subjects(data, families)
        root = self.registry.register_root(children, name=name, key=keys, subject=subjects, content=content)
        ordinals, owners = data.placement.ordinals, families.owners
        for block, here in data.by_block(families.parents):
            for piece in pieces(here, 8 if families.starts is None else 16):
                fields = {"parents": ordinals[families.parents[piece]], "children": root.ordinals[owners[piece]]}
                if families.starts is not None and families.stops is not None:
                    fields |= {"starts": families.starts[piece].astype(np.uint32)}
                    fields |= {"stops": families.stops[piece].astype(np.uint32)}
                self._write(operation, block, said, {"child_block": root.block, **fields})
        return root

    def drop(self, operation: str, data: Resolved, reached: NDArray[np.bool_], **said: Any) -> None:
        """The samples that end here: those of which no position was `reached`, (n,). `said` as for `keep`."""
        if len(dropped := ended(data, reached)):
            self.keep(operation, data, None, dropped, **said)

    def record(self, data: Resolved, children: Any, parents: Sequence[int | Sequence[int]]) -> Any:
        """`derive` from a list of positions for each child, as `Stage.record` takes them."""
        rows, limit = count_rows(children), len(data.rows)
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
        self.derive("record", data, children, Families.of(lists))
        return children

    def _write(self, operation: str, block: bytes, said: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        if not self.registry.adds:
            return
        code: Callable[..., Any] | None = said.get("code")
        optional = {
            "parameters": {**(self._parameters or {}), **(said.get("parameters") or {})} or None,
            "code": None if code is None else code_digest(code),
            "output": said.get("output"),
        }
        fields = {name: value for name, value in optional.items() if value is not None}
        self._recorder.record(
            "transform", fields | {"stage": self.stage, "operation": operation, "block": block, **columns}
        )


def ended(data: Resolved, reached: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The positions of samples of which no position was `reached`, (n,): one that repeats goes on in any of them."""
    gone = ~reached
    for number, root in enumerate(data.roots):
        mine = data.which == number
        alive = np.zeros(len(root), dtype=bool)
        alive[data.rows[mine & reached]] = True
        gone[mine] &= ~alive[data.rows[mine]]
    return np.flatnonzero(gone)


def _keys(stage: str, data: Resolved, families: Families) -> list[Any]:
    """(stage, (parent ids), n) of each new row, where n counts those of the same parents."""
    ids = rows_of(data.ids())
    seen: dict[tuple[bytes, ...], int] = defaultdict(int)
    parents, offsets, keys = families.parents.tolist(), families.offsets.tolist(), []
    for start, stop in pairwise(offsets):
        family = tuple([ids[p] for p in parents[start:stop]])
        keys.append((stage, family, seen[family]))
        seen[family] += 1
    return keys


def _subjects(data: Resolved, families: Families) -> list[Any] | None:
    """The subject of each new row: None for one of several, which no one key can name. None where none has one."""
    subjects = data.subjects()
    if subjects is None:
        return None
    parents, offsets = families.parents.tolist(), families.offsets.tolist()
    of_child = [{subjects[p] for p in parents[a:b]} for a, b in pairwise(offsets)]
    found = [one.pop() if len(one) == 1 else None for one in of_child]
    return found if any(subject is not None for subject in found) else None
