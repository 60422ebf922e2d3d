"""`fgtrac check`: hold a trace to policies: who must not be used, and who must."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from fgtrac.api.check import Checked, check_trace
from fgtrac.cli.console import AsJson, answers, progress, safe
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.cli.history import Key
from fgtrac.cli.verify import print_report
from fgtrac.store.durable import write_file


def check(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    policy: Annotated[
        Path | None, typer.Option(help="a policy file (docs/policies.md); without one, what is built in")
    ] = None,
    key: Key = None,
    id_key: Annotated[
        str | None,
        typer.Option("--id-key", help="for names under keyed ids: the run's id key, 64 hex digits or a vault"),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="how many violations of each policy to show")] = 10,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="write all violations as CSV too")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Verify the log, then check policies over it: exit code 0 where all hold, 1 where one is refuted, 3 where nobody
    can tell. `--json` lists every violation."""
    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} is there already; name another file, or replace it with --force")
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    with progress("checking") as step:
        found = check_trace(trace, key, policy=policy, id_key=id_key, progress=step, engine=engine, memory_bytes=memory)
    if out is not None:
        write_file(out, found.csv())
    if as_json:
        for piece in found.json():
            typer.echo(piece, nl=False)
        typer.echo()
    else:
        _print(found, show)
    raise typer.Exit(found.report.exit_code)


def _print(found: Checked, show: int) -> None:
    console = answers()
    print_report(found.report)
    counts = found.counts()
    if not counts or not show:
        return
    policy, sample, remark = (Column(name, overflow="fold") for name in ("policy", "sample", "remark"))
    table = Table(policy, sample, "step", "epoch", "entry", remark)
    for row in found.violations(show):
        use = (str(row.get(name, "")) for name in ("step", "epoch", "entry"))
        table.add_row(safe(row["policy"]), safe(row.get("sample") or f"id:{row['id'][:16]}"), *use, _remark(row))
    console.print(table)
    for name, count in counts.items():
        if count > show:
            console.print(f"{safe(name)}: {count:,} violations; --json and -o list all of them", soft_wrap=True)


def _remark(row: dict[str, Any]) -> str:
    words = ["superseded"] if row.get("superseded") else []
    words += [f"neighbour at hop {row['hop']}" + ", out of reach" * ("out_of_reach" in row)] if "hop" in row else []
    words += [f"content of id:{row['same_content_as'][:16]}"] if "same_content_as" in row else []
    return ", ".join(words)
