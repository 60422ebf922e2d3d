"""`fgtrac doctor`: what is wrong with this machine or a trace, and what to do about it; it changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.finding import Finding, State, exit_code
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.history import Key

COLORS = {State.FINE: "green", State.NOTE: "cyan", State.TO_DO: "red", State.CANNOT_TELL: "yellow"}


def doctor(
    trace: Annotated[
        Path | None, typer.Argument(help="a trace to look at, NAME.trace; without one, this machine is")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="also verify the whole trace, like fgtrac verify")] = False,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with this machine and installation, or with a trace, and say what to do. Changes nothing.

    Exit code 0 where nothing needs doing, 1 where something does, 3 where something cannot be told."""
    if trace is None and (verify or key is not None):
        raise ValueError("--verify and --key are about a trace; name one, or leave them out")
    from fgtrac.api.doctor import examine  # with the machinery for installed packages, which no other verb loads

    with progress("looking") as step:
        found = list(examine(trace, verify=verify, key=key, progress=step))
    if as_json:
        print_json({"findings": [one.as_json() for one in found], "exit_code": exit_code(found)})
    else:
        _print(found)
    raise typer.Exit(exit_code(found))


def _print(found: Sequence[Finding]) -> None:
    console = answers()
    for one in found:
        mark = f"[{COLORS[one.state]}]{one.state.value:<11}[/]"
        remedy = f" -> {one.remedy}" if one.remedy else ""
        console.print(f"{mark} {safe(one.check)}: {safe(one.words + remedy)}", soft_wrap=True)
    counts = {state: sum(one.state is state for one in found) for state in State}
    console.print(f"{counts[State.TO_DO]} to do, {counts[State.CANNOT_TELL]} that cannot be told")
