"""`fgtrac history`: everything that happened to one sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json

Sample = Annotated[str, typer.Argument(help="id:HEX, key:JSON or NAME:ROW (row ROW of the data set NAME)")]
Key = Annotated[
    str | None, typer.Option("--key", help="the public key you trust: 64 hex digits, a file, or a verifier key")
]


def history(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    sample: Sample,
    key: Key = None,
    details: Annotated[bool | None, typer.Option(help="read the entries, or not (default: where they are few)")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a sample's whole history, proved against the newest full seal."""
    found = open_trace(trace, key=key).history(sample, details=details)
    if as_json:
        print_json(found.as_json())
    else:
        answers().print(escape(str(found)), soft_wrap=True)
