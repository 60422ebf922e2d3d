"""A run that anchors its heads: when, beside the training, and what is left where services fail, hang or refuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.utils.data import DataLoader

from fgtrac.anchor import background
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.pending import PendingFile
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.api import anchored_run
from fgtrac.api.anchoring import complete_pending
from fgtrac.api.audit import audit_trace
from fgtrac.api.prior import signer_of
from fgtrac.api.run import Run, start_run
from fgtrac.capture.own_time import own_time
from fgtrac.commit import sequencer
from fgtrac.commit.gather import Segment
from fgtrac.errors import AnchorError, CaptureError
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.evm_receipt import parse_address, parse_evm_receipt
from fgtrac.verify.report import Verdict
from fgtrac.verify.sightings import Witnessed
from loopback_witness import LoopbackWitness
from replays import DATA, train

LONG_S = 30.0  # more than anything here takes


@pytest.fixture
def witness() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness()
    with made.running():
        yield made


@pytest.fixture
def other() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness("witness.example/other", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
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


def begin(folder: Path, *parties: Any, **options: Any) -> Run:
    services = [party.service() if isinstance(party, LoopbackWitness) else party for party in parties]
    return start_run(folder / "run", key=folder / "key.pem", anchors=services, **options)


def epochs(run: Run, number: int, workers: int = 0) -> None:
    """Train, with a checkpoint after each epoch."""
    loader = run.watch(DataLoader(DATA, batch_size=8, shuffle=True, num_workers=workers), role="train")
    for _ in range(number):
        train(loader, epochs=1)
        run.checkpoint(torch.nn.Linear(1, 1), val_loss=1.0)


def trace_of(folder: Path) -> TraceDir:
    return TraceDir.open(folder / "run.trace")


def size_of(folder: Path) -> int:
    head = trace_of(folder).head()
    assert head is not None
    return head.size


def receipts(folder: Path) -> list[int]:
    return sorted({int(name.split("/")[1]) for name in trace_of(folder).names() if name.startswith("receipts/")})


def pending(folder: Path) -> dict[str, int]:
    signer = signer_of(trace_of(folder), folder / "key.pem")
    items = PendingFile(signer.pending_path).read()
    return {p.settings["key"].split("+")[0]: p.signed.head.size for p in items}


def events(folder: Path, *kinds: str) -> list[tuple[int, Mapping[str, Any]]]:
    trace, size = trace_of(folder), size_of(folder)
    found = [decode_event(entry) for entry in read_entries(trace, 0, size, size)]
    return [(number, event) for number, event in enumerate(found) if event["kind"] in kinds]


def bound_epochs(folder: Path, sizes: list[int]) -> int:
    said = Announcements()
    for number, event in events(folder, "sampler", "use"):
        said.add(number, event)
    return said.bound([Witnessed(size, 0.0, "somebody, in time") for size in sizes])


def holds(folder: Path) -> bool:
    signer = signer_of(trace_of(folder), folder / "key.pem")
    return audit_trace(trace_of(folder), signer.verifier).verdict is Verdict.HOLDS


# -- when -----------------------------------------------------------------------------------------------------------


def test_the_head_at_the_end_is_anchored_and_no_other(tmp_path: Path, witness: LoopbackWitness) -> None:
    with begin(tmp_path, witness, seal_interval_s=0) as run:
        epochs(run, 3)
        run._sealer.finish()
        assert witness.requests == 0
    assert witness.sizes == receipts(tmp_path) == [size_of(tmp_path)]
    assert witness.name.encode() in trace_of(tmp_path).read("checkpoint")
    assert pending(tmp_path) == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_s_announcement_is_anchored_before_any_of_its_batches_is_in_the_log(
    tmp_path: Path, witness: LoopbackWitness, workers: int
) -> None:
    options = {"anchor_at": "epoch", "anchor_wait_s": LONG_S, "flush_interval_s": 0.001, "seal_interval_s": 0}
    with begin(tmp_path, witness, **options) as run:
        epochs(run, 3, workers)
        for batch in run.watch(DataLoader(DATA, batch_size=8), role="validation"):
            assert len(batch) == 2
    sizes = receipts(tmp_path)
    assert witness.sizes == sizes
    assert len(sizes) == 4  # of each epoch that trains, and of the end
    assert bound_epochs(tmp_path, sizes) == 3
    assert sizes[-1] == size_of(tmp_path)


def test_a_chain_gets_one_contract_and_each_epoch_s_head_in_it(tmp_path: Path) -> None:
    chain = LocalChain(tmp_path / "chain")
    service = EvmContract(chain.provider, chain.account)
    with begin(tmp_path, service, anchor_at="epoch", anchor_wait_s=LONG_S) as run:
        epochs(run, 2)
    paths = sorted((tmp_path / "run.trace" / "receipts").glob("*/evm-*.json"))
    found = sorted((parse_evm_receipt(p.read_bytes()) for p in paths), key=lambda receipt: receipt.size)
    assert [receipt.size for receipt in found] == receipts(tmp_path)
    assert len(found) == 3
    assert bound_epochs(tmp_path, receipts(tmp_path)) == 2
    assert {receipt.contract for receipt in found} == {parse_address(service.contract or "")}


@pytest.mark.parametrize("is_under_way", [False, True], ids=["the epoch's own", "one that is under way"])
def test_a_seal_that_is_slow_takes_none_of_the_epoch_s_batches_all_the_same(
    tmp_path: Path, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch, is_under_way: bool
) -> None:
    read, entered, released = sequencer.read_segments, threading.Event(), threading.Event()

    def slow(trace: TraceDir) -> list[Segment]:
        entered.set()
        assert released.wait(LONG_S)
        return read(trace)

    with begin(tmp_path, witness, anchor_at="epoch", seal_interval_s=0) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train")
        monkeypatch.setattr(sequencer, "read_segments", slow)
        if is_under_way:
            run.checkpoint(torch.nn.Linear(1, 1))
            assert entered.wait(LONG_S)
        train(loader, epochs=1)
        run._recorder.flush()  # its batches are in the journal
        run.checkpoint(torch.nn.Linear(1, 1))
        released.set()
        run._sealer.finish()
        checkpoints = len(events(tmp_path, "checkpoint"))
        (result,) = run._anchors.results(1, LONG_S)
        assert result.error is None
    assert checkpoints == 1 + is_under_way, "the checkpoint that was asked for behind the epoch's seal is sealed too"
    assert bound_epochs(tmp_path, receipts(tmp_path)[:1]) == 1


def test_a_schedule_anchors_the_first_head_of_each_interval_and_the_last(
    tmp_path: Path, witness: LoopbackWitness
) -> None:
    with begin(tmp_path, witness, seal_interval_s=0, anchor_at=3600) as run:
        run.checkpoint(torch.nn.Linear(1, 1))
        run._sealer.finish()
        first = size_of(tmp_path)
        run.checkpoint(torch.nn.Linear(1, 1))
        run._sealer.finish()
        assert run._anchors.results(first, LONG_S)[0].error is None
        assert size_of(tmp_path) > first
    assert witness.sizes == [first, size_of(tmp_path)]


@pytest.mark.filterwarnings("ignore:fgtrac. not anchored")
def test_anchor_seals_and_anchors_now(tmp_path: Path, witness: LoopbackWitness, down: LoopbackWitness) -> None:
    with begin(tmp_path, witness, down) as run:
        run.log(loss=1.0)
        done, failed = run.anchor(wait_s=0.5)
        assert (done.size, done.error) == (size_of(tmp_path), None)
        assert (failed.size, type(failed.error)) == (done.size, AnchorError)
        assert "secret-path" not in str(failed.error)
        assert pending(tmp_path) == {down.name: done.size}
        assert run.anchor(wait_s=0.1)[0] == done  # nothing is new
    assert witness.sizes == [done.size, size_of(tmp_path)]


def test_without_services_there_is_nobody_to_anchor_with(tmp_path: Path) -> None:
    with begin(tmp_path) as run, pytest.raises(ValueError, match="no services to anchor with"):
        run.anchor()


# -- where services fail --------------------------------------------------------------------------------------------


def test_with_every_service_down_training_and_sealing_go_on_with_one_warning_and_pending_completes_it(
    tmp_path: Path, witness: LoopbackWitness, down: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness.mode = "busy"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with begin(tmp_path, witness, down, anchor_at="epoch", seal_interval_s=0) as run:
            epochs(run, 4)
    said = [str(w.message) for w in caught if w.category is RuntimeWarning]
    assert len(said) == 1
    assert "fgtrac anchor" in said[0]
    assert "secret-path" not in said[0]
    assert holds(tmp_path)
    assert receipts(tmp_path) == []
    assert pending(tmp_path) == {witness.name: size_of(tmp_path), down.name: size_of(tmp_path)}
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    witness.mode = "well"
    first, second = complete_pending(tmp_path / "run.trace")
    assert (first.error, type(second.error)) == (None, AnchorError)
    with down.running():
        (second,) = complete_pending(tmp_path / "run.trace")
    assert second.error is None
    assert holds(tmp_path)
    assert pending(tmp_path) == {}


def test_a_service_that_hangs_keeps_neither_the_training_nor_another_service_nor_the_end(
    tmp_path: Path, witness: LoopbackWitness, other: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchored_run, "CLOSE_S", 0.5)
    witness.mode = "hangs"
    began_s = time.monotonic()
    with (
        pytest.warns(RuntimeWarning, match=r"no answer within 0\.5 s of the end"),
        begin(tmp_path, witness.service(LONG_S), other, anchor_at="epoch") as run,
    ):
        epochs(run, 3)
    assert time.monotonic() - began_s < LONG_S / 2
    assert other.sizes[-1] == size_of(tmp_path)
    assert list(pending(tmp_path)) == [witness.name]
    before = sorted(trace_of(tmp_path).names())
    witness.released.set()  # it answers at last, and nothing of that is written: the run is over
    for worker in run._anchors._services:
        assert worker.join(time.monotonic() + LONG_S)
    assert sorted(trace_of(tmp_path).names()) == before


@pytest.mark.filterwarnings("ignore:fgtrac. not anchored")
def test_what_fails_at_first_is_done_beside_the_training(
    tmp_path: Path, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)
    witness.mode = "busy"
    with begin(tmp_path, witness) as run:
        (busy,) = run.anchor(wait_s=0.1)
        assert "503" in str(busy.error)
        witness.mode = "well"
        assert run._anchors.results(busy.size, LONG_S)[0].error is None
        assert pending(tmp_path) == {}


def test_what_is_refused_is_one_warning_and_not_pending(tmp_path: Path, witness: LoopbackWitness) -> None:
    witness.mode = "refuses"
    with pytest.warns(RuntimeWarning, match="answers 403"), begin(tmp_path, witness, anchor_at="epoch") as run:
        epochs(run, 2)
    assert holds(tmp_path)
    assert pending(tmp_path) == {}


def test_an_epoch_waits_no_longer_than_it_was_told_to(tmp_path: Path, witness: LoopbackWitness) -> None:
    witness.mode = "hangs"
    with begin(tmp_path, witness, anchor_at="epoch", anchor_wait_s=0.3) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        began_s = time.monotonic()
        next(iter(loader))
        assert 0.3 <= time.monotonic() - began_s < 4
        witness.mode = "well"
        witness.released.set()


def test_a_disk_that_refuses_receipts_is_a_warning_and_leaves_them_pending(
    tmp_path: Path, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = durable._rename

    def fails(source: Path, target: Path) -> None:
        if "receipts" in target.parts:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", fails)
    with pytest.warns(RuntimeWarning, match="No space left"), begin(tmp_path, witness) as run:
        run.log(loss=1.0)
    assert holds(tmp_path)
    assert pending(tmp_path) == {witness.name: size_of(tmp_path)}


class Broken:
    """A service with a fault of its own, whose text holds a secret."""

    kind = "witness"
    name = "the broken one"

    def settings(self) -> Mapping[str, Any]:
        raise TypeError("it lives in this process only")

    def prepare(self) -> None: ...

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        raise KeyError("k3y-th4t-is-secret")


def test_a_service_with_a_fault_of_its_own_does_not_stop_the_training_nor_tell_its_secrets(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="it failed with KeyError") as caught, begin(tmp_path, Broken()) as run:
        run.log(loss=1.0)
    assert all("k3y" not in str(w.message) for w in caught)
    assert holds(tmp_path)


# -- other processes ------------------------------------------------------------------------------------------------


def test_a_resume_completes_what_is_pending_also_of_services_that_it_was_not_given(
    tmp_path: Path, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    witness.mode = "busy"
    with pytest.warns(RuntimeWarning, match="not anchored"), begin(tmp_path, witness, down) as run:
        run.log(loss=1.0)
    left = size_of(tmp_path)
    assert pending(tmp_path) == {witness.name: left, down.name: left}
    witness.mode = "well"
    with down.running(), begin(tmp_path, witness, resume=True) as run:
        run.log(loss=0.5)
    assert witness.sizes[-1] == size_of(tmp_path)
    assert down.sizes == [left]
    assert pending(tmp_path) == {}


CHILD = """
import sys
from pathlib import Path
from fgtrac.anchor.witness import Witness
from fgtrac.api.run import start_run

