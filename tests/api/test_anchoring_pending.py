"""What a trace's head is still to be witnessed by: what stays pending, across kills too, and what completes it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from anchored_traces import RECEIPT, files, grow, pending_path
from cosigned import cosigner
from fgtrac.anchor.pending import PendingFile
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.witness import Witness
from fgtrac.api.anchoring import anchor_trace, complete_pending, has_quorum
from fgtrac.commit import tidy
from fgtrac.errors import AnchorError, FormatError, RefusedError, TamperError
from fgtrac.store import durable
from fgtrac.tlog.cosignature import cosignature_time
from fgtrac.tlog.note import (
    parse_note,
)
from fgtrac.tlog.tiles import parse_tile_path, partial_tiles
from loopback_witness import LoopbackWitness
from traces import Made, make_trace


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
