"""Heads into the contract on a chain in process: receipts, heads that cannot follow, what a receipt still proves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chains import OTHER_CODE, TestChain, anchored, evm_head, no_proof, root_of
from fgtrac.anchor.account import load_account
from fgtrac.anchor.contract.calls import anchor_call
from fgtrac.anchor.evm import Confirmed, EvmContract, Node, anchored_heads, confirm
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.node import Mined
from fgtrac.anchor.outcomes import ContradictionError
from fgtrac.anchor.service import Service
from fgtrac.errors import AnchorError, FgtracError, ProofError, RefusedError
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import EvmReceipt, parse_address, parse_evm_receipt
from fgtrac.verify.receipts import evm_name
from forged_contracts import forwarding_code


def node(chain: TestChain) -> Node:
    return Node(chain.liar)


# -- anchoring --------------------------------------------------------------------------------------------------------


def test_the_first_head_deploys_the_contract_and_gives_a_receipt_that_the_chain_bears_out(
    chain: TestChain, trace_id: bytes
) -> None:
    service = EvmContract(chain.liar, chain.account)
    protocol: Service = service
    assert service.contract is None
    protocol.prepare()
    assert chain.liar.asked == []  # the network is not asked before there is a head
    name, data = protocol.anchor(evm_head(trace_id, 12), no_proof)
    receipt = parse_evm_receipt(data)
    assert service.contract is not None
    assert receipt.contract == parse_address(service.contract) != parse_address(chain.contract)
    assert receipt.sender == load_account(chain.account).address
    assert (receipt.trace_id, receipt.size, receipt.root) == (trace_id, 12, root_of("root 12"))
    assert receipt.previous_block == 0
    assert name == evm_name(receipt.chain_id, receipt.contract, receipt.sender)
    assert confirm(node(chain), receipt) == Confirmed(node(chain).block().time, 1)
    assert service.contract in service.name


def test_a_transaction_that_two_threads_wait_for_is_done_for_both(
    chain: TestChain, trace_id: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, head = chain.service(), evm_head(trace_id, 1)
    receipt = anchored(service, head)
    sender, data = service._account(), anchor_call(trace_id, head.head.size, head.head.root)
    wait, both = sender._wait, threading.Barrier(2)

    def together(node: Node, chain_id: int, transaction: bytes, nonce: int) -> Mined:
        both.wait(60)
        return wait(node, chain_id, transaction, nonce)

    monkeypatch.setattr(sender, "_wait", together)
    sender._sent[receipt.chain_id, receipt.contract, data] = receipt.transaction  # as it was before its block
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(sender.transact, node(chain), receipt.chain_id, receipt.contract, data) for _ in range(2)]
    assert {mined.result().block_hash for mined in waits} == {receipt.block_hash}


def test_later_heads_go_into_the_same_contract(chain: TestChain, trace_id: bytes) -> None:
    service = chain.service()
    receipts = [anchored(service, evm_head(trace_id, size)) for size in (3, 4, 50)]
    assert {r.contract for r in receipts} == {parse_address(chain.contract)}
    assert [r.previous_block for r in receipts] == [0, *(r.block_number for r in receipts[:2])]
    found = anchored_heads(node(chain), receipts[0].contract, receipts[0].sender, trace_id)
    assert found == receipts[::-1]


def test_a_head_that_stands_there_gives_its_receipt_again_and_no_transaction(chain: TestChain, trace_id: bytes) -> None:
    receipts = [anchored(chain.service(), evm_head(trace_id, size)) for size in (3, 7)]
    height = node(chain).height()
    again = [anchored(chain.service(), evm_head(trace_id, size)) for size in (3, 7)]
    assert again == receipts
    assert node(chain).height() == height


@pytest.mark.parametrize(
    ("size", "root", "words"),
    [(20, "fork", "a fork of the log"), (10, "fork", "a fork of the log"), (15, "", "an older head"), (1, "", "older")],
)
def test_a_head_that_does_not_grow_is_refused_with_both_heads(
    chain: TestChain, trace_id: bytes, size: int, root: str, words: str
) -> None:
    service = chain.service()
    anchored(service, evm_head(trace_id, 10))
    anchored(service, evm_head(trace_id, 20))
    height = node(chain).height()
    wanted = evm_head(trace_id, size, root)
    with pytest.raises(RefusedError, match=words) as refused:
        service.anchor(wanted, no_proof)
    there = 10 if (size, root) == (10, "fork") else 20
    for value in (f"size {size}", wanted.head.root.hex(), f"size {there}", root_of(f"root {there}").hex()):
        assert value in str(refused.value)
    assert node(chain).height() == height


def test_what_is_no_head_of_a_trace_is_the_callers_mistake(chain: TestChain, trace_id: bytes) -> None:
    head = evm_head(trace_id, 5)
    for origin in ("other.example/log", "ab" * 16, f"fgtrac/{'AB' * 16}", "fgtrac/ab", f"fgtrac/{'ab' * 16}0"):
        with pytest.raises(ValueError, match="origin"):
            chain.service().anchor(replace(head, head=replace(head.head, origin=origin)), no_proof)
    with pytest.raises(ValueError, match="empty"):
        chain.service().anchor(evm_head(trace_id, 0), no_proof)


def test_settings_make_the_service_again_and_name_no_key(tmp_path: Path) -> None:
    url = "https://user:pass@node.example:8545/v3/api-key?token=t"
    service = EvmContract(
        url, "keys/account.hex", contract="0x" + "AB" * 20, confirmations=3, timeout_s=5.0, chain_id=1,
        max_fee_gwei=7.5, deployment="0x" + "12" * 32,
    )  # fmt: skip
    settings = dict(service.settings())
    assert settings.pop("kind") == "evm"
    assert EvmContract(**settings).settings() == service.settings()
    assert settings["account"] == str(Path("keys/account.hex").absolute())
    for shown in (service.name, repr(service), str(service)):
        assert not any(secret in shown for secret in ("user", "pass", "api-key", "token"))
    assert "https://node.example:8545" in service.name


def test_a_chain_in_this_process_has_no_settings(chain: TestChain) -> None:
    with pytest.raises(TypeError, match="this process"):
        chain.service().settings()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rpc_url": "ftp://x"}, "http"),
        ({"contract": "0x12"}, "no address"),
        ({"confirmations": 0}, "at least 1"),
        ({"max_fee_gwei": 0}, "above 0"),
        ({"max_fee_gwei": float("nan")}, "above 0"),
        ({"deployment": "0x12"}, "32 bytes, not 1"),
        ({"deployment": "x"}, "hexadecimal"),
        ({"timeout_s": 0}, "above 0"),
        ({"timeout_s": float("nan")}, "above 0"),
    ],
)
def test_mistakes_of_the_caller_show_when_the_service_is_made(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EvmContract(**{"rpc_url": "http://127.0.0.1:1", "account": "a", **arguments})


def test_a_local_chain_keeps_its_key_from_others(tmp_path: Path) -> None:
    chain = LocalChain(tmp_path)
    assert chain.account.stat().st_mode & 0o777 == 0o600
    assert Node(chain.provider).balance(load_account(chain.account).address) == 10**24
    assert Node(chain.provider).name == "the chain in this process"


# -- confirming -------------------------------------------------------------------------------------------------------


@pytest.fixture
def receipt(chain: TestChain, trace_id: bytes) -> EvmReceipt:
    anchored(chain.service(), evm_head(trace_id, 2))
    return anchored(chain.service(), evm_head(trace_id, 9))


ALTERED: list[tuple[str, type[FgtracError | CannotTell]]] = [
    ("chain_id", CannotTell),
    ("contract", CannotTell),
    ("transaction", CannotTell),
    ("block_hash", CannotTell),
    ("sender", ProofError),
    ("trace_id", ProofError),
    ("size", ProofError),
    ("root", ProofError),
    ("block_number", ProofError),
    ("block_time", ProofError),
    ("log_index", ProofError),
    ("previous_block", ProofError),
]


@pytest.mark.parametrize(("field", "outcome"), ALTERED)
def test_no_altered_receipt_is_confirmed(
    chain: TestChain, receipt: EvmReceipt, field: str, outcome: type[Exception]
) -> None:
    value = getattr(receipt, field)
    altered = replace(receipt, **{field: value + 1 if isinstance(value, int) else value[:-1] + bytes([value[-1] ^ 1])})
    with pytest.raises(outcome) as told:
        confirm(node(chain), altered)
    assert "\n" not in str(told.value)
    if outcome is ProofError and field != "log_index":
        for said in (value, getattr(altered, field)):
            assert (str(said) if isinstance(said, int) else said.hex()) in str(told.value)
    assert confirm(node(chain), receipt).depth == 1


def test_the_table_of_altered_receipts_names_every_field() -> None:
    assert sorted(name for name, _ in ALTERED) == sorted(EvmReceipt.__slots__)


def test_depth_is_counted_and_asked_for(chain: TestChain, receipt: EvmReceipt) -> None:
    with pytest.raises(CannotTell, match="1 of 3 confirmations"):
        confirm(node(chain), receipt, 3)
    chain.tester.mine_blocks(2)
    assert confirm(node(chain), receipt, 3) == Confirmed(receipt.block_time, 3)
    with pytest.raises(ValueError, match="at least 1"):
        confirm(node(chain), receipt, 0)


def test_a_receipt_does_not_outlive_its_block(chain: TestChain, trace_id: bytes) -> None:
    """After a reorganisation it cannot tell; anchored again, there is another receipt."""
    anchored(chain.service(), evm_head(trace_id, 2))
    fork_point = chain.tester.take_snapshot()
    lost = anchored(chain.service(), evm_head(trace_id, 9))
    chain.tester.revert_to_snapshot(fork_point)
    with pytest.raises(CannotTell, match="in no block"):
        confirm(node(chain), lost)
    chain.tester.mine_blocks(2)
    chain.tester.send_raw_transaction(chain.liar.sent[-1])  # as somebody does who still had it
    again = anchored(chain.service(), evm_head(trace_id, 9))
    assert again.transaction == lost.transaction
    assert again.block_number == lost.block_number + 2
    with pytest.raises(CannotTell, match="reorganised"):
        confirm(node(chain), lost)
    assert confirm(node(chain), again).depth == 1
    assert [h.size for h in anchored_heads(node(chain), lost.contract, lost.sender, trace_id)] == [9, 2]


def test_an_event_of_other_code_proves_nothing(chain: TestChain, receipt: EvmReceipt) -> None:
    other = parse_address(chain.deploy(OTHER_CODE))
    with pytest.raises(CannotTell, match="is not that of fgtrac's contract"):
        confirm(node(chain), replace(receipt, contract=other))
    with pytest.raises(CannotTell, match="is not that of fgtrac's contract"):
        anchored_heads(node(chain), other, receipt.sender, receipt.trace_id)
    with pytest.raises(CannotTell, match="no code"):
        anchored_heads(node(chain), bytes(20), receipt.sender, receipt.trace_id)


def test_who_never_anchored_has_no_heads(chain: TestChain) -> None:
    assert anchored_heads(node(chain), parse_address(chain.contract), bytes(20), bytes(16)) == []


# -- heads that nobody gave -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_planted", [False, True])
def test_an_event_of_the_deployment_proves_nothing_whatever_the_code_and_the_memory_say(
    chain: TestChain, trace_id: bytes, is_planted: bool
) -> None:
    victim = load_account(chain.account).address
    forged = chain.forge((victim, trace_id, 9, root_of("root 9")), is_planted=is_planted)
    node(chain).check_contract(forged[0].contract)
    assert anchored_heads(node(chain), forged[0].contract, victim, trace_id) == [*forged][: int(is_planted)]
    with pytest.raises(ProofError, match=r"does not give size 9 to 0x.*: its event was made up"):
        confirm(node(chain), forged[0])


def test_a_head_by_way_of_another_contract_cannot_be_told_from_one_that_was_made_up(
    chain: TestChain, trace_id: bytes
) -> None:
    wallet = chain.deploy("0x" + forwarding_code(parse_address(chain.contract)).hex())
    sent = chain.send(wallet, "0x" + anchor_call(trace_id, 9, root_of("root 9")).hex())
    mined = node(chain).mined(bytes.fromhex(sent[2:]), node(chain).chain_id())
    assert mined is not None
    (event,) = mined.events
    assert event.sender == parse_address(wallet)
    with pytest.raises(CannotTell, match="only who has that account can arrange this, and it is not supported"):
        confirm(node(chain), event)
    relay = chain.deploy("0x" + forwarding_code(parse_address(wallet)).hex())
    sent = chain.send(relay, "0x" + anchor_call(trace_id, 10, root_of("root 10")).hex())
    mined = node(chain).mined(bytes.fromhex(sent[2:]), node(chain).chain_id())
    assert mined is not None
    (event,) = mined.events
    assert event.sender == parse_address(wallet)
    with pytest.raises(CannotTell, match="that account is itself a contract, which is not supported"):
        confirm(node(chain), event)


CALLS: list[tuple[Any, type[Exception]]] = [
    (lambda said: None, AnchorError),
    (lambda said: {**said, "hash": "0x" + "99" * 32}, AnchorError),
    (lambda said: {**said, "block_hash": None}, AnchorError),
    (lambda said: {**said, "data": said["data"] + "00"}, ProofError),
    (lambda said: {**said, "value": 1}, ProofError),
    (lambda said: {**said, "to": None}, ProofError),
    (lambda said: {**said, "to": "0x" + "99" * 20}, CannotTell),
    (lambda said: {**said, "from": "0x" + "99" * 20}, CannotTell),
]


@pytest.mark.parametrize(("lie", "outcome"), CALLS)
def test_every_part_of_the_call_is_held_against_the_event(
    chain: TestChain, receipt: EvmReceipt, lie: Any, outcome: type[Exception]
) -> None:
    chain.liar.lies["eth_getTransactionByHash"] = lie
    with pytest.raises(outcome):
        confirm(node(chain), receipt)


# -- a node that lies to who checks -----------------------------------------------------------------------------------


def with_other_topic(logs: list[Any]) -> list[Any]:
    return [{**log, "topics": [*log["topics"][:2], "0x" + "99" * 32]} for log in logs]


LIES_TO_CHECKS: list[tuple[str, Any]] = [
    ("eth_getTransactionReceipt", lambda said: {**said, "transactionHash": "0x" + "99" * 32}),
    ("eth_getTransactionReceipt", lambda said: {**said, "status": 0}),
    ("eth_getTransactionReceipt", lambda said: {**said, "logs": [{**said["logs"][0], "blockNumber": 1}]}),
    ("eth_getTransactionReceipt", lambda said: {**said, "logs": [{**said["logs"][0], "blockHash": "0x" + "9" * 64}]}),
    ("eth_getBlockByNumber", lambda said: {**said, "hash": "0x" + "99" * 32}),
    ("eth_getBlockByNumber", lambda said: {**said, "number": 1}),
    ("eth_getBlockByNumber", lambda said: {**said, "timestamp": said["timestamp"] + 1}),
    ("eth_getBlockByNumber", lambda said: {**said, "transactions": []}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "lie"), LIES_TO_CHECKS)
def test_a_node_that_contradicts_itself_confirms_nothing(
    chain: TestChain, receipt: EvmReceipt, method: str, lie: Any
) -> None:
    chain.liar.lies[method] = lie
    with pytest.raises(AnchorError):
        confirm(node(chain), receipt)


def test_a_node_that_changes_its_chain_confirms_nothing(chain: TestChain, receipt: EvmReceipt) -> None:
    answers = iter([receipt.chain_id, receipt.chain_id + 1])
    chain.liar.lies["eth_chainId"] = lambda said: next(answers)
    with pytest.raises(AnchorError, match="is on another now"):
        confirm(node(chain), receipt)


def event(log: Any, *, size: int, previous: int, place: int = 0, block: int | None = None) -> Any:
    """The log with other contents, in another place."""
    data = "0x" + size.to_bytes(32).hex() + log["data"][66:194] + previous.to_bytes(32).hex()
    return {**log, "data": data, "log_index": place, "block_number": block or log["block_number"]}


# What a node says of the block with size 9, where the block before has size 2: its only event, and that block's number.
LIES_ABOUT_EVENTS: dict[str, Any] = {
    "none": lambda log, before: [],
    "of another log": lambda log, before: with_other_topic([log]),
    "of another contract": lambda log, before: [{**log, "address": "0x" + "99" * 20}],
    "of another block": lambda log, before: [{**log, "block_number": before}],
    "of another size": lambda log, before: [event(log, size=8, previous=before)],
    "of a larger size": lambda log, before: [event(log, size=10, previous=before)],
    "of size 0 first": lambda log, before: [
        event(log, size=0, previous=before),
        event(log, size=9, previous=before + 1, place=1),
    ],
    "twice": lambda log, before: [log, event(log, size=9, previous=before + 1, place=1)],
    "falling": lambda log, before: [
        event(log, size=12, previous=before),
        event(log, size=9, previous=before + 1, place=1),
    ],
    "two that do not follow each other": lambda log, before: [
        event(log, size=5, previous=before),
        event(log, size=9, previous=before, place=1),
    ],
}


@pytest.mark.parametrize("lie", LIES_ABOUT_EVENTS)
def test_events_that_do_not_fit_the_contracts_memory_are_no_heads(
    chain: TestChain, receipt: EvmReceipt, lie: str
) -> None:
    assert receipt.previous_block == receipt.block_number - 1
    told = LIES_ABOUT_EVENTS[lie]
    chain.liar.lies["eth_getLogs"] = lambda logs: (
        told(logs[0], receipt.previous_block) if logs[0]["block_number"] == receipt.block_number else logs
    )
    with pytest.raises(ContradictionError):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)


@pytest.mark.parametrize("size", [0, 9])
def test_an_older_event_with_a_size_that_does_not_fit_is_no_head(
    chain: TestChain, receipt: EvmReceipt, size: int
) -> None:
    chain.liar.lies["eth_getLogs"] = lambda logs: (
        [event(logs[0], size=size, previous=0)] if logs[0]["block_number"] == receipt.previous_block else logs
    )
    with pytest.raises(ContradictionError):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)


def test_the_way_back_leads_back(chain: TestChain, receipt: EvmReceipt) -> None:
    kept: list[Any] = []

    def forward(logs: list[Any]) -> list[Any]:
        kept.extend(logs)
        later = receipt.block_number + 1
        return [event(logs[0], size=9, previous=later)] if logs else [event(kept[0], size=2, previous=0, block=later)]

    chain.liar.lies["eth_getLogs"] = forward
    with pytest.raises(ContradictionError):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)


def test_the_newest_event_has_the_root_that_the_contract_keeps(chain: TestChain, receipt: EvmReceipt) -> None:
    chain.liar.lies["eth_call"] = lambda said: said[:66] + "99" * 32 + said[130:]
    with pytest.raises(ContradictionError, match="roots differ"):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)


def test_a_walk_without_end_is_cut(chain: TestChain, receipt: EvmReceipt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgtrac.anchor.chain_reading.MAX_HEADS", 1)
    with pytest.raises(AnchorError, match="more than 1 heads"):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)


def test_a_newest_head_in_no_block_is_no_head(chain: TestChain, receipt: EvmReceipt) -> None:
    chain.liar.lies["eth_call"] = lambda said: said[:-64] + "0" * 64
    with pytest.raises(AnchorError, match="size 9 in block 0"):
        anchored_heads(node(chain), receipt.contract, receipt.sender, receipt.trace_id)
