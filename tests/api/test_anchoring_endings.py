"""What a run says of anchors that fail, and when; and that a training is bit for bit the same whether they do."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from torch.utils.data import DataLoader

import fgtrac
from fgtrac.anchor import account as accounts
from fgtrac.anchor import background
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.pending import PendingFile
from fgtrac.anchor.rfc3161 import TimeStampAuthority
from fgtrac.anchor.witness import Witness
from fgtrac.api import anchored_run
from fgtrac.api.audit import audit_trace
from fgtrac.api.prior import signer_of
from fgtrac.api.run import Run, start_run
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.commit import sequencer
from fgtrac.commit.gather import Segment
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import parse_tile_path, partial_tiles
from fgtrac.verify.report import Verdict
from loopback_witness import LoopbackWitness
from replays import DATA, train

LONG_S = 120.0


def make_witness(name: str) -> LoopbackWitness:
    return LoopbackWitness(f"witness.example/{name}", Ed25519PrivateKey.from_private_bytes(name.encode() * 32))


@pytest.fixture
def one() -> Iterator[LoopbackWitness]:
    made = make_witness("a")
    with made.running():
        yield made


@pytest.fixture
def other() -> Iterator[LoopbackWitness]:
    made = make_witness("b")
    with made.running():
        yield made


def begin(folder: Path, *witnesses: LoopbackWitness, **options: Any) -> Run:
    services = options.pop("anchors", None) or [witness.service() for witness in witnesses]
    return start_run(folder / "run", key=folder / "key.pem", anchors=services, **options)


def pending(folder: Path) -> list[str]:
    signer = signer_of(TraceDir.open(folder / "run.trace"), folder / "key.pem")
    return [p.settings["key"].split("+")[0] for p in PendingFile(signer.pending_path).read()]


def heard(
    folder: Path, *witnesses: LoopbackWitness, later: Any = lambda: None, wait_s: float = 1.0, **options: Any
) -> list[str]:
    """What a run of a failing first epoch and a second one says, with `later` done in between. A service that may yet
    come is waited for as long as that."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with begin(folder, *witnesses, anchor_at="epoch", anchor_wait_s=wait_s, **options) as run:
            loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
            train(loader, epochs=1)
            run.checkpoint(torch.nn.Linear(1, 1))
            later()
            train(loader, epochs=1)
    assert all(w.category is RuntimeWarning and w.filename == __file__ for w in caught), "they point at this file"
    return [str(w.message) for w in caught]


def test_a_refusal_behind_the_first_warning_is_told_at_the_end_and_is_not_pending(
    tmp_path: Path, one: LoopbackWitness, other: LoopbackWitness
) -> None:
    one.mode = "busy"

    def later() -> None:
        one.mode, other.mode = "well", "refuses"

    first, last = heard(tmp_path, one, other, later=later)
    assert one.name in first
    assert "--pending completes" in first
    assert one.name not in last
    assert f"{other.name} at" in last
    assert "answers 403" in last
    assert "not pending: once that is mended, name the service again to fgtrac anchor" in last
    assert "--pending" not in last
    assert pending(tmp_path) == []


def test_a_refusal_that_was_told_at_first_is_told_once(tmp_path: Path, one: LoopbackWitness) -> None:
    one.mode = "refuses"
    (first,) = heard(tmp_path, one, wait_s=LONG_S)
    assert "what was refused is not: name it again once that is mended" in first


def test_one_that_is_down_where_others_are_well_is_told_at_the_end_if_it_was_not_before(
    tmp_path: Path, one: LoopbackWitness, other: LoopbackWitness
) -> None:
    one.mode = "busy"

    def later() -> None:
        one.mode, other.mode = "well", "busy"

    _, last = heard(tmp_path, one, other, later=later)
    assert other.name in last
    assert one.name not in last
    assert "what is pending, fgtrac anchor" in last
    assert pending(tmp_path) == [other.name]


def test_with_every_service_down_one_warning_is_enough_even_if_they_fail_one_after_the_other(
    tmp_path: Path, one: LoopbackWitness, other: LoopbackWitness
) -> None:
    one.mode = "busy"
    (first,) = heard(tmp_path, one, other, later=lambda: setattr(other, "mode", "busy"))
    assert other.name not in first
    assert sorted(pending(tmp_path)) == [one.name, other.name]


