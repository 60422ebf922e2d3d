"""Erasures in a log: what was withdrawn cannot be told, and a false erasure is refuted by its entry."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.verify.report import Finding, Verdict
from signed import BLOCK, IDS, VERIFIER, Event, Files, MemoryTrace, run, samples, seal, use, write

ANN, BOB = b"a" * 32, b"b" * 32
SUBJECTS = (ANN, BOB, ANN, BOB, BOB, ANN)  # by ordinal
MODEL = b"weights"


def of_subjects(*, part: int = 0, parts: int = 1, ids: list[bytes] = IDS, **changes: Any) -> Event:
    mine = b"".join(SUBJECTS[IDS.index(i)] for i in ids)
    return samples() | {"part": part, "parts": parts, "ids": b"".join(ids), "subjects": mine, **changes}


def artifact(path: str = "artifacts/model") -> Event:
    fields = {"path": path, "sha256": hashlib.sha256(MODEL).digest(), "size": len(MODEL)}
    return {"kind": "artifact", **fields, "media_type": "application/octet-stream", "about": "a model"}


def erasure(*ordinals: int, pseudonym: bytes = ANN, artifacts: tuple[str, ...] = ()) -> Event:
    said = {"pseudonym": pseudonym, "block": BLOCK, "ordinals": np.array(ordinals, np.uint32)}
    return {"kind": "erasure", **said, "artifacts": list(artifacts)}


def found(files: Files, check: str) -> Finding:
    report = audit_trace(MemoryTrace(files), VERIFIER)
    (finding,) = [f for f in report.findings if f.check == check]
    return finding


def assert_says(finding: Finding, verdict: Verdict, *words: str) -> None:
    assert finding.verdict is verdict, finding
    for word in words:
        assert word in finding.words


def test_a_whole_erasure_holds_and_says_what_only_the_vault_shows() -> None:
    files = write(run(), of_subjects(), use(1, 0, 1), erasure(0, 2), erasure(5), seal())
    words = "1 subjects are erased: all of their 3 samples are named and none came later; that the keys are gone shows"
    assert_says(found(files, "erasures"), Verdict.HOLDS, words)
    assert audit_trace(MemoryTrace(files), VERIFIER).verdict is Verdict.HOLDS


def test_without_erasures_the_check_is_not_made() -> None:
    report = audit_trace(MemoryTrace(write(run(), of_subjects(), seal())), VERIFIER)
    assert "erasures" not in [f.check for f in report.findings]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((erasure(0, 1, 2, 5),), f"entry 2 (erasure) names sample {IDS[1].hex()}, which is none of subject 6161"),
        ((erasure(0, 5),), f"leaves out 1 of its 3 samples, the first is {IDS[2].hex()}"),
        ((erasure(0, pseudonym=b"c" * 32),), "which is none of subject 6363"),
        ((erasure(pseudonym=b"c" * 32),), "entry 2 (erasure) erases subject 6363636363636363, which has no sample"),
        ((erasure(0, 2, 5), of_subjects()), "entry 3 registers sample"),
        ((erasure(0, 2, 5), erasure(1, pseudonym=BOB)), "leaves out 2 of its 3 samples"),
    ],
)
def test_a_false_erasure_is_refuted(entries: tuple[Event, ...], words: str) -> None:
    assert_says(found(write(run(), of_subjects(), *entries, seal()), "erasures"), Verdict.REFUTED, words)


def test_a_sample_of_nobody_cannot_be_erased() -> None:
    files = write(run(), samples(), erasure(0), seal())
    assert_says(found(files, "erasures"), Verdict.REFUTED, "names sample", "none of subject")


def test_a_registration_that_was_cut_short_has_no_samples_to_erase() -> None:
    half = of_subjects(parts=2, ids=IDS[:3])
    other = b"o" * 16
    files = write(run(), of_subjects(), {**half, "block": other}, erasure(0, 2, 5), seal())
    assert_says(found(files, "erasures"), Verdict.HOLDS)


def test_a_withdrawn_artifact_cannot_be_told_and_the_others_are() -> None:
    first = (
        run(),
        of_subjects(),
        artifact(),
        artifact("artifacts/other"),
        erasure(0, 2, 5, artifacts=("artifacts/model",)),
    )
    files = write(*first, seal()) | {"artifacts/other": MODEL}
    words = "artifacts/model was withdrawn by entry 4 (erasure); 1 artifacts have the size and SHA-256"
    assert_says(found(files, "artifacts"), Verdict.CANNOT_TELL, words)
    there = files | {"artifacts/model": MODEL}
    words = "entry 4 (erasure) says that artifacts/model was withdrawn, and it is there"
    assert_says(found(there, "artifacts"), Verdict.REFUTED, words)
    anew = write(*first, artifact(), seal()) | {"artifacts/other": MODEL}
    assert_says(found(anew, "artifacts"), Verdict.REFUTED, "no file artifacts/model")
    assert_says(found(anew | {"artifacts/model": MODEL}, "artifacts"), Verdict.HOLDS, "2 artifacts")


def test_an_artifact_that_is_gone_without_an_erasure_is_refuted() -> None:
    files = write(run(), of_subjects(), artifact(), erasure(0, 2, 5), seal())
    assert_says(found(files, "artifacts"), Verdict.REFUTED, "no file artifacts/model")
