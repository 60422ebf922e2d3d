"""That a user may not read something, or that the memory runs out, is no verdict on a trace or a bundle."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fgtrac.api.bundles import verify_bundle
from fgtrac.api.check import check_trace
from fgtrac.api.trace import open_for_verification
from fgtrac.errors import EngineError
from fgtrac.verify.checks import no_verdict
from fgtrac.verify.report import Verdict
from findings import words_of
from traces import Made, make_trace

NOBODY = 65534


@contextmanager
def another_user() -> Iterator[None]:
    """What this process may read is what another user may, where it is the system's administrator."""
    user = os.geteuid()
    libc = ctypes.CDLL(None)
    libc.setfsuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        libc.setfsuid(user)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A trace in the folder above, where another user may look."""
    tmp_path.chmod(0o755)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FGTRAC_KEY", "no-key.pem")
    return make_trace(tmp_path)


def test_a_bundle_of_entries_that_may_not_be_read_refutes_nothing(made: Made) -> None:
    path = next(name for name in made.trace.names() if name.startswith("tile/entries"))
    (made.trace.path / path).chmod(0)
    with another_user():
        report = open_for_verification(f"../{made.trace.path.name}").verify(made.signer.public_key.hex())
    assert Verdict.REFUTED not in [finding.verdict for finding in report.findings]
    assert "Permission denied" in words_of(report, "entries")


def test_a_folder_that_may_not_be_listed_ends_it_without_a_verdict(made: Made) -> None:
    (made.trace.path / "index").chmod(0)
    trace, key = f"../{made.trace.path.name}", made.signer.public_key.hex()
    try:
        with another_user():
            for verify in (lambda: open_for_verification(trace).verify(key), lambda: check_trace(trace, key)):
                with pytest.raises(EngineError, match=r"^not verified, since this machine .*Permission denied.*index"):
                    verify()
    finally:
        (made.trace.path / "index").chmod(0o755)


def test_a_bundle_that_may_not_be_read_is_no_verdict(made: Made) -> None:
    Path("mine.json").touch(mode=0)
    with another_user(), pytest.raises(EngineError, match=r"^not verified, .*Permission denied: 'mine.json'"):
        verify_bundle(Path("mine.json"))


def test_a_lack_of_memory_outside_of_any_check_is_no_verdict() -> None:
    words = r"^not verified, since the memory ran out \(no room\); a smaller --memory"
    with pytest.raises(EngineError, match=words), no_verdict():
        raise MemoryError("no room")