folder, services = Path(sys.argv[1]), [Witness(sys.argv[2], sys.argv[3], timeout_s=60)]
with start_run(folder / "run", key=folder / "key.pem", anchors=services) as run:
    run.anchor(wait_s=60)
"""


def test_a_run_that_is_killed_while_it_asks_leaves_that_head_pending(
    tmp_path: Path, witness: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness.mode = "hangs"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), witness.url, witness.vkey]) as child:
        assert witness.asked.wait(LONG_S)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert pending(tmp_path) == {witness.name: size_of(tmp_path)}
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    witness.released.set()
    (result,) = complete_pending(tmp_path / "run.trace")
    assert result.error is None


def test_a_forked_child_anchors_nothing(tmp_path: Path, witness: LoopbackWitness) -> None:
    with begin(tmp_path, witness, anchor_at="epoch", anchor_wait_s=LONG_S) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        if (child := os.fork()) == 0:
            code = 1
            try:
                try:
                    run.anchor()
                except CaptureError:
                    list(loader)
                    run.close()
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert witness.requests == 0
        list(loader)
    assert len(witness.sizes) == 2


# -- the rest -------------------------------------------------------------------------------------------------------


def test_the_processor_time_of_anchoring_is_fgtrac_s_own(tmp_path: Path, witness: LoopbackWitness) -> None:
    with own_time() as meter, begin(tmp_path, witness) as run:
        for number in range(5):
            run.log(loss=float(number))
            run.anchor()
    assert run._anchors.cpu_s > 0
    assert meter.background_s == pytest.approx(run._recorder.background_cpu_s + run._anchors.cpu_s)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"anchor_at": "always"}, ValueError, "choose 'end', 'epoch', or a number of seconds"),
        ({"anchor_at": 0}, ValueError, "anchor_at=0"),
        ({"anchor_at": True}, ValueError, "anchor_at=True"),
        ({"anchor_at": float("nan")}, ValueError, "anchor_at=nan"),
        ({"anchor_wait_s": -1}, ValueError, "anchor_wait_s=-1"),
        ({"anchor_wait_s": float("inf")}, ValueError, "anchor_wait_s=inf"),
        ({"anchors": ["https://tsa.example"]}, TypeError, "a str, which is no service"),
    ],
)
def test_what_is_no_plan_is_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        start_run(tmp_path / "run", key=tmp_path / "key.pem", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_account_that_others_can_read_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (account := tmp_path / "account.hex").write_text("11" * 32)
    account.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        begin(tmp_path, EvmContract("http://127.0.0.1:1", account))
    assert list(tmp_path.iterdir()) == [account]
