"""Ray Data: rows keep their samples' names through its verbs, and batches tell which samples they hold.

    people = ray_data.trace(run, ray.data.read_parquet(PATH), name="people", key="id")
    clean = people.transform("clean").filter(lambda row: row["age"] > 17)
    tokens = clean.transform("cut").flat_map(windows)            # new samples, each made of its row
    for batch in tokens.random_shuffle().iter_torch_batches(role="train", batch_size=32): ...

A row's number rides in a column of its own, `fgtrac_row`, wherever Ray moves the row, as in tables. Stages run when
they are called, since the log says what came out of them.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError

from fgtrac.api.run import Run
from fgtrac.capture.batch import Iteration
from fgtrac.capture.carried_rows import NUMBER
from fgtrac.capture.families import Families
from fgtrac.capture.lineage import Lineage
from fgtrac.capture.roots import select_resolved
from fgtrac.capture.sampler import Order
from fgtrac.frameworks.ray_batches import RowsLost, carried, filtered, mapped, numbered_block, unrolled
from fgtrac.frameworks.ray_collation import apart_from_numbers, finalized

Positions = NDArray[np.int64]


class Rows:
    """The rows of a Ray data set, as a run registers them: so many, and they lie elsewhere."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


@dataclass(frozen=True, eq=False)
class TracedData:
    """A Ray data set whose rows say which samples of a run they are. `dataset` is Ray's own, with the column; `rows`
    are what the run has registered, and `there` (n,) the numbers of those that are left."""

    run: Run
    dataset: Any
    rows: Rows
    there: Positions

    def __len__(self) -> int:
        return len(self.there)

    def transform(self, stage: str, parameters: dict[str, Any] | None = None) -> RayStage:
        """A preprocessing stage: call one of its verbs."""
        return RayStage(Lineage(self.run._recorder, self.run._registry, stage, parameters), self)

    def random_shuffle(self, **options: Any) -> TracedData:
        """As Ray's: the rows in another order, drawn anew in each pass."""
        return replace(self, dataset=self.dataset.random_shuffle(**options))

    def repartition(self, *arguments: Any, **options: Any) -> TracedData:
        """As Ray's: the rows in other blocks."""
        return replace(self, dataset=self.dataset.repartition(*arguments, **options))

    def sort(self, key: str | list[str], descending: bool | list[bool] = False) -> TracedData:
        """As Ray's: the rows in order of columns."""
        return replace(self, dataset=self.dataset.sort(key, descending))

    def iter_torch_batches(self, *, role: str | None = None, **options: Any) -> Iterator[Any]:
        """As Ray's, without the column: one pass, whose every batch is accounted for. `role` is given to the rows that
        are left; without one, the roles that they have tell whether they train. CaptureError in a closed run."""
        self.run._check_training("iter_torch_batches()")
        registry = self.run._registry
        if not len(self.rows):
            return iter(())  # nothing was made of any row
        if role is not None:
            registry.roles.record(select_resolved(registry.resolve(self.rows), self.there), role)
        return _deliver(self.run, self.rows, role, self.dataset, options)


def trace(
    run: Run, dataset: Any, *, name: str = "ray", key: str | None = None, subject: str | None = None
) -> TracedData:
    """Register the rows of a Ray data set as samples, named by a column `key` (and its `subject`), or by their numbers,
    in the order in which Ray reads them. The data set is read, once, into Ray's object store.

    `DataContext.max_errored_blocks` is 0 here and in stages: whatever fails, fails. ValueError for a column
    `fgtrac_row`, keys that collide and a taken name; KeyError for a column that is not there.
    """
    if NUMBER in (dataset.columns() or ()):
        raise ValueError(f"a column is named {NUMBER!r}, which fgtrac carries row numbers in; rename it")
    numbered, count = _numbered(dataset)
    rows = Rows(count)
    columns = {what: _column(numbered, of) for what, of in (("key", key), ("subject", subject)) if of is not None}
    run.register(rows, name=name, content=False, **{what: column.tolist() for what, column in columns.items()})
    return TracedData(run, numbered, rows, np.arange(count))


