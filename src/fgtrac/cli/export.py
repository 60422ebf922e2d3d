"""`fgtrac export`: a trace's contents in forms that other tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.export import entries_of_sample, export_proofs
from fgtrac.api.export_tables import ExportedTable, export_tables
from fgtrac.api.in_toto import export_in_toto
from fgtrac.api.prov import SAMPLES, export_prov
from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.cli.history import FORMS
from fgtrac.cli.html import html
from fgtrac.query.seals import not_among_these
from fgtrac.query.view_schema import VIEWS

Traced = Annotated[Path, typer.Argument(help="the trace, NAME.trace")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="the folder to write into, made where there is none")]
Tables = Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(VIEWS)}; repeatable (default: all)")]
Names = Annotated[
    bool, typer.Option("--names", help="also write what the vault calls each sample: names of people may be among it")
]
Force = Annotated[bool, typer.Option("--force", help="replace files that are there")]

export = typer.Typer(help="Write what a trace holds in forms that other tools read.")


@export.callback()
def _forms() -> None:
    """A form is named even where there is one."""


export.command("html")(html)


@export.command()
def proof(
    trace: Traced,
    out: Annotated[Path, typer.Option("--out", "-o", help="a folder, or for one entry a file NAME.tlog-proof")],
    entries: Annotated[list[int] | None, typer.Argument(metavar="ENTRY...", help="numbers of entries")] = None,
    sample: Annotated[str | None, typer.Option(help=f"all entries that name a sample: {FORMS}")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write c2sp.org/tlog-proof@v1 files of entries, each beside the entry's bytes, against the newest tree head."""
    if bool(entries) == (sample is not None):
        raise ValueError("name either entries by their numbers or a sample with --sample")
    numbers = entries or entries_of_sample(trace, sample or "")
    written = export_proofs(trace, numbers, out, replace=force)
    if as_json:
        files = [{"entry": e.number, "proof": str(e.proof), "bytes": str(e.entry)} for e in written]
        print_json({"proofs": files})
    else:
        lines = [f"entry {e.number}: {e.proof}, of the bytes in {e.entry.name}" for e in written]
        answers().print("\n".join(map(safe, lines)), soft_wrap=True)


@export.command()
def parquet(
    trace: Traced,
    out: Folder,
    table: Tables = None,
    names: Names = False,
    force: Force = False,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Write the tables of a trace (docs/tables.md) as Parquet files, with the signed tree head in their metadata."""
    with progress("writing tables") as bar:
        done = export_tables(
            trace, out, "parquet", tables=table or (), names=names, replace=force, progress=bar, engine=engine,
            memory_bytes=memory,
        )  # fmt: skip
    _print_tables(done, open_trace(trace).pending, as_json)


@export.command()
def csv(
    trace: Traced,
    out: Folder,
    table: Tables = None,
    names: Names = False,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="an apostrophe before texts that a spreadsheet takes for formulas")
    ] = False,
    force: Force = False,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Write the tables of a trace (docs/tables.md) as CSV files."""
    with progress("writing tables") as bar:
        done = export_tables(
            trace, out, "csv", tables=table or (), names=names, for_spreadsheets=spreadsheet, replace=force,
            progress=bar, engine=engine, memory_bytes=memory,
        )  # fmt: skip
    _print_tables(done, open_trace(trace).pending, as_json)
    formulas = sum(one.formulas for one in done)
    if formulas and not spreadsheet and not as_json:
        remark = (
            f"{formulas:,} texts begin like formulas, which a spreadsheet may run; --spreadsheet keeps it from that"
        )
        answers().print(f"note: {remark}", soft_wrap=True)


def _print_tables(done: Sequence[ExportedTable], pending: int, as_json: bool) -> None:
    if as_json:
        told = ("rows", "size", "sha256", "formulas")
        tables = [{"table": t.name, "file": str(t.path)} | {k: getattr(t, k) for k in told} for t in done]
        print_json({"tables": tables, "pending": pending})
    else:
        answers().print("\n".join(safe(f"{t.path}: {t.rows:,} rows, {t.size:,} bytes") for t in done), soft_wrap=True)
        _print_pending(pending)


def _print_pending(pending: int) -> None:
    if pending:
        answers().print(not_among_these(pending), soft_wrap=True)


@export.command("in-toto")
def in_toto(
    trace: Traced,
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write, a DSSE envelope in JSON")],
    key: Annotated[Path | None, typer.Option(help="the signing key's file; by default yours")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write an in-toto statement about the model files that a trace keeps, signed with the key that signs its log."""
    done = export_in_toto(trace, out, key=key, replace=force)
    subjects, pending = done.statement["subject"], done.statement["predicate"]["laterEntries"]
    if as_json:
        print_json({"file": str(out), "key_id": done.key_id, "statement": done.statement, "pending": pending})
    else:
        files = "one model file" if len(subjects) == 1 else f"{len(subjects)} model files"
        size = done.statement["predicate"]["treeHead"]["size"]
        answers().print(safe(f"{out}: a statement about {files}, as of {size} entries, signed by {done.key_id}"))
        _print_pending(pending)


@export.command()
def prov(
    trace: Traced,
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write, PROV-JSON")],
    samples: Annotated[str, typer.Option(help="how many samples stand in it: a number, all or none")] = str(SAMPLES),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write W3C PROV-JSON: what came from what, in which stage or epoch, on whose account."""
    with progress("reading the log") as bar:
        done = export_prov(trace, out, samples=_number_of(samples), replace=force, progress=bar)
    if as_json:
        said = {"file": str(out), "samples": done.samples, "left_out": done.left_out, "totals": done.totals}
        print_json(said | {"pending": done.pending})
    else:
        answers().print(safe(f"{out}: {done.totals['uses']:,} uses; {done.totals['samples']:,} samples registered"))
        if done.left_out:
            answers().print(f"{done.left_out:,} samples have no record of their own in it; --samples all writes them")
        _print_pending(done.pending)


def _number_of(samples: str) -> int | None:
    """The number of samples that `--samples` asks for; None is all. ValueError for other words."""
    if samples in ("all", "none"):
        return None if samples == "all" else 0
    if not (samples.isascii() and samples.isdigit() and len(samples) < 20):
        raise ValueError(f"--samples {samples!r:.40} is neither a number nor all or none")
    return int(samples)
