"""`fgtrac erase`: destroy a subject's key and what leads to its samples, and put that into the log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fgtrac.api.erase import Erasure
from fgtrac.api.erase import erase as erase_subject
from fgtrac.api.naming import TypedSubject
from fgtrac.cli.console import AsJson, answers, print_json

SHOWN = 5


def erase(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace, with its vault beside it")],
    subject: Annotated[
        str, typer.Option(help="the subject as register(subject=...) was given it, or its pseudonym's hex digits")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a subject: its key, its names and the openings of samplers leave the vault, files that hold its rows leave
    the trace, and an erasure entry says so. It cannot be undone. What stays, samples made from several people's among
    it: docs/erasure.md."""
    done: list[Erasure] = []

    def agree(found: Erasure) -> bool:
        if yes:
            return True
        print(f"This destroys the key of {_words(found)}. It cannot be undone.", file=sys.stderr)
        if not sys.stdin.isatty():
            raise ValueError(f"{_nothing(done)}: there is no terminal to ask on; add --yes")
        return typer.confirm("Erase?", err=True)

    try:
        erase_subject(trace, subject=TypedSubject(subject), agree=agree, report=done.append)
    finally:  # what was done is said also where something else cannot be
        _show(done, as_json)
    if all(found.resumed for found in done):
        print(f"fgtrac: {_nothing(done)}", file=sys.stderr)
        raise typer.Exit(1)


def _nothing(done: list[Erasure]) -> str:
    return "nothing else was erased" if done else "nothing was erased"


def _show(done: list[Erasure], as_json: bool) -> None:
    if as_json:
        print_json({"erased": [_as_json(found) for found in done]})
    for found in () if as_json else done:
        words = "an interrupted erasure was finished: the key of" if found.resumed else "erased: the key of"
        answers().print(f"{words} {_words(found)}", markup=False, soft_wrap=True)


def _words(found: Erasure) -> str:
    vault = "" if found.resumed else f"; {found.names} names and {found.openings} openings of samplers in the vault"
    files = ", ".join(found.artifacts[:SHOWN])
    more = f" and {len(found.artifacts) - SHOWN} more" if len(found.artifacts) > SHOWN else ""
    mine = f"{found.samples:,} {'sample' if found.samples == 1 else 'samples'}"
    return f"subject {found.pseudonym.hex()[:16]} with {mine}{vault}; files: {files or 'none'}{more}"


def _as_json(found: Erasure) -> dict[str, Any]:
    counts = {"samples": found.samples, "names": found.names, "openings": found.openings}
    return {"pseudonym": found.pseudonym.hex(), **counts, "artifacts": list(found.artifacts), "resumed": found.resumed}
