"""A run whose anchors fail, hang or are refused; and what a resume, a kill and a fork make of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.utils.data import DataLoader

from anchored_runs import LONG_S, begin, epochs, holds, pending, receipts, size_of, trace_of
from fgtrac.anchor import background
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.api import anchored_run
from fgtrac.api.anchoring import complete_pending
from fgtrac.errors import AnchorError, CaptureError
from fgtrac.store import durable
from loopback_witness import LoopbackWitness
from replays import DATA


@pytest.fixture
def other() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness("witness.example/other", Ed25519PrivateKey.from_private_bytes(b"o" * 32))
    with made.running():
        yield made


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
    with begin(tmp_path, witness.service(LONG_S), anchor_at="epoch", anchor_wait_s=0.3) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        began_s = time.monotonic()
        next(iter(loader))
        assert 0.3 <= time.monotonic() - began_s < LONG_S / 2
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