class RayStage:
    """One named stage over a Ray data set; call exactly one of its verbs. Functions are functions, no classes; other
    options are Ray's. ValueError where what comes out does not say which rows it is made of: nothing is written then.
    """

    def __init__(self, lineage: Lineage, data: TracedData) -> None:
        self._lineage = lineage
        self._data = data

    def filter(
        self, function: Callable[[dict[str, Any]], Any] | None = None, *, expr: Any = None, **options: Any
    ) -> TracedData:
        """The rows for which `function(row)`, or Ray's expression, holds; `row` is without the column."""
        if function is None:
            made = self._run("filter", self._data.dataset.filter(expr=expr, **options))
            return self._keep("filter", *made, {"parameters": {"expr": str(expr)[:4000]}})
        made = self._run("filter", self._data.dataset.filter(filtered(function), **options))
        return self._keep("filter", *made, {"code": function})

    def map(self, function: Callable[[dict[str, Any]], dict[str, Any]], **options: Any) -> TracedData:
        """What `function(row)` makes of each row, which stays its sample; `row` is without the column."""
        made = self._run("map", self._data.dataset.map(mapped(function), **options))
        return self._keep("map", *made, {"code": function})

    def flat_map(self, function: Callable[[dict[str, Any]], Sequence[dict[str, Any]]], **options: Any) -> TracedData:
        """The rows that `function(row)` makes of each row: new samples, each made of that one."""
        made, _numbers = self._run("flat_map", self._data.dataset.flat_map(unrolled(function), **options))
        return self._derive("apply", made, {"code": function})

    def map_batches(
        self, function: Callable[[Any], Any], *, aligned: bool = False, check: bool = True, **options: Any
    ) -> TracedData:
        """What `function(batch)` makes of batches, in whatever format Ray is asked for.

        The batch goes in with the column `fgtrac_row`, and what comes out must have it: rows that it has once stay
        their samples, and those that it has not are dropped; where one is there twice, all are new samples. `check`
        runs the function again with other numbers, which must lead to the same rows. With `aligned` it gets no such
        column, and you say that row i of what comes out is made of row i.
        """
        made = self._data.dataset.map_batches(carried(function, aligned=aligned, check=check), **options)
        made, numbers = self._run("map_batches", made)
        if len(np.unique(numbers)) < len(numbers):
            return self._derive("apply", made, {"code": function})
        return self._keep("map" if aligned else "apply", made, numbers, {"code": function})

    def _run(self, verb: str, made: Any) -> tuple[Any, Positions]:
        """Have Ray do it: the data set, in its object store, and the rows' numbers."""
        stage = f"stage {self._lineage.stage!r}: {verb}()"
        try:
            with _whole(made):
                made = made.materialize()
            numbers = _column(made, NUMBER).astype(np.int64)
        except (RayError, RowsLost) as error:
            if lost := _lost(error):
                raise ValueError(f"{stage}: {lost}") from error
            raise
        if not np.isin(numbers, self._data.there).all():
            raise ValueError(f"{stage}: the column {NUMBER} has numbers that no row had; let functions leave it alone")
        return made, numbers

    def _keep(self, verb: str, made: Any, numbers: Positions, said: dict[str, Any]) -> TracedData:
        """Write which rows went on as they are."""
        if not len(self._data.rows):
            return replace(self._data, dataset=made)
        left = np.sort(numbers)
        gone = np.setdiff1d(self._data.there, left)
        resolved = self._lineage.registry.resolve(self._data.rows)
        self._lineage.keep(verb, resolved, left, gone if len(gone) else None, **said)
        return replace(self._data, dataset=made, there=left)

    def _derive(self, verb: str, made: Any, said: dict[str, Any]) -> TracedData:
        """Write which new rows were made of which."""
        if not len(self._data.rows):
            return replace(self._data, dataset=made)
        made, count, parents = _renumbered(made)
        resolved, rows = self._lineage.registry.resolve(self._data.rows), Rows(count)
        families = Families(np.arange(count + 1), parents)
        if count:
            self._lineage.derive(verb, resolved, rows, families, content=False, **said)
        reached = np.ones(len(self._data.rows), dtype=bool)
        reached[self._data.there] = False
        reached[parents] = True
        self._lineage.drop(verb, resolved, reached, **said)
        return TracedData(self._data.run, made, rows, np.arange(count))


# -- batches ----------------------------------------------------------------------------------------------------------


