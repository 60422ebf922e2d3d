"""`fgtrac history`: everything that happened to one sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json

FORMS = "id:HEX, key:JSON, NAME:key:JSON or NAME:ROW (whose key is the number ROW: its row, where no key= was given)"
Sample = Annotated[str, typer.Argument(help=FORMS)]
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
    opened = open_trace(trace, key=key)
    found, remark = opened.history(sample, details=details), opened.remark(sample)
    if as_json:
        print_json(found.as_json() | ({"remark": remark} if remark else {}))
    else:
        lines = [str(found), *([f"note: {remark}"] if remark else [])]
        answers().print(escape("\n".join(lines)), soft_wrap=True)
