"""`fgtrac spikes`: the steps where the loss jumped, and the samples in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, cannot_tell, print_json, safe
from fgtrac.query.spikes import Spike


def spikes(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    top: Annotated[int, typer.Option(min=1, help="how many jumps")] = 5,
    samples: Annotated[int, typer.Option(min=1, help="how many samples of each")] = 5,
    step: Annotated[int | None, typer.Option(min=0, help="show this step, whether or not its loss jumped")] = None,
    as_json: AsJson = False,
) -> None:
    """Show where the training loss jumped, and whose loss it was: from the losses that run.losses(...) recorded."""
    found = open_trace(trace).spikes(top=top, samples=samples, step=step)
    if as_json:
        print_json(found.as_json())
    if not found.is_known:
        cannot_tell(found.basis)
    if as_json:
        return
    console = answers()
    for spike in found.spikes:
        _print(spike, console)
    if not found.spikes:
        console.print("no step's loss jumped")
    console.print(found.basis, soft_wrap=True)


def _print(spike: Spike, console: Console) -> None:
    table = Table("sample", "loss", "usual for it", "excess", "other uses", "rank by loss", title=safe(spike.title))
    table.title_justify = "left"
    for s in spike.samples:
        numbers = (f"{s.loss:.4g}", f"{s.usual:.4g}", f"{s.excess:+.4g}", str(s.other_uses), str(s.rank_by_loss))
        table.add_row(safe(s.name or s.id.hex()[:16]), *numbers)
    console.print(table)
    if spike.caution:
        console.print(safe(spike.caution), soft_wrap=True)
