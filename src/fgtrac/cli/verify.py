"""`fgtrac verify`: check a whole trace, or a bundle without its trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fgtrac.api.audit import Demand
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.trace import open_for_verification
from fgtrac.cli.console import AsJson, answers, print_json, progress
from fgtrac.cli.history import Key
from fgtrac.verify.report import Report, Verdict

COLORS = {Verdict.HOLDS: "green", Verdict.REFUTED: "red", Verdict.CANNOT_TELL: "yellow"}


def verify(
    path: Annotated[Path, typer.Argument(help="a trace (NAME.trace) or a bundle")],
    key: Key = None,
    id_key: Annotated[
        str | None,
        typer.Option("--id-key", help="for an absence under keyed ids: their key, 64 hex digits or a vault"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything: exit code 0 where it holds, 1 where it is refuted, 3 where nobody can tell."""
    if path.is_file():
        report = verify_bundle(path, key, id_key)
    else:
        if id_key is not None:
            raise ValueError(f"--id-key belongs to a bundle, and {path} is none; leave it out")
        trace = open_for_verification(path)
        demands: list[Demand] = []  # one for each option that asks for more than the usual checks
        with progress("verifying") as step:
            report = trace.verify(key, demands=demands, progress=step)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    raise typer.Exit(report.exit_code)


def _print(report: Report) -> None:
    console = answers()
    table = Table("check", "verdict", "what was found", show_edge=False)
    for finding in report.findings:
        color = COLORS[finding.verdict]
        table.add_row(finding.check, f"[{color}]{finding.verdict}[/{color}]", escape(finding.words))
    console.print(table)
    for note in report.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(f"[{COLORS[report.verdict]}]{report.verdict}[/]")
