"""`fgtrac diff`: two trainings side by side, and where they part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fgtrac.api.diff import SUSPECTS, diff_traces
from fgtrac.cli.console import AsJson, answers, print_json


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="a trace, NAME.trace")],
    b: Annotated[Path, typer.Argument(metavar="B", help="another trace")],
    suspects: Annotated[
        int, typer.Option(min=0, metavar="N", help="how many of the first suspects of both to compare; 0 for none")
    ] = SUSPECTS,
    as_json: AsJson = False,
) -> None:
    """Compare two trainings: settings, versions, stages, samples and their contents, the first step whose batch
    differs, losses, checkpoints, contributions. No verdict: exit code 0 whatever differs.

    Samples are compared by id where ids are public or of one key, else by name where both vaults are there, and
    otherwise it cannot tell."""
    found = diff_traces(a, b, suspects=suspects)
    if as_json:
        print_json(found.as_json())
    else:
        answers().print(escape(found.text()), soft_wrap=True)
