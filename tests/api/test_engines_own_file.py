"""The file by which an engine looks whether all workers see a trace: a command that is killed meanwhile leaves it."""

from __future__ import annotations

from pathlib import Path

from fgtrac.api.audit import audit_trace
from fgtrac.api.log_checks import is_temporary
from fgtrac.commit import tidy
from fgtrac.store import durable
from fgtrac.verify.report import Verdict
from traces import make_trace


def test_an_engines_own_file_is_noted_by_verify_and_removed_once_nobody_holds_it(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    left = made.trace.path / "engine-0123456789abcdef.tmp"
    left.write_bytes(bytes(16))
    report = audit_trace(made.trace, made.verifier)
    assert report.verdict is Verdict.HOLDS
    assert any(left.name in words for words in report.notes)
    assert is_temporary(left.name)
    with durable.alone_with(left):
        tidy.remove_unfinished(made.trace)
        assert left.exists()
    tidy.remove_unfinished(made.trace)
    assert not left.exists()
