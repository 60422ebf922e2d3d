"""What a node of an EVM chain is asked, and how its answers are read: strictly, and held against each other.

Methods and encodings are the Ethereum JSON-RPC specification's (execution-apis). All of it is somebody else's word: a
node that answers nonsense or contradicts itself is said to, and is no bad input of the caller.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgtrac.anchor.contract.calls import Newest, artifact, event_topics, newest_call, read_event, read_newest
from fgtrac.anchor.json_rpc import HttpRpc, ProviderRpc, Rpc
from fgtrac.anchor.outcomes import (
    ContradictionError,
    NoContractError,
    NodeError,
    NonsenseError,
    OtherCodeError,
    TimedOutError,
)
from fgtrac.errors import FormatError
from fgtrac.verify.evm_receipt import NUMBER, EvmReceipt, format_address

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class Block:
    """A block: its place, its hash, its time in unix seconds, what gas costs at the least (None before EIP-1559)."""

    number: int
    hash: bytes
    time: int
    base_fee: int | None
    transactions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transaction asks for: from whom, its number among theirs (from 0), to whom (None: it deploys), which data,
    wei and gas; and the hash of the block that has it, None while it waits."""

    sender: bytes
    nonce: int
    to: bytes | None
    data: bytes
    value: int
    gas: int
    block_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Mined:
    """What became of a transaction: whether it went well, where it stands, and the events of its that are said to be
    the contract's."""

    is_done: bool
    block_number: int
    block_hash: bytes
    gas_used: int
    created: bytes | None
    events: tuple[EvmReceipt, ...]


