"""`fgtrac sql`: a SELECT over the tables of a trace."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.cli.history import Key
from fgtrac.query.occurrences import plain
from fgtrac.query.seals import not_among_these

SHOWN = 100  # rows of the table for people
LONG = 80  # characters of a cell of it


def sql(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    query: Annotated[str, typer.Argument(help="one SELECT, as DuckDB has it; docs/tables.md lists the columns")],
    key: Key = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV with a heading instead of a table")] = False,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Ask a trace with SQL, over samples, uses, checkpoints, contributions, predictions, attention, metrics, roles,
    entries and, with the vault, names: those that its newest full seal covers. They are built once, from every entry of
    the log, and kept in your cache. Nothing but them is read, and nothing is changed."""
    if as_csv and as_json:
        raise ValueError("--csv and --json are two answers; ask for one of them")
    opened = open_trace(trace, key=key)
    with progress("reading the log") as step:
        views = opened.views(step, engine=engine, memory_bytes=memory)
        answer = views.sql(query)
    rows = answer.to_tuples()
    if as_json:
        head = {"size": views.size, "pending": opened.pending, "rests_on": views.rests_on}
        print_json({**head, "columns": list(answer.columns), "rows": [[_value(v) for v in row] for row in rows]})
    elif as_csv:
        _print_csv(answer.columns, rows)
        if opened.pending:
            print(f"fgtrac: {not_among_these(opened.pending)}", file=sys.stderr)
    else:
        _print(answer.columns, rows, opened.pending)


def _print_csv(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    """RFC 4180 but for the ends of lines, which are LF; lists as JSON, nothing for null."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if v is None else v if isinstance(v, str) else _text(v) for v in row])


def _print(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]], pending: int) -> None:
    table = Table()
    for column in columns:
        table.add_column(safe(column), overflow="fold")
    for row in islice(rows, SHOWN):
        table.add_row(*("" if v is None else safe(f"{_text(v):.{LONG}}") for v in row))
    more = next(rows, None) is not None
    answers().print(table)
    if more:
        answers().print(f"the first {SHOWN} rows; --csv or --json has all of them")
    if pending:
        answers().print(not_among_these(pending), soft_wrap=True)


def _text(value: Any) -> str:
    said = _value(value)
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _value(value: Any) -> Any:
    """What JSON can say of a cell."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return str(value)
    if hasattr(value, "nanoseconds"):  # pyarrow's interval
        return f"{value.months} months {value.days} days {value.nanoseconds / 10**9:g} s"
    if isinstance(value, list | tuple):
        return [_value(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _value(v) for k, v in value.items()}
    return plain(value)
