"""An HTTP proxy before one server that, when told to, refuses, waits, cuts a put in its middle, or loses an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

FAULTS = ("refused", "slow", "cut", "lost answer")  # as `Proxy.fault`
WAIT_S = 30.0


@dataclass(slots=True)
class Proxy:
    """Passes on what comes in, byte for byte, until the put number `at` (counted from 1): that one and those behind
    it, `times` in all, have the fault. `requests` are method and path of all that came."""

    target: int
    port: int = 0
    fault: str = ""
    only: str = ""
    at: int = 0
    times: int = 1 << 30
    puts: int = 0
    requests: list[str] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def begin(self, fault: str, only: str = "", at: int = 1, times: int = 1 << 30) -> None:
        """From now on puts of paths with `only` in them are counted, and number `at` and those behind it have the
        fault."""
        with self._lock:
            self.fault, self.only, self.at, self.times, self.puts = fault, only, at, times, 0

    def heal(self) -> None:
        """No fault any more."""
        self.begin("")

    def _fault_of(self, method: bytes, path: bytes) -> str:
        if method != b"PUT" or self.only not in path.decode():
            return ""
        with self._lock:
            self.puts += 1
            return self.fault if self.fault and self.at <= self.puts < self.at + self.times else ""

    def serve(self, listening: socket.socket) -> None:
        """Take connections until the block ends."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = listening.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        """One connection: one request after the other."""
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            client.settimeout(WAIT_S)
            for one in (client, server):  # else what follows a head waits for its acknowledgement, 40 ms
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(server)
            while head := _read_head(client):
                method, path = head.split(b" ", 2)[:2]
                self.requests.append(f"{method.decode()} {path.decode()}")
                fault = self._fault_of(method, path)
                if fault == "refused":
                    return
                if fault == "slow":
                    self._stop.wait(WAIT_S)
                    return
                length = _length(head)
                if b"expect: 100-continue" in head.lower():
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = _without(head, b"expect")
                server.sendall(head)
                if fault == "cut":
                    server.sendall(_read(client, length // 2))
                    return
                _copy(client, server, length)
                answer = _read_head(server)
                if fault == "lost answer":
                    return
                client.sendall(answer)
                has_body = method != b"HEAD" and b" 204 " not in answer[:16] and b" 304 " not in answer[:16]
                if b"transfer-encoding: chunked" in answer.lower():
                    _copy_chunks(server, client)
                elif has_body:
                    _copy(server, client, _length(answer))


def _read_head(source: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = source.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def _without(head: bytes, name: bytes) -> bytes:
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(name + b":"))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _read(source: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := source.recv(min(65536, length - len(data)))):
        data += piece
    return data


def _copy(source: socket.socket, target: socket.socket, length: int) -> None:
    while length and (piece := source.recv(min(65536, length))):
        target.sendall(piece)
        length -= len(piece)


def _copy_chunks(source: socket.socket, target: socket.socket) -> None:
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += source.recv(1)
        target.sendall(line)
        size = int(line.split(b";")[0], 16)
        target.sendall(_read(source, size + 2))
        if not size:
            return


@contextlib.contextmanager
def lying_proxy(target: int) -> Iterator[Proxy]:
    """A proxy before the port `target`, at `Proxy.port`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        proxy = Proxy(target, listening.getsockname()[1])
        thread = threading.Thread(target=proxy.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy._stop.set()
            thread.join()