class Node:
    """A node, by its URL or as a web3 provider of a chain in this process.

    `timeout_s` bounds each answer; `allow` bounds all that follow together.
    """

    def __init__(self, rpc_url: str | Any, timeout_s: float = 30.0) -> None:
        if not timeout_s > 0:
            raise ValueError(f"a time-out is above 0 seconds, not {timeout_s}")
        self._rpc: Rpc = HttpRpc(rpc_url) if isinstance(rpc_url, str) else ProviderRpc(rpc_url)
        self._timeout_s = timeout_s
        self._deadline: float | None = None

    @property
    def name(self) -> str:
        """For people: scheme, host and port of the URL."""
        return self._rpc.name

    def allow(self, seconds: float) -> None:
        """Everything from here on takes at most so long. TimedOutError afterwards."""
        self._deadline = time.monotonic() + seconds

    def left_s(self, doing: str) -> float:
        """How much time is left. TimedOutError, which says what was being done, where there is none."""
        left = self._timeout_s if self._deadline is None else self._deadline - time.monotonic()
        if left <= 0:
            raise TimedOutError(f"{self.name}: time was up while {doing}")
        return min(left, self._timeout_s)

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one question, unread."""
        return self._rpc.ask(method, params, self.left_s(f"asking {method}"))

    # -- the chain ------------------------------------------------------------------------------------------------

    def chain_id(self) -> int:
        """Which chain it is on (EIP-155)."""
        found = self._number(self.ask("eth_chainId"), "chain id")
        if not 0 < found < NUMBER:
            raise self._nonsense("chain id", found)
        return found

    def height(self) -> int:
        """The number of the newest block."""
        return self._number(self.ask("eth_blockNumber"), "block number")

    def block(self, number: int | None = None) -> Block:
        """A block by its number, or the newest. NonsenseError where the node does not have it."""
        answer = self._object(
            self.ask("eth_getBlockByNumber", "latest" if number is None else hex(number), False), "block"
        )
        fee, hashes = answer.get("baseFeePerGas"), answer.get("transactions")
        if not isinstance(hashes, list):
            raise self._nonsense("list of a block's transactions", hashes)
        block = Block(
            self._number(answer.get("number"), "block number"),
            self._data(answer.get("hash"), "block hash", 32),
            self._number(answer.get("timestamp"), "block time"),
            None if fee is None else self._number(fee, "base fee"),
            tuple(self._data(h, "transaction hash", 32) for h in hashes),
        )
        if number not in (None, block.number):
            raise ContradictionError(f"{self.name} answers with block {block.number} when asked for {number}")
        return block

    def gas_price(self) -> int:
        """What the node would bid for a unit of gas, in wei."""
        return self._number(self.ask("eth_gasPrice"), "gas price")

    def balance(self, address: bytes) -> int:
        """What an account has, in wei."""
        return self._number(self.ask("eth_getBalance", format_address(address), "latest"), "balance")

    # -- transactions ---------------------------------------------------------------------------------------------

    def nonce(self, address: bytes, *, with_waiting: bool = True) -> int:
        """How many transactions the account has sent, with those that wait or only those that blocks have."""
        block = "pending" if with_waiting else "latest"
        return self._number(self.ask("eth_getTransactionCount", format_address(address), block), "nonce")

    def estimate_gas(self, sender: bytes, to: bytes | None, data: bytes) -> int:
        """How much gas the transaction takes as the chain stands. NodeError where it would fail."""
        call = {"from": format_address(sender), "data": "0x" + data.hex()}
        if to is not None:
            call["to"] = format_address(to)
        return self._number(self.ask("eth_estimateGas", call), "amount of gas")

    def send(self, raw: bytes) -> bytes:
        """Hand in a signed transaction: its hash as the node says it."""
        return self._data(self.ask("eth_sendRawTransaction", "0x" + raw.hex()), "transaction hash", 32)

    def transaction(self, transaction: bytes) -> Transaction | None:
        """A transaction by its hash, in a block or waiting; None where the node does not know it."""
        answer = self.ask("eth_getTransactionByHash", "0x" + transaction.hex())
        if answer is None:
            return None
        said = self._object(answer, "transaction")
        self._check_named(self._data(said.get("hash"), "transaction hash", 32), transaction)
        to, block_hash = said.get("to"), said.get("blockHash")
        return Transaction(
            self._data(said.get("from"), "address", 20),
            self._number(said.get("nonce"), "nonce"),
            None if to is None else self._data(to, "address", 20),
            self._data(said.get("input"), "data of a transaction"),
            self._number(said.get("value"), "amount of wei"),
            self._number(said.get("gas"), "amount of gas"),
            None if block_hash is None else self._data(block_hash, "block hash", 32),
        )

    def mined(self, transaction: bytes, chain_id: int) -> Mined | None:
        """What became of a transaction; None where it is in no block."""
        answer = self.ask("eth_getTransactionReceipt", "0x" + transaction.hex())
        if answer is None:
            return None
        said = self._object(answer, "transaction's receipt")
        self._check_named(self._data(said.get("transactionHash"), "transaction hash", 32), transaction)
        number = self._number(said.get("blockNumber"), "block number")
        block_hash = self._data(said.get("blockHash"), "block hash", 32)
        created, events = said.get("contractAddress"), self._events(said.get("logs"), chain_id)
        for event in events:
            if (event.transaction, event.block_number, event.block_hash) != (transaction, number, block_hash):
                raise ContradictionError(f"{self.name} shows an event of another transaction")
        return Mined(
            self._number(said.get("status"), "status") == 1,
            number,
            block_hash,
            self._number(said.get("gasUsed"), "amount of gas"),
            None if created is None else self._data(created, "address", 20),
            events,
        )

    def _check_named(self, said: bytes, asked: bytes) -> None:
        if said != asked:
            raise ContradictionError(
                f"{self.name} answers with transaction 0x{said.hex()} when asked for 0x{asked.hex()}"
            )

    # -- the contract ---------------------------------------------------------------------------------------------

    def check_contract(self, contract: bytes, block: int | None = None) -> None:
        """Whether the code at the address is the contract's, in the newest block or that one, byte for byte.
        NoContractError, OtherCodeError.

        Many nodes keep no state of old blocks and answer with an error: then the present code says it too. It has no
        way to change or to go; what stood at the address before it (where a chain lets contracts go) it does not tell.
        """
        address = format_address(contract)
        try:
            answer = self.ask("eth_getCode", address, "latest" if block is None else hex(block))
        except NodeError:
            if block is None:
                raise
            answer = self.ask("eth_getCode", address, "latest")
        code = self._data(answer, "code")
        if not code:
            raise NoContractError(f"{self.name} has no code at {format_address(contract)}; is it on another chain?")
        if code != artifact().runtime:
            raise OtherCodeError(
                f"the code at {format_address(contract)} ({len(code)} bytes) is not that of fgtrac's contract "
                f"({len(artifact().runtime)} bytes)"
            )

    def newest(self, contract: bytes, sender: bytes, trace_id: bytes) -> Newest:
        """The newest head of a sender's log, as the contract keeps it."""
        call = {"to": format_address(contract), "data": "0x" + newest_call(sender, trace_id).hex()}
        answer = self._data(self.ask("eth_call", call, "latest"), "answer of the contract")
        try:
            return read_newest(answer)
        except FormatError as error:
            raise NonsenseError(f"{self.name}: {error}") from None

    def events_in(
        self, block: int, contract: bytes, sender: bytes, trace_id: bytes, chain_id: int
    ) -> tuple[EvmReceipt, ...]:
        """The contract's events in a block about one sender's log, in their order."""
        topics = event_topics(sender, trace_id)
        wanted = {
            "fromBlock": hex(block),
            "toBlock": hex(block),
            "address": format_address(contract),
            "topics": ["0x" + topic.hex() for topic in topics],
        }
        events = self._events(self.ask("eth_getLogs", wanted), chain_id)
        for e in events:
            if (e.block_number, e.contract, e.sender, e.trace_id) != (block, contract, sender, trace_id):
                raise ContradictionError(f"{self.name} answers with events that were not asked for")
        return tuple(sorted(events, key=lambda event: event.log_index))

    def _events(self, logs: Any, chain_id: int) -> tuple[EvmReceipt, ...]:
        """Those of the logs that have the form of the contract's events."""
        if not isinstance(logs, list):
            raise self._nonsense("list of events", logs)
        found = [self._event(self._object(log, "event"), chain_id) for log in logs]
        return tuple(event for event in found if event is not None)

    def _event(self, log: Mapping[str, Any], chain_id: int) -> EvmReceipt | None:
        topics = log.get("topics")
        if not isinstance(topics, list):
            raise self._nonsense("list of topics", topics)
        try:
            sender, trace_id, size, root, block_time, previous_block = read_event(
                [self._data(topic, "topic", 32) for topic in topics], self._data(log.get("data"), "event's data")
            )
        except FormatError:
            return None  # another contract's
        return EvmReceipt(
            chain_id,
            self._data(log.get("address"), "address", 20),
            sender,
            trace_id,
            size,
            root,
            self._data(log.get("transactionHash"), "transaction hash", 32),
            self._number(log.get("blockNumber"), "block number"),
            self._data(log.get("blockHash"), "block hash", 32),
            block_time,
            self._number(log.get("logIndex"), "place of an event"),
            previous_block,
        )

    # -- values ---------------------------------------------------------------------------------------------------

    def _number(self, value: Any, what: str) -> int:
        if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
            raise self._nonsense(what, value)
        return int(value, 16)

    def _data(self, value: Any, what: str, size: int | None = None) -> bytes:
        if not isinstance(value, str) or not _DATA.fullmatch(value) or size not in (None, len(value) // 2 - 1):
            raise self._nonsense(what, value)
        return bytes.fromhex(value[2:])

    def _object(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._nonsense(what, value)
        return value

    def _nonsense(self, what: str, value: Any) -> NonsenseError:
        return NonsenseError(f"{self.name} answers with a {type(value).__name__} that is no {what}")