def test_what_could_not_be_written_down_is_not_said_to_be_pending(
    tmp_path: Path, one: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = durable._rename

    def fails(source: Path, target: Path) -> None:
        if target.suffix == ".pending":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", fails)
    one.mode = "busy"
    first, last = heard(tmp_path, one)
    assert "No space left" in first
    assert "not pending: once that is mended" in last
    assert "--pending" not in last


def test_a_warning_made_an_error_stops_between_two_passes_and_the_trace_is_whole(
    tmp_path: Path, one: LoopbackWitness
) -> None:
    one.mode = "busy"
    passes: list[int] = []

    def trains() -> None:
        with begin(tmp_path, one, anchor_at="epoch", anchor_wait_s=0.3) as run:
            loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
            for number in range(3):
                train(loader, epochs=1)
                passes.append(number)

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(RuntimeWarning, match="not anchored"):
            trains()
    assert passes == [0]
    trace = TraceDir.open(tmp_path / "run.trace")
    report = audit_trace(trace, signer_of(trace, tmp_path / "key.pem").verifier)
    assert report.verdict is Verdict.HOLDS
    one.mode = "well"
    with begin(tmp_path, one, resume=True) as run:
        train(run.watch(DataLoader(DATA, batch_size=8), role="train"), epochs=1)
    report = audit_trace(trace, signer_of(trace, tmp_path / "key.pem").verifier)
    assert report.verdict is Verdict.HOLDS


def test_behind_the_end_of_a_run_nothing_is_asked_and_nothing_comes_back_onto_the_list(
    tmp_path: Path, one: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchored_run, "CLOSE_S", 0.3)
    one.mode = "hangs"
    with pytest.warns(RuntimeWarning, match=r"no answer within 0\.3 s"), begin(tmp_path, one) as run:
        run.log(loss=1.0)
    assert pending(tmp_path) == [one.name]
    run._anchors._anchorer.pending.clear()  # somebody else completes it
    one.mode = "busy"
    one.released.set()
    for worker in run._anchors._services:
        assert worker.join(time.monotonic() + LONG_S)
    assert one.requests == 1
    assert pending(tmp_path) == []


@pytest.mark.filterwarnings("ignore:fgtrac. not anchored")
def test_an_epoch_does_not_wait_for_a_service_that_will_not_be_asked_again_in_that_time(
    tmp_path: Path, one: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 3600.0)
    one.mode = "busy"
    with begin(tmp_path, one, anchor_at="epoch", anchor_wait_s=LONG_S) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        began_s = time.monotonic()
        train(loader, epochs=3)
        assert time.monotonic() - began_s < LONG_S / 2


def test_many_anchored_epochs_leave_no_more_tiles_than_the_head_s_and_the_full_seal_s(
    tmp_path: Path, one: LoopbackWitness
) -> None:
    with begin(tmp_path, one, anchor_at="epoch", anchor_wait_s=LONG_S) as run:
        train(run.watch(DataLoader(DATA, batch_size=8), role="train"), epochs=5)
    trace = TraceDir.open(tmp_path / "run.trace")
    assert len(one.sizes) == 6
    partial = {parse_tile_path(name) for name in trace.names() if name.startswith("tile/") and ".p/" in name}
    assert partial == set(partial_tiles(one.sizes[-1]))
    report = fgtrac.open(trace.path).verify(tmp_path / "key.pem", anchors=TrustedAnchors(witnesses=(one.vkey,)))
    assert {f.check: f.verdict for f in report.findings}["witness"] is Verdict.HOLDS
    assert report.verdict is Verdict.HOLDS


def test_the_seal_of_an_epoch_reads_what_is_new_and_not_the_journal_of_all_epochs(
    tmp_path: Path, one: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, frames = sequencer.read_segments, []

    def counting(trace: TraceDir) -> list[Segment]:
        segments = read(trace)
        frames.append(sum(len(segment.frames) for segment in segments))
        return segments

    monkeypatch.setattr(sequencer, "read_segments", counting)
    with begin(tmp_path, one, anchor_at="epoch", anchor_wait_s=LONG_S, flush_interval_s=0.001) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        for _ in range(12):
            train(loader, epochs=1)
            run._sealer.finish()
    assert len(one.sizes) == 13
    assert max(frames[2:]) <= one.sizes[2], "two epochs' at most"


# -- the training is the same ---------------------------------------------------------------------------------------


class Drawing(torch.utils.data.Dataset[Any]):
    """Rows that are augmented with python's, numpy's and torch's generators, as is usual."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return torch.full((4,), row / 32 + noise), torch.ones(1)


def trained(folder: Path, services: list[Any]) -> tuple[Any, ...]:
    """The weights, and what the generators say then, after some epochs with these anchors."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    folder.mkdir()
    with begin(folder, anchors=services, anchor_at="epoch", seal_interval_s=0) as run:
        loader = run.watch(DataLoader(Drawing(), batch_size=8, shuffle=True), role="train")
        for _ in range(4):
            for x, y in loader:
                optimizer.zero_grad()
                ((model(x) - y) ** 2).mean().backward()
                optimizer.step()
            time.sleep(0.03)  # for some more tries
    return model.weight.tolist(), random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.filterwarnings("ignore:fgtrac. not anchored")
def test_weights_and_generators_are_the_same_with_anchors_and_with_such_as_fail(
    tmp_path: Path, one: LoopbackWitness, other: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.001)
    (account := tmp_path / "account").write_text("11" * 32)
    account.chmod(0o600)
    other.mode = "busy"
    gone = "http://127.0.0.1:9/"
    services = [one.service(), other.service(), TimeStampAuthority(gone), EvmContract(gone, account)]
    assert trained(tmp_path / "with", services) == trained(tmp_path / "without", [])
    assert other.requests > 5, "it was tried again and again, with a pause drawn each time"


# -- plans that are none --------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers(tmp_path: Path, one: LoopbackWitness) -> None:
    service = one.service(timeout_s=np.float32(5))  # type: ignore[arg-type]
    with begin(tmp_path, anchors=[service], anchor_at=np.int64(3600), anchor_wait_s=np.float32(1)) as run:
        assert run._anchors._plan.every_s == 3600
        for wrong, error in ((float("inf"), ValueError), (1e10, ValueError), (-1, ValueError), ("x", TypeError)):
            with pytest.raises(error, match="wait_s"):
                run.anchor(wrong)  # type: ignore[arg-type]
        assert run.anchor(np.float32(LONG_S))[0].error is None  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), 1e10, "5", None, True])
