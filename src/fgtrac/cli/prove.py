"""`fgtrac prove`: a file that proves a claim about one sample to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json
from fgtrac.cli.history import Key
from fgtrac.store.durable import write_file
from fgtrac.verify.bundle import parse_bundle


def prove(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    sample: Annotated[
        str,
        typer.Argument(help="id:HEX, key:JSON, NAME:key:JSON, NAME:ROW; of a content file:PATH or row:FILE.npy:INDEX"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="the bundle to write")],
    claim: Annotated[
        str | None,
        typer.Option(help="used, history, never used, never registered, content present or content absent"),
    ] = None,
    entries: Annotated[
        bool, typer.Option("--entries", help="carry every entry about the sample: bears out the rows, and says when")
    ] = False,
    checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="of a use: say how many came before this kept state [last]")
    ] = None,
    key: Key = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a bundle that proves what is true of a sample; `fgtrac verify` checks it without the trace."""
    if out.exists() and not force:
        raise FileExistsError(f"{out} is there already; name another file, or replace it with --force")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    data = open_trace(trace, key=key).prove(sample, claim, entries=entries, checkpoint=checkpoint)
    write_file(out, data)
    bundle = parse_bundle(data)
    if as_json:
        print_json({"claim": bundle.claim, "words": bundle.words, "path": str(out), "bytes": len(data)})
    else:
        answers().print(escape(f"{bundle.words}\n{out}: {len(data):,} bytes"), soft_wrap=True)
