"""Anchoring a trace's newest head: receipts, the line in the tree head, what stays pending and what completes it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authorities import issue, make_root
from cosigned import TIME, cosigner
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.pending import PendingFile
from fgtrac.anchor.rfc3161 import check_alone
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.witness import Witness
from fgtrac.api.anchoring import anchor_trace, complete_pending, has_quorum
from fgtrac.commit import tidy
from fgtrac.errors import AnchorError, FormatError, ProofError, RefusedError, TamperError
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
from fgtrac.tlog.tiles import parse_tile_path, partial_tiles
from fgtrac.verify.evm_receipt import parse_evm_receipt
from fgtrac.verify.receipts import rfc3161_name
from loopback_witness import LoopbackWitness
from stamps_by_hand import WHEN, stamp
from traces import Made, Writing, make_trace

LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
RECEIPT = f"witness-{cosigner().key_id.hex()}.checkpoint"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A sealed trace, whose signing key is the user's."""
    write_key(tmp_path / "key.pem", LOG_KEY)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    return make_trace(tmp_path)


@pytest.fixture
def witness() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness()
    with made.running():
        yield made


@pytest.fixture
def down() -> LoopbackWitness:
    """A witness that was there, and whose port is closed now."""
    made = LoopbackWitness("witness.example/down", Ed25519PrivateKey.from_private_bytes(b"d" * 32))
    with made.running():
        pass
    made.released.clear()
    return made


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


def grow(made: Made, number: int = 2, *, full: bool = True) -> int:
    """Another process's entries, sealed."""
    writing = Writing(made, bytes((number,)) * 16)
    for _ in range(number):
        writing.use([1, 2])
    writing.recorder.close()
    return made.seal(full=full).size


def pending_path(made: Made) -> Path:
    return made.signer.pending_path


def files(made: Made) -> list[str]:
    return sorted(name for name in made.trace.names() if name.startswith("receipts/"))


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


# -- pending --------------------------------------------------------------------------------------------------------


def test_what_gave_no_answer_stays_pending_until_it_is_completed(
    made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    done, failed = anchor_trace(made.trace.path, [witness.service(), down.service()])
    assert done.error is None
    assert type(failed.error) is AnchorError
    assert "secret-path" not in str(failed.error)
    assert stat.S_IMODE(pending_path(made).stat().st_mode) == 0o600
    (still,) = complete_pending(made.trace.path)
    assert type(still.error) is AnchorError
    with down.running():
        (completed,) = complete_pending(made.trace.path)
        assert (completed.size, completed.error) == (18, None)
        assert complete_pending(made.trace.path) == ()
    assert not pending_path(made).exists()
    assert [s.name for s in parse_note(made.trace.read("checkpoint")).signatures[1:]] == [witness.name, down.name]


def test_a_pending_head_is_anchored_although_the_trace_has_grown_and_its_partial_tiles_have_gone(
    made: Made, down: LoopbackWitness
) -> None:
    with down.running():
        anchor_trace(made.trace.path, [down.service()])
    size = grow(made, 2, full=False)
    anchor_trace(made.trace.path, [down.service()])
    largest = grow(made, 3, full=False)
    assert not set(partial_tiles(size)) & set(map(parse_tile_path, tiles(made)))
    with down.running():
        (result,) = complete_pending(made.trace.path)
    assert (result.size, result.error) == (size, None)
    assert down.sizes == [18, size]  # it has checked the proof from one to the other
    assert len(parse_note(made.trace.read("checkpoint")).signatures) == 1, "the newest head was not cosigned"
    assert made.trace.head().size == largest


class Deploys(Witness):
    """A service that gets no further than to a contract."""

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "deployment": self.deployment}

    deployment: str | None = None

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        assert [p.settings["deployment"] for p in PendingFile(self.list).read()] == [self.deployment]
        self.deployment = "0x" + "11" * 20
        raise AnchorError("deployed, and then silent")

    list: Path


def test_a_contract_that_was_deployed_before_the_failure_is_not_deployed_again_later(made: Made) -> None:
    service = Deploys("http://127.0.0.1:1", LoopbackWitness().vkey)
    service.list = pending_path(made)
    (result,) = anchor_trace(made.trace.path, [service])
    assert str(result.error) == "deployed, and then silent"
    assert [p.settings["deployment"] for p in PendingFile(pending_path(made)).read()] == ["0x" + "11" * 20]


