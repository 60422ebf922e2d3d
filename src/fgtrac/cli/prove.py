"""`fgtrac prove`: a file that proves a claim about one sample to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, safe
from fgtrac.cli.history import FORMS, Key
from fgtrac.store.durable import write_file
from fgtrac.verify.bundle import parse_bundle


def prove(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    sample: Annotated[
        str,
        typer.Argument(help=f"{FORMS}; of a content file:PATH or row:FILE.npy:INDEX"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="the bundle to write")],
    claim: Annotated[
        str | None,
        typer.Option(
            help="used, history, never used, label never used, never registered, content present or content absent"
        ),
    ] = None,
    entries: Annotated[
        bool, typer.Option("--entries", help="carry the entries that bear out the sample's rows, and say when")
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
    opened = open_trace(trace, key=key)
    data, remark = opened.prove(sample, claim, entries=entries, checkpoint=checkpoint), opened.remark(sample)
    write_file(out, data)
    bundle = parse_bundle(data)
    if as_json:
        said = {"claim": bundle.claim, "words": bundle.words, "path": str(out), "bytes": len(data)}
        print_json(said | ({"remark": remark} if remark else {}))
    else:
        lines = [bundle.words, *([f"note: {remark}"] if remark else []), f"{out}: {len(data):,} bytes"]
        answers().print("\n".join(map(safe, lines)), soft_wrap=True)
