"""`fgtrac push`: publish a sealed trace on object storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.push import push_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress


def push(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    url: Annotated[str, typer.Argument(metavar="URL", help="s3://BUCKET/PREFIX/NAME.trace")],
    again: Annotated[
        bool, typer.Option("--again", help="prove what was published before anew too, from the first entry on")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy what is sealed to object storage, its head last; repeat it to go on. The journal and the vault stay here."""
    with progress("pushing") as step:
        done = push_trace(trace, url, again=again, progress=step)
    if as_json:
        print_json(done.as_json())
        return
    console = answers()
    console.print(f"published {done.size} entries as {done.url}", soft_wrap=True)
    console.print(f"root {done.root.hex()}")
    counts = f"{done.sent:,} files with {done.sent_bytes:,} bytes sent, {done.there:,} were there"
    console.print(f"{counts}, {done.removed:,} stale ones removed")
    for path in done.left:
        console.print(f"{path} has other signatures or bytes there than here, and was left as it is", soft_wrap=True)
