"""What becomes of an anchored trace where its chain is begun anew, slow, or one of several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cosigned import prover, signed_head
from fgtrac.anchor import outcomes
from fgtrac.anchor.account import load_account
from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.evm import EvmContract
from fgtrac.api.anchoring import anchor_trace, complete_pending
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.store import durable
from fgtrac.verify.evm_receipt import format_address, parse_evm_receipt
from fgtrac.verify.receipts import EVM, note_path, receipt_path
from fgtrac.verify.report import Verdict
from findings import verdict_of, words_of
from services.anvil import Anvil, running_anvil
from signed import note
from traces import Made, make_trace
from witnessed_traces import FIRST, LAST, TRUE, entries_of, verify, without

OTHER_KEY = b"0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"  # anvil's second account


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A sealed trace, whose signing key is the user's."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path = tmp_path / "key.pem"
    durable.write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    monkeypatch.setenv("FGTRAC_KEY", str(path))
    return make_trace(tmp_path)


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    with running_anvil(tmp_path / "chain") as running:
        yield running


def anchor(made: Made, chain: Anvil, **options: Any) -> Anchored:
    """As a process of its own does it: nothing is known but what lies on the disk."""
    (result,) = anchor_trace(made.trace.path, [EvmContract(chain.url, chain.account, **options)])
    return result


def sent_by(chain: Anvil) -> int:
    """How many transactions the account has sent, with those that wait."""
    address = format_address(load_account(chain.account).address)
    return int(chain.ask("eth_getTransactionCount", address, "pending"), 16)


def test_a_deployment_that_no_block_took_in_time_is_paid_once(made: Made, anvil: Anvil) -> None:
    anvil.ask("evm_setAutomine", False)
    for _ in range(2):
        assert type(anchor(made, anvil, timeout_s=0.5).error) is outcomes.TimedOutError
    (pending,) = complete_pending(made.trace.path)[:1]
    assert type(pending.error) is outcomes.TimedOutError
    assert sent_by(anvil) == 1
    anvil.ask("evm_mine")
    anvil.ask("evm_setAutomine", True)
    (done,) = complete_pending(made.trace.path)
    assert done.error is None
    assert sent_by(anvil) == 2


def test_a_deployment_is_remembered_where_the_user_interrupts_the_wait(
    made: Made, anvil: Anvil, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    anvil.ask("evm_setAutomine", False)
    with monkeypatch.context() as patched:
        patched.setattr("fgtrac.anchor.transactions.pause", interrupted)
        with pytest.raises(KeyboardInterrupt):
            anchor(made, anvil)
    anvil.ask("evm_mine")
    anvil.ask("evm_setAutomine", True)
    assert anchor(made, anvil).error is None
    assert sent_by(anvil) == 2


def test_on_a_chain_that_was_begun_anew_the_contract_is_deployed_anew_unless_it_was_named(
    made: Made, tmp_path: Path
) -> None:
    with running_anvil(tmp_path / "first") as chain:
        before = anchor(made, chain)
        receipt = parse_evm_receipt(made.trace.read(before.receipt))
    contract = format_address(receipt.contract)
    with running_anvil(tmp_path / "second") as chain:
        assert type(anchor(made, chain, contract=contract).error) is outcomes.NoContractError
        chain.ask("anvil_setNonce", format_address(receipt.sender), hex(5))
        again = anchor(made, chain)
        assert again.error is None
        assert f"(deployed anew: it was gone from {contract})" in again.name
        assert parse_evm_receipt(made.trace.read(before.receipt)) == receipt, "of another contract, with another name"
        assert again.receipt != before.receipt


def test_one_trace_on_two_chains_by_two_accounts_in_two_contracts(tmp_path: Path, anvil: Anvil) -> None:
    files, entries = dict(TRUE), entries_of(TRUE)
    with running_anvil(tmp_path / "other", "--chain-id", "4242") as other:
        durable.write_file(other.account, OTHER_KEY, mode=0o600)
        kept = []
        for chain, sizes in ((anvil, (FIRST, LAST)), (other, (LAST,))):
            service = EvmContract(chain.url, chain.account)
            chain.ask("anvil_setNonce", format_address(load_account(chain.account).address), hex(len(kept)))
            for size in sizes:
                name, receipt = service.anchor(signed_head(entries, size), prover(entries, size))
                files[note_path(size)], files[receipt_path(size, name)] = note(entries, size), receipt
                kept.append(parse_evm_receipt(receipt))
        contracts = sorted({format_address(receipt.contract) for receipt in kept})
        accounts = sorted({format_address(receipt.sender) for receipt in kept})
        assert (len(contracts), len(accounts)) == (2, 2)
        trusted = TrustedAnchors(nodes=[anvil.url, other.url], contracts=contracts, accounts=accounts)
        for found in (files, without(files, EVM)):
            report = verify(found, trusted)
            assert verdict_of(report, EVM) is Verdict.HOLDS, words_of(report, EVM)
            for chain_id in (31337, 4242):
                assert f"on chain {chain_id}" in words_of(report, EVM)
        one = TrustedAnchors(nodes=[anvil.url, other.url], contracts=contracts[:1], accounts=accounts)
        assert verdict_of(verify(files, one), EVM) is Verdict.CANNOT_TELL
