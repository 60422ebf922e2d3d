"""A node's answers are read strictly: each field of another kind or length is nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fgtrac.anchor.contract.calls import artifact, event_topics
from fgtrac.anchor.node import Block, Node
from fgtrac.anchor.outcomes import ContradictionError, NodeError, NonsenseError, OtherCodeError, TimedOutError

HASH, OTHER = "0x" + "11" * 32, "0x" + "22" * 32
BLOCK = {"number": "0x5", "hash": HASH, "timestamp": "0x64", "baseFeePerGas": "0x7", "transactions": [OTHER]}
LOG = {
    "address": "0x" + "33" * 20,
    "topics": ["0x" + topic.hex() for topic in event_topics(bytes(range(20)), bytes(range(16)))],
    "data": "0x" + (7).to_bytes(32).hex() + "44" * 32 + (100).to_bytes(32).hex() + (0).to_bytes(32).hex(),
    "blockNumber": "0x5",
    "blockHash": HASH,
    "transactionHash": OTHER,
    "logIndex": "0x1",
}
MINED = {
    "transactionHash": OTHER,
    "blockNumber": "0x5",
    "blockHash": HASH,
    "status": "0x1",
    "gasUsed": "0x5208",
    "contractAddress": None,
    "logs": [LOG],
}


class Fixed:
    """Answers everything with one value."""

    name = "a fixed node"

    def __init__(self, value: Any) -> None:
        self.value = value

    def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        return self.value


def node(value: Any) -> Node:
    made = Node("http://node.example/")
    made._rpc = Fixed(value)
    return made


def test_a_block_is_read() -> None:
    read = Block(5, b"\x11" * 32, 100, 7, (b"\x22" * 32,))
    assert node(BLOCK).block(5) == read
    with pytest.raises(ContradictionError, match="block 5 when asked for 6"):
        node(BLOCK).block(6)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 5},
        {"number": "5"},
        {"hash": HASH[:-2]},
        {"hash": HASH + "00"},
        {"timestamp": None},
        {"baseFeePerGas": "0xg"},
        {"transactions": None},
        {"transactions": {}},
        {"transactions": [{"hash": OTHER}]},
        {"transactions": [OTHER[:-2]]},
    ],
)
def test_no_other_block_is(change: dict[str, Any]) -> None:
    with pytest.raises(NonsenseError):
        node(BLOCK | change).block(5)


def test_a_receipt_of_a_transaction_is_read() -> None:
    mined = node(MINED).mined(b"\x22" * 32, 1)
    assert mined is not None
    (event,) = mined.events
    assert (event.size, event.root, event.log_index, event.block_time) == (7, b"\x44" * 32, 1, 100)
    assert (mined.is_done, mined.gas_used, mined.created) == (True, 21_000, None)
    assert node(None).mined(b"\x22" * 32, 1) is None


@pytest.mark.parametrize(
    "change",
    [
        {"status": None},
        {"blockHash": HASH[:-2]},
        {"contractAddress": HASH},
        {"logs": None},
        {"logs": {}},
        {"logs": ["0x"]},
        {"logs": [LOG | {"topics": None}]},
        {"logs": [LOG | {"topics": {}}]},
        {"logs": [LOG | {"topics": [HASH + "00"]}]},
        {"logs": [LOG | {"data": "0x0"}]},
        {"logs": [LOG | {"address": HASH}]},
        {"logs": [LOG | {"logIndex": None}]},
    ],
)
def test_no_other_receipt_is(change: dict[str, Any]) -> None:
    with pytest.raises(NonsenseError):
        node(MINED | change).mined(b"\x22" * 32, 1)


def test_events_of_others_are_passed_over() -> None:
    mined = node(MINED | {"logs": [LOG | {"topics": []}, LOG, LOG | {"data": "0x"}]}).mined(b"\x22" * 32, 1)
    assert mined is not None
    assert len(mined.events) == 1


def test_a_node_without_old_state_is_asked_for_the_present_code() -> None:
    class Forgetful(Fixed):
        def ask(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
            if params[-1] != "latest":
                raise NodeError("missing trie node")
            return self.value

    made = node(None)
    made._rpc = Forgetful("0x" + artifact().runtime.hex())
    made.check_contract(bytes(20), 5)
    made._rpc = Forgetful("0x00")
    with pytest.raises(OtherCodeError):
        made.check_contract(bytes(20), 5)


def test_time_that_is_up_is_told_before_anything_is_asked() -> None:
    asked = node(BLOCK)
    asked.allow(-1.0)
    with pytest.raises(TimedOutError, match="while asking eth_chainId"):
        asked.chain_id()
