"""Anchoring a trace's newest head: receipts, the line in the tree head, and what is refused before anybody is asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from anchored_traces import LOG_KEY, RECEIPT, files, grow, pending_path, write_key
from authorities import issue, make_root
from cosigned import TIME, cosigner
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.rfc3161 import check_alone
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.api.anchoring import anchor_trace, complete_pending
from fgtrac.errors import AnchorError, ProofError, TamperError
from fgtrac.store import durable
from fgtrac.tlog.cosignature import cosignature_time
from fgtrac.tlog.note import (
    Note,
    TreeHead,
    format_note,
    format_tree_head,
    parse_note,
    parse_tree_head,
    sign_note,
    verify_note,
)
from fgtrac.verify.evm_receipt import parse_evm_receipt
from fgtrac.verify.receipts import rfc3161_name
from loopback_witness import LoopbackWitness
from stamps_by_hand import WHEN, stamp
from traces import Made, make_trace

# -- done -----------------------------------------------------------------------------------------------------------


def test_the_receipt_lies_beside_the_head_that_was_witnessed_and_the_line_stands_in_the_tree_head(
    made: Made, witness: LoopbackWitness
) -> None:
    before = made.trace.read("checkpoint")
    (result,) = anchor_trace(made.trace.path, [witness.service()])
    assert (result.kind, result.size, result.time, result.error) == ("witness", 18, TIME + 1, None)
    assert result.name == witness.service().name
    assert result.receipt == f"receipts/18/{RECEIPT}"
    assert files(made) == ["receipts/18/checkpoint", result.receipt]
    assert made.trace.read("receipts/18/checkpoint") == before
    cosigned = made.trace.read(result.receipt)
    assert cosignature_time(cosigned, cosigner()) == TIME + 1
    assert made.trace.read("checkpoint") == made.trace.read("index/18/checkpoint") == cosigned
    verify_note(cosigned, [made.verifier])
    assert not pending_path(made).exists()


def test_the_next_seal_continues_a_cosigned_head(made: Made, witness: LoopbackWitness) -> None:
    anchor_trace(made.trace.path, [witness.service()])
    size = grow(made)
    (result,) = anchor_trace(made.trace.path, [witness.service()])
    assert result.error is None
    assert witness.sizes == [18, size]
    assert len(parse_note(made.trace.read(f"receipts/{size}/checkpoint")).signatures) == 1


def test_the_first_receipt_of_a_head_stays_since_it_is_the_older_one(made: Made, witness: LoopbackWitness) -> None:
    first, second = (anchor_trace(made.trace.path, [witness.service()])[0] for _ in range(2))
    assert witness.time == TIME + 2
    assert first.time == second.time == TIME + 1
    assert cosignature_time(made.trace.read(second.receipt), cosigner()) == TIME + 1


class ByHand:
    """A time-stamping authority in this process, a second later each time."""

    kind = "rfc3161"
    name = "by hand"
    authority = issue("tsa", make_root())
    asked = 0

    def settings(self) -> Mapping[str, Any]:
        raise TypeError("it lives in this process only")

    def prepare(self) -> None: ...

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        self.asked += 1
        when = WHEN + timedelta(seconds=self.asked)
        return rfc3161_name("by hand"), stamp(signed.note, self.authority, when=when)


def test_the_first_time_stamp_stays_unless_it_is_damaged_or_of_another_head(made: Made) -> None:
    service, began = ByHand(), int(WHEN.timestamp())
    first, second = (anchor_trace(made.trace.path, [service])[0] for _ in range(2))
    assert (first.time, second.time, service.asked) == (began + 1, began + 1, 2)
    receipt = made.trace.path / first.receipt
    good, note = receipt.read_bytes(), receipt.with_name("checkpoint").read_bytes()
    ended = issue("tsa", make_root(), last=WHEN - timedelta(days=1))
    damaged = {
        "cut": good[:-1],
        "of another head": stamp(b"another head", service.authority),
        "with another signature": good[:-1] + bytes([good[-1] ^ 1]),
        "by a certificate that had expired": stamp(note, ended),
        "by a certificate for something else": stamp(note, issue("tsa", make_root(), extensions=[])),
    }
    for number, other in enumerate(damaged.values(), 3):
        receipt.write_bytes(other)
        (again,) = anchor_trace(made.trace.path, [service])
        assert (again.error, again.time) == (None, began + number)
        assert check_alone(receipt.read_bytes(), note).time.timestamp() == began + number


def test_a_time_stamp_that_does_not_hold_is_not_kept(made: Made) -> None:
    service = ByHand()
    (first,) = anchor_trace(made.trace.path, [service])
    good = made.trace.read(first.receipt)
    service.authority = issue("tsa", make_root(), last=WHEN - timedelta(days=1))
    (second,) = anchor_trace(made.trace.path, [service])
    assert "CN=tsa had expired when the time was stamped" in str(second.error)
    assert made.trace.read(first.receipt) == good


def test_a_receipt_that_was_damaged_is_replaced(made: Made, witness: LoopbackWitness) -> None:
    (first,) = anchor_trace(made.trace.path, [witness.service()])
    durable.write_file(made.trace.path / first.receipt, made.trace.read("receipts/18/checkpoint"))
    (second,) = anchor_trace(made.trace.path, [witness.service()])
    assert second.time == TIME + 2
    assert cosignature_time(made.trace.read(second.receipt), cosigner()) == TIME + 2


@pytest.mark.parametrize("key", ["another.pem", "none.pem"])
def test_who_has_not_the_key_writes_receipts_and_leaves_the_tree_head_alone(
    made: Made, witness: LoopbackWitness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    write_key(tmp_path / "another.pem", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / key))
    before = made.trace.read("checkpoint")
    (result,) = anchor_trace(made.trace.path, [witness.service()])
    assert result.error is None
    assert files(made) == ["receipts/18/checkpoint", result.receipt]
    assert made.trace.read("checkpoint") == before


def test_a_contract_is_deployed_once_for_a_trace_and_found_again_by_its_receipts(made: Made, tmp_path: Path) -> None:
    chain = LocalChain(tmp_path / "chain")
    (first,) = anchor_trace(made.trace.path, [EvmContract(chain.provider, chain.account)])
    size = grow(made)
    again = EvmContract(chain.provider, chain.account)
    (second,) = anchor_trace(made.trace.path, [again])
    receipts = [parse_evm_receipt(made.trace.read(r.receipt)) for r in (first, second)]
    assert [r.size for r in receipts] == [18, size]
    assert len({r.contract for r in receipts}) == 1
    assert f"0x{receipts[0].contract.hex()}" == again.contract
    assert again.contract in second.name
    assert second.time == receipts[1].block_time


class Faulty(ByHand):
    """A service with a fault of its own, whose text holds a secret."""

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        raise KeyError("k3y-th4t-is-secret")


def test_a_fault_of_a_service_is_in_its_result_and_the_others_are_asked(made: Made, witness: LoopbackWitness) -> None:
    fault, done = anchor_trace(made.trace.path, [Faulty(), witness.service()])
    assert type(fault.error) is AnchorError
    assert str(fault.error) == "it failed with KeyError"
    assert done.error is None


# -- refused before anything is asked -------------------------------------------------------------------------------


def test_mistakes_are_told_before_anybody_is_asked(made: Made, witness: LoopbackWitness, tmp_path: Path) -> None:
    path, service = made.trace.path, witness.service()
    with pytest.raises(ValueError, match="no service to anchor with"):
        anchor_trace(path, [])
    with pytest.raises(ValueError, match="a quorum of 2 of 1 different witnesses"):
        anchor_trace(path, [service, service], quorum=2)
    with pytest.raises(FileNotFoundError, match="no trace"):
        anchor_trace(tmp_path / "none.trace", [service])
    made_key = tmp_path / "key.pem"
    made_key.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        anchor_trace(path, [service])
    with pytest.raises(ValueError, match="chmod 600"):
        complete_pending(path)
    assert witness.requests == 0


def test_a_trace_that_was_never_sealed_has_no_head(
    tmp_path: Path, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "none.pem"))
    made = make_trace(tmp_path, sealed=False)
    with pytest.raises(ValueError, match=r"nothing in .* is sealed yet; seal it first: fgtrac seal"):
        anchor_trace(made.trace.path, [witness.service()])
    assert witness.requests == 0


def test_a_head_that_the_key_did_not_sign_or_that_is_not_the_log_s_is_not_shown_to_anybody(
    made: Made, witness: LoopbackWitness
) -> None:
    note = made.trace.read("checkpoint")
    head = parse_tree_head(parse_note(note).text)
    text = format_tree_head(TreeHead(head.origin, 18, bytes(32)))
    altered = format_note(Note(text, parse_note(note).signatures))
    durable.write_file(made.trace.path / "checkpoint", altered)
    with pytest.raises(ProofError, match="does not fit the text"):
        anchor_trace(made.trace.path, [witness.service()])
    forged = format_note(Note(text, (sign_note(text, head.origin, LOG_KEY),)))
    durable.write_file(made.trace.path / "checkpoint", forged)
    with pytest.raises(TamperError, match="restore the trace that was sealed"):
        anchor_trace(made.trace.path, [witness.service()])
    assert witness.requests == 0
    assert not pending_path(made).exists()
