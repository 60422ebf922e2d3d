"""Heads into the contract on anvil, a node that we did not write: reorganisations, races, a node that lies or hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chains import anchored, evm_head, no_proof, root_of
from fgtrac.anchor import outcomes
from fgtrac.anchor.account import load_account
from fgtrac.anchor.contract.calls import anchor_call
from fgtrac.anchor.evm import EvmContract, Node, anchored_heads, confirm
from fgtrac.errors import AnchorError
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_address
from services.anvil import Anvil, Proxy, lying_proxy, running_anvil

TRACE = bytes(range(16))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    with running_anvil(tmp_path_factory.mktemp("anvil")) as anvil:
        yield anvil


@pytest.fixture
def anvil(shared: Anvil) -> Iterator[Anvil]:
    """The node; what a test does to its chain is undone."""
    snapshot = shared.ask("evm_snapshot")
    yield shared
    shared.ask("evm_setAutomine", True)
    assert shared.ask("evm_revert", snapshot)


def service(anvil: Anvil, **options: Any) -> EvmContract:
    return EvmContract(anvil.url, anvil.account, **options)


def failure(of: EvmContract, size: int = 50) -> AnchorError:
    with pytest.raises(AnchorError) as told:
        of.anchor(evm_head(TRACE, size), no_proof)
    assert "\n" not in str(told.value)
    return told.value


def test_heads_one_after_the_other(anvil: Anvil) -> None:
    anchors = service(anvil)
    anchors.prepare()
    receipts = [anchored(anchors, evm_head(TRACE, size)) for size in (1, 5, 6)]
    assert anchored(anchors, evm_head(TRACE, 5)) == receipts[1]
    node = Node(anvil.url)
    assert [confirm(node, receipt).depth for receipt in receipts] == [3, 2, 1]
    assert receipts[0].chain_id == 31337
    assert anchored_heads(node, receipts[0].contract, receipts[0].sender, TRACE) == receipts[::-1]
    told = failure(anchors, 4)
    assert type(told) is outcomes.OtherHeadError
    assert "size 6" in str(told)


def test_the_costs_are_those_of_the_specification(anvil: Anvil) -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "receipts.md").read_text()
    anchors = service(anvil)
    receipts = [anchored(anchors, evm_head(TRACE, 1000 + n)) for n in range(3)]
    used = []
    for receipt in receipts:
        mined = Node(anvil.url).mined(receipt.transaction, receipt.chain_id)
        assert mined is not None
        used.append(mined.gas_used)
    deployed = anvil.ask("eth_getBlockByNumber", hex(receipts[0].block_number - 1), False)
    for gas in (int(deployed["gasUsed"], 16), used[0], used[1]):
        assert f"{round(gas, -2):,} gas" in page


def test_several_heads_in_one_block_are_all_found(anvil: Anvil) -> None:
    anchors = service(anvil)
    first = anchored(anchors, evm_head(TRACE, 1))
    anvil.ask("evm_setAutomine", False)
    for size in (3, 4, 9):
        data = "0x" + anchor_call(TRACE, size, root_of(f"root {size}")).hex()
        sent = {"from": format_address(first.sender), "to": anchors.contract, "gas": "0x30000", "data": data}
        anvil.ask("eth_sendTransaction", sent)
    anvil.ask("evm_mine")
    anvil.ask("evm_setAutomine", True)
    last = anchored(anchors, evm_head(TRACE, 20))
    heads = anchored_heads(Node(anvil.url), first.contract, first.sender, TRACE)
    assert [head.size for head in heads] == [20, 9, 4, 3, 1]
    assert heads[1].block_number == heads[3].block_number
    assert anchored(anchors, evm_head(TRACE, 4)) == heads[2]
    for receipt in (first, last, *heads):
        assert confirm(Node(anvil.url), receipt).depth >= 1


# -- reorganisations --------------------------------------------------------------------------------------------------


def test_a_receipt_does_not_stay_green_after_a_reorganisation(anvil: Anvil) -> None:
    anchors = service(anvil)
    kept = anchored(anchors, evm_head(TRACE, 1))
    lost = anchored(anchors, evm_head(TRACE, 2))
    anvil.ask("anvil_reorg", 1, [])
    with pytest.raises(CannotTell, match="in no block"):
        confirm(Node(anvil.url), lost)
    assert confirm(Node(anvil.url), kept).depth == 2
    assert anchored_heads(Node(anvil.url), lost.contract, lost.sender, TRACE) == [kept]
    again = anchored(anchors, evm_head(TRACE, 2))
    assert confirm(Node(anvil.url), again).depth == 1


def test_a_reorganisation_while_confirmations_are_waited_for(anvil: Anvil) -> None:
    contract = deployed(anvil)
    with lying_proxy(anvil.url) as proxy:

        def reorganise(method: str, params: Any, answer: Any) -> Any:
            if method == "eth_blockNumber":
                proxy.answer = lambda method, params, answer: answer
                anvil.ask("anvil_reorg", 1, [])
            return answer

        proxy.answer = reorganise
        waiting = EvmContract(proxy.url, anvil.account, contract=contract, confirmations=3)
        assert type(failure(waiting)) is outcomes.ReorganisedError


def test_confirmations_are_waited_for_while_others_make_blocks(anvil: Anvil) -> None:
    contract = deployed(anvil)
    stop = threading.Event()

    def make_blocks() -> None:
        while not stop.wait(0.05):
            anvil.ask("evm_mine")

    thread = threading.Thread(target=make_blocks)
    thread.start()
    try:
        receipt = anchored(service(anvil, contract=contract, confirmations=4), evm_head(TRACE, 50))
        assert confirm(Node(anvil.url), receipt, 4).depth >= 4
    finally:
        stop.set()
        thread.join()


# -- the account, the chain, the contract -----------------------------------------------------------------------------


def deployed(anvil: Anvil) -> str:
    anchors = service(anvil)
    anchored(anchors, evm_head(bytes(16), 1))
    assert anchors.contract is not None
    return anchors.contract


def test_an_account_that_cannot_pay(anvil: Anvil) -> None:
    poor = EvmContract(anvil.url, anvil.poor_account, contract=deployed(anvil))
    told = failure(poor)
    assert type(told) is outcomes.LowBalanceError
    assert "has 0 wei" in str(told)


def test_an_account_that_can_pay_a_little(anvil: Anvil) -> None:
    account = load_account(anvil.poor_account).address
    anvil.ask("anvil_setBalance", format_address(account), hex(10**12))
    told = failure(EvmContract(anvil.url, anvil.poor_account, contract=deployed(anvil)))
    assert type(told) is outcomes.LowBalanceError
    assert f"has {10**12} wei" in str(told)


def test_a_keystore_signs_as_its_key_does(anvil: Anvil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eth_account import Account as Accounts

    path = tmp_path / "keystore.json"
    path.write_text(json.dumps(Accounts.encrypt(anvil.account.read_text(), "word", kdf="pbkdf2", iterations=10)))
    path.chmod(0o600)
    monkeypatch.setenv("FGTRAC_ACCOUNT_PASSWORD", "word")
    receipt = anchored(EvmContract(anvil.url, path), evm_head(TRACE, 1))
    assert receipt.sender == load_account(anvil.account).address


def test_another_chain(anvil: Anvil, tmp_path: Path) -> None:
    anchors = service(anvil)
    receipt = anchored(anchors, evm_head(TRACE, 1))
    settings = {name: value for name, value in anchors.settings().items() if name != "kind"}
    with running_anvil(tmp_path, "--chain-id", "4242") as other:
        told = failure(EvmContract(**{**settings, "rpc_url": other.url}))
        assert type(told) is outcomes.WrongChainError
        assert "4242" in str(told)
        assert "31337" in str(told)
        with pytest.raises(CannotTell, match="on chain 4242, the receipt on 31337"):
            confirm(Node(other.url), receipt)


def test_another_chain_of_the_same_number_has_no_such_contract(anvil: Anvil, tmp_path: Path) -> None:
    """A node that was started afresh: nothing of the old chain is taken for granted."""
    anchors = service(anvil)
    receipt = anchored(anchors, evm_head(TRACE, 1))
    with running_anvil(tmp_path) as other:
        assert (
            type(failure(EvmContract(other.url, other.account, contract=anchors.contract))) is outcomes.NoContractError
        )
        with pytest.raises(CannotTell, match="no code"):
            confirm(Node(other.url), receipt)


def test_an_account_instead_of_a_contract_and_other_code(anvil: Anvil) -> None:
    mine = format_address(load_account(anvil.account).address)
    assert type(failure(service(anvil, contract=mine))) is outcomes.NoContractError
    anvil.ask("anvil_setCode", "0x" + "77" * 20, "0x00")
    assert type(failure(service(anvil, contract="0x" + "77" * 20))) is outcomes.OtherCodeError


def test_many_at_once_with_one_account(anvil: Anvil) -> None:
    """Who loses a race for the account's next number is told to try again, and then comes through."""
    contract = deployed(anvil)

    def anchor(number: int) -> EvmReceipt:
        mine = service(anvil, contract=contract)
        for _ in range(20):
            try:
                return anchored(mine, evm_head(bytes(15) + bytes([number]), 5))
            except outcomes.OutrunError:
                continue
        raise AssertionError("outrun twenty times")

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(anchor, range(1, 9)))
    assert len({receipt.transaction for receipt in receipts}) == 8


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[Proxy]:
    with lying_proxy(anvil.url) as proxy:
        yield proxy


