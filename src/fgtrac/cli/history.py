"""`fgtrac history`: everything that happened to one sample, from source to prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json

Trace = Annotated[Path, typer.Argument(help="the trace, NAME.trace")]
Sample = Annotated[str, typer.Argument(help="id:HEX, key:JSON, NAME:ROW or (contents, to prove) file:PATH")]
Key = Annotated[
    str | None,
    typer.Option("--key", help="the public key that you trust: 64 hex digits, a file, or a C2SP verifier key"),
]


def history(trace: Trace, sample: Sample, key: Key = None, as_json: AsJson = False) -> None:
    """Print the whole history of one sample, each line proved against the newest full seal before it is printed."""
    found = open_trace(trace, key=key).history(sample)
    if as_json:
        print_json(found.as_json())
        return
    console = answers()
    console.print(f"sample {found.id.hex()}" + (escape(f" ({found.name})") if found.name else ""))
    table = Table("entry", "step", "epoch", "what happened")
    for event in found.events:
        numbers = ["" if n is None else str(n) for n in (event.entry, event.step, event.epoch)]
        table.add_row(*numbers, escape(event.words))
    console.print(table)
    if found.checkpoints:
        console.print(f"kept checkpoints that it contributed to: steps {', '.join(map(str, found.checkpoints))}")
    console.print(escape(f"complete up to entry {found.size - 1}, {found.rests_on}"))
    if found.pending:
        console.print(f"not yet in the index: {found.pending} entries; run fgtrac seal")