def test_only_the_newest_head_of_a_service_stays_pending_and_a_newer_receipt_covers_it(
    made: Made, down: LoopbackWitness
) -> None:
    anchor_trace(made.trace.path, [down.service()])
    size = grow(made)
    anchor_trace(made.trace.path, [down.service(timeout_s=4)])
    assert [p.signed.head.size for p in PendingFile(pending_path(made)).read()] == [size]
    grow(made, 3)
    with down.running():
        anchor_trace(made.trace.path, [down.service()])
    assert not pending_path(made).exists()


def test_what_was_refused_is_not_pending(made: Made, witness: LoopbackWitness) -> None:
    witness.mode = "refuses"
    (result,) = anchor_trace(made.trace.path, [witness.service()])
    assert isinstance(result.error, RefusedError)
    assert not pending_path(made).exists()
    assert files(made) == []


def test_with_a_quorum_those_beyond_it_are_not_kept(
    made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    services = [witness.service(), down.service()]
    results = anchor_trace(made.trace.path, services, quorum=1)
    assert has_quorum(services, results, 1)
    assert not has_quorum(services, results, 2)
    assert not pending_path(made).exists()
    assert not has_quorum(services, anchor_trace(made.trace.path, services, quorum=2), 2)
    assert len(PendingFile(pending_path(made)).read()) == 1


def test_a_disk_that_refuses_a_receipt_leaves_it_pending(
    made: Made, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = durable._rename

    def fails(source: Path, target: Path) -> None:
        if "receipts" in target.parts:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", fails)
    (result,) = anchor_trace(made.trace.path, [witness.service()])
    assert isinstance(result.error, OSError)
    assert files(made) == []
    monkeypatch.setattr(durable, "_rename", rename)
    (completed,) = complete_pending(made.trace.path)
    assert completed.error is None
    assert not pending_path(made).exists()


CHILD = """
import os, signal, sys
from pathlib import Path
from fgtrac.anchor.witness import Witness
from fgtrac.api.anchoring import anchor_trace
from fgtrac.store import durable

rename, left = durable._rename, [int(sys.argv[4])]

def dies(source, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

durable._rename, remove = dies, durable._remove
durable._remove = lambda path: dies(path, path) if path.name.endswith(".pending") else remove(path)
anchor_trace(sys.argv[1], [Witness(sys.argv[2], sys.argv[3], timeout_s=5)])
"""
WRITES = ["the list", "receipts' checkpoint", "the receipt", "the index's note", "the tree head", "off the list"]


@pytest.mark.parametrize("behind", range(len(WRITES)), ids=[f"before {name}" for name in WRITES])
def test_a_process_killed_between_any_two_writes_leaves_what_pending_completes(
    made: Made, witness: LoopbackWitness, behind: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(made.trace.path), witness.url, witness.vkey, str(behind)]
    done = subprocess.run(command, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    if behind == 0:
        assert complete_pending(made.trace.path) == ()  # nothing was begun
        return
    (result,) = complete_pending(made.trace.path)
    assert result.error is None
    assert files(made) == ["receipts/18/checkpoint", f"receipts/18/{RECEIPT}"]
    cosigned = made.trace.read(f"receipts/18/{RECEIPT}")
    for note in ("checkpoint", "index/18/checkpoint"):
        assert cosignature_time(made.trace.read(note), cosigner()) is not None
        assert parse_note(made.trace.read(note)).text == parse_note(cosigned).text
    assert not pending_path(made).exists()
    tidy.remove_temporaries(made.trace)
    assert grow(made) > 18


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


def test_a_pending_head_of_another_history_is_not_shown_to_anybody(
    made: Made, down: LoopbackWitness, tmp_path: Path
) -> None:
    anchor_trace(made.trace.path, [down.service()])
    shutil.rmtree(made.trace.path)
    (tmp_path / "again").mkdir()
    other = make_trace(tmp_path / "again", uses=14)
    other.trace.path.rename(made.trace.path)
    with down.running():
        (result,) = complete_pending(made.trace.path)
    assert isinstance(result.error, TamperError)
    assert down.requests == 0


def test_a_damaged_list_and_settings_that_make_nothing_are_told(made: Made, down: LoopbackWitness) -> None:
    anchor_trace(made.trace.path, [down.service()])
    path = pending_path(made)
    path.write_bytes(path.read_bytes().replace(b"127.0.0.1", b"exa mple"))
    (result,) = complete_pending(made.trace.path)
    assert isinstance(result.error, FormatError)
    assert "make no such service" in str(result.error)
    path.write_bytes(b"{}")
    with pytest.raises(FormatError, match="remove that file, and anchor the newest head"):
        complete_pending(made.trace.path)


def tiles(made: Made) -> list[str]:
    return [name for name in made.trace.names() if name.startswith("tile/")]
