"""`fgtrac export`: a trace's contents in forms that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.export import entries_of_sample, export_proofs
from fgtrac.cli.console import AsJson, answers, print_json, safe
from fgtrac.cli.history import FORMS

export = typer.Typer(help="Write what a trace holds in forms that other tools read.")


@export.callback()
def _forms() -> None:
    """A form is named even where there is one."""


@export.command()
def proof(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a folder, or for one entry a file NAME.tlog-proof")],
    entries: Annotated[list[int] | None, typer.Argument(metavar="ENTRY...", help="numbers of entries")] = None,
    sample: Annotated[str | None, typer.Option(help=f"all entries that name a sample: {FORMS}")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
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
