"""Every lie about a trace is refuted by the check that is named for it, and by no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.api.audit import audit_trace
from fgtrac.demo.lies import LIES, SHOWN, Lie, answer, is_as_foretold
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from fgtrac.verify.report import Report, Verdict
from traces import make_trace

ROOT = Path(__file__).parents[2]


def refuted(report: Report) -> set[str]:
    return {f.check for f in report.findings if f.verdict is Verdict.REFUTED}


def verifier_of(trace: TraceDir, key: Ed25519PrivateKey) -> Verifier:
    head = trace.head()
    assert head is not None
    return Verifier(head.origin, key.public_key().public_bytes_raw())


def test_the_trace_holds_before_anybody_lies_about_it(sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    assert audit_trace(sealed, verifier_of(sealed, key)).verdict is Verdict.HOLDS


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie.check is not None], ids=lambda lie: lie.name)
def test_a_lie_is_refuted_by_its_check_and_by_no_other(lie: Lie, sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    report = answer(sealed, lie, key)
    assert refuted(report) == {lie.check}, [f.words for f in report.failures()]
    assert is_as_foretold(lie, report)
    assert all(f.words for f in report.failures())


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie.check is None], ids=lambda lie: lie.name)
def test_what_nothing_in_the_trace_can_tell_is_not_claimed(lie: Lie, sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    assert answer(sealed, lie, key).verdict is Verdict.HOLDS


def test_a_rollback_to_an_older_copy_is_not_refuted_by_the_copy(sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    older = TraceDir.open(sealed.path.parent / "older.trace")
    assert refuted(audit_trace(older, verifier_of(older, key))) == set()


def test_a_lie_leaves_the_trace_itself_as_it_is(sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    before = {name: sealed.read(name) for name in sealed.names()}
    for lie in LIES:
        answer(sealed, lie, key)
    assert {name: sealed.read(name) for name in sealed.names()} == before


def test_every_check_of_a_full_verification_has_a_lie_that_it_catches(sealed: TraceDir, key: Ed25519PrivateKey) -> None:
    checks = {f.check for f in audit_trace(sealed, verifier_of(sealed, key)).findings}
    assert checks == {lie.check for lie in LIES} - {None}


def test_the_demo_shows_seven_lies_that_seven_different_checks_catch() -> None:
    shown = [lie for lie in LIES if lie.name in SHOWN]
    assert len(shown) == len(SHOWN) == 7
    assert len({lie.check for lie in shown} - {None}) == 7


def test_the_page_of_attacks_lists_every_lie_with_its_check() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "attacks/README.md").read_text(), re.MULTILINE)
    told = [(name.strip(), words.strip(), check.strip()) for name, words, check in rows]
    assert told[1:] == [(lie.name, lie.words, f"`{lie.check}`" if lie.check else "nothing") for lie in LIES]


def test_the_attacks_run_as_a_script(sealed: TraceDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(sealed.path.parent / "key.pem"))
    command = [sys.executable, str(ROOT / "attacks/run.py"), str(sealed.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("as foretold") == len(LIES)
    unknown = subprocess.run([*command, "tell the truth"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "no lie is called tell the truth" in unknown.stdout


def test_a_lie_about_something_that_is_not_there_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_trace(tmp_path, artifact_bytes=100)
    pem = made.signer._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    command = [sys.executable, str(ROOT / "attacks/run.py"), str(made.trace.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("left out ") == 4
    assert "has no contribution entry to lie about" in run.stdout
    assert "has no factors to lie about" in run.stdout
