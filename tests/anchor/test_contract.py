"""The contract is what its source compiles to, and keeps its word: sizes grow, and no head is lost on the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_utils import keccak

from anchor.compile_contract import ARTIFACT, SOURCE, compile_contract
from chains import TestChain, root_of
from fgtrac.anchor.contract.calls import (
    anchor_call,
    artifact,
    event_topics,
    newest_call,
    read_event,
    read_newest,
)
from fgtrac.anchor.evm import Node, anchored_heads
from fgtrac.anchor.outcomes import NodeError
from fgtrac.errors import FormatError
from fgtrac.verify.evm_receipt import parse_address


def test_the_source_compiles_to_the_committed_artifact_byte_for_byte() -> None:
    assert compile_contract() == ARTIFACT.read_bytes()


def test_the_artifact_names_the_compiler_that_the_source_asks_for() -> None:
    made = json.loads(ARTIFACT.read_bytes())
    assert made["compiler"] == "vyper 0.4.3"
    assert SOURCE.read_text().startswith("# pragma version ==0.4.3\n")
    assert made["source"] == SOURCE.name


def test_the_names_hashes_are_those_of_the_contract_abi() -> None:
    """Solidity's contract ABI: the first four bytes of the name's Keccak-256; an event's first topic is all of it."""
    made = artifact()
    assert made.anchor == keccak(text="anchor(bytes16,uint64,bytes32)")[:4]
    assert made.newest == keccak(text="newest(address,bytes16)")[:4]
    assert made.anchored == keccak(text="Anchored(address,bytes16,uint64,bytes32,uint64,uint64)")


def test_what_is_said_to_the_contract_is_what_web3_would_say(chain: TestChain) -> None:
    from web3 import Web3

    contract = Web3().eth.contract(abi=json.loads(ARTIFACT.read_bytes())["abi"])
    sender, trace_id, root = bytes(range(20)), bytes(range(16)), bytes(range(32))
    assert contract.encode_abi("anchor", [trace_id, 77, root]) == "0x" + anchor_call(trace_id, 77, root).hex()
    checksummed = Web3.to_checksum_address(sender)
    assert contract.encode_abi("newest", [checksummed, trace_id]) == "0x" + newest_call(sender, trace_id).hex()


class Talk:
    """Talks with the contract as one of eth-tester's accounts, without fgtrac's client."""

    def __init__(self, chain: TestChain, account: int = 0) -> None:
        self.tester, self.contract = chain.tester, chain.contract
        self.sender = self.tester.get_accounts()[account]
        self.node = Node(chain.provider)

    def anchor(self, trace_id: bytes, size: int, root: bytes, *, later: bool = False) -> Any:
        """Send a head; with `later` it waits in the block that is made next."""
        data, nonce = "0x" + anchor_call(trace_id, size, root).hex(), self.node.nonce(parse_address(self.sender))
        call = {"from": self.sender, "to": self.contract, "gas": 200_000, "data": data, "nonce": nonce}
        # Undoing each transaction again, as send_transaction does without mining, would lose all but the last one.
        send = self.tester._add_transaction_to_pending_block if later else self.tester.send_transaction
        return send(call)

    def gas_of(self, sent: Any) -> int:
        return int(self.tester.get_transaction_receipt(sent)["gas_used"])

    def newest(self, trace_id: bytes) -> Any:
        return self.node.newest(parse_address(self.contract), parse_address(self.sender), trace_id)

    def heads(self, trace_id: bytes) -> list[Any]:
        return anchored_heads(self.node, parse_address(self.contract), parse_address(self.sender), trace_id)

    def is_refused(self, trace_id: bytes, size: int, root: bytes) -> bool:
        with pytest.raises(NodeError, match="the size does not grow"):
            self.node.estimate_gas(
                parse_address(self.sender), parse_address(self.contract), anchor_call(trace_id, size, root)
            )
        return True


def test_a_size_that_does_not_grow_is_refused(chain: TestChain, trace_id: bytes) -> None:
    talk = Talk(chain)
    assert talk.is_refused(trace_id, 0, root_of("none"))
    talk.anchor(trace_id, 10, root_of("ten"))
    assert talk.is_refused(trace_id, 10, root_of("ten"))
    assert talk.is_refused(trace_id, 10, root_of("other"))
    assert talk.is_refused(trace_id, 9, root_of("nine"))
    newest = talk.newest(trace_id)
    assert (newest.size, newest.root) == (10, root_of("ten"))
    assert newest.block_number == talk.node.height()
    assert newest.block_time == talk.node.block().time


