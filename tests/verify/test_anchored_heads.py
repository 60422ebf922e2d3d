"""The check `heads` where keys were replaced or revoked, and where files of the folder are not what they should be."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cosigned import cosigned, cosigner
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import audit_trace
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.note import MAX_NOTE_BYTES, Verifier
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.receipts import note_path, receipt_path, witness_name
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of
from signed import KEY, ORIGIN, TRACE_ID, Event, Files, MemoryTrace, metrics, note, run, write

NEXT = Ed25519PrivateKey.from_private_bytes(b"n" * 32)
SIZE = 8


def rotation(*, revoked: bool = False) -> Event:
    keys = [key.public_key().public_bytes_raw() for key in (KEY, NEXT)]
    message = rotation_message(TRACE_ID, *keys, revoked)
    signatures = {"old_signature": KEY.sign(message), "new_signature": NEXT.sign(message)}
    return {"kind": "key", "public_key": keys[1], **signatures, "revoked": revoked}


def rotated(value: float = 1.0, *, revoked: bool = False) -> tuple[Files, list[bytes]]:
    """A log whose entry 4 replaces its key; entry 2 says that value."""
    events = [run(), metrics(1), {**metrics(2), "values": {"loss": value}}, metrics(3), rotation(revoked=revoked)]
    files = write(*events, *(metrics(n) for n in (4, 5, 6)))
    entries = decode_bundle(files[f"tile/entries/000.p/{SIZE}"], SIZE)
    return files | {"checkpoint": note(entries, SIZE, NEXT)}, entries


def verify(files: Files, trusted: TrustedAnchors | None = None) -> Report:
    verifier = Verifier(ORIGIN, NEXT.public_key().public_bytes_raw())
    demands = anchor_demands(files, trusted or TrustedAnchors())
    return audit_trace(MemoryTrace(files), verifier, demands=demands)


@pytest.mark.parametrize(("size", "key"), [(3, KEY), (4, KEY), (5, NEXT), (7, NEXT)])
def test_a_head_is_signed_by_the_key_that_was_in_force_at_its_size(size: int, key: Ed25519PrivateKey) -> None:
    files, entries = rotated()
    report = verify(files | {note_path(size): note(entries, size, key)})
    assert verdict_of(report, "heads") is Verdict.HOLDS, report.failures()
    other = NEXT if key is KEY else KEY
    report = verify(files | {note_path(size): note(entries, size, other)})
    assert verdict_of(report, "heads") is Verdict.REFUTED
    assert f"not signed by {key.public_key().public_bytes_raw().hex()}, the log's key at {size} entries" in (
        words_of(report, "heads")
    )


def test_a_revocation_that_is_slipped_into_a_rewritten_log_does_not_silence_what_was_witnessed() -> None:
    """`--since` believes nothing that a revoked key signed; but this head somebody else has seen."""
    _, entries = rotated()
    files, _ = rotated(2.0, revoked=True)
    seen = note(entries, 7, NEXT)
    files |= {note_path(7): seen, receipt_path(7, witness_name(cosigner().key_id)): cosigned(seen)}
    report = verify(files, TrustedAnchors(witnesses=[format_cosigner(cosigner())]))
    for check in ("heads", "witness"):
        assert verdict_of(report, check) is Verdict.REFUTED
        assert "a fork: over the first 7 entries" in words_of(report, check)


def test_every_key_that_the_log_ever_had_is_no_witness_s() -> None:
    files, entries = rotated()
    for key in (KEY, NEXT):
        seen = note(entries, 7, NEXT)
        there = {receipt_path(7, witness_name(cosigner(key=key).key_id)): cosigned(seen, key=key)}
        trusted = TrustedAnchors(witnesses=[format_cosigner(cosigner(key=key))])
        report = verify(files | {note_path(7): seen} | there, trusted)
        assert verdict_of(report, "witness") is Verdict.REFUTED
        assert "its key is the log's own" in words_of(report, "witness")


def test_a_head_in_the_folder_has_the_log_s_line_only() -> None:
    files, entries = rotated()
    report = verify(files | {note_path(7): cosigned(note(entries, 7, NEXT))})
    assert verdict_of(report, "heads") is Verdict.REFUTED
    assert "2 signature lines, and only the log's own belongs there" in words_of(report, "heads")


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"x\n7\nAAAA\n\n", b"x" * (MAX_NOTE_BYTES + 1)], ids=["empty", "lines", "root", "large"]
)
def test_whatever_lies_in_place_of_a_head_is_refuted_and_named(data: bytes) -> None:
    files, _ = rotated()
    report = verify(files | {note_path(7): data})
    assert verdict_of(report, "heads") is Verdict.REFUTED
    assert words_of(report, "heads").startswith("receipts/7/checkpoint: ")
