"""A trace's tables as its reader has them: lazy, over the cached views of its newest full seal; and SQL on them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtrac.drawing.html import table
from fgtrac.drawing.notebook import shown
from fgtrac.engine.opening import open_engine
from fgtrac.query.seals import FullSeal, not_among_these
from fgtrac.query.sql import Database, NoMemoryError, mentions, refused
from fgtrac.query.view_build import Files, Progress, build_views
from fgtrac.query.view_cache import CachedViews, DamagedViewsError, open_views
from fgtrac.query.view_files import batches_of, names_table, narrow, reader_of, schema_of
from fgtrac.query.view_schema import NAMES, VIEWS
from fgtrac.store.trace_dir import TraceDir

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Names = Callable[[], Mapping[str, Sequence[Any]] | None]
BATCH_ROWS = 1 << 16
SHOWN = 20  # rows that a notebook shows
CACHED = "tables from this user's own cache, whose digests find damage and not forgery by the same user"


class Tabular:
    """Rows in columns, for whatever library comes next: Arrow, pandas and polars in one call, or a stream of batches
    for what does not fit in memory. pyarrow, polars and duckdb take it as it is (`__arrow_c_stream__`). `pending` is
    how many later entries are in no full seal yet, and so in no row."""

    pending = 0

    def to_batches(self) -> pyarrow.RecordBatchReader:
        """The rows a piece at a time, from the start each time that this is called."""
        raise NotImplementedError

    def to_arrow(self) -> pyarrow.Table:
        """All rows in memory."""
        return self.to_batches().read_all()

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a pandas data frame. ValueError, with the remedy, where pandas is not installed."""
        with _installed("pandas"):
            import pandas  # noqa: F401

            return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All rows as a polars data frame. ValueError, with the remedy, where polars is not installed, and where two
        columns have one name."""
        with _installed("polars"):
            import polars

            rows = self.to_arrow()
            twice = [name for name, times in Counter(rows.schema.names).items() if times > 1]
            if twice:
                raise ValueError(f"polars takes one column of a name: give one {twice[0]!r:.60} another with AS")
            frame = polars.from_arrow(rows)
            assert isinstance(frame, polars.DataFrame)
            return frame

    def to_tuples(self) -> Iterator[tuple[Any, ...]]:
        """The rows as plain values, one at a time."""
        for batch in self.to_batches():
            yield from _rows(batch)

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """The rows as plain data, one at a time; of columns with equal names the last."""
        for batch in self.to_batches():
            yield from (dict(zip(batch.schema.names, row, strict=True)) for row in _rows(batch))

    def _repr_html_(self) -> str:
        """For notebooks: the first rows, whether there are more, and how many entries no row is of yet."""
        rows: list[tuple[Any, ...]] = []
        reader = self.to_batches()
        for batch in reader:
            rows += _rows(batch.slice(0, SHOWN + 1 - len(rows)))
            if len(rows) > SHOWN:
                break
        cells = [[_cell(value) for value in row] for row in rows[:SHOWN]]
        more = "there are more rows; to_arrow(), to_pandas() and to_polars() have all of them"
        remarks = [more] * (len(rows) > SHOWN) + [not_among_these(self.pending)] * (self.pending > 0)
        return shown(table(reader.schema.names, cells), repr(self), "; ".join(remarks))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_batches().__arrow_c_stream__(requested_schema)


class View(Tabular):
    """One table of a trace; its columns are in docs/tables.md. Nothing is read before it is asked for."""

    def __init__(self, views: Views, name: str) -> None:
        self._views, self.name, self.pending = views, name, views.pending

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(column.name for column in VIEWS[self.name])

    def __len__(self) -> int:
        return self._views.count(self.name)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self):,} rows of {', '.join(self.columns)}>"

    def to_batches(self) -> pyarrow.RecordBatchReader:
        return reader_of(schema_of(VIEWS[self.name]), batches_of(self._views.paths(self.name)))


class Answer(Tabular):
    """What a SELECT gives. It is run when rows are asked for, each time; sums of integers are int64."""

    def __init__(self, run: Callable[[], Any], pending: int) -> None:
        self._run, self.pending = run, pending
        self._ran: Any = run()
        self.columns: tuple[str, ...] = tuple(self._ran.columns)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as plain data."""
        return list(self.to_dicts())

    def __repr__(self) -> str:
        return f"<answer of {', '.join(self.columns)}>"

    def to_batches(self) -> pyarrow.RecordBatchReader:
        ran, self._ran = self._ran if self._ran is not None else self._run(), None
        with refused():
            reader = ran.to_arrow_reader(BATCH_ROWS)
        sums = [place for place, kind in enumerate(ran.types) if str(kind) in ("HUGEINT", "UHUGEINT")]
        schema, batches = narrow(reader, sums)
        return reader_of(schema, _told(batches))


