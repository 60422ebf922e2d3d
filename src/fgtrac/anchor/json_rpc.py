"""One question to a node of an EVM chain: JSON-RPC 2.0 over HTTP, or a web3 provider in this process.

Both give the same: JSON values as nodes answer them, numbers and bytes as 0x and hex. What they hold is for others to
read. web3 itself is not needed for a node that is asked by HTTP.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from fgtrac.anchor.outcomes import NoAnswerError, NodeError, NonsenseError, TimedOutError
from fgtrac.anchor.transport import check_url, fetch, shown
from fgtrac.errors import AnchorError, RefusedError
from fgtrac.verify.strict_json import measure_json

MAX_ANSWER_BYTES = 2 << 20  # a block's hashes of transactions are the longest
MAX_DEPTH, MAX_VALUES = 10, 100_000


class Rpc(Protocol):
    """Somebody who answers JSON-RPC: `name` is for people and holds nothing secret."""

    name: str

    def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """The answer's `result`. NodeError for the node's own errors; other AnchorErrors where no answer came."""


class HttpRpc:
    """A node behind a URL, which may hold a key and is shown by nobody. ValueError for what is no http(s) URL."""

    def __init__(self, url: str) -> None:
        check_url(url)
        self._url = url
        self.name = shown(url)

    def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """See Rpc. RefusedError for an HTTP status that says that the asker is in the wrong."""
        question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        began = time.monotonic()
        try:
            status, _, body = fetch(
                self._url,
                data=question,
                content_type="application/json",
                timeout_s=timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except AnchorError as error:
            late = time.monotonic() - began >= timeout_s
            raise (TimedOutError if late else NoAnswerError)(f"{method}: {error}") from None
        return self.result(method, status, body)

    def result(self, method: str, status: int, body: bytes) -> Any:
        """The `result` in an answer to the question of id 1. See `ask` for what else it may be."""
        answer = _decode(body)
        if isinstance(answer, dict) and answer.get("id") == 1 and "result" in answer and status == 200:
            return answer["result"]
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise NodeError(f"{self.name} answers {method} with an error: {self._words(answer['error'])}")
        if status != 200:
            refusal = RefusedError if status in (400, 401, 403, 404, 405) else NoAnswerError
            raise refusal(f"{self.name} answers {method} with HTTP status {status}; is the URL right, with its key?")
        raise NonsenseError(f"{self.name} answers {method} with {len(body)} bytes that are no JSON-RPC answer to it")

    def _words(self, error: Mapping[str, Any]) -> str:
        """The node's message on one line, with nothing in it that stands in the URL behind the host."""
        words = str(error.get("message", "without words"))
        for secret in _behind_the_host(self._url):
            words = words.replace(secret, "...")
        return "".join(c if c.isprintable() else " " for c in words)[:200]


def _behind_the_host(url: str) -> list[str]:
    """User, password, and the pieces of path and query, as they stand, decoded and as sent: the longest first."""
    parts = urlsplit(url)
    user, password = parts.username or "", parts.password or ""
    pieces = [user, password, *re.split("[/&=]", f"{parts.path}/{parts.query}")]
    pieces += [unquote(piece) for piece in pieces]
    pieces.append(base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode())  # basic authentication
    return sorted({piece for piece in pieces if len(piece) > 3}, key=len, reverse=True)


def _decode(body: bytes) -> Any:
    """The JSON value of an answer; None for what is none, or is made to cost much."""
    deepest, values = measure_json(body)
    if deepest > MAX_DEPTH or values > MAX_VALUES:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


class ProviderRpc:
    """A web3 provider (for a chain in this process). ValueError without the extra `evm`."""

    def __init__(self, provider: Any) -> None:
        web3 = needs_evm("web3")
        self._manager = web3.Web3(provider, middleware=[]).manager
        self._is_here = isinstance(provider, web3.EthereumTesterProvider)
        self.name = "the chain in this process" if self._is_here else f"web3's {type(provider).__name__}"

    def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """See Rpc; a provider has its own time-outs."""
        try:
            return _plain(self._manager.request_blocking(method, list(params)))
        except Exception as error:  # noqa: BLE001  providers raise of every kind: eth-tester's, py-evm's, web3's
            # What another provider raises may name its URL.
            words = " ".join(str(error).split()) if self._is_here else type(error).__name__
            raise NodeError(f"{self.name} answers {method} with an error: {words:.200}") from None


def _plain(value: Any) -> Any:
    """As nodes write it: numbers as 0x and hex."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else value


def needs_evm(module: str) -> Any:
    """A module of the extra `evm`. ValueError where that is not installed."""
    limit = sys.getrecursionlimit()
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"{module} is not installed; it comes with: pip install 'fgtrac[evm]'") from None
    finally:
        sys.setrecursionlimit(limit)  # it is set to 100,000 there, with which nested JSON overflows the stack
