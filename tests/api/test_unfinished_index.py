"""A trace whose seal was cut short while it built an index in pieces: what doctor and verify say, and the next seal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.api.journal_checks import journal_findings, read_journal
from fgtrac.api.log_checks import is_temporary
from fgtrac.commit.indexer import UNFINISHED, Means
from fgtrac.commit.sequencer import seal
from fgtrac.engine.alone import Alone
from fgtrac.verify.report import Verdict
from traces import Made, make_trace


def sealed_in_pieces(made: Made) -> None:
    seal(made.trace, made.signer, full=True, clock=lambda: 10**16, means=Means("local:1", 1))


class Cut(Exception):
    """A process that ends in the middle."""


class CutBehindMap(Alone):
    """Ends when the first units are done."""

    def results(self, work: Any, units: Any, **more: Any) -> Iterator[tuple[int, Any]]:
        if work.__name__ != "map_entries":
            raise Cut
        return super().results(work, units, **more)


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = make_trace(tmp_path, sealed=False)
    with monkeypatch.context() as patch:
        patch.setattr("fgtrac.engine.opening.Alone", CutBehindMap)
        with pytest.raises(Cut):
            sealed_in_pieces(made)
    return made


def test_doctor_says_that_a_seal_goes_on_or_removes_it(cut: Made) -> None:
    left = [name for name in cut.trace.names() if name.startswith(UNFINISHED)]
    assert left
    assert all(map(is_temporary, left))
    found = list(journal_findings(cut.trace, cut.trace.head(), [], read_journal(cut.trace), {}))
    (leftovers,) = [finding for finding in found if finding.check == "leftovers"]
    assert f"{len(left)} files" in leftovers.words
    assert "fgtrac seal" in leftovers.remedy


def test_verify_notes_it_and_the_next_seal_leaves_nothing(cut: Made) -> None:
    report = audit_trace(cut.trace, cut.verifier)
    assert any(UNFINISHED in note for note in report.notes)
    assert report.verdict is Verdict.CANNOT_TELL  # there is no full seal yet
    sealed_in_pieces(cut)
    report = audit_trace(cut.trace, cut.verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert not any(UNFINISHED in note for note in report.notes)
    assert not cut.signer.index_path.exists()


def test_a_pipe_there_is_refused_by_verify_and_goes_with_the_next_seal(cut: Made) -> None:
    os.mkfifo(cut.trace.path / UNFINISHED / "pipe")
    report = audit_trace(cut.trace, cut.verifier)
    assert any("pipe" in str(failure) for failure in report.failures())
    sealed_in_pieces(cut)
    assert audit_trace(cut.trace, cut.verifier).verdict is Verdict.HOLDS
