"""`fgtrac prove`: one file that proves one claim about one sample to somebody who trusts nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json
from fgtrac.cli.history import Key, Sample, Trace
from fgtrac.verify.bundle import CLAIMS


def prove(
    trace: Trace,
    sample: Sample,
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write the bundle to")],
    claim: Annotated[str | None, typer.Option(help=f"one of: {', '.join(CLAIMS)} (default: the strongest)")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle: `fgtrac verify FILE --key KEY` checks it anywhere, without the trace."""
    if claim is not None and claim not in CLAIMS:
        raise ValueError(f"{claim!r} is no claim; choose one of {', '.join(CLAIMS)}")
    bundle = open_trace(trace, key=key).prove(sample, claim)
    said = json.loads(bundle)
    out.write_bytes(bundle)
    if as_json:
        print_json({"claim": said["claim"], "words": said["words"], "path": str(out), "size_bytes": len(bundle)})
    else:
        console = answers()
        console.print(said["words"], markup=False)
        console.print(f"{out}: {len(bundle):,} bytes", markup=False)
