"""Preprocessing of Hugging Face data sets under trace: their own verbs, and an ordinary Dataset out.

    clean = run.transform("clean", data).filter(lambda row: row["text"] != "")
    tokens = run.transform("tokenise", clean).tokenise(cut, parents="overflow_to_sample_mapping")
    blocks = run.transform("pack", tokens).pack("input_ids", 512)

Options are those of `datasets`, and so is what comes out: the same as without a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.arrow_tables import ArrowTables
from fgtrac.capture.families import Families
from fgtrac.capture.hf_parents import NUMBER, Parented
from fgtrac.capture.hf_rows import table_of, unfollowed, view_table
from fgtrac.capture.lineage import Lineage, ended
from fgtrac.capture.packing import pack
from fgtrac.capture.roots import Resolved, join_resolved, select_resolved
from fgtrac.capture.row_numbers import families_of
from fgtrac.capture.table_rows import table_digests


class HfStage:
    """One named stage over one Dataset; call exactly one of its verbs. `output` names the data set among several.

    ValueError for arguments that do not fit, and where what comes out does not say which rows it is made of.
    """

    def __init__(self, lineage: Lineage, data: Any, output: str | None = None) -> None:
        self._lineage = lineage
        self._data = data
        self._samples: Resolved = lineage.registry.resolve(data)
        self._output = output

    # -- rows stay their samples ----------------------------------------------------------------------------------

    def filter(self, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        """`Dataset.filter`."""
        return self._chosen("filter", self._data.filter(function, **options), function, options)

    def select(self, indices: Any, **options: Any) -> Any:
        """`Dataset.select`."""
        return self._chosen("select", self._data.select(indices, **options), None, options)

    def shard(self, num_shards: int, index: int, **options: Any) -> Any:
        """`Dataset.shard`."""
        said = {"num_shards": num_shards, "index": index, **options}
        return self._chosen("select", self._data.shard(**said), None, said)

    def shuffle(self, seed: int | None = None, **options: Any) -> Any:
        """`Dataset.shuffle`."""
        return self._chosen("shuffle", self._data.shuffle(seed=seed, **options), None, {"seed": seed, **options})

    def sort(self, column_names: str | Sequence[str], **options: Any) -> Any:
        """`Dataset.sort`."""
        said = {"column_names": column_names, **options}
        return self._chosen("sort", self._data.sort(**said), None, said)

    def train_test_split(self, **options: Any) -> Any:
        """`Dataset.train_test_split`: a DatasetDict of two."""
        return self._parts("split", self._data.train_test_split(**options), None, options)

    def deduplicate(self, columns: str | Sequence[str] | None = None) -> Any:
        """The first of rows that are equal in these columns, by default in all. Missing values are equal."""
        names = self._data.column_names if columns is None else [columns] if isinstance(columns, str) else list(columns)
        if unknown := [name for name in names if name not in self._data.column_names]:
            there = ", ".join(self._data.column_names)
            raise ValueError(f"deduplicate() got {unknown[0]!r:.60}, which is no column; there are {there:.200}")
        digests = table_digests(view_table(self._data).select(names))
        assert digests is not None
        _, first, place = np.unique(digests.view("V32").reshape(-1), return_index=True, return_inverse=True)
        same = first[place.reshape(-1)]
        kept = same == np.arange(len(same))
        dropped = ended(self._samples, kept)  # not where a sample repeats itself
        said = self._said(None, {"columns": names})
        self._lineage.keep("deduplicate", self._samples, np.flatnonzero(kept), dropped, same_as=same[dropped], **said)
        return self._data.select(np.flatnonzero(kept))

    def concat(self, *others: Any) -> Any:
        """`concatenate_datasets` of this one and others."""
        samples = join_resolved([self._samples, *map(self._lineage.registry.resolve, others)])
        self._lineage.keep("concatenate", samples, np.arange(len(samples.rows)), None, **self._said(None, {}))
        return sys.modules["datasets"].concatenate_datasets([self._data, *others])

    def flatten_indices(self, **options: Any) -> Any:
        """`Dataset.flatten_indices`."""
        with unfollowed():
            made = self._data.flatten_indices(**options)
        return self._same("map", made, np.arange(len(made)), None, options)

    # -- rows stay their samples, or become new ones ----------------------------------------------------------------

    def map(self, function: Callable[..., Any] | None = None, *, parents: str | None = None, **options: Any) -> Any:
        """`Dataset.map`: each row stays its sample. With `batched`, row i of a batch is made of row i of it.

        Where a function makes other rows of a batch, `parents` is a column that it gives: the place in the batch (or a
        list of them) that each row is made of, such as a tokeniser's `overflow_to_sample_mapping`. All rows are then
        new samples, and those without a child are dropped. ValueError for a batch of another length without that.
        """
        return self._mapped("map", function, parents, options)

    def tokenise(self, function: Callable[..., Any], *, parents: str | None = None, **options: Any) -> Any:
        """`map` of batches by a tokeniser, and called so in the log."""
        return self._mapped("tokenise", function, parents, {"batched": True, **options})

    def pack(self, column: str, size: int) -> Any:
        """The items of a column of lists, one row after another, as new rows of `size` items each; what is left at the
        end is dropped, and so are the other columns. The log says which items of which rows each has."""
        library, table = ArrowTables(), view_table(self._data).select([column])
        sizes, values = library.lists(table, column)
        families, rows = pack(sizes, size)
        lists = library.with_lists(library.empty(rows), column, np.full(rows, size), values[: rows * size])
        pyarrow = sys.modules["pyarrow"]
        kind = pyarrow.list_(table.schema.field(column).type.value_type)
        made = type(self._data)(lists.cast(pyarrow.schema([(column, kind)])))
        return self._new("pack", made, families, None, {"column": column, "size": size})

    # -- any function ------------------------------------------------------------------------------------------------

    def apply(self, function: Callable[[Any], Any]) -> Any:
        """What `function` makes of the data set by verbs that choose rows, or columns: a Dataset, or several by name.
        CaptureError where it wrote rows anew and nobody can tell which are which: use `map`."""
        made = function(self._data)
        if isinstance(made, Mapping):
            return self._parts("apply", made, function, {})
        return self._chosen("apply", made, function, {})

    def record(self, children: Any, parents: Sequence[int | Sequence[int]]) -> Any:
        """Register `children`, new samples of your own making: `parents[i]` is the position (or positions) in this data
        set that child i was made of. See `Stage.record`."""
        return self._lineage.record(self._samples, children, parents)

    # -- how ------------------------------------------------------------------------------------------------------

    def _mapped(self, verb: str, function: Any, parents: str | None, options: dict[str, Any]) -> Any:
        if not options.get("batched") or function is None:
            if parents is not None:
                raise ValueError(f"parents={parents!r} says what rows of a batch are made of; pass batched=True, too")
            with unfollowed():
                made = self._data.map(function, **options)
            return self._same(verb, made, np.arange(len(made)), function, options)
        if NUMBER in self._data.column_names:
            raise ValueError(f"a column is named {NUMBER!r}, which fgtrac carries row numbers in; rename it")
        carried = Parented(function, parents, bool(options.get("with_indices")), bool(options.get("with_rank")))
        with unfollowed():
            made = self._data.map(carried, **carried.options(options))
        if not len(made):
            self._lineage.drop(verb, self._samples, np.zeros(len(self._data), bool), **self._said(function, options))
            return made.remove_columns([n for n in made.column_names if n == NUMBER])
        if NUMBER not in made.column_names:  # a function that gives nothing leaves all as it is
            return self._same(verb, made, np.arange(len(made)), function, options)
        _, (numbers,) = ArrowTables().unnumber(table_of(made), [NUMBER])
        families, made = families_of([numbers], [len(self._data)]), made.remove_columns(NUMBER)
        if parents is None:
            return self._same(verb, made, families.parents, function, options)
        if verb == "map":
            verb = "explode" if len(families.parents) == len(families) else "pack"
        return self._new(verb, made, families, function, {"parents": parents, **options})

    def _chosen(
        self, verb: str, made: Any, function: Any, options: Mapping[str, Any], output: str | None = None
    ) -> Any:
        """Write which rows a data set has whose rows lie where they lay."""
        reached = self._reached(made)
        said = self._said(function, options, output)
        self._lineage.keep(verb, self._samples, np.flatnonzero(reached), None, **said)
        if output is None:
            self._lineage.drop(verb, self._samples, reached, **said)
        return made

    def _parts(self, verb: str, parts: Any, function: Any, options: Mapping[str, Any]) -> Any:
        reached = np.zeros(len(self._samples.rows), dtype=bool)
        for name, part in parts.items():
            self._chosen(verb, part, function, options, str(name))
            reached |= self._reached(part)
        self._lineage.drop(verb, self._samples, reached, **self._said(function, options))
        return parts

    def _reached(self, made: Any) -> NDArray[np.bool_]:
        """(n,) whether the sample at each position is among the rows of `made`."""
        reached = np.zeros(len(self._samples.rows), dtype=bool)
        samples = (
            self._lineage.registry.resolve(made) if len(made) else select_resolved(self._samples, np.zeros(0, int))
        )
        if foreign := [root.name for root in samples.roots if root not in self._samples.roots]:
            raise ValueError(
                f"stage {self._lineage.stage!r}: rows of {foreign[0]!r} came out, which did not go in; use concat()"
            )
        for number, root in enumerate(self._samples.roots):
            alive = np.zeros(len(root), dtype=bool)
            if root in samples.roots:
                alive[samples.rows[samples.which == samples.roots.index(root)]] = True
            mine = self._samples.which == number
            reached[mine] = alive[self._samples.rows[mine]]
        return reached

    def _same(
        self, verb: str, made: Any, positions: NDArray[np.int64], function: Any, options: Mapping[str, Any]
    ) -> Any:
        """Row i of what came out is the sample at `positions[i]`."""
        reached = np.zeros(len(self._samples.rows), dtype=bool)
        reached[positions] = True
        said = self._said(function, options)
        if not self._lineage.registry.is_known(made):
            self._lineage.registry.adopt(made, select_resolved(self._samples, positions))
        self._lineage.keep(verb, self._samples, np.flatnonzero(reached), None, **said)
        self._lineage.drop(verb, self._samples, reached, **said)
        return made

    def _new(self, verb: str, made: Any, families: Families, function: Any, options: Mapping[str, Any]) -> Any:
        """Row i of what came out is a new sample."""
        if len(orphans := np.flatnonzero(np.diff(families.offsets) == 0)):
            raise ValueError(
                f"stage {self._lineage.stage!r}: row {orphans[0]} of what came out ({len(orphans)} in all) is made of "
                "no row that went in; make rows of nothing before the stage, and register them"
            )
        reached = np.zeros(len(self._samples.rows), dtype=bool)
        reached[families.parents] = True
        said = self._said(function, options)
        if len(families):
            self._lineage.derive(verb, self._samples, made, families, **said)
        self._lineage.drop(verb, self._samples, reached, **said)
        return made

    def _said(self, function: Any, options: Mapping[str, Any], output: str | None = None) -> dict[str, Any]:
        """What the entries say of the call: the code, and the options that are plain values."""
        plain = {name: value for name, value in options.items() if _is_plain(value)}
        said = {"code": function, "parameters": plain, "output": self._output if output is None else output}
        return {name: value for name, value in said.items() if value is not None}


class HfDictStage:
    """A stage over every split of a DatasetDict: the verbs of `HfStage`, and a DatasetDict out."""

    def __init__(self, lineage: Lineage, data: Any) -> None:
        self._kind = type(data)
        self._stages = {name: HfStage(lineage, split, name) for name, split in data.items()}

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_") or verb not in EACH_SPLIT:
            raise AttributeError(f"a stage over a DatasetDict has no {verb!r}; it has {', '.join(EACH_SPLIT)}")
        return lambda *given, **options: self._kind(
            {name: getattr(stage, verb)(*given, **options) for name, stage in self._stages.items()}
        )


EACH_SPLIT = (
    "filter",
    "select",
    "shard",
    "shuffle",
    "sort",
    "deduplicate",
    "flatten_indices",
    "map",
    "tokenise",
    "pack",
)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 64 and all(map(_is_plain, value))
    return isinstance(value, bool | float | str) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 64)