def test_a_timeout_that_is_none_is_told_where_the_service_is_made(tmp_path: Path, timeout_s: Any) -> None:
    for make in (
        lambda: TimeStampAuthority("http://127.0.0.1:9/", timeout_s=timeout_s),
        lambda: Witness("http://127.0.0.1:9/", make_witness("a").vkey, timeout_s=timeout_s),
        lambda: EvmContract("http://127.0.0.1:9/", tmp_path / "account", timeout_s=timeout_s),
    ):
        with pytest.raises((ValueError, TypeError), match="timeout_s"):
            make()


def test_a_password_is_never_asked_for_by_a_resume(
    tmp_path: Path, one: LoopbackWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(prompt: str) -> str:
        raise AssertionError(prompt)

    keystore = tmp_path / "keystore.json"
    durable.write_file(
        keystore,
        str(Account.encrypt("11" * 32, "p", kdf="pbkdf2", iterations=2)).replace("'", '"').encode(),
        mode=0o600,
    )
    monkeypatch.setenv("FGTRAC_ACCOUNT_PASSWORD", "p")
    with pytest.warns(RuntimeWarning), begin(tmp_path, anchors=[EvmContract("http://127.0.0.1:9/", keystore)]) as run:
        run.log(loss=1.0)
    monkeypatch.delenv("FGTRAC_ACCOUNT_PASSWORD")
    monkeypatch.setattr(accounts.getpass, "getpass", asks)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    with (
        pytest.warns(RuntimeWarning, match="its password is not known: set FGTRAC_ACCOUNT_PASSWORD"),
        begin(tmp_path, one, resume=True) as run,
    ):
        run.log(loss=1.0)


AT_EXIT = """
import sys, threading
from pathlib import Path
from fgtrac.anchor.witness import Witness
from fgtrac.api.run import start_run

folder, services = Path(sys.argv[1]), [Witness(sys.argv[2], sys.argv[3], timeout_s=20)]
run = start_run(folder / "run", key=folder / "key.pem", anchors=services)
run.log(loss=1.0)
begin = threading.Thread.start

def refuses(thread):  # as Python 3.12 does
    if thread.name == "fgtrac-fetch":
        raise RuntimeError("can't create new thread at interpreter shutdown")
    begin(thread)

threading.Thread.start = refuses
"""


def test_a_run_that_was_not_closed_is_anchored_at_exit_without_another_thread(
    tmp_path: Path, one: LoopbackWitness
) -> None:
    subprocess.run([sys.executable, "-c", AT_EXIT, str(tmp_path), one.url, one.vkey], check=True)
    assert len(one.sizes) == 1
    assert pending(tmp_path) == []
