"""A run that anchors its heads: when, beside the training, and with what it cannot begin."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from anchored_runs import LONG_S, begin, epochs, pending, receipts, size_of, trace_of
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.run import start_run
from fgtrac.capture.own_time import own_time
from fgtrac.commit import sequencer
from fgtrac.commit.gather import Segment
from fgtrac.errors import AnchorError
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.evm_receipt import parse_address, parse_evm_receipt
from fgtrac.verify.sightings import Witnessed
from loopback_witness import LoopbackWitness
from replays import DATA, train


def events(folder: Path, *kinds: str) -> list[tuple[int, Mapping[str, Any]]]:
    trace, size = trace_of(folder), size_of(folder)
    found = [decode_event(entry) for entry in read_entries(trace, 0, size, size)]
    return [(number, event) for number, event in enumerate(found) if event["kind"] in kinds]


def bound_epochs(folder: Path, sizes: list[int]) -> int:
    said = Announcements()
    for number, event in events(folder, "sampler", "use"):
        said.add(number, event)
    return said.bound([Witnessed(size, 0.0, "somebody, in time") for size in sizes])


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