def test_who_is_outbid_while_waiting_is_told_once_a_block_has_the_other(anvil: Anvil, proxy: Proxy) -> None:
    """A node takes two transactions of one number, and keeps the one that bids more."""
    contract = deployed(anvil)
    mine = format_address(load_account(anvil.account).address)
    nonce = anvil.ask("eth_getTransactionCount", mine, "latest")
    anvil.ask("evm_setAutomine", False)
    bid = {"maxFeePerGas": hex(10**12), "maxPriorityFeePerGas": hex(10**11)}

    def outbid(method: str, params: Any, answer: Any) -> Any:
        if method == "eth_getTransactionReceipt":
            asked = proxy.asked.count(method)
            if asked == 2:
                anvil.ask("eth_sendTransaction", {"from": mine, "to": mine, "nonce": nonce, **bid})
            if asked == 4:
                anvil.ask("evm_mine")
        return answer

    proxy.answer = outbid
    anchors = EvmContract(proxy.url, anvil.account, contract=contract)
    told = failure(anchors)
    assert type(told) is outcomes.OutrunError
    assert f"took number {int(nonce, 16)} first; try again" in str(told)
    assert proxy.asked.count("eth_getTransactionReceipt") == 4
    anvil.ask("evm_setAutomine", True)
    assert anchored(anchors, evm_head(TRACE, 50)).size == 50
    assert proxy.asked.count("eth_sendRawTransaction") == 2


