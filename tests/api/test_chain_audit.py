"""The check `evm`: nodes that do not answer or lie, a chain that was reorganised, and whose heads count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fgtrac.anchor.contract.calls import anchor_call
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.verify.evm_receipt import format_address, format_evm_receipt, parse_address, parse_evm_receipt
from fgtrac.verify.receipts import EVM, evm_name, note_path, paths_of, receipt_path
from fgtrac.verify.report import Verdict
from findings import verdict_of, words_of
from signed import TRACE_ID, Files, note, write
from witnessed_traces import EVENTS, FIRST, FORGED, LAST, TRUE, Stage, entries_of, onto, root_of, verify, without

HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL
STRANGER = "0x" + "ab" * 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    """The stage; what a test does to the chain is undone."""
    snapshot = shared.chain.tester.take_snapshot()
    yield shared
    shared.chain.liar.lies.clear()
    shared.chain.tester.revert_to_snapshot(snapshot)


@pytest.fixture
def anchored(stage: Stage) -> Files:
    return stage.anchor(TRUE, FIRST, LAST, kinds=(EVM,))


def test_a_head_that_a_reorganisation_dropped_is_no_longer_green(stage: Stage) -> None:
    files = stage.anchor(TRUE, FIRST, kinds=(EVM,))
    before = stage.chain.tester.take_snapshot()
    files = stage.anchor(files, LAST, kinds=(EVM,))
    assert verdict_of(verify(files, stage.trusts(EVM)), EVM) is HOLDS
    stage.chain.tester.revert_to_snapshot(before)
    report = verify(files, stage.trusts(EVM))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "is in no block (any more)" in words_of(report, EVM)
    assert "beside that, 1 head kept" in words_of(report, EVM)
    assert ": of 3 entries" in words_of(report, EVM)
    assert "rewritten and signed again, is not shown" in " ".join(report.notes)


def test_a_head_counts_once_it_is_deep_enough(stage: Stage, anchored: Files) -> None:
    report = verify(anchored, stage.trusts(EVM, confirmations=2))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "1 of 2 confirmations" in words_of(report, EVM)
    stage.chain.tester.mine_block()
    assert verdict_of(verify(anchored, stage.trusts(EVM, confirmations=2)), EVM) is HOLDS


def test_a_node_that_does_not_answer_leaves_nobody_to_tell(stage: Stage, anchored: Files) -> None:
    dead = "http://user:secret@127.0.0.1:1/key-of-the-api"
    report = verify(anchored, stage.trusts(EVM, nodes=[dead]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert words_of(report, EVM).startswith(
        "a node that you named: eth_chainId: http://127.0.0.1:1 gave no usable answer"
    )
    assert "secret" not in str(report)
    assert "key-of-the-api" not in str(report)


def test_a_node_of_another_chain_is_said_to_be(stage: Stage, anchored: Files) -> None:
    stage.chain.liar.lies["eth_chainId"] = lambda _: "0x7"
    report = verify(anchored, stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "none of the nodes that answered is on chain" in words_of(report, EVM)


def test_a_node_that_contradicts_itself_confirms_nothing(stage: Stage, anchored: Files) -> None:
    stage.chain.liar.lies["eth_getBlockByNumber"] = lambda block: {**block, "hash": "0x" + "00" * 32}
    report = verify(anchored, stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is CANNOT_TELL


def test_the_chain_alone_holds_what_it_keeps_where_the_account_and_the_contract_are_named(
    stage: Stage, anchored: Files
) -> None:
    report = verify(without(anchored, EVM), stage.trusts(EVM))
    assert verdict_of(report, EVM) is HOLDS
    assert "2 heads kept by account" in words_of(report, EVM)
    report = verify(without(anchored, EVM), stage.trusts(EVM, accounts=[STRANGER]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "the chain keeps no head of this trace by that account" in words_of(report, EVM)


def test_one_receipt_that_was_left_leads_to_all_heads_of_its_account(stage: Stage, anchored: Files) -> None:
    """The first head is in both histories; the chain tells of the second one, whose receipt was removed."""
    newest = [path for path in paths_of(anchored, EVM) if f"/{LAST}/" in path]
    files = {p: d for p, d in onto(FORGED, anchored).items() if p not in newest}
    report = verify(files, stage.trusts(EVM, accounts=(), contracts=()))
    assert verdict_of(report, EVM) is REFUTED
    assert "over the first 7 entries the head that 0x" in words_of(report, EVM)


def test_what_the_receipts_say_of_the_account_is_said_to_be_their_word(stage: Stage, anchored: Files) -> None:
    words = words_of(verify(anchored, stage.trusts(EVM, accounts=(), contracts=())), EVM)
    assert words.count("(as the receipts name it)") == 2
    words = words_of(verify(anchored, stage.trusts(EVM, contracts=())), EVM)
    assert f"contract {stage.chain.contract} (as the receipts name it) on chain" in words
    assert "(as the receipts name it)" not in words_of(verify(anchored, stage.trusts(EVM)), EVM)


# -- heads that nobody gave, and nodes that do not tell the same ------------------------------------------------------

NOTHING = "0x" + "00" * 128


@pytest.mark.parametrize("is_planted", [False, True])
def test_a_receipt_of_a_head_that_was_made_up_when_the_contract_was_deployed_is_refuted(
    stage: Stage, is_planted: bool
) -> None:
    """The code at the address is the true one, and the event and the memory are as they should be."""
    files, sender = dict(TRUE), parse_address(str(stage.chain.tester.get_accounts()[0]))
    (forged,) = stage.chain.forge((sender, TRACE_ID, LAST, bytes.fromhex(root_of(TRUE))), is_planted=is_planted)
    files[note_path(LAST)] = note(entries_of(TRUE), LAST)
    name = evm_name(forged.chain_id, forged.contract, forged.sender)
    files[receipt_path(LAST, name)] = format_evm_receipt(forged)
    report = verify(files, stage.trusts(EVM, contracts=[format_address(forged.contract)]))
    assert verdict_of(report, EVM) is REFUTED
    assert "its event was made up" in words_of(report, EVM)


@pytest.mark.parametrize("root", [root_of(TRUE), root_of(FORGED)])
def test_a_head_that_somebody_planted_in_a_contract_says_nothing_of_the_log(stage: Stage, root: str) -> None:
    sender = parse_address(str(stage.chain.tester.get_accounts()[0]))
    (planted,) = stage.chain.forge((sender, TRACE_ID, LAST, bytes.fromhex(root)))
    report = verify(TRUE, stage.trusts(EVM, contracts=[format_address(planted.contract)]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "its event was made up" in words_of(report, EVM)
    assert "name another contract" in words_of(report, EVM)


def test_a_head_that_the_contract_does_not_tell_of_is_not_held_by_its_event_alone(
    stage: Stage, anchored: Files
) -> None:
    """As where another contract, which went away, stood at the address when the event was made."""
    stage.chain.liar.lies["eth_call"] = lambda _: NOTHING
    report = verify(anchored, stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "does not tell of this head (any more)" in words_of(report, EVM)
    assert "kept by" not in words_of(report, EVM)


@pytest.mark.parametrize("is_first", [False, True])
def test_of_several_nodes_of_a_chain_each_is_asked(stage: Stage, anchored: Files, is_first: bool) -> None:
    chain = stage.chain
    nodes = [chain.liar, chain.provider] if is_first else [chain.provider, chain.liar]
    assert verdict_of(verify(anchored, stage.trusts(EVM, nodes=nodes)), EVM) is HOLDS
    chain.liar.lies["eth_blockNumber"] = lambda height: height - 1
    report = verify(anchored, stage.trusts(EVM, nodes=nodes))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "0 of 1 confirmations" in words_of(report, EVM)
    chain.liar.lies = {"eth_call": lambda _: NOTHING}
    report = verify(without(anchored, EVM), stage.trusts(EVM, nodes=nodes))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "leave out the one that you do not trust" in words_of(report, EVM)
    report = verify(onto(FORGED, without(anchored, EVM)), stage.trusts(EVM, nodes=nodes))
    assert verdict_of(report, EVM) is REFUTED, "whatever the other one does not tell"


def silent(_: Any) -> Any:
    raise OSError("rate limit")


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("method", ["eth_getCode", "eth_call", "eth_getLogs", "eth_getTransactionByHash"])
def test_a_node_that_stops_to_answer_hides_no_contradiction_that_another_shows(
    stage: Stage, anchored: Files, method: str, is_first: bool
) -> None:
    chain = stage.chain
    nodes = [chain.liar, chain.provider] if is_first else [chain.provider, chain.liar]
    chain.liar.lies[method] = silent
    assert verdict_of(verify(anchored, stage.trusts(EVM, nodes=nodes)), EVM) is CANNOT_TELL
    report = verify(onto(FORGED, without(anchored, EVM)), stage.trusts(EVM, nodes=nodes))
    assert verdict_of(report, EVM) is REFUTED
    assert "over the first 7 entries the head that 0x" in words_of(report, EVM)


def test_a_node_that_does_not_answer_hides_no_receipt_that_another_contradicts(stage: Stage, anchored: Files) -> None:
    (path,) = [path for path in paths_of(anchored, EVM) if f"/{LAST}/" in path]
    receipt = parse_evm_receipt(anchored[path])
    false = anchored | {path: format_evm_receipt(replace(receipt, block_time=receipt.block_time + 1))}
    stage.chain.liar.lies["eth_getTransactionReceipt"] = silent
    report = verify(false, stage.trusts(EVM, nodes=[stage.chain.liar, stage.chain.provider]))
    assert verdict_of(report, EVM) is REFUTED
    assert "the event has block_time" in words_of(report, EVM)


def test_a_head_that_nobody_can_tell_of_hides_no_contradiction_behind_it(stage: Stage, anchored: Files) -> None:
    """The signer sends one more head, of a huge size, with a byte behind it: only his key can, and he is told so."""
    tester = stage.chain.tester
    data = "0x" + anchor_call(TRACE_ID, 10**18, b"\7" * 32).hex() + "00"
    account = tester.get_accounts()[0]
    tester.send_transaction({"from": account, "to": stage.chain.contract, "gas": 3_000_000, "data": data})
    report = verify(without(anchored, EVM), stage.trusts(EVM))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert f"{account.lower()} itself sent it: only the key of that account can" in words_of(report, EVM)
    assert "name another contract" not in words_of(report, EVM)
    report = verify(onto(FORGED, without(anchored, EVM)), stage.trusts(EVM))
    assert verdict_of(report, EVM) is REFUTED
    assert "over the first 7 entries the head that 0x" in words_of(report, EVM)


def test_one_node_of_two_that_is_silent_leaves_nobody_to_tell(stage: Stage, anchored: Files) -> None:
    report = verify(anchored, stage.trusts(EVM, nodes=[stage.chain.provider, "http://127.0.0.1:1"]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "beside that, 2 heads kept" in words_of(report, EVM)


def test_a_log_that_is_sealed_and_anchored_while_it_is_verified_was_not_rolled_back(
    stage: Stage, anchored: Files
) -> None:
    files = dict(write(*EVENTS[: LAST - 1]))
    trusted = stage.trusts(EVM, nodes=[stage.chain.liar])
    assert verdict_of(verify(files, trusted), EVM) is REFUTED

    def meanwhile(chain_id: int) -> int:
        files["checkpoint"] = TRUE["checkpoint"]
        return chain_id

    stage.chain.liar.lies["eth_chainId"] = meanwhile
    report = verify(files, trusted)
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "has 7 entries; this log had 6 when it was read and has 9 now: verify it again" in words_of(report, EVM)


def test_a_time_that_no_calendar_has_refutes_no_log(stage: Stage, anchored: Files) -> None:
    late = 10**13

    def later(log: dict[str, Any]) -> dict[str, Any]:
        return {**log, "data": f"{log['data'][:130]}{late:064x}{log['data'][194:]}"}

    stage.chain.liar.lies |= {
        "eth_getBlockByNumber": lambda block: {**block, "timestamp": late},
        "eth_getLogs": lambda logs: [later(log) for log in logs],
        "eth_getTransactionReceipt": lambda mined: {**mined, "logs": [later(log) for log in mined["logs"]]},
    }
    report = verify(without(anchored, EVM), stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is HOLDS
    assert f"{late} seconds after 1970" in words_of(report, EVM)
    report = verify(onto(FORGED, without(anchored, EVM)), stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is REFUTED
    assert f"at {late} seconds after 1970" in words_of(report, EVM)


def test_any_of_the_accounts_and_contracts_that_are_named_will_do(stage: Stage, anchored: Files) -> None:
    mine = stage.trusts(EVM)
    more = stage.trusts(EVM, accounts=[STRANGER, *mine.accounts])
    assert verdict_of(verify(anchored, more), EVM) is HOLDS
    assert verdict_of(verify(without(anchored, EVM), more), EVM) is HOLDS
    absent = stage.trusts(EVM, contracts=[*mine.contracts, STRANGER])
    assert f"no code at {STRANGER}" in words_of(verify(anchored, absent), EVM)


# -- who is named -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["accounts", "contracts"])
def test_receipts_of_another_account_or_contract_than_the_named_one_count_for_nothing(
    stage: Stage, anchored: Files, what: str
) -> None:
    report = verify(anchored, stage.trusts(EVM, **{what: [STRANGER]}))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert f"of the {what[:-1]} 0x" in words_of(report, EVM)
    assert f"and you named {STRANGER}" in words_of(report, EVM)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"nodes": ["ftp://x"]}, "no URL of an outside service"),
        ({"nodes": ["http://x"], "accounts": ["0x12"]}, "'0x12' is no address"),
        ({"nodes": ["http://x"], "contracts": ["nobody"]}, "'nobody' is no address"),
        ({"nodes": ["http://x"], "confirmations": 0}, "0 confirmations"),
        ({"accounts": [STRANGER]}, "name a node too"),
        ({"quorum": 1}, "name them"),
        ({"witnesses": ["no key"]}, "is no cosigner's key"),
    ],
)
def test_whom_nobody_could_ask_is_the_caller_s_mistake(named: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        anchor_demands([], TrustedAnchors(**named))  # type: ignore[arg-type]
