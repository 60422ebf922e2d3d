"""How much of a log a quorum of witnesses has seen, and since when."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cosigned import cosignature, cosigned, cosigner
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import audit_trace
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.tlog.cosignature import Cosigner, count_distinct, format_cosigner
from fgtrac.tlog.note import with_signatures
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.receipts import note_path, receipt_path, witness_name
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.witnesses import together
from findings import verdict_of, words_of
from signed import KEY, VERIFIER, Files, MemoryTrace, metrics, note, run, write

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
A, B, C = WITNESSES = [cosigner(name, key) for name, key in zip("abc", KEYS, strict=True)]
LOG_KEY = cosigner("independent", KEY)
KEY_OF = dict(zip([*WITNESSES, LOG_KEY], [*KEYS, KEY], strict=True))
SIZE = 9
FILES = write(run(), *(metrics(n) for n in range(1, SIZE)))
ENTRIES = decode_bundle(FILES[f"tile/entries/000.p/{SIZE}"], SIZE)


def seen_by(*seen: tuple[Cosigner, int, int]) -> Files:
    """The trace with the cosignatures of (witness, size, time)."""
    files = dict(FILES)
    for who, size, time in seen:
        head = note(ENTRIES, size)
        files[note_path(size)] = head
        files[receipt_path(size, witness_name(who.key_id))] = cosigned(head, who.name, KEY_OF[who], time)
    return files


def verify(files: Files, *named: Cosigner, quorum: int | None = None) -> Report:
    trusted = TrustedAnchors(witnesses=[format_cosigner(c) for c in named], quorum=quorum)
    return audit_trace(MemoryTrace(files), VERIFIER, demands=anchor_demands(files, trusted))


def by_definition(seen: dict[Cosigner, dict[int, int]], needed: int) -> Iterator[Witnessed]:
    """For each size, the earliest time by which some `needed` distinct witnesses had seen its head or a later one."""
    for size in sorted({size for sizes in seen.values() for size in sizes}):
        times = []
        for some in itertools.combinations(seen, needed):
            firsts = [[t for s, t in seen[c].items() if s >= size] for c in some]
            if all(firsts) and count_distinct(some) >= needed:
                times.append(max(min(f) for f in firsts))
        if times:
            who = "a and b and c" if needed == 3 else f"at least {needed} of a, b, c"
            exact = count_distinct([c for c in seen if size in seen[c]]) >= needed
            yield Witnessed(size, min(times), who, exact=exact, excludes=True)


def alone(seen: dict[Cosigner, dict[int, int]]) -> dict[Cosigner, list[Witnessed]]:
    return {c: [Witnessed(size, time, c.name) for size, time in sizes.items()] for c, sizes in seen.items()}


def test_what_a_quorum_covers_is_what_the_definition_says_for_every_pattern_of_three_witnesses() -> None:
    patterns = [dict(p) for n in (1, 2) for p in itertools.combinations([(3, 30), (5, 20), (5, 50), (8, 40)], n)]
    for some in itertools.product(patterns, repeat=3):
        seen = dict(zip(WITNESSES, some, strict=True))
        for needed in (1, 2, 3):
            assert together(alone(seen), needed) == list(by_definition(seen, needed))


def test_a_quorum_s_time_rests_on_times_that_can_be_believed_where_so_many_can() -> None:
    early = {A: [Witnessed(8, 1, "a", doubt="early")], B: [Witnessed(8, 100, "b")], C: [Witnessed(8, 200, "c")]}
    assert together(early, 2) == [Witnessed(8, 200, "b and c", excludes=True)]
    assert together(early, 3) == [Witnessed(8, 200, "a and b and c", excludes=True)]


def test_all_that_are_named_must_have_cosigned_unless_fewer_are_asked_for() -> None:
    files = seen_by((A, 5, 100), (B, 8, 200))
    report = verify(files, A, B)
    assert verdict_of(report, "witness") is Verdict.HOLDS
    assert words_of(report, "witness").startswith(
        "1 head cosigned by b: of 8 entries at 1970-01-01 00:03:20 UTC; 1 head cosigned by a: of 5 entries at "
        "1970-01-01 00:01:40 UTC; 2 of 2 together the first 5 entries, by 1970-01-01 00:03:20 UTC; the last 4 are not "
        "covered; whoever cosigned says that it saw no other history"
    )
    (note,) = [note for note in report.notes if "--since" in note]
    assert "for its first 5 entries since 1970-01-01 00:03:20 UTC, and for nothing behind them" in note
    report = verify(files, A, B, C)
    assert verdict_of(report, "witness") is Verdict.CANNOT_TELL
    assert f"3 of the witnesses named are asked for, and there is no cosignature by c (key id {C.key_id.hex()})" in (
        words_of(report, "witness")
    )
    report = verify(files, A, B, C, quorum=1)
    assert "; 1 of 3 together the first 8 entries, by 1970-01-01 00:03:20 UTC; " in words_of(report, "witness")
    assert words_of(verify(files, A), "witness").startswith(
        "1 head cosigned by a: of 5 entries at 1970-01-01 00:01:40 UTC; the last 4 are not covered"
    )


def test_a_witness_that_cosigned_a_smaller_head_later_than_a_larger_one_is_not_counted() -> None:
    words = (
        "a is not counted: it cosigned the head of 8 entries at 1970-01-01 00:01:40 UTC and that of 5 later, at "
        "1970-01-01 00:01:41 UTC"
    )
    files = seen_by((A, 8, 100), (A, 5, 101), (A, 3, 50), (B, 5, 200))
    report = verify(files, A)
    assert verdict_of(report, "witness") is Verdict.CANNOT_TELL
    assert words_of(report, "witness").startswith(words)
    assert words_of(report, "witness").endswith("goes back; 1 of the witnesses named are asked for")
    report = verify(files, A, B, quorum=1)
    assert verdict_of(report, "witness") is Verdict.HOLDS
    assert words in words_of(report, "witness")
    assert words_of(report, "witness").startswith("1 head cosigned by b: of 5 entries")
    assert verdict_of(verify(seen_by((A, 8, 100), (A, 5, 100), (A, 3, 50)), A), "witness") is Verdict.HOLDS


@pytest.mark.parametrize("time", [253402300800, 2**63 - 1])
def test_a_time_that_no_calendar_has_is_shown_and_not_believed(time: int) -> None:
    report = verify(seen_by((A, 5, time), (B, 8, 100)), A)
    assert verdict_of(report, "witness") is Verdict.HOLDS
    assert f"of 5 entries at {time:.0f} seconds after 1970 (not believable: it is in the future" in (
        words_of(report, "witness")
    )
    report = verify(seen_by((A, 5, time), (B, 8, 100)), A, B, quorum=1)
    assert "1 of 2 together the first 8 entries, by 1970-01-01 00:01:40 UTC; " in words_of(report, "witness")
    (note,) = [note for note in report.notes if "--since" in note]
    assert "for its first 8 entries since 1970-01-01 00:01:40 UTC" in note


@pytest.mark.parametrize("named", [(LOG_KEY,), (A, LOG_KEY)])
def test_who_signs_the_log_is_no_witness_of_it(named: tuple[Cosigner, ...]) -> None:
    report = verify(seen_by((A, 5, 100), (LOG_KEY, 5, 100)), *named, quorum=1)
    assert verdict_of(report, "witness") is Verdict.REFUTED
    assert f"independent (key id {LOG_KEY.key_id.hex()}) is named as a witness, and its key is the log's own" in (
        words_of(report, "witness")
    )


def test_lines_on_the_newest_head_are_a_note_where_no_witness_is_named() -> None:
    files = FILES | {"checkpoint": cosigned(FILES["checkpoint"], A.name, KEY_OF[A], 100)}
    said = "the head has signature lines of a, which nobody checked"
    assert [note.startswith(said) for note in verify(files).notes].count(True) == 1
    assert "nobody checked" not in " ".join([*verify(FILES).notes, *verify(files, A).notes])


def test_receipts_of_witnesses_that_nobody_named_are_a_note() -> None:
    report = verify(seen_by((A, 5, 100), (B, 5, 200)), A)
    assert verdict_of(report, "witness") is Verdict.HOLDS
    name = f"receipts/5/{witness_name(B.key_id)}"
    assert f"{name}: cosigned by witnesses that you did not name, and not counted" in report.notes


def test_a_cosignature_on_the_newest_head_counts_without_a_receipt_and_a_bad_one_refutes() -> None:
    files = FILES | {"checkpoint": cosigned(FILES["checkpoint"], A.name, KEY_OF[A], 100)}
    assert words_of(verify(files, A), "witness").startswith("1 head cosigned by a: of 9 entries")
    line = dataclasses.replace(cosignature(FILES["checkpoint"], A.name, KEY_OF[B]), key_id=A.key_id)
    report = verify(FILES | {"checkpoint": with_signatures(FILES["checkpoint"], [line])}, A)
    assert verdict_of(report, "witness") is Verdict.REFUTED
    assert words_of(report, "witness").startswith("checkpoint: the cosignature of a (key id")


def test_a_line_whose_name_was_changed_is_altered() -> None:
    files = seen_by((A, 5, 100), (A, 3, 50))
    path = receipt_path(5, witness_name(A.key_id))
    altered = files | {path: files[path].replace("— a ".encode(), "— x ".encode())}
    report = verify(altered, A)
    assert verdict_of(report, "witness") is Verdict.REFUTED
    assert "the line of a's key says 'x'; it was altered" in words_of(report, "witness")


@pytest.mark.parametrize("quorum", [0, 3])
def test_a_quorum_that_nobody_can_reach_is_the_caller_s_mistake(quorum: int) -> None:
    with pytest.raises(ValueError, match=f"a quorum of {quorum} of 2"):
        verify(FILES, A, B, quorum=quorum)
