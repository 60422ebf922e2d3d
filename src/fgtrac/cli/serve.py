"""`fgtrac serve`: a trace's log over HTTP, for tools that read C2SP tlog-tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.cli.console import AsJson, print_json
from fgtrac.store.trace_dir import TraceDir


def serve(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace; it may be recorded meanwhile")],
    host: Annotated[str, typer.Option(help="the address to listen on; by default this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="the port; 0 takes a free one")] = 0,
    cors: Annotated[bool, typer.Option("--cors", help="let pages of any origin read it")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a log read-only: its tree head, hashes and entries, as C2SP tlog-tiles says, and nothing else of the trace.

    Ends with Ctrl-C. Any static file host does the same over `checkpoint` and `tile/`.
    """
    from fgtrac.web import listening, tiles_server  # here: no other verb needs a network library

    directory = TraceDir.open(trace)
    vkey = tiles_server.log_vkey(directory)
    server = listening.server_of(tiles_server.tiles_app(directory, cors=cors))
    listener, url = listening.listen(host, port)
    if as_json:
        print_json({"url": url, "vkey": vkey})
    else:
        typer.echo(f"serving {directory.path.name} at {url}\nvkey    {vkey} (as the trace says)")
    listening.serve(server, listener)
