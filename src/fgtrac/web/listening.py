"""A socket that listens and a server that answers on it until it is told to stop: for the log, and for the explorer."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from fgtrac.errors import not_installed

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from uvicorn import Server

GRACE_S = 5  # for answers under way when the server is told to stop


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket (port 0: a free one) and its URL. OSError, with the remedy, where there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        words = str(error.strerror).partition(" (while")[0]  # what follows names the address once more
        raise OSError(
            f"cannot listen on {host} port {port}: {words}; name an address of this machine with --host and a "
            "free port with --port, or 0 for any"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    return listener, f"http://{shown}:{listener.getsockname()[1]}/"


def server_of(app: Starlette, what: str = "serving a log", extra: str = "web") -> Server:
    """A server that `serve` runs. ValueError where uvicorn is not installed, which `what` needs."""
    try:
        from uvicorn import Config, Server
    except ModuleNotFoundError as error:
        raise not_installed(f"{what} needs", error.name, extra) from error
    return Server(
        Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def serve(server: Server, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM, then finish what is under way (main thread only)."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, server.handle_exit)  # uvicorn sends the signal on once it has ended: to nobody else
    server.run(sockets=[listener])