# -- a node that lies, hangs, or breaks off ---------------------------------------------------------------------------


Change = Callable[[Any], Any]
HASH = "0x" + "99" * 32


def lying(proxy: Proxy, wanted: str, change: Change) -> None:
    """The proxy changes the results of one method."""

    def answer(method: str, params: Any, said: Any) -> Any:
        return {**said, "result": change(said["result"])} if method == wanted else said

    proxy.answer = answer


def with_event(said: Any, data: str) -> Any:
    return {**said, "logs": [{**said["logs"][0], "data": data}]}


LIES: dict[str, tuple[str, Change]] = {
    "transaction hash": ("eth_sendRawTransaction", lambda said: HASH),
    "transaction hash of the receipt": ("eth_getTransactionReceipt", lambda said: {**said, "transactionHash": HASH}),
    "block hash": ("eth_getBlockByNumber", lambda said: {**said, "hash": HASH}),
    "event": ("eth_getTransactionReceipt", lambda said: with_event(said, "0x" + "00" * 128)),
    "no event": ("eth_getTransactionReceipt", lambda said: {**said, "logs": []}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_contradicts_itself(anvil: Anvil, proxy: Proxy, lie: str) -> None:
    contract = deployed(anvil)
    lying(proxy, *LIES[lie])
    told = failure(EvmContract(proxy.url, anvil.account, contract=contract))
    assert type(told) is outcomes.ContradictionError
    assert proxy.url in str(told)


def test_a_node_that_says_it_is_on_another_chain_in_between(anvil: Anvil, proxy: Proxy) -> None:
    contract = deployed(anvil)
    answers = iter([None, "0x1"])
    lying(proxy, "eth_chainId", lambda said: next(answers, None) or said)
    assert type(failure(EvmContract(proxy.url, anvil.account, contract=contract))) is outcomes.ContradictionError


def test_too_little_gas(anvil: Anvil, proxy: Proxy) -> None:
    contract = deployed(anvil)
    for estimate in (10_000, 40_000):
        lying(proxy, "eth_estimateGas", lambda said, estimate=estimate: hex(estimate))
        told = failure(EvmContract(proxy.url, anvil.account, contract=contract))
        assert type(told) is outcomes.LowGasError
        assert str(estimate * 5 // 4) in str(told)


def test_a_node_that_hangs(anvil: Anvil, proxy: Proxy) -> None:
    contract = deployed(anvil)
    release = threading.Event()

    def hang(method: str, params: Any, answer: Any) -> Any:
        release.wait(10)
        return answer

    proxy.answer = hang
    try:
        told = failure(EvmContract(proxy.url, anvil.account, contract=contract, timeout_s=0.3))
        assert type(told) is outcomes.TimedOutError
    finally:
        release.set()


def test_a_node_that_hangs_after_it_took_the_transaction_is_asked_again(anvil: Anvil, proxy: Proxy) -> None:
    contract = deployed(anvil)
    anvil.ask("evm_setAutomine", False)
    anchors = EvmContract(proxy.url, anvil.account, contract=contract, timeout_s=0.5)
    assert type(failure(anchors)) is outcomes.TimedOutError
    assert type(failure(anchors)) is outcomes.TimedOutError
    anvil.ask("evm_mine")
    assert anchored(anchors, evm_head(TRACE, 50)).size == 50
    assert proxy.asked.count("eth_sendRawTransaction") == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", outcomes.NonsenseError),
        (b"<html>busy</html>", outcomes.NonsenseError),
        (b"[" * 100_000, outcomes.NonsenseError),
        ({"id": 1, "result": None}, outcomes.NonsenseError),
        ({"id": 1, "error": {"message": "busy"}}, outcomes.NodeError),
        (503, outcomes.NoAnswerError),
    ],
)
def test_a_node_that_answers_nonsense(anvil: Anvil, proxy: Proxy, answer: Any, kind: type[AnchorError]) -> None:
    contract = deployed(anvil)
    proxy.answer = lambda method, params, said: answer
    assert type(failure(EvmContract(proxy.url, anvil.account, contract=contract))) is kind


def test_a_node_that_is_not_there(anvil: Anvil, tmp_path: Path) -> None:
    with running_anvil(tmp_path) as gone:
        pass
    assert type(failure(EvmContract(gone.url, anvil.account, contract="0x" + "11" * 20))) is outcomes.NoAnswerError
    with pytest.raises(outcomes.NoAnswerError):
        anchored_heads(Node(gone.url), parse_address("0x" + "11" * 20), bytes(20), TRACE)