class Views:
    """All tables of one full seal of `size` entries, whose head rests on what `rests_on` says, and the tables on this
    user's cache; `pending` entries came later. Threads may ask side by side."""

    def __init__(
        self,
        trace: TraceDir,
        trace_id: bytes,
        seal: FullSeal,
        rests_on: str,
        pending: int,
        names: Names,
        progress: Progress | None,
        engine: str | None,
        memory_bytes: int,
    ) -> None:
        """`engine` says where they are built; None is what FGTRAC_ENGINE names, else every core of this machine. About
        `memory_bytes` are for all who build them, and then for what queries hold."""
        self.size, self.rests_on, self.pending = seal.head.size, f"{rests_on}; {CACHED}", pending
        self._trace, self._trace_id, self._seal = trace, trace_id, seal
        self._names, self._progress, self._engine, self._memory_bytes = names, progress, engine, memory_bytes
        self._lock = threading.RLock()
        self._cached: CachedViews | None = None
        self._databases: dict[bool, Database] = {}

    def view(self, name: str) -> View:
        """One of them. ValueError for a name that is none."""
        if name not in VIEWS:
            raise ValueError(f"there is no table {name!r:.60}; there are {', '.join(VIEWS)}")
        return View(self, name)

    def count(self, view: str) -> int:
        """How many rows a view has."""
        return self._open().rows(view)

    def paths(self, view: str) -> list[Path]:
        """The files of a view, in order, which were built from this log: where one is damaged, all are built again."""
        with self._lock:
            with suppress(DamagedViewsError):
                return self._open().paths(view)
            return self._open(anew=True).paths(view)

    def sql(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Answer:
        """The answer to a SELECT over the views, and over `names` where there is a vault. `?` and `$name` stand for the
        parameters. ValueError, on one line, for what is no such statement or fails."""
        return Answer(lambda: self._ask(sql, parameters), self.pending)

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows of a SELECT as plain data. Errors as `sql`."""
        return self.sql(sql, parameters).rows

    def _ask(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
        try:
            return self._database(mentions(sql, "names")).ask(sql, parameters)
        except ValueError as error:
            if "Table with name names does not exist" not in str(error):
                raise
            if not mentions(sql, "names"):
                raise ValueError("the table names is there only for a query that has its name, written out") from error
            raise ValueError("there is no vault beside this trace, and so no table of names") from error

    def _open(self, *, anew: bool = False) -> CachedViews:
        with self._lock:
            if self._cached is None or anew:
                if self._cached is not None:
                    self._cached.close()
                self._databases = {}
                self._cached = open_views(
                    self._trace_id,
                    self._seal.head,
                    self._build,
                    anew=anew,
                )
            return self._cached

    def _build(self, folder: Path) -> Files:
        with open_engine(self._engine) as engine:
            return build_views(self._trace, self._seal, folder, engine, self._memory_bytes, self._progress)

    def _database(self, with_names: bool) -> Database:
        """The views, each checked, as a database; names only where they are asked for, since they are many."""
        with self._lock:
            files = {view: self.paths(view) for view in VIEWS}
            if with_names not in self._databases:
                names = self._names() if with_names else None
                tables = {"names": names_table(names, NAMES)} if names is not None else {}
                try:
                    self._databases[with_names] = self._connect(files, tables)
                except NoMemoryError:
                    raise
                except ValueError:  # a file was damaged or removed since it was looked at
                    self._open(anew=True)
                    files = {view: self.paths(view) for view in VIEWS}
                    self._databases[with_names] = self._connect(files, tables)
            return self._databases[with_names]

    def _connect(self, files: Mapping[str, Sequence[Path]], tables: Mapping[str, Any]) -> Database:
        """A database that may go to disk as long as it has no names."""
        spill = None if tables else self._open().folder / f"spill-{os.urandom(8).hex()}"
        return Database(files, tables, memory_bytes=self._memory_bytes, spill=spill)


def _cell(value: Any) -> Any:
    """A value as a table shows it."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _rows(batch: Any) -> Iterator[tuple[Any, ...]]:
    try:
        return zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except OverflowError as error:
        raise ValueError("SQL: a date or time is beyond the years 1 to 9999; cast it to VARCHAR") from error


def _told(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; what fails meanwhile is said on one line."""
    with refused():
        yield from batches


@contextmanager
def _installed(what: str) -> Iterator[None]:
    """Inside, a missing library is the caller's to install: ValueError with the remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"to_{what}() needs {error.name}: pip install {what}") from error
