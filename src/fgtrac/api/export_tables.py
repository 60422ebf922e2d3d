"""The tables of a trace as Parquet or CSV files in a folder, with a manifest that says which log they are of.

The tables are those of docs/tables.md, as of the newest full seal; docs/exports.md says how to read them back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fgtrac.api.exported_files import check_outside
from fgtrac.api.read_by_workers import MEMORY
from fgtrac.api.trace import Trace, open_trace
from fgtrac.query.seals import not_among_these
from fgtrac.query.view_schema import NAMES, VIEWS, Column
from fgtrac.store import durable

Form = Literal["parquet", "csv"]
Progress = Callable[[int, int], None]
MANIFEST, README = "manifest.json", "README.md"
NAMED = "names"  # the table that only `names` asks for


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table in a file: its rows and bytes, the file's SHA-256, and how many of its texts a spreadsheet may take for
    formulas (counted of CSV only)."""

    name: str
    path: Path
    rows: int
    size: int
    sha256: str
    formulas: int


def export_tables(
    path: Path,
    folder: Path,
    form: Form,
    *,
    tables: Sequence[str] = (),
    names: bool = False,
    for_spreadsheets: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
    engine: str | None = None,
    memory_bytes: int = MEMORY,
) -> tuple[ExportedTable, ...]:
    """Write tables (default: all of `VIEWS`) to FOLDER/TABLE.parquet or .csv, then a README and, last, the manifest.

    With `names` also what the vault calls each sample, into a file that only its owner may read. Each file is put in
    place whole. `progress` is called with (rows done, all); `engine` and `memory_bytes` say how tables that are not in
    the cache are built, as `Trace.views` takes them. Errors: ValueError for a table that is none, without the vault
    that `names` needs, without pyarrow and duckdb, and for a folder in a trace; FileExistsError where a file is there,
    unless `replace`, and where another export left a table that this one does not write; FileNotFoundError for a folder
    above it that is not; ProofError where the log is not what was sealed; EngineError where workers are lost.
    """
    wanted = _wanted(tables, names)
    files = {name: folder / f"{name}.{form}" for name in wanted}
    _check_folder(folder, [*files.values(), folder / README, folder / MANIFEST], replace)
    trace = open_trace(path)
    views = trace.views(progress, engine=engine, memory_bytes=memory_bytes)
    if names and trace._vault is None:
        raise ValueError(f"there is no vault beside {path}, and names stand in nothing else; leave --names out")
    every = sum(views.count(name) for name in wanted if name != NAMED)
    durable.make_folder(folder)
    durable.remove(folder / MANIFEST)  # from here on until the end the folder has none
    done: list[ExportedTable] = []
    head = _head(trace)
    for name in wanted:
        before = sum(table.rows for table in done)
        step = None if progress is None else lambda rows, before=before: progress(before + rows, every)
        rows = _names(trace) if name == NAMED else views.view(name).to_batches()
        done.append(_write(name, files[name], form, rows, head, for_spreadsheets, step))
    durable.write_file(folder / README, _readme(trace, done, for_spreadsheets).encode())
    said = json.dumps(_manifest(trace, form, done, for_spreadsheets), indent=1, ensure_ascii=False) + "\n"
    durable.write_file(folder / MANIFEST, said.encode())
    return tuple(done)


def _wanted(tables: Sequence[str], names: bool) -> list[str]:
    known = [*VIEWS, NAMED]
    for name in tables:
        if name not in known:
            raise ValueError(f"there is no table {name!r:.60}; there are {', '.join(known)}")
    if NAMED in tables and not names:
        raise ValueError("the table names has the vault's names, which only --names writes")
    return [name for name in known if (name in tables or not tables) and name != NAMED] + [NAMED] * names


def _check_folder(folder: Path, files: Iterable[Path], replace: bool) -> None:
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} to make {folder.name} in")
    check_outside(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    files = list(files)
    there = [path for path in files if path.exists()]
    if there and not replace:
        raise FileExistsError(f"{there[0]} is there already; name another folder, or replace it with --force")
    tables = [folder / f"{name}.{form}" for name in (*VIEWS, NAMED) for form in get_args(Form)]
    left = [path.name for path in tables if path not in files and path.exists()]
    if left:
        raise FileExistsError(
            f"{folder} has {', '.join(left)} of another export, which this one does not write and its manifest would "
            f"not name; remove them, or name another folder"
        )


def _write(
    name: str,
    path: Path,
    form: Form,
    rows: Any,
    head: dict[str, str],
    for_spreadsheets: bool,
    step: Callable[[int], None] | None,
) -> ExportedTable:
    from fgtrac.query.view_exports import Told, csv_pieces, parquet_pieces

    told, digest, size = Told(), hashlib.sha256(), 0
    if form == "parquet":
        pieces = parquet_pieces(rows, head, told)
    else:
        pieces = csv_pieces(rows, told, for_spreadsheets=for_spreadsheets)

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            yield piece
            if step is not None:
                step(told.rows)

    durable.write_file(path, counted(), mode=0o600 if name == NAMED else 0o644)
    return ExportedTable(name, path, told.rows, size, digest.hexdigest(), told.formulas)


def _names(trace: Trace) -> Any:
    from fgtrac.query.view_files import names_table

    columns = trace._table_of_names()
    assert columns is not None
    return names_table(columns, NAMES).to_reader()


def _head(trace: Trace) -> dict[str, str]:
    """What stands in the metadata of each Parquet file."""
    seal = trace._seal
    said = {"trace_id": trace.id.hex(), "size": str(seal.head.size), "root": seal.head.root.hex()}
    return {f"fgtrac.{name}": value for name, value in (said | {"tree_head": seal.note.decode()}).items()}


def _manifest(trace: Trace, form: Form, done: Sequence[ExportedTable], for_spreadsheets: bool) -> dict[str, Any]:
    seal = trace._seal
    tables = {
        table.name: {
            "file": table.path.name,
            "rows": table.rows,
            "size": table.size,
            "sha256": table.sha256,
            "columns": {column.name: column.says for column in _columns(table.name)},
        }
        for table in done
    }
    head = {"size": seal.head.size, "root": seal.head.root.hex(), "note": seal.note.decode()}
    said = {"trace_id": trace.id.hex(), "tree_head": head, "pending": trace.pending, "form": form, "tables": tables}
    return said | ({"apostrophes_before_formulas": for_spreadsheets} if form == "csv" else {})


def _columns(name: str) -> Sequence[Column]:
    return NAMES if name == NAMED else VIEWS[name]


def _readme(trace: Trace, done: Sequence[ExportedTable], for_spreadsheets: bool) -> str:
    seal = trace._seal
    lines = [
        f"# Tables of trace {trace.id.hex()}",
        "",
        f"Made from the first {seal.head.size:,} entries of its log, whose root is {seal.head.root.hex()}. The log is",
        "what can be verified; these files are a view of it. manifest.json has the signed tree head and each file's",
        "SHA-256. They come from the tables in the cache of the user who wrote them.",
        *(["", f"When they were written, {not_among_these(trace.pending)}."] if trace.pending else []),
        *(["", "Texts that a spreadsheet takes for formulas have an apostrophe in front."] if for_spreadsheets else []),
    ]
    for table in done:
        lines += ["", f"## {table.path.name}", "", f"{table.rows:,} rows, SHA-256 {table.sha256}", ""]
        lines += [f"* {column.name}: {column.says}" for column in _columns(table.name)]
    return "\n".join(lines) + "\n"
