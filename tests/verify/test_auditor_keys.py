"""Keys that were replaced or revoked, in a whole trace: which signatures are believed, and what is refuted."""

from __future__ import annotations

import pytest

from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.report import Verdict
from findings import verdict_of, words_of
from signed import (
    KEY,
    OTHER,
    WRITER,
    Event,
    by,
    end,
    gap,
    metrics,
    note,
    run,
    samples,
    seal,
    use,
    write,
)
from whole_traces import (
    NEXT,
    STRANGER,
    assert_cannot_tell,
    assert_refuted,
    audit,
    key,
    rotated,
    verifier_of,
)


def test_a_replaced_key_is_followed_to_the_one_that_signs_now() -> None:
    for named in (KEY, NEXT):
        report = audit(rotated(), verifier_of(named))
        assert report.exit_code == 0, report.failures()
    assert "through entry 2 (key), signed by the key that you named" in words_of(audit(rotated()), "signature")
    assert "1 key entries lead from its key" in words_of(audit(rotated()), "run")


def test_who_names_a_revoked_key_cannot_tell_and_everything_else_is_still_checked() -> None:
    assert_cannot_tell(rotated(revoked=True), "signature", "entry 2 (key) revokes", "get the new key from")
    assert audit(rotated(revoked=True), verifier_of(NEXT)).exit_code == 0
    files = rotated(revoked=True) | {"tile/0/000.p/4": bytes(128)}
    assert verdict_of(audit(files), "tiles") is Verdict.REFUTED


@pytest.mark.parametrize(("revoked", "verb"), [(False, "replaced"), (True, "revoked")])
def test_a_head_that_holds_a_rotation_and_is_signed_by_the_key_before_is_refuted(revoked: bool, verb: str) -> None:
    for named in (KEY, NEXT):
        files = rotated(revoked=revoked, signer=KEY)
        assert_refuted(files, "signature", f"which entry 2 (key) {verb}", verifier=verifier_of(named))


def test_a_full_seal_is_signed_by_the_key_that_was_in_force_then() -> None:
    files = rotated()
    entries = decode_bundle(files["tile/entries/000.p/4"], 4)
    assert_refuted(files | {"index/2/checkpoint": note(entries, 2, NEXT)}, "seals", "index/2/checkpoint", "not by")


def test_a_key_entry_whose_signatures_fail_is_refuted_whichever_key_is_named() -> None:
    change = {"kind": "key", "public_key": bytes(32), "old_signature": bytes(64), "new_signature": bytes(64)}
    words = "entry 1 (key) is not signed by the key before it"
    assert_refuted(write(run(), change, seal()), "signature", words)
    assert verdict_of(audit(write(run(), change, seal()), None), "run") is Verdict.REFUTED
    files = write(run(), key(STRANGER, NEXT), seal())
    last = note(decode_bundle(files["tile/entries/000.p/3"], 3), 3, NEXT)
    files |= {"checkpoint": last, "index/3/checkpoint": last}
    for named in (KEY, STRANGER, NEXT):
        assert_refuted(files, "signature", words, verifier=verifier_of(named))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([run(), by(WRITER, 2, metrics(1))], "numbers 1 to 1 are missing"),
        ([run(), by(OTHER, 1, metrics(1))], "numbers 0 to 0 are missing"),
        ([run(), by(WRITER, 0, metrics(1))], "entry 1 is number 0"),
        ([run(), metrics(1), by(WRITER, 0, metrics(2))], "entry 2 is number 0"),
        ([run(), by(WRITER, 3, metrics(1)), by(OTHER, 0, gap(WRITER, 1, 2))], "numbers 1 to 2 are missing"),
        ([run(), by(WRITER, 3, metrics(1)), by(OTHER, 0, gap(OTHER, 1, 3))], "numbers 1 to 2 are missing"),
        ([run(), end((WRITER, 1))], "ended with entry 1; the log has 1"),
        ([run(), metrics(1), end((WRITER, 0))], "ended with entry 0; it reached 1"),
        ([run(), by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, 4]], "step": 0})], "(resume)"),
        ([run(), by(OTHER, 0, end((b"x" * 16, 0)))], (b"x" * 16).hex()),
    ],
)
def test_a_hole_a_repetition_or_a_false_end_of_a_sequence_is_refuted(events: list[Event], words: str) -> None:
    assert_refuted(write(*events), "sequences", words)


def test_a_hole_that_gap_entries_name_is_explained_and_noted() -> None:
    gaps = [by(OTHER, 0, gap(WRITER, 1, 3)), by(OTHER, 1, gap(WRITER, 3, 4))]
    report = audit(write(run(), by(WRITER, 4, metrics(1)), *gaps, by(OTHER, 2, end((WRITER, 4), (OTHER, 1))), seal()))
    assert report.verdict is Verdict.HOLDS
    assert sum("something was lost" in n for n in report.notes) == 2


def test_a_lost_tail_is_explained_by_a_gap_only() -> None:
    resumed = by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, 4]], "step": 0})
    assert audit(write(run(), resumed, by(OTHER, 1, gap(WRITER, 1, 5)), seal())).verdict is Verdict.HOLDS


@pytest.mark.parametrize("events", [[use(1, 0)], [samples(), use(1, 6)], [use(1, 0), samples()]])
def test_a_use_of_what_is_not_registered_before_is_refuted(events: list[Event]) -> None:
    report = assert_refuted(write(run(), *events, seal()), "registered", "(use)")
    assert verdict_of(report, "index") is Verdict.CANNOT_TELL


def test_a_block_that_is_registered_in_part_is_noted() -> None:
    report = audit(write(run(), {**samples(), "parts": 2}, seal()))
    assert any("registered in part only" in n for n in report.notes)