def _deliver(run: Run, rows: Rows, role: str | None, source: Any, options: dict[str, Any]) -> Iterator[Any]:
    """One pass over a data set of Ray's."""
    watch = run._watch_rows(rows, role)
    watch.grounding.restarted(watch.number)
    iteration = Iteration(watch.number, watch.epochs, watch.trains)
    watch.epochs += 1
    watch.orders.announce_order(iteration, Order("ray.data.Dataset"))
    for numbers, batch in _numbered_batches(source, options):
        watch.grounding.deliver(iteration, array("I", numbers.astype(np.uint32).tobytes()), batch)
        yield batch
    watch.grounding.exhausted(iteration)


def _numbered_batches(source: Any, options: dict[str, Any]) -> Iterator[tuple[Positions, Any]]:
    """The numbers of each batch's rows, and the batch without them."""
    collate, dtypes = options.get("collate_fn"), options.get("dtypes")
    if collate is not None:
        to_device = finalized(options.get("device", "auto"))
        for numbers, batch in source.iter_torch_batches(**options | {"collate_fn": apart_from_numbers(collate)}):
            yield numbers, to_device(batch)
        return
    if dtypes is not None:
        if not isinstance(dtypes, dict):
            dtypes = dict.fromkeys(source.schema().names, dtypes)
        options = options | {"dtypes": dtypes | {NUMBER: torch.int64}}
    for batch in source.iter_torch_batches(**options):
        yield batch.pop(NUMBER).cpu().numpy(), batch


# -- blocks -----------------------------------------------------------------------------------------------------------


def _numbered(dataset: Any) -> tuple[Any, int]:
    """The data set with the column, in Ray's object store, and how many rows it has."""
    made, count, _found = _renumbered(dataset)
    return made, count


def _renumbered(dataset: Any) -> tuple[Any, int, Positions]:
    """The data set with its rows numbered anew, from 0; how many there are, and the numbers that they had."""
    options = dataset.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        with _whole(dataset):
            blocks = dataset.to_arrow_refs()
    finally:
        options.preserve_order = before
    counts = ray.get([_count_there.remote(block) for block in blocks])
    starts = np.cumsum([0, *counts])
    pairs = [_number_there.remote(block, int(start)) for block, start in zip(blocks, starts[:-1], strict=True)]
    found = ray.get([numbers for _block, numbers in pairs])
    numbers = np.concatenate([np.zeros(0, np.int64), *found])
    return ray.data.from_arrow_refs([block for block, _numbers in pairs]), int(starts[-1]), numbers


@contextmanager
def _whole(dataset: Any) -> Iterator[None]:
    """Let Ray leave out no block where an error is: its rows would seem to have been dropped."""
    context = dataset.context
    before, context.max_errored_blocks = context.max_errored_blocks, 0
    try:
        yield
    finally:
        context.max_errored_blocks = before


def _count(block: Any) -> int:
    return int(block.num_rows)


def _cells(block: Any, name: str) -> Any:
    if not block.num_rows:
        return np.zeros(0, np.int64)
    if name not in block.column_names:
        raise RowsLost(f"there is no column {name!r} among {', '.join(block.column_names)[:400]}")
    column = block.column(name)
    if column.null_count and name != NUMBER:  # as they are: a column of whole numbers would become one of floats
        return np.fromiter(column.to_pylist(), dtype=object, count=len(column))
    return column.to_numpy()


_count_there: Any = ray.remote(_count)  # what is bulky stays where it lies
_number_there: Any = ray.remote(num_returns=2)(numbered_block)
_cells_there: Any = ray.remote(_cells)


def _column(dataset: Any, name: str) -> NDArray[Any]:
    """A column, in the order of the blocks."""
    cells = ray.get([_cells_there.remote(block, name) for block in dataset.to_arrow_refs()])
    full = [some for some in cells if len(some)]
    return np.concatenate(full) if full else np.zeros(0, np.int64)


def _lost(error: BaseException) -> str:
    """What our own functions said in a worker, if that is why; Ray brings it as text."""
    if isinstance(error, RowsLost):
        return str(error)
    found = re.search(rf"\b{RowsLost.__name__}: (.+)", str(error))
    return found[1] if found else ""
