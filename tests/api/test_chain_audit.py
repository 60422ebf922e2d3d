"""The check `evm`: nodes that do not answer or lie, a chain that was reorganised, and whose heads count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.verify.receipts import EVM, paths_of
from fgtrac.verify.report import Verdict
from findings import verdict_of, words_of
from signed import Files
from witnessed_traces import FIRST, FORGED, LAST, TRUE, Stage, onto, verify, without

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
    assert words_of(report, EVM).startswith("http://127.0.0.1:1: ")
    assert "secret" not in str(report)
    assert "key-of-the-api" not in str(report)


def test_a_node_of_another_chain_is_said_to_be(stage: Stage, anchored: Files) -> None:
    stage.chain.liar.lies["eth_chainId"] = lambda _: "0x7"
    report = verify(anchored, stage.trusts(EVM, nodes=[stage.chain.liar]))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "none of the nodes is on chain" in words_of(report, EVM)


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
    report = verify(without(anchored, EVM), stage.trusts(EVM, account=STRANGER))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert "the chain keeps no head of this trace by that account" in words_of(report, EVM)


def test_one_receipt_that_was_left_leads_to_all_heads_of_its_account(stage: Stage, anchored: Files) -> None:
    """The first head is in both histories; the chain tells of the second one, whose receipt was removed."""
    newest = [path for path in paths_of(anchored, EVM) if f"/{LAST}/" in path]
    files = {p: d for p, d in onto(FORGED, anchored).items() if p not in newest}
    report = verify(files, stage.trusts(EVM, account=None, contract=None))
    assert verdict_of(report, EVM) is REFUTED
    assert "over the first 7 entries the head that 0x" in words_of(report, EVM)


def test_what_the_receipts_say_of_the_account_is_said_to_be_their_word(stage: Stage, anchored: Files) -> None:
    words = words_of(verify(anchored, stage.trusts(EVM, account=None, contract=None)), EVM)
    assert "(as the receipts name it)" in words
    assert "(as the receipts name it)" not in words_of(verify(anchored, stage.trusts(EVM)), EVM)


@pytest.mark.parametrize("what", ["account", "contract"])
def test_receipts_of_another_account_or_contract_than_the_named_one_count_for_nothing(
    stage: Stage, anchored: Files, what: str
) -> None:
    report = verify(anchored, stage.trusts(EVM, **{what: STRANGER}))
    assert verdict_of(report, EVM) is CANNOT_TELL
    assert f"of the {what} 0x" in words_of(report, EVM)
    assert f"and you named {STRANGER}" in words_of(report, EVM)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"nodes": ["ftp://x"]}, "no URL of an outside service"),
        ({"nodes": ["http://x"], "account": "0x12"}, "'0x12' is no address"),
        ({"nodes": ["http://x"], "contract": "nobody"}, "'nobody' is no address"),
        ({"nodes": ["http://x"], "confirmations": 0}, "0 confirmations"),
        ({"account": STRANGER}, "name a node too"),
        ({"quorum": 1}, "name them"),
        ({"witnesses": ["no key"]}, "is no cosigner's key"),
    ],
)
def test_whom_nobody_could_ask_is_the_caller_s_mistake(named: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        anchor_demands([], TrustedAnchors(**named))  # type: ignore[arg-type]
