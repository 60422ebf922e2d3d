"""`fgtrac seal`: put what the journal holds into the log, sign its head, commit the index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.sealing import NotPushedError, seal_trace
from fgtrac.cli.console import AsJson, answers, print_json, stages
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.commit.sequencer import SealResult


def seal(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    plain: Annotated[
        bool, typer.Option("--plain", help="sign the log only; the index follows with a full seal")
    ] = False,
    kept: Annotated[
        list[Path] | None,
        typer.Option("--kept", help="first take in what a rank on another host has kept: its NAME.kept; repeatable"),
    ] = None,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Seal a trace: after a crash, or to rebuild a lost index. Signs with your key ($FGTRAC_KEY names another).

    An index that does not fit in --memory is built in pieces on disk, by the processes of --engine; cut short, the same
    command goes on.
    """
    try:
        with stages("sealing") as step:
            result = seal_trace(
                trace, full=not plain, kept=kept or (), engine=engine, memory_bytes=memory, progress=step
            )
    except NotPushedError as error:
        _tell(error.sealed, as_json)
        raise
    _tell(result, as_json)


def _tell(result: SealResult, as_json: bool) -> None:
    if as_json:
        said = {"size": result.size, "root": result.root.hex(), "new_entries": result.new_entries, "full": result.full}
        print_json(said)
        return
    what = "full seal: the index covers every entry before it" if result.full else "plain seal: no index yet"
    console = answers()
    console.print(f"sealed at {result.size} entries, {result.new_entries} of them new ({what})")
    console.print(f"root {result.root.hex()}")
