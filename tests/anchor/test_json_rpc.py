"""A node behind HTTP: every way not to answer is told apart, and nothing shows what stands in its URL."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fgtrac.anchor.json_rpc import MAX_ANSWER_BYTES, HttpRpc, ProviderRpc
from fgtrac.anchor.outcomes import NoAnswerError, NodeError, NonsenseError, TimedOutError
from fgtrac.errors import AnchorError, RefusedError
from served import at_work

PAIR = base64.b64encode(b"us3r:p4ssw0rd").decode()
SECRETS = ("us3r", "p4ssw0rd", "api-key-1234", "t0k3n", "s p a c e d", "s%20p", PAIR)


class Server:
    """Answers every question with a status and bytes of the test's choice."""

    def __init__(self) -> None:
        self.answer: Callable[[Any], tuple[int, bytes]] = lambda question: (200, b"")
        self.questions: list[Any] = []
        self.url = ""

    def says(self, value: Any, status: int = 200) -> None:
        self.answer = lambda question: (status, value if isinstance(value, bytes) else json.dumps(value).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.questions.append(question)
            status, body = served.answer(question)
            with suppress(ConnectionError):  # who asked does not wait, or has read enough
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    port = listening.server_port
    served.url = f"http://us3r:p4ssw0rd@127.0.0.1:{port}/v3/api-key-1234?key=t0k3n&q=s%20p%20a%20c%20e%20d"
    with at_work(listening):
        yield served


def told(url: str, timeout_s: float = 10.0) -> AnchorError:
    """How a question fails: in one line, and with no secret in all that a traceback would show."""
    with pytest.raises(AnchorError) as failed:
        HttpRpc(url).ask("eth_chainId", [], timeout_s)
    shown = "".join(traceback.format_exception(failed.value))
    assert "\n" not in str(failed.value)
    assert not [secret for secret in SECRETS if secret in shown]
    assert "http://127.0.0.1:" in str(failed.value)
    return failed.value


def test_a_result_is_handed_on(server: Server) -> None:
    server.says({"jsonrpc": "2.0", "id": 1, "result": {"a": ["0x1", None]}})
    assert HttpRpc(server.url).ask("eth_x", ["0x2", True], 10.0) == {"a": ["0x1", None]}
    assert server.questions == [{"jsonrpc": "2.0", "id": 1, "method": "eth_x", "params": ["0x2", True]}]
    assert HttpRpc(server.url).name == server.url.split("/v3")[0].replace("us3r:p4ssw0rd@", "")


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_of_the_nodes_is_told_in_its_words_on_one_line(server: Server, status: int) -> None:
    server.says(
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 3, "message": "execution\nreverted\x1b[31m" + "!" * 999}}, status
    )
    failed = told(server.url)
    assert type(failed) is NodeError
    assert "execution reverted" in str(failed)
    assert len(str(failed)) < 300
    assert "\x1b" not in str(failed)


def test_a_node_that_repeats_the_url_is_not_repeated(server: Server) -> None:
    message = f"no project api-key-1234 for us3r:p4ssw0rd {PAIR} with key=t0k3n (s%20p%20a%20c%20e%20d, s p a c e d)"
    server.says({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": message}})
    assert "no project ... for" in str(told(server.url))


@pytest.mark.parametrize(("status", "kind"), [(401, RefusedError), (403, RefusedError), (404, RefusedError)])
def test_a_status_that_blames_the_asker_is_a_refusal(server: Server, status: int, kind: type[AnchorError]) -> None:
    server.says(b"no", status)
    assert type(told(server.url)) is kind


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_any_other_status_may_pass(server: Server, status: int) -> None:
    server.says(b"later", status)
    failed = told(server.url)
    assert type(failed) is NoAnswerError
    assert str(status) in str(failed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b'{"id": 1, "result": ' + b'{"a":' * 100_000,
        b'{"id": 1, "result": [' + b"0," * 500_000 + b"0]}",
        b"9" * 10_000,
        {"jsonrpc": "2.0", "id": 2, "result": "0x1"},
        {"jsonrpc": "2.0", "id": 1},
        {"id": 1, "error": "words"},
        [{"id": 1, "result": "0x1"}],
        "0x1",
    ],
)
def test_what_is_no_json_rpc_is_nonsense(server: Server, body: Any) -> None:
    server.says(body)
    assert type(told(server.url)) is NonsenseError


def test_an_answer_that_does_not_end_is_cut(server: Server) -> None:
    server.says(b" " * (MAX_ANSWER_BYTES + 1))
    assert type(told(server.url)) is NoAnswerError


def test_a_node_that_hangs_times_out(server: Server) -> None:
    release = threading.Event()
    server.answer = lambda question: (200, str(release.wait(5)).encode())
    try:
        assert type(told(server.url, 0.2)) is TimedOutError
    finally:
        release.set()


def test_nobody_at_the_port_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        failed = told(f"http://us3r:p4ssw0rd@127.0.0.1:{taken.getsockname()[1]}/api-key-1234")
    assert type(failed) is NoAnswerError


@pytest.mark.parametrize("url", ["", "node:8545", "ftp://node/", "http://", "file:///etc/passwd"])
def test_what_is_no_url_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        HttpRpc(url)


def test_a_provider_that_fails_elsewhere_does_not_show_where() -> None:
    from web3 import HTTPProvider

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        rpc = ProviderRpc(HTTPProvider(f"http://127.0.0.1:{taken.getsockname()[1]}/api-key-1234"))
        with pytest.raises(NodeError) as failed:
            rpc.ask("eth_chainId", [], 1.0)
    assert "api-key" not in "".join(traceback.format_exception(failed.value))
    assert rpc.name == "web3's HTTPProvider"


def test_without_the_extra_it_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "web3", None)
    with pytest.raises(ValueError, match=r"pip install 'fgtrac\[evm\]'"):
        ProviderRpc(object())
