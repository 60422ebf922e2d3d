"""Each way in which a head does not come to stand on the chain is an outcome of its own, told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from chains import OTHER_CODE, TestChain, anchored, evm_head, no_proof, root_of
from fgtrac.anchor import evm, node, outcomes, transactions
from fgtrac.anchor.account import load_account
from fgtrac.anchor.evm import EvmContract, Node
from fgtrac.errors import AnchorError, RefusedError
from fgtrac.verify.evm_receipt import format_address

METHODS = [
    "eth_chainId",
    "eth_getCode",
    "eth_call",
    "eth_getLogs",
    "eth_getTransactionByHash",
    "eth_estimateGas",
    "eth_gasPrice",
    "eth_getBlockByNumber",
    "eth_getTransactionCount",
    "eth_sendRawTransaction",
    "eth_getTransactionReceipt",
]


class Clock:
    """Time that passes only while somebody sleeps, which takes none: however busy the machine is."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of all that waits for a chain."""
    clock = Clock()
    for module in (evm, node, transactions):
        monkeypatch.setattr(module, "time", clock)
    return clock


def failure(service: EvmContract, trace_id: bytes, size: int = 5) -> AnchorError:
    """How anchoring a head fails: in one line."""
    with pytest.raises(AnchorError) as told:
        service.anchor(evm_head(trace_id, size), no_proof)
    assert str(told.value)
    assert "\n" not in str(told.value)
    return told.value


def test_what_may_go_better_is_told_from_what_will_not() -> None:
    kinds = [k for k in vars(outcomes).values() if isinstance(k, type) and k not in (AnchorError, RefusedError)]
    final = {k.__name__ for k in kinds if issubclass(k, RefusedError)}
    assert final == {
        "LowGasError", "NoContractError", "OtherCodeError", "OtherHeadError", "PlantedHeadError",
        "RevertedError", "WrongChainError",
    }  # fmt: skip
    assert {k.__name__ for k in kinds} - final == {
        "ContradictionError", "FeeError", "LowBalanceError", "NoAnswerError", "NodeError", "NonsenseError",
        "OutrunError", "ReorganisedError", "TimedOutError",
    }  # fmt: skip


# -- the contract and the chain ---------------------------------------------------------------------------------------


def test_an_address_without_code(chain: TestChain, trace_id: bytes) -> None:
    told = failure(chain.service(contract="0x" + "12" * 20), trace_id)
    assert type(told) is outcomes.NoContractError
    assert "0x" + "12" * 20 in str(told)
    assert chain.liar.sent == []


def test_an_address_with_other_code(chain: TestChain, trace_id: bytes) -> None:
    told = failure(chain.service(contract=chain.deploy(OTHER_CODE)), trace_id)
    assert type(told) is outcomes.OtherCodeError
    assert chain.liar.sent == []


