"""The options --engine and --memory, as every verb that may take long has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from fgtrac.engine.opening import FORMS, open_engine
from fgtrac.engine.units import Engine

MEMORY = 2 << 30  # bytes, where nothing else is said
LEAST = 1 << 20  # bytes: below, it is a unit that was forgotten

_SIZE = re.compile(r"([0-9]{1,12})(?:([KMGT])(?:i?B)?)?")
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def memory_bytes(text: str | int) -> int:
    """Bytes of `4G`, `512MiB` and the like (powers of 1024). ValueError for what is no size, and below 1 MiB."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{str(text)!r:.100} is no amount of memory; write it like 512M, 4G or 4GiB")
    found = int(match[1]) << _UNITS.get(match[2], 0)
    if found < LEAST:
        raise typer.BadParameter(f"{text} is {found:,} bytes, below 1M; did you mean {match[1]}G?")
    return found


EngineOption = Annotated[
    str, typer.Option("--engine", metavar="ENGINE", envvar="FGTRAC_ENGINE", help=f"where the work is done: {FORMS}")
]
ScoreEngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine", metavar="ENGINE", envvar="FGTRAC_ENGINE",
        help=f"give the work to: {FORMS} (default: this process alone)",
    ),
]  # fmt: skip
MemoryOption = Annotated[
    int,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=memory_bytes,
        show_default=False,
        help="about what all workers may hold, like 4G, and 1M at the least (default: 2GiB)",
    ),
]


@contextmanager
def workers_of(engine: str | None) -> Iterator[Engine | None]:
    """The engine of that name inside the block, or None where this process works alone. Errors as `open_engine`."""
    if engine is None:
        yield None
        return
    with open_engine(engine) as opened:
        yield opened
