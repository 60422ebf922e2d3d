"""SQL over views: the one place that knows DuckDB. It reads the views' files and nothing else, and changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

THREAD_BYTES = 1 << 26  # of a database's memory, for each thread that it has
_EXPLAIN = re.compile(r"\s*explain\s+(?:analyze\s+)?", re.IGNORECASE)
_LIMIT = re.compile(r"/([0-9.]+ [KMGT]iB) used")  # in DuckDB's words
_KINDS = {"MULTI": "PIVOT without its values (ON role IN ('train', 'test'))"}
_SETTINGS = (
    "SET autoinstall_known_extensions = false", "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false", "SET python_enable_replacements = false",
    "SET allow_persistent_secrets = false",
)  # fmt: skip


class NoMemoryError(ValueError):
    """What was asked needs more memory than a database may take."""


def _threads(memory_bytes: int) -> int:
    """Of this machine's cores as many as have memory to work in."""
    return max(1, min(len(os.sched_getaffinity(0)), memory_bytes // THREAD_BYTES))


class Database:
    """Views as tables of one in-memory database. What it is asked may come from anybody: a statement that does more
    than read them is refused, as are files, networks, extensions and settings."""

    def __init__(
        self,
        files: Mapping[str, Sequence[Path]],
        tables: Mapping[str, Any] | None = None,
        *,
        memory_bytes: int,
        spill: Path | None = None,
    ) -> None:
        """`files` are the Parquet files of each view, in order, `tables` Arrow tables that are kept in memory only.
        What sorts and joins need beyond `memory_bytes` goes to the folder `spill`, which DuckDB makes and removes;
        without one they fail. ValueError for a file that is no Parquet file, or not there, NoMemoryError where the
        tables need more."""
        settings: dict[str, Any] = {"temp_directory": "" if spill is None else str(spill)}
        settings |= {"memory_limit": f"{memory_bytes}B", "threads": _threads(memory_bytes)}
        self._connection = duckdb.connect(":memory:", config=settings)
        with refused():
            self._define(files, tables or {})

    def _define(self, files: Mapping[str, Sequence[Path]], tables: Mapping[str, Any]) -> None:
        """Make the views and tables, and then close every other door."""
        for setting in _SETTINGS:
            self._connection.execute(setting)
        for view, paths in files.items():
            self._connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet({_list(paths)})")
        for name, table in tables.items():
            self._connection.register("given", table)
            self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
            self._connection.unregister("given")
        allowed = [path for paths in files.values() for path in paths]
        self._connection.execute(f"SET allowed_paths = {_list(allowed)}")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def ask(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> duckdb.DuckDBPyRelation:
        """What one statement that reads comes to, on a cursor of its own, so that threads do not wait for each other.

        ValueError, on one line, for anything else, and where DuckDB refuses it.
        """
        cursor = self._connection.cursor()
        with refused():
            cursor.execute("BEGIN TRANSACTION READ ONLY")  # a WITH may hold an INSERT, and is a SELECT all the same
            explains = _EXPLAIN.match(sql)
            asked = sql[explains.end() :] if explains else sql
            _check_reads(cursor, asked, parameters)
            return cursor.sql(sql, params=parameters or None)


def _check_reads(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Any) -> None:
    """ValueError for what is not one SELECT, or one that writes a file: COPY may stand in a WITH."""
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"one SELECT at a time, and these are {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rpartition(".")[2]
        raise ValueError(f"a trace is only read: {_KINDS.get(kind, kind)} is refused; ask with SELECT")
    if mentions(sql, "copy"):
        plans = cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters or None).fetchall()
        if any("COPY" in step for _, plan in plans for step in _steps(json.loads(plan))):
            raise ValueError("a trace is only read: COPY is refused; ask with SELECT")


def _steps(plan: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The names of all steps of a plan."""
    waiting = list(plan)
    while waiting:
        step = waiting.pop()
        waiting += step["children"]
        yield step["name"]


@contextmanager
def refused() -> Iterator[None]:
    """What DuckDB refuses inside, as a ValueError of one line; KeyboardInterrupt where the user stopped it."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from error
    except duckdb.OutOfMemoryException as error:
        limit = _LIMIT.search(str(error))
        raise NoMemoryError(
            f"SQL: this needs more than {limit[1] if limit else 'its share'} of memory; give it more (--memory, "
            "memory_bytes=), or ask for fewer rows or columns, and join names to the result"
        ) from error
    except duckdb.Error as error:
        words = " ".join(str(error).split("\n\nLINE", 1)[0].split())
        raise ValueError(f"SQL: {words:.500}") from error


def mentions(sql: str, table: str) -> bool:
    """Whether a statement may name a table: the word stands in it."""
    return re.search(rf"\b{re.escape(table)}\b", sql, re.IGNORECASE) is not None


def _list(paths: Sequence[Path]) -> str:
    return f"[{', '.join(_literal(str(path)) for path in paths)}]"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