def test_nobody_elses_log_is_touched(chain: TestChain, trace_id: bytes) -> None:
    mine, yours, other = Talk(chain), Talk(chain, 1), b"z" * 16
    mine.anchor(trace_id, 10, root_of("mine"))
    assert yours.newest(trace_id).size == mine.newest(other).size == 0
    yours.anchor(trace_id, 5, root_of("yours"))
    mine.anchor(other, 3, root_of("another log"))
    assert [h.size for h in mine.heads(trace_id)] == [10]
    assert [h.size for h in yours.heads(trace_id)] == [5]
    assert [h.size for h in mine.heads(other)] == [3]
    assert yours.heads(other) == []


def test_the_largest_numbers_have_room(chain: TestChain, trace_id: bytes) -> None:
    talk = Talk(chain)
    talk.anchor(trace_id, 2**64 - 1, b"\xff" * 32)
    newest = talk.newest(trace_id)
    assert (newest.size, newest.root) == (2**64 - 1, b"\xff" * 32)
    assert newest.block_number == talk.node.height()


def test_ether_and_unknown_calls_are_refused(chain: TestChain) -> None:
    node, contract = Node(chain.provider), chain.contract
    sender = chain.tester.get_accounts()[0]
    for call in ({"value": "0x1"}, {"data": "0x12345678"}, {"data": "0x" + artifact().anchor.hex() + "00"}):
        with pytest.raises(NodeError, match="revert"):
            node.ask("eth_estimateGas", {"from": sender, "to": contract, **call})


def test_every_head_is_found_on_the_way_back_also_several_of_one_block(chain: TestChain, trace_id: bytes) -> None:
    talk = Talk(chain)
    talk.anchor(trace_id, 1, root_of("1"))
    for sizes in ((2, 5), (7, 8, 20)):
        for size in sizes:
            talk.anchor(trace_id, size, root_of(str(size)), later=True)
        chain.tester.mine_block()
        Talk(chain, 1).anchor(trace_id, max(sizes), root_of("somebody else's"))
    heads = talk.heads(trace_id)
    assert [h.size for h in heads] == [20, 8, 7, 5, 2, 1]
    assert [h.root for h in heads] == [root_of(str(h.size)) for h in heads]
    assert len({h.block_number for h in heads}) == 3
    assert len({h.transaction for h in heads}) == 6
    assert all(h.sender == parse_address(talk.sender) and h.trace_id == trace_id for h in heads)


def test_an_anchor_costs_what_is_said_of_it(chain: TestChain, trace_id: bytes) -> None:
    """docs/spec/receipts.md has the figures."""
    talk = Talk(chain)
    assert talk.node.estimate_gas(parse_address(talk.sender), None, artifact().creation) < 220_000
    assert talk.gas_of(talk.anchor(trace_id, 2**40, b"\xff" * 32)) < 70_000
    assert talk.gas_of(talk.anchor(trace_id, 2**41, b"\xfe" * 32)) < 36_000


WORD = bytes(31) + b"\1"


@pytest.mark.parametrize(
    "data",
    [b"", WORD * 3, WORD * 5, b"\1" + bytes(127), bytes(64) + b"\1" + bytes(63), bytes(127 - 31) + b"\1" + bytes(31)],
)
def test_no_answer_of_the_contract_is_another(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_newest(data)


def test_no_event_of_the_contract_is_another() -> None:
    topics, data = event_topics(bytes(range(20)), bytes(range(16))), bytes(31) + b"\7" + b"r" * 32 + WORD * 2
    assert read_event(topics, data) == (bytes(range(20)), bytes(range(16)), 7, b"r" * 32, 1, 1)
    others = [
        (topics[:2], data),
        ([*topics, WORD], data),
        ([WORD, *topics[1:]], data),
        ([topics[0], b"\1" + topics[1][1:], topics[2]], data),
        ([*topics[:2], topics[2][:-1] + b"\1"], data),
        (topics, data[:-1]),
        (topics, data + bytes(32)),
        (topics, b"\1" + data[1:]),
    ]
    for other in others:
        with pytest.raises(FormatError):
            read_event(*other)
