"""Every write, sync, rename and removal of a recording and its seals fails once: what is lost is said, and no more."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.commit.sequencer import last_seqs
from fgtrac.errors import CaptureError
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Verdict
from traces import start_trace

CALLS = ("_write", "_fsync", "_rename", "_remove")
USES = 4


class Fault:
    """Fails the call number `at` of all that go through store/durable.py."""

    def __init__(self, at: int) -> None:
        self.left = at

    @contextlib.contextmanager
    def at_work(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(durable, name, self._failing(getattr(durable, name)))
            yield

    def _failing(self, function: Any) -> Any:
        def failing(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(5, "Input/output error")
            return function(*arguments)

        return failing


def test_a_recording_survives_a_fault_at_every_single_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_fsync", lambda fd: None)  # no power is lost here: syncs fail, and take no time
    number, lossy = 0, 0
    fault = Fault(0)
    while fault.left <= 0:
        number += 1
        fault = Fault(number)
        made, writing = start_trace(tmp_path / str(number))
        writing.recorder.sync()
        with fault.at_work(monkeypatch), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the recorder says that it lost something
            for use in range(USES):
                writing.use([use, use + 1])
                writing.recorder.sync()
                if use == 1:
                    with contextlib.suppress(OSError):
                        made.seal(full=False)
            refused = False
            try:
                writing.end()
            except CaptureError as error:
                refused = "the end of the run is not in the trace" in str(error)
                assert refused
            with contextlib.suppress(OSError):
                made.seal()
        made.seal()
        head = made.trace.head()
        assert head is not None
        events = [decode_event(e) for e in read_entries(made.trace, 0, head.size, head.size)]
        writer = writing.recorder.writer
        there = [e["seq"] for e in events if e["writer"] == writer]
        gaps = [e for e in events if e["kind"] == "gap" and e.get("lost_writer") == writer]
        lost = [seq for gap in gaps for seq in range(gap["first"], gap["stop"])]
        kept = sorted(there + lost)
        assert kept == list(range(len(kept)))
        assert refused or len(kept) == writing.recorder.next_seq
        assert last_seqs(made.trace)[writer] == max(there)
        report = audit_trace(made.trace, made.verifier)
        assert report.verdict is Verdict.HOLDS, (number, report.failures())
        assert bool(lost) == any("says that something was lost" in note for note in report.notes)
        assert refused == any("no end entry" in note for note in report.notes)
        lossy += bool(lost)
        shutil.rmtree(tmp_path / str(number))
    assert number > 60
    assert 1 <= lossy <= USES + 2  # a write of the journal that fails loses its entries; no other fault loses any
