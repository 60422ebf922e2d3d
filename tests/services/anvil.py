"""anvil, a real node of an EVM chain (foundry), on loopback; and a proxy in front of it that may lie or hang."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fgtrac.store import durable
from served import at_work

ANVIL = (
    Path(__file__).parents[2] / ".venv" / "npm" / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
)
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first account, known to everybody
POOR_KEY = "0x" + "07" * 32  # an account that has nothing


@dataclass(frozen=True)
class Anvil:
    """A running node: its URL, and files with the key of an account that has ether and of one that has none."""

    url: str
    account: Path
    poor_account: Path

    def ask(self, method: str, *params: Any) -> Any:
        """One JSON-RPC question. AssertionError where the answer is an error."""
        return ask(self.url, method, *params)


def ask(url: str, method: str, *params: Any) -> Any:
    """The result of one JSON-RPC question. AssertionError where the answer is an error."""
    question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, question, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert "result" in answer, answer
    return answer["result"]


@contextmanager
def running_anvil(folder: Path, *options: str, binary: Path = ANVIL, port: int = 0) -> Iterator[Anvil]:
    """anvil on that port, or one that the system chose, with its files in `folder`; it has stopped when the block is
    left."""
    folder.mkdir(parents=True, exist_ok=True)
    account, poor = folder / "account.hex", folder / "poor.hex"
    durable.write_file(account, KEY.encode(), mode=0o600)
    durable.write_file(poor, POOR_KEY.encode(), mode=0o600)
    log = folder / "anvil.log"
    with log.open("wb") as out:
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--cache-path", str(folder), *options]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield Anvil(_url(process, log), account, poor)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the node says that it listens."""
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"Listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return f"http://{found[1]}"
        time.sleep(0.02)
    raise AssertionError(f"anvil did not start: {log.read_text()[-2000:]}")


Answer = Callable[[str, Any, Any], Any]
"""What a proxy makes of an answer: (method, params, the node's whole answer) -> another answer; bytes are sent as they
are, a number is an HTTP status."""


@dataclass
class Proxy:
    """A node that stands between, and changes answers. It keeps the names of the methods that it was asked."""

    url: str
    answer: Answer = lambda method, params, answer: answer
    asked: list[str] = field(default_factory=list)


@contextmanager
def lying_proxy(node_url: str, answer: Answer | None = None) -> Iterator[Proxy]:
    """An HTTP proxy on loopback before a node. `answer` may be exchanged while it runs; it may sleep."""
    proxy = Proxy("")
    if answer is not None:
        proxy.answer = answer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            question = json.loads(body)
            proxy.asked.append(question["method"])
            request = urllib.request.Request(node_url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as response:
                said = json.load(response)
            said = proxy.answer(question["method"], question["params"], said)
            data = said if isinstance(said, bytes) else b"" if isinstance(said, int) else json.dumps(said).encode()
            with suppress(ConnectionError):  # who asked waits no longer
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    with at_work(server):
        yield proxy
