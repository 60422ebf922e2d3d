"""`fgtrac runs`: the traces below a folder, a line each; nothing of it is verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size

from fgtrac.api.runs import DEPTH, NOBODY, OWN, RunLine, list_runs
from fgtrac.cli.console import AsJson, answers, print_json, safe

NOT_VERIFIED = "nothing here was verified; fgtrac verify TRACE does that"


class Order(StrEnum):
    """By what the lines are sorted."""

    NAME = "name"
    WHEN = "when"
    LOSS = "loss"
    STEPS = "steps"
    SIZE = "size"


_ORDERS: dict[Order, Callable[[RunLine], tuple[Any, ...]]] = {
    Order.NAME: lambda line: (),
    Order.WHEN: lambda line: (-(line.began or 0),),
    Order.LOSS: lambda line: (line.best_loss is None, line.best_loss or 0.0),
    Order.STEPS: lambda line: (-(line.steps or 0),),
    Order.SIZE: lambda line: (-line.size_bytes,),
}


def runs(
    folder: Annotated[Path, typer.Argument(help=f"where traces lie, up to {DEPTH} folders down")],
    sort: Annotated[
        Order, typer.Option(help="by name, or the newest, the lowest validation loss, the most steps or bytes first")
    ] = Order.NAME,
    as_json: AsJson = False,
) -> None:
    """List the traces below a folder: when, how far, how well, how large, signed and anchored by whom.

    Quick, from their heads and newest entries: nothing is verified. Links are not followed."""
    found = sorted(list_runs(folder), key=lambda line: (*_ORDERS[sort](line), line.name))
    if as_json:
        print_json({"verified": False, "runs": [line.as_json() for line in found]})
    else:
        _print(found)


def _print(found: Sequence[RunLine]) -> None:
    """A table as wide as it has to be, without the columns in which nobody has anything."""
    console = answers()
    if not found:
        console.print("no trace: none of the folders is named NAME.trace")
        return
    rows = [_HEADINGS, *(tuple(map(safe, _cells(line))) for line in found)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(cell_len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = [set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)]
        console.print("  ".join(cells).rstrip(), soft_wrap=True)
    for line in found:
        if line.reason:
            console.print(f"{safe(line.name)}: {safe(line.reason)}", soft_wrap=True)
    console.print(f"{len(found)} {'trace' if len(found) == 1 else 'traces'}; {NOT_VERIFIED}", soft_wrap=True)


_HEADINGS = (
    "run", "state", "began (UTC)", "steps", "epochs", "samples", "last loss", "best loss", "kept", "size", "signed by",
    "anchored",
)  # fmt: skip


def _cells(line: RunLine) -> list[str]:
    best = "" if line.best_loss is None else f"{line.best_loss:.6g} at {line.best_step}"
    last = "" if line.last_loss is None else f"{line.last_loss:.6g}"
    counts = ["" if n is None else f"{n:,}" for n in (line.steps, line.epochs, line.samples)]
    kept = "" if line.kept is None else str(line.kept)
    signed = (
        line.signed_by if line.key is None or line.signed_by in (OWN, NOBODY) else f"{line.signed_by}, {line.key[:16]}"
    )
    anchored = f"{', '.join(line.anchored)} at {line.anchored_size}" if line.anchored else ""
    sizes = [kept, size_words(line.size_bytes)]
    return [line.name, line.state, _when(line.began), *counts, last, best, *sizes, signed, anchored]


def _when(time_ns: int | None) -> str:
    if time_ns is None:
        return ""
    began = datetime.fromtimestamp(min(time_ns // 10**9, 10**11), UTC)  # as years of four digits go
    return f"{began:%Y-%m-%d %H:%M}"


def size_words(size_bytes: int) -> str:
    """Bytes in words of at most three digits: 999 B, 1.2 MB, 345 GB."""
    size, unit = float(size_bytes), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if unit != "B" and size < 99.95 else f"{size:,.0f} {unit}"
