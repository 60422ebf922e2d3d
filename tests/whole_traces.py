"""A whole trace in memory, changed, and what the audit must say of it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.audit import audit_trace
from fgtrac.commit.plan import format_plan, parse_plan
from fgtrac.events.schema import encode_event
from fgtrac.store.journal import encode_frame
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of
from signed import (
    KEY,
    OTHER,
    TRACE_ID,
    VERIFIER,
    WRITER,
    Event,
    Files,
    MemoryTrace,
    by,
    end,
    note,
    run,
    samples,
    seal,
    use,
    write,
)

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
NEXT = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
MODEL = b"weights"


def audit(files: Files, verifier: Verifier | None = VERIFIER) -> Report:
    return audit_trace(MemoryTrace(files), verifier)


def verifier_of(key: Ed25519PrivateKey) -> Verifier:
    return Verifier(VERIFIER.name, key.public_key().public_bytes_raw())


def assert_refuted(files: Files, check: str, *words: str, verifier: Verifier | None = VERIFIER) -> Report:
    """The check refutes, in words that hold all of `words`, and no other check does."""
    report = audit(files, verifier)
    refuted = {f.check for f in report.findings if f.verdict is Verdict.REFUTED}
    assert refuted == {check}, [f"{f.check}: {f.words}" for f in report.failures()]
    for word in words:
        assert word in words_of(report, check)
    return report


def assert_cannot_tell(files: Files, check: str, *words: str, verifier: Verifier | None = VERIFIER) -> Report:
    report = audit(files, verifier)
    assert report.verdict is Verdict.CANNOT_TELL, [f"{f.check}: {f.words}" for f in report.failures()]
    assert verdict_of(report, check) is Verdict.CANNOT_TELL
    for word in words:
        assert word in words_of(report, check)
    return report


def artifact(data: bytes = MODEL, **changes: Any) -> Event:
    fields = {"path": "artifacts/model", "sha256": hashlib.sha256(data).digest(), "size": len(data)}
    return {"kind": "artifact", **fields, "media_type": "application/octet-stream", "about": "a model", **changes}


def whole() -> Files:
    """A trace with two full seals, an artifact and an end, in which everything holds."""
    first = (run(), samples(), use(1, 0, 2), artifact(), seal())
    return write(*first, use(2, 1, 2), end((WRITER, 4)), seal()) | {"artifacts/model": MODEL}


def entry(files: Files, number: int) -> bytes:
    return decode_bundle(files["tile/entries/000.p/8"], 8)[number]


def journal_of(*events: Event) -> Files:
    """A segment of a new writer."""
    frames = [{"time": 1, "writer": OTHER, "seq": n, **event} for n, event in enumerate(events)]
    return {f"journal/{OTHER.hex()}-0.wal": b"".join(encode_frame(encode_event(e)) for e in frames)}


def with_plan(files: Files, **changes: Any) -> Files:
    plan = dataclasses.replace(parse_plan(files["journal/8.seal"]), **changes)
    return {n: d for n, d in files.items() if n != "journal/8.seal"} | {"journal/8.seal": format_plan(plan)}


def without(files: Files, *names: str) -> Files:
    assert all(name in files for name in names)
    return {n: d for n, d in files.items() if n not in names}


def key(old: Ed25519PrivateKey, new: Ed25519PrivateKey, *, revoked: bool = False) -> Event:
    """The entry by which one key takes another's place."""
    public = [k.public_key().public_bytes_raw() for k in (old, new)]
    message = rotation_message(TRACE_ID, *public, revoked)
    fields = {"public_key": public[1], "old_signature": old.sign(message), "new_signature": new.sign(message)}
    return {"kind": "key", **fields, **({"revoked": True} if revoked else {})}


def rotated(*, revoked: bool = False, signer: Ed25519PrivateKey = NEXT) -> Files:
    """A full seal under the first key, then another key takes its place, and a full seal by `signer`."""
    events = [run(), seal(), key(KEY, NEXT, revoked=revoked), by(OTHER, 0, seal())]
    files = write(*events)
    entries = decode_bundle(files["tile/entries/000.p/4"], 4)
    last = note(entries, 4, signer)
    return files | {"checkpoint": last, "index/4/checkpoint": last}
