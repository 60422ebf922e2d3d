"""A trace that its owner seals and anchors while somebody verifies it is not refuted for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cosigned import cosigned, cosigner
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import audit_trace
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.one_moment import OneMoment
from fgtrac.verify.receipts import note_path, receipt_path, witness_name
from fgtrac.verify.report import Finding, Report, Verdict
from findings import verdict_of, words_of
from signed import VERIFIER, WRITER, Files, MemoryTrace, end, metrics, note, run, samples, seal, use, write

TRAINED = [run(), samples(), use(1, 0, 1, 2), metrics(1), seal(), metrics(2), metrics(3)]
EVENTS = [*TRAINED, use(2, 3, 4, 5), end((WRITER, 6)), seal()]
TEMPORARY = {"journal/7.seal.tmp": b"", "receipts/7/checkpoint.tmp": b""}
AGAIN = "the trace was sealed while it was verified; verify again"


def witnessed(files: Files, *sizes: int) -> Files:
    entries = decode_bundle(next(data for path, data in files.items() if path.startswith("tile/entries")), max(sizes))
    found = dict(files)
    for size in sizes:
        head = note(entries, size)
        found |= {note_path(size): head, receipt_path(size, witness_name(cosigner().key_id)): cosigned(head)}
    return found | {"checkpoint": cosigned(found["checkpoint"])}


BEFORE = witnessed(write(*TRAINED), 7) | TEMPORARY
AFTER = witnessed(write(*EVENTS), 10) | {p: d for p, d in BEFORE.items() if "receipts/7" in p and p not in TEMPORARY}


class Growing:
    """A trace that has been sealed again, anchored and tidied once so many files were read."""

    def __init__(self, before: Files, after: Files, calls: int) -> None:
        self.before, self.after, self.calls = MemoryTrace(before), MemoryTrace(after), calls

    def _now(self) -> TraceFiles:
        self.calls -= 1
        return self.before if self.calls >= 0 else self.after

    def read(self, path: str) -> bytes:
        return self._now().read(path)

    def pieces(self, path: str) -> Iterator[bytes]:
        return self._now().pieces(path)

    def names(self) -> list[str]:
        return self._now().names()


def verify(trace: TraceFiles) -> Report:
    trusted = TrustedAnchors(witnesses=[format_cosigner(cosigner())])
    return audit_trace(trace, VERIFIER, demands=anchor_demands(BEFORE, trusted))


def refuted(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.verdict is Verdict.REFUTED]


def test_the_trace_is_not_refuted_before_and_not_afterwards() -> None:
    for files in (BEFORE, AFTER):
        assert not refuted(verify(MemoryTrace(files)))
        assert verdict_of(verify(MemoryTrace(files)), "witness") is Verdict.HOLDS


def test_a_trace_that_is_sealed_and_anchored_at_any_moment_of_its_verification_is_not_refuted() -> None:
    told = set()
    for calls in range(200):
        trace = Growing(BEFORE, AFTER, calls)
        report = verify(trace)
        assert not refuted(report), (calls, refuted(report))
        told |= {f.check for f in report.findings if f.words.startswith(AGAIN)}
        if trace.calls >= 0:
            break
    else:
        pytest.fail("more files are read than were counted")
    assert calls > 20
    assert told >= {"tiles", "entries", "index", "plan"}


def test_a_file_that_goes_from_a_trace_that_does_not_grow_is_never_green_and_refutes_once_it_is_gone() -> None:
    after = {path: data for path, data in BEFORE.items() if path not in ("journal/7.seal", *TEMPORARY)}
    reports = [verify(Growing(BEFORE, after, calls)) for calls in range(60)]
    assert {verdict_of(report, "files") for report in reports} == {Verdict.HOLDS}  # what was half written is whole
    assert {verdict_of(report, "plan") for report in reports} == set(Verdict)
    said = [words_of(r, "plan") for r in reports if verdict_of(r, "plan") is Verdict.CANNOT_TELL]
    assert all(words.startswith("files of the trace went while it was verified; verify again (") for words in said)
    assert verdict_of(verify(MemoryTrace(after)), "plan") is Verdict.REFUTED


class Restless(Growing):
    """The same, sealed before one of the lists of its names is given; each list has another file."""

    def _now(self) -> TraceFiles:
        return self.before if self.calls > 0 else self.after

    def names(self) -> list[str]:
        self.calls -= 1
        return [*self._now().names(), f"journal/{self.calls}.tmp"]


class TwoHeads(Growing):
    """A trace of which every other reading of the head finds the old one."""

    def read(self, path: str) -> bytes:
        self.calls += path == "checkpoint"
        return (self.before if path == "checkpoint" and self.calls % 2 else self.after).read(path)

    def names(self) -> list[str]:
        return self.after.names()


@pytest.mark.parametrize("lists", range(1, 15))
def test_a_trace_that_is_sealed_while_new_files_come_all_the_time_is_not_refuted(lists: int) -> None:
    assert not refuted(verify(Restless(BEFORE, AFTER, lists)))


def test_a_trace_whose_head_never_stays_the_same_is_not_refuted_for_what_went() -> None:
    report = verify(TwoHeads(BEFORE, AFTER, 0))
    assert not refuted(report)
    assert any(f.words.startswith(AGAIN) for f in report.findings)


def test_what_is_wrong_by_itself_stays_refuted_while_the_trace_grows() -> None:
    altered = {receipt_path(7, witness_name(cosigner().key_id)): BEFORE[note_path(7)]}
    for calls in range(60):
        trace = Growing(BEFORE | altered, AFTER | altered, calls)
        assert verdict_of(verify(trace), "witness") is not Verdict.HOLDS
    assert "no line of the key" in words_of(verify(Growing(BEFORE | altered, AFTER | altered, 45)), "witness")


def test_the_head_and_the_names_stay_what_they_were() -> None:
    trace = OneMoment(Growing(BEFORE, AFTER, 3))
    assert trace.names() == sorted(BEFORE)
    assert trace.read("checkpoint") == b"".join(trace.pieces("checkpoint")) == BEFORE["checkpoint"]
    grown = trace.grown()
    assert grown is not None
    assert grown.size == 10
    assert OneMoment(MemoryTrace(BEFORE)).grown() is None
    assert OneMoment(MemoryTrace({})).names() == []


@pytest.mark.parametrize(
    ("check", "words", "is_excused"),
    [
        ("tiles", "no file tile/0/000.p/7", True),
        ("tiles", "tile/0/000.p/9 leads elsewhere", False),
        ("plan", "it plans frames that are not there", True),
        ("witness", "a fork", False),
    ],
)
def test_a_finding_is_excused_for_files_that_went_and_for_nothing_else(
    check: str, words: str, is_excused: bool
) -> None:
    trace = OneMoment(Growing(BEFORE, AFTER, 3))
    finding = Finding(check, Verdict.REFUTED, words)
    assert trace.excuse(finding) == finding
    with pytest.raises(FileNotFoundError):
        trace.read("tile/0/000.p/7")
    expected = Finding(check, Verdict.CANNOT_TELL, f"{AGAIN} ({words})") if is_excused else finding
    assert trace.excuse(finding) == expected
    holding = Finding(check, Verdict.HOLDS, words)
    assert trace.excuse(holding) == holding
