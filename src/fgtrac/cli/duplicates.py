"""`fgtrac duplicates`: training samples that are nearly the same."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from fgtrac.api.suspects import Duplicates, Row
from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import ScoreEngineOption, workers_of
from fgtrac.cli.score import TracePath

EQUAL = {True: "equal", False: "other", None: "not known"}


def duplicates(
    trace: TracePath,
    top: Annotated[int, typer.Option(min=1, help="how many pairs")] = 20,
    by: Annotated[str, typer.Option(help="gradients, or inputs (what the layer reads)")] = "gradients",
    checkpoint: Annotated[int | None, typer.Option(help="the checkpoint of this step (default: the last)")] = None,
    engine: ScoreEngineOption = None,
    as_json: AsJson = False,
) -> None:
    """Show pairs of training samples that the model hardly tells apart, and which of them hold equal contents.

    Compares every sample with every other: the time grows with the square of their number.
    """
    with workers_of(engine) as workers, progress("comparing samples") as step:
        found = open_trace(trace).duplicates(top, by=by, checkpoint=checkpoint, engine=workers, progress=step)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: Duplicates) -> None:
    console = answers()
    table = Table("sample", "class", "and", "class", "gradients", "inputs", "contents")
    for pair in found.pairs:
        inputs = "" if pair.inputs is None else f"{pair.inputs:.4f}"
        table.add_row(
            *_words(pair.first), *_words(pair.second), f"{pair.gradients:.4f}", inputs, EQUAL[pair.equal_content]
        )
    console.print(table)
    console.print(safe(found.basis), soft_wrap=True)


def _words(row: Row) -> tuple[str, str]:
    return safe(row.words), "" if row.label is None else str(row.label)