def test_code_that_differs_in_one_byte_is_other_code(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_getCode"] = lambda code: code[:-2] + "ff"
    assert type(failure(chain.service(), trace_id)) is outcomes.OtherCodeError


def test_code_is_looked_at_again_where_the_event_stands(chain: TestChain, trace_id: bytes) -> None:
    answers = iter([None, "0x"])
    chain.liar.lies["eth_getCode"] = lambda code: next(answers) or code
    assert type(failure(chain.service(), trace_id)) is outcomes.NoContractError


def test_another_chain_than_the_one_named(chain: TestChain, trace_id: bytes) -> None:
    told = failure(chain.service(chain_id=5), trace_id)
    assert type(told) is outcomes.WrongChainError
    assert "to be anchored on 5" in str(told)
    assert str(Node(chain.provider).chain_id()) in str(told)


def test_another_chain_than_before(chain: TestChain, trace_id: bytes) -> None:
    service = chain.service()
    anchored(service, evm_head(trace_id, 1))
    chain.liar.lies["eth_chainId"] = lambda said: 1
    assert type(failure(service, trace_id)) is outcomes.WrongChainError
    assert len(chain.liar.sent) == 1


# -- the account ------------------------------------------------------------------------------------------------------


def test_too_little_balance_names_both_amounts(chain: TestChain, trace_id: bytes, tmp_path: Path) -> None:
    poor = tmp_path / "poor.hex"
    poor.write_text("07" * 32)
    poor.chmod(0o600)
    told = failure(EvmContract(chain.liar, poor, contract=chain.contract), trace_id)
    assert type(told) is outcomes.LowBalanceError
    assert "has 0 wei" in str(told)
    assert "0x" + load_account(poor).address.hex() in str(told)


@pytest.mark.parametrize("estimate", [21_000, 40_000])
def test_too_little_gas_names_both_amounts(chain: TestChain, trace_id: bytes, estimate: int) -> None:
    """Less than a transaction needs to be taken at all, and less than it needs to end well."""
    chain.liar.lies["eth_estimateGas"] = lambda said: estimate
    told = failure(chain.service(), trace_id)
    assert type(told) is outcomes.LowGasError
    assert str(estimate * 5 // 4) in str(told)


def test_a_number_that_somebody_else_took_first(chain: TestChain, trace_id: bytes) -> None:
    """Two processes with one account: trying again helps."""
    chain.liar.lies["eth_getTransactionCount"] = lambda said: said - 1
    assert type(failure(chain.service(), trace_id)) is outcomes.OutrunError
    chain.liar.lies.clear()
    assert anchored(chain.service(), evm_head(trace_id, 5)).size == 5


@pytest.mark.parametrize("is_deployed", [True, False])
def test_a_transaction_that_the_node_dropped_for_another_of_its_number_is_not_waited_for(
    chain: TestChain, trace_id: bytes, is_deployed: bool
) -> None:
    """What comes back is not paid twice."""
    service = chain.service() if is_deployed else chain.service(contract=None)
    for method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
        chain.liar.lies[method] = lambda said: None
    nonce = Node(chain.provider).nonce(load_account(chain.account).address)
    told = failure(service, trace_id)
    assert type(told) is outcomes.OutrunError
    assert f"took number {nonce} first; try again" in str(told)
    assert "0x" + keccak(hexstr=chain.liar.sent[0]).hex() in str(told)
    chain.liar.lies.clear()
    assert anchored(service, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == (1 if is_deployed else 2)


def test_a_transaction_that_the_node_lost_while_its_number_is_free_is_waited_for(
    chain: TestChain, trace_id: bytes
) -> None:
    for method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
        chain.liar.lies[method] = lambda said: None
    nonce = Node(chain.provider).nonce(load_account(chain.account).address)
    chain.liar.answers["eth_getTransactionCount"] = hex(nonce)
    assert type(failure(chain.service(), trace_id)) is outcomes.TimedOutError


def saying(words: str) -> Callable[[Any], Any]:
    """A node that takes a transaction and answers with an error in these words."""

    def fail(said: Any) -> Any:
        raise ValueError(words)

    return fail


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("nonce too low: next nonce 5, tx nonce 4", outcomes.OutrunError),
        ("replacement transaction underpriced", outcomes.OutrunError),
        ("intrinsic gas too low", outcomes.LowGasError),
        ("exceeds block gas limit", outcomes.LowGasError),
        ("the moon is full", outcomes.NodeError),
    ],
)
def test_the_words_of_a_refusal_are_understood_or_handed_on(
    chain: TestChain, trace_id: bytes, words: str, kind: type[AnchorError]
) -> None:
    chain.liar.lies["eth_sendRawTransaction"] = saying(words)
    told = failure(chain.service(), trace_id)
    assert type(told) is kind
    assert words in str(told)


def test_a_transaction_that_the_node_knows_already_is_sent(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_sendRawTransaction"] = saying("already known")
    assert anchored(chain.service(), evm_head(trace_id, 5)).size == 5


def test_a_chain_without_a_base_fee_is_bid_a_gas_price(chain: TestChain, trace_id: bytes) -> None:
    def before_london(said: Any) -> Any:
        return {name: value for name, value in said.items() if name != "base_fee_per_gas"}

    chain.liar.lies["eth_getBlockByNumber"] = before_london
    assert anchored(chain.service(), evm_head(trace_id, 5)).size == 5
    assert not chain.liar.sent[0].startswith("0x02")  # EIP-2718: no type, as EIP-155 has it


def test_a_price_above_the_limit_is_not_paid_and_both_are_named(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_gasPrice"] = lambda said: 5 * 10**15
    told = failure(chain.service(), trace_id)
    assert type(told) is outcomes.FeeError
    assert "costs 5e+06 gwei now, and at most 200 are to be paid" in str(told)
    assert "--max-fee GWEI" in str(told)
    chain.liar.lies["eth_gasPrice"] = lambda said: 3 * 10**9
    assert type(failure(chain.service(max_fee_gwei=2.5), trace_id)) is outcomes.FeeError
    assert chain.liar.sent == []
    assert anchored(chain.service(max_fee_gwei=3.0), evm_head(trace_id, 5)).size == 5


def test_no_more_than_the_limit_is_bid_for_what_may_come(chain: TestChain, trace_id: bytes) -> None:
    base = Node(chain.provider).block().base_fee
    assert base is not None
    limit = base * 3 // 2
    chain.liar.lies["eth_gasPrice"] = lambda said: base
    receipt = anchored(chain.service(max_fee_gwei=limit / 1e9), evm_head(trace_id, 5))
    sent = chain.tester.get_transaction_by_hash("0x" + receipt.transaction.hex())
    assert base < sent["max_fee_per_gas"] <= limit


# -- the contract says no ---------------------------------------------------------------------------------------------

NOTHING = "0x" + "00" * 128


def test_a_head_that_the_contract_would_not_take_is_not_sent(chain: TestChain, trace_id: bytes) -> None:
    anchored(chain.service(), evm_head(trace_id, 9))
    chain.liar.lies["eth_call"] = lambda said: NOTHING
    told = failure(chain.service(), trace_id)
    assert type(told) is outcomes.RevertedError
    assert "the size does not grow" in str(told)
    assert len(chain.liar.sent) == 1


def test_a_head_that_the_contract_does_not_take(chain: TestChain, trace_id: bytes) -> None:
    anchored(chain.service(), evm_head(trace_id, 9))
    chain.liar.answers |= {"eth_call": NOTHING, "eth_estimateGas": 100_000}
    told = failure(chain.service(), trace_id)
    assert type(told) is outcomes.RevertedError
    assert "was reverted" in str(told)


def test_a_race_that_the_same_head_won_gives_its_receipt(chain: TestChain, trace_id: bytes) -> None:
    first = anchored(chain.service(), evm_head(trace_id, 9))
    answers = iter([NOTHING])
    chain.liar.lies["eth_call"] = lambda said: next(answers, said)
    assert anchored(chain.service(), evm_head(trace_id, 9)) == first


# -- a contract that was deployed with heads in it ---------------------------------------------------------------------


@pytest.mark.parametrize(("size", "root"), [(5, "root 5"), (5, "other"), (9, "root 9")])
def test_a_contract_with_a_head_that_the_account_never_gave_is_not_used(
    chain: TestChain, trace_id: bytes, size: int, root: str
) -> None:
    mine = load_account(chain.account).address
    (planted,) = chain.forge((mine, trace_id, size, root_of(root)))
    for wanted in (5, 20):
        told = failure(chain.service(contract=format_address(planted.contract)), trace_id, wanted)
        assert type(told) is outcomes.PlantedHeadError
        assert "its event was made up" in str(told)
    assert chain.liar.sent == []
    assert anchored(chain.service(contract=format_address(planted.contract)), evm_head(b"!" * 16, 5)).size == 5


# -- a contract that is gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there_another", [False, True])
def test_a_contract_that_was_used_before_and_is_gone_is_deployed_anew_and_that_is_said(
    chain: TestChain, trace_id: bytes, is_there_another: bool
) -> None:
    gone = chain.deploy(OTHER_CODE) if is_there_another else "0x" + "12" * 20
    service = chain.service(contract=None)
    service.prefer({Node(chain.provider).chain_id(): bytes.fromhex(gone[2:])})
    receipts = [anchored(service, evm_head(trace_id, size)) for size in (5, 6)]
    assert receipts[0].contract == receipts[1].contract != bytes.fromhex(gone[2:])
    assert len(chain.liar.sent) == 3
    assert f"contract {service.contract} (deployed anew: it was gone from {gone}) by way of" in service.name


def test_a_deployment_that_was_sent_is_waited_for_by_another_process_and_not_paid_again(
    chain: TestChain, trace_id: bytes
) -> None:
    first = chain.service(contract=None, timeout_s=0.3)
    chain.liar.lies["eth_getTransactionReceipt"] = lambda said: None
    assert type(failure(first, trace_id)) is outcomes.TimedOutError
    chain.liar.lies.clear()
    (sent,) = chain.liar.sent
    later = chain.service(contract=None)
    later.recall("0x" + keccak(hexstr=sent).hex())
    assert anchored(later, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == 2


def test_a_deployment_that_the_node_does_not_know_is_paid_again(chain: TestChain, trace_id: bytes) -> None:
    later = chain.service(contract=None)
    later.recall("0x" + "12" * 32)
    assert anchored(later, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == 2
    with pytest.raises(ValueError, match="32 bytes, not 2"):
        later.recall("0x1212")


# -- a node that contradicts itself or answers nonsense ----------------------------------------------------------------

OTHER_HASH = "0x" + "99" * 32


def of_log(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda said: {**said, "logs": [{**log, name: value} for log in said["logs"]]}


def in_block(block_hash: str, said: Any) -> Any:
    return {**of_log("blockHash", block_hash)(said), "blockHash": block_hash}


def with_root(root: str, said: Any) -> Any:
    data = said["logs"][0]["data"]
    return of_log("data", data[:66] + root_of(root).hex() + data[130:])(said)


LIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "the hash of what was sent": ("eth_sendRawTransaction", lambda said: OTHER_HASH),
    "another transaction": ("eth_getTransactionReceipt", lambda said: {**said, "transactionHash": OTHER_HASH}),
    "a block that is not there": ("eth_getTransactionReceipt", lambda said: in_block(OTHER_HASH, said)),
    "another block's hash": ("eth_getBlockByNumber", lambda said: {**said, "hash": OTHER_HASH}),
    "a block without the transaction": ("eth_getBlockByNumber", lambda said: {**said, "transactions": [OTHER_HASH]}),
    "another time": ("eth_getBlockByNumber", lambda said: {**said, "timestamp": 1}),
    "no event": ("eth_getTransactionReceipt", lambda said: {**said, "logs": []}),
    "another root": ("eth_getTransactionReceipt", lambda said: with_root("other", said)),
    "another contract": ("eth_getTransactionReceipt", of_log("address", "0x" + "99" * 20)),
    "another event": ("eth_getTransactionReceipt", of_log("topics", [OTHER_HASH] * 3)),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_contradicts_itself(chain: TestChain, trace_id: bytes, lie: str) -> None:
    method, changed = LIES[lie]
    chain.liar.lies[method] = changed
    assert type(failure(chain.service(), trace_id)) is outcomes.ContradictionError


def test_a_node_that_changes_its_chain_on_the_way(chain: TestChain, trace_id: bytes) -> None:
    answers = iter([None, 1])
    chain.liar.lies["eth_chainId"] = lambda said: next(answers) or said
    assert type(failure(chain.service(), trace_id)) is outcomes.ContradictionError


def test_a_chain_whose_contracts_count_another_chains_blocks(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_call"] = lambda said: said if said == NOTHING else f"{said[:-64]}{1:064x}"
    for _ in range(2):
        told = failure(chain.service(), trace_id)
        assert type(told) is outcomes.ContradictionError
        assert "(Arbitrum) it stays so: that is not supported" in str(told)
    assert len(chain.liar.sent) == 1


def test_a_contract_that_does_not_tell_of_what_it_took(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_call"] = lambda said: NOTHING
    told = failure(chain.service(), trace_id)
    assert type(told) is outcomes.ContradictionError
    assert "the contract took size 5, and does not tell of it" in str(told)


def test_a_deployment_that_deploys_nothing(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_getTransactionReceipt"] = lambda said: {**said, "contractAddress": None}
    assert type(failure(chain.service(contract=None), trace_id)) is outcomes.ContradictionError


NONSENSE: list[Any] = [None, True, "", "0x", "12", "0xzz", "nonsense", [], [[]], {}, {"hash": []}, 1.5, "0x" + "1" * 65]


@pytest.mark.parametrize("method", METHODS)
def test_nonsense_is_never_taken_for_an_answer(chain: TestChain, trace_id: bytes, method: str) -> None:
    for number, nonsense in enumerate(NONSENSE):
        chain.liar.lies[method] = lambda said, nonsense=nonsense: nonsense
        is_waited_for = method == "eth_getTransactionReceipt" and nonsense is None
        service = chain.service(timeout_s=0.2 if is_waited_for else 30.0)
        told = failure(service, trace_id, 5 + number)
        assert "the chain in this process" in str(told)
        if nonsense not in (None, "0x") and (method, nonsense) != ("eth_getLogs", []):  # no transaction, code, event
            assert type(told) is outcomes.NonsenseError


def test_a_chain_id_that_no_receipt_holds_is_nonsense(chain: TestChain, trace_id: bytes) -> None:
    chain.liar.lies["eth_chainId"] = lambda said: 10**19
    assert type(failure(chain.service(), trace_id)) is outcomes.NonsenseError
    assert chain.liar.sent == []


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_transaction_that_no_block_takes_is_waited_for_again_and_not_sent_twice(
    chain: TestChain, trace_id: bytes
) -> None:
    service = chain.service(timeout_s=0.3)
    chain.liar.lies["eth_getTransactionReceipt"] = lambda said: None
    told = failure(service, trace_id)
    assert type(told) is outcomes.TimedOutError
    assert "waiting for a block" in str(told)
    chain.liar.lies["eth_call"] = lambda said: NOTHING  # the head is not on the chain yet
    assert type(failure(service, trace_id)) is outcomes.TimedOutError
    assert len(chain.liar.sent) == 1
    chain.liar.lies.clear()
    assert anchored(service, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == 1


def test_a_transaction_that_was_taken_without_an_answer_is_not_sent_twice(chain: TestChain, trace_id: bytes) -> None:
    service = chain.service()
    chain.liar.lies["eth_sendRawTransaction"] = lambda said: None
    assert type(failure(service, trace_id)) is outcomes.NonsenseError
    answers = iter([NOTHING])  # the head is not on the chain yet
    chain.liar.lies["eth_call"] = lambda said: next(answers, said)
    assert anchored(service, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == 1


def test_a_transaction_that_the_node_lost_is_sent_again(chain: TestChain, trace_id: bytes) -> None:
    service = chain.service(timeout_s=0.3)
    before = chain.tester.take_snapshot()
    chain.liar.lies["eth_getTransactionReceipt"] = lambda said: None
    assert type(failure(service, trace_id)) is outcomes.TimedOutError
    chain.liar.lies.clear()
    chain.tester.revert_to_snapshot(before)
    assert anchored(service, evm_head(trace_id, 5)).size == 5
    assert len(chain.liar.sent) == 2


def test_confirmations_are_waited_for(chain: TestChain, trace_id: bytes) -> None:
    service = chain.service(confirmations=3)

    def one_more_block(height: Any) -> Any:
        chain.tester.mine_block()
        return height

    chain.liar.lies["eth_blockNumber"] = one_more_block
    receipt = anchored(service, evm_head(trace_id, 5))
    assert Node(chain.provider).height() >= receipt.block_number + 2


def test_confirmations_that_do_not_come_are_told_with_both_numbers(
    chain: TestChain, trace_id: bytes, clock: Clock
) -> None:
    told = failure(chain.service(confirmations=3, timeout_s=3.0), trace_id)
    assert type(told) is outcomes.TimedOutError
    assert "1 of 3" in str(told)
    assert clock.now == pytest.approx(3.0)
    chain.tester.mine_blocks(2)
    receipt = anchored(chain.service(confirmations=3), evm_head(trace_id, 5))
    assert (receipt.size, len(chain.liar.sent)) == (5, 1)


@pytest.mark.parametrize("blocks", [0, 4])
def test_a_reorganisation_just_after_a_block_took_the_transaction(
    chain: TestChain, trace_id: bytes, blocks: int
) -> None:
    before = chain.tester.take_snapshot()

    def and_then_it_is_gone(said: Any) -> Any:
        chain.liar.lies.clear()
        chain.tester.revert_to_snapshot(before)
        for _ in range(blocks):
            chain.tester.mine_block()
        return said

    chain.liar.lies["eth_getTransactionReceipt"] = and_then_it_is_gone
    assert type(failure(chain.service(), trace_id)) is outcomes.ReorganisedError


@pytest.mark.parametrize("is_mined_again", [False, True])
def test_a_reorganisation_while_waiting(chain: TestChain, trace_id: bytes, is_mined_again: bool) -> None:
    before = chain.tester.take_snapshot()

    def reorganised(height: Any) -> Any:
        chain.liar.lies.clear()
        chain.tester.revert_to_snapshot(before)
        chain.tester.mine_blocks(2)
        if is_mined_again:
            chain.tester.send_raw_transaction(chain.liar.sent[0])
        return height

    chain.liar.lies["eth_blockNumber"] = reorganised
    told = failure(chain.service(confirmations=2), trace_id)
    assert type(told) is outcomes.ReorganisedError
    assert ("in block" if is_mined_again else "in no block") in str(told)
