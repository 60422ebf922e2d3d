"""`fgtrac ui`: a trace, or a folder of traces, in the browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fgtrac.api.user_functions import load_functions
from fgtrac.cli.console import AsJson, print_json
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.cli.history import Key

GRACE_S = 1.0  # for what is under way beside the pages
SWITCH_S = 0.0005  # between threads: a page waits for the check beside it at each read of a file, by default 5 ms


def ui(
    place: Annotated[Path, typer.Argument(help="a trace (NAME.trace), or a folder with traces in it")],
    host: Annotated[str, typer.Option(help="the address to listen on; by default this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="the port; 0 takes a free one")] = 0,
    with_: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="FILE.py:FUNCTION, which gives your data set, or {name: data set}: pictures of samples",
        ),
    ] = None,
    key: Key = None,
    token: Annotated[
        str | None, typer.Option(help="who looks must have it; made and printed for any other --host than this machine")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="open a browser there")] = False,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    as_json: AsJson = False,
) -> None:
    """Look at traces in the browser: runs, samples, predictions, suspects, the log, and what of it holds.

    Only reads, and asks no network. Ends with Ctrl-C. Whoever may open the address sees what the traces and their
    vaults say: other machines do only with the token.
    """
    from fgtrac.web import background, explorer, guard, listening  # here: no other verb needs a network library

    is_local = guard.is_loopback(host)
    if token is None and not is_local:
        token = guard.new_token()
    given = None if with_ is None else _pictures(with_)
    app = explorer.explorer_app(
        place, key=key, token=token, is_local=is_local, given=given, engine=engine, memory_bytes=memory
    )
    sys.setswitchinterval(SWITCH_S)
    server = listening.server_of(app, "the explorer", "ui")
    listener, url = listening.listen(host, port)
    shown = url if token is None else f"{url}?token={token}"
    if as_json:
        print_json({"url": shown, "token": token})
    else:
        typer.echo(f"looking at {place.name or place} at {shown}")
    if open_:
        typer.launch(shown)
    listening.serve(server, listener)
    app.state.site.stop()
    if not background.have_ended(GRACE_S):  # Python ends threads inside of others' C++ code, which aborts the process
        sys.stdout.flush()
        os._exit(0)


def _pictures(named: str) -> Any:
    """The thumbnails of what the user's function returns, drawn from what `render` of the same file makes of an item,
    where it has that function."""
    from fgtrac.web.thumbnails import Thumbnails

    function, render = load_functions(named, "render")
    return Thumbnails(function(), render)
