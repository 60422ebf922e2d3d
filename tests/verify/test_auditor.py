"""One test for each way in which a trace can be wrong, and the check that says so."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.audit import audit_trace
from fgtrac.commit.plan import Plan, Taken, format_plan, parse_plan
from fgtrac.events.schema import encode_event
from fgtrac.store.journal import encode_frame
from fgtrac.tlog.note import Note, TreeHead, Verifier, format_note, format_tree_head, sign_note
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.report import Report, Verdict
from signed import (
    KEY,
    OTHER,
    PUBLIC_KEY,
    TRACE_ID,
    VERIFIER,
    WRITER,
    Event,
    Files,
    MemoryTrace,
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

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
NEXT = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
MODEL = b"weights"


def audit(files: Files, verifier: Verifier | None = VERIFIER) -> Report:
    return audit_trace(MemoryTrace(files), verifier)


def verifier_of(key: Ed25519PrivateKey) -> Verifier:
    return Verifier(VERIFIER.name, key.public_key().public_bytes_raw())


def verdict_of(report: Report, check: str) -> Verdict:
    (found,) = [f.verdict for f in report.findings if f.check == check]
    return found


def words_of(report: Report, check: str) -> str:
    (found,) = [f.words for f in report.findings if f.check == check]
    return found


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


def test_a_whole_trace_holds_in_every_check() -> None:
    report = audit(whole())
    assert report.verdict is Verdict.HOLDS
    checks = ["signature", "tiles", "entries", "run", "sequences", "registered", "seals", "index", "artifacts"]
    assert [f.check for f in report.findings] == [*checks, "contributions", "plan", "journal", "files"]
    assert [note.rpartition(": ")[2] for note in report.notes] == ["--vault", "--since"]


# -- the head ---------------------------------------------------------------------------------------------------------


def test_without_a_key_the_signature_cannot_be_told_and_all_else_is_checked() -> None:
    report = assert_cannot_tell(whole(), "signature", "name the public key", verifier=None)
    assert {f.check for f in report.failures()} == {"signature", "seals"}


def test_a_lie_is_refuted_without_a_key_too() -> None:
    files = whole()
    lied = files["index/8/values.npy"][:-1] + b"\0"
    assert_refuted(files | {"index/8/values.npy": lied}, "index", "index/8/values.npy", verifier=None)


def test_a_head_that_somebody_else_signed_is_refuted_and_nothing_else_is_believed() -> None:
    entries = [entry(whole(), n) for n in range(8)]
    report = assert_refuted(whole() | {"checkpoint": note(entries, 8, STRANGER)}, "signature", "checkpoint", "not by")
    assert {f.verdict for f in report.findings[1:]} == {Verdict.CANNOT_TELL, Verdict.HOLDS}
    assert verdict_of(report, "entries") is Verdict.CANNOT_TELL


def test_a_head_of_another_log_under_the_same_key_is_refuted() -> None:
    entries = [entry(whole(), n) for n in range(8)]
    assert_refuted(whole() | {"checkpoint": note(entries, 8, KEY, "fgtrac/other")}, "signature", "fgtrac/other")


def test_a_head_that_names_another_log_in_a_signature_of_this_one_is_refuted() -> None:
    text = format_tree_head(TreeHead("fgtrac/other", 8, bytes(32)))
    forged = format_note(Note(text, (sign_note(text, VERIFIER.name, KEY),)))
    assert_refuted(whole() | {"checkpoint": forged}, "signature", "checkpoint: a head of the log 'fgtrac/other'")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"no note", b"a\n1\nb\n\n\xe2\x80\x94 a AAAAAAAA\n"])
def test_a_head_that_is_no_note_is_refuted(data: bytes) -> None:
    assert_refuted(whole() | {"checkpoint": data}, "signature", "checkpoint")
    assert audit(whole() | {"checkpoint": data}, None).exit_code == 1


def test_a_lost_head_is_refuted_where_tiles_say_that_there_was_one() -> None:
    assert_refuted(without(whole(), "checkpoint"), "signature", "checkpoint is missing")


def test_of_a_trace_that_was_never_sealed_nothing_can_be_told() -> None:
    report = assert_cannot_tell(journal_of(run(), samples()), "signature", "nothing is sealed yet; run fgtrac seal")
    assert "2 entries are whole and not sealed yet" in words_of(report, "journal")


def test_an_absurd_size_that_nobody_signed_is_refuted_at_once() -> None:
    text = f"{VERIFIER.name}\n{10**18}\n{'A' * 43}=\n\n\u2014 x AAAAAAAA\n"
    report = audit(whole() | {"checkpoint": text.encode()}, None)
    assert verdict_of(report, "tiles") is Verdict.REFUTED
    assert "tile/" in words_of(report, "entries")


# -- entries and tiles ------------------------------------------------------------------------------------------------


def test_an_edited_entry_is_refuted_by_its_number() -> None:
    files = whole()
    bundle = bytearray(files["tile/entries/000.p/8"])
    bundle[-3] ^= 1
    assert_refuted(files | {"tile/entries/000.p/8": bytes(bundle)}, "entries", "entry 7 in tile/entries/000.p/8")


def test_an_edited_tile_is_refuted_by_its_name() -> None:
    files = whole()
    tile = bytes(32) + files["tile/0/000.p/8"][32:]
    assert_refuted(files | {"tile/0/000.p/8": tile}, "tiles", "tile/0/000.p/8")


def test_an_entry_edited_together_with_its_hash_leads_to_another_root() -> None:
    files, other = whole(), write(run(), metrics(1), *[metrics(n) for n in range(6)])
    forged = files | {n: other[n] for n in ("tile/0/000.p/8", "tile/entries/000.p/8")}
    report = assert_refuted(forged, "tiles", "tile/0/000.p/8", "lead to the root")
    assert verdict_of(report, "entries") is Verdict.CANNOT_TELL


@pytest.mark.parametrize("name", ["tile/entries/000.p/8", "tile/entries/000.p/5"])
@pytest.mark.parametrize("data", [None, b"", b"\xff\xff", b"\0\0" * 8])
def test_a_lost_or_malformed_bundle_is_refuted(name: str, data: bytes | None) -> None:
    files = without(whole(), name) if data is None else whole() | {name: data}
    assert_refuted(files, "entries", name)


@pytest.mark.parametrize("name", ["tile/0/000.p/8", "tile/0/000.p/5"])
@pytest.mark.parametrize("data", [None, b"", bytes(31), bytes(32), bytes(256)])
def test_a_lost_or_malformed_tile_is_refuted(name: str, data: bytes | None) -> None:
    files = without(whole(), name) if data is None else whole() | {name: data}
    assert_refuted(files, "tiles", name)


@pytest.mark.parametrize("data", [b"", b"\xa0", b"\xff", b"x" * 70])
def test_signed_bytes_that_are_no_entry_are_refuted_by_their_number(data: bytes) -> None:
    assert_refuted(write(run(), samples(), data, metrics(1)), "entries", "entry 2 in tile/entries/000.p/4")


def test_a_log_of_several_tiles_is_checked_level_by_level() -> None:
    files = write(run(), *[metrics(n) for n in range(700)])
    report = audit(files)
    assert {f.check for f in report.findings if f.verdict is not Verdict.HOLDS} == {"index"}
    upper = files["tile/1/000.p/2"]
    assert_refuted(files | {"tile/1/000.p/2": upper[32:] + upper[:32]}, "tiles", "tile/1/000.p/2")
    for name in ("tile/0/001", "tile/entries/001", "tile/entries/002.p/189", "tile/0/002.p/189"):
        assert audit(without(files, name)).exit_code == 1


def test_an_entry_and_an_upper_tile_that_are_both_wrong_are_both_named() -> None:
    files = write(run(), *[metrics(n) for n in range(700)])
    bundle, upper = bytearray(files["tile/entries/001"]), files["tile/1/000.p/2"]
    bundle[-3] ^= 1
    report = audit(files | {"tile/entries/001": bytes(bundle), "tile/1/000.p/2": upper[:32] + bytes(32)})
    assert {f.check for f in report.findings if f.verdict is Verdict.REFUTED} == {"tiles", "entries"}
    assert "tile/1/000.p/2 holds another hash of tile/0/001" in words_of(report, "tiles")
    assert "entry 511 in tile/entries/001" in words_of(report, "entries")


def test_a_tile_of_another_length_is_refuted_with_both_lengths() -> None:
    assert_refuted(whole() | {"tile/0/000.p/8": bytes(31)}, "tiles", "has 31 bytes", "256")


def test_a_bundle_that_changes_between_two_looks_is_refuted() -> None:
    class Changing(MemoryTrace):
        looks = 0

        def read(self, path: str) -> bytes:
            data = super().read(path)
            if path == "tile/entries/000.p/8":
                self.looks += 1
                data = data if self.looks <= 2 else data[:-3] + b"\1\1\1"
            return data

    report = audit_trace(Changing(whole()), VERIFIER)
    assert report.exit_code == 1
    assert "entry 7 changed while it was read" in words_of(report, "entries")


def test_a_partial_tile_of_an_older_plain_head_is_a_leftover_if_it_is_true() -> None:
    files = whole()
    report = audit(files | {"tile/0/000.p/6": files["tile/0/000.p/8"][:192]})
    assert report.verdict is Verdict.HOLDS
    assert any("tile/0/000.p/6" in n for n in report.notes)
    assert_refuted(files | {"tile/0/000.p/6": bytes(192)}, "tiles", "tile/0/000.p/6")
    assert_refuted(files | {"tile/entries/000.p/6": bytes(12)}, "entries", "tile/entries/000.p/6")


# -- run, sequences, registration -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([metrics(1), run()], "entry 0"),
        ([metrics(1)], "one run entry"),
        ([run(), run()], "[0, 1]"),
        ([run(trace=bytes(16))], "of trace 0000"),
        ([run(public_key=bytes(32))], PUBLIC_KEY.hex()),
    ],
)
def test_a_log_has_one_run_entry_which_is_the_first_and_names_trace_and_key(events: list[Event], words: str) -> None:
    assert_refuted(write(*events), "run", words)


# -- keys -------------------------------------------------------------------------------------------------------------


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


# -- seals and the index ----------------------------------------------------------------------------------------------


def test_a_lost_false_or_foreign_note_of_a_full_seal_is_refuted() -> None:
    files, entries = whole(), [entry(whole(), n) for n in range(8)]
    path = "index/5/checkpoint"
    assert_refuted(without(files, path), "seals", path)
    assert_refuted(files | {path: note(entries, 4)}, "seals", path)
    assert_refuted(files | {path: note(entries, 5, STRANGER)}, "seals", path)
    assert_refuted(files | {path: note(entries[:4] + entries[5:], 5)}, "seals", path)
    assert_refuted(files | {path: b"x"}, "seals", path)


def test_a_note_without_a_seal_entry_is_refuted() -> None:
    entries = [entry(whole(), n) for n in range(8)]
    assert_refuted(whole() | {"index/6/checkpoint": note(entries, 6)}, "seals", "index/6/checkpoint")


@pytest.mark.parametrize(
    "lie",
    [
        {"root": bytes(32)},
        {"leaves": 7},
        {"entries": 2},
        {"counts": {"run": 1, "samples": 2, "use": 1}},
        {"epoch_steps": np.array([2], np.uint64)},
        {"epoch_steps": np.array([], np.uint64)},
    ],
)
@pytest.mark.parametrize("is_newest", [True, False])
def test_a_seal_that_says_anything_else_than_the_entries_give_is_refuted(lie: Event, is_newest: bool) -> None:
    later = () if is_newest else (use(2, 1), seal())
    assert_refuted(write(run(), samples(), use(1, 0), seal(**lie), *later), "index", "entry 3 (seal) says")


@pytest.mark.parametrize("column", ["keys", "offsets", "values", "digests", "nodes"])
@pytest.mark.parametrize("place", [0, 80, -1])
def test_a_column_on_disk_that_is_not_the_rebuilt_one_is_refuted(column: str, place: int) -> None:
    path = f"index/8/{column}.npy"
    data = bytearray(whole()[path])
    data[place] ^= 4
    assert_refuted(whole() | {path: bytes(data)}, "index", path)
    assert_refuted(whole() | {path: bytes(data[:-1])}, "index", path)
    assert_refuted(whole() | {path: whole()[path] + b"\0"}, "index", path)
    assert_refuted(without(whole(), path), "index", path)


def test_without_a_full_seal_there_is_no_index_to_check() -> None:
    report = assert_cannot_tell(write(run(), samples()), "index", "run fgtrac seal")
    assert {f.check for f in report.failures()} == {"index"}


def test_a_trace_without_an_end_holds_and_says_so() -> None:
    report = audit(write(run(), samples(), seal()))
    assert report.verdict is Verdict.HOLDS
    assert any("no end entry" in n for n in report.notes)


# -- artifacts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, b"", MODEL[:-1] + b"x", MODEL + b"x"])
def test_an_artifact_that_is_lost_or_changed_is_refuted(data: bytes | None) -> None:
    path = "artifacts/model"
    assert_refuted(without(whole(), path) if data is None else whole() | {path: data}, "artifacts", path)


@pytest.mark.parametrize(
    "path",
    ["checkpoint", "../x", "artifacts", "artifacts/../checkpoint", "artifacts//x", "/etc/x", "artifacts/a\0b",
     "artifacts/..\\..\\x"],
)  # fmt: skip
def test_an_artifact_outside_its_folder_is_refused_unread(path: str) -> None:
    files = write(run(), artifact(path=path), seal())
    assert_refuted(files, "artifacts", "outside artifacts/", "entry 1")


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_a_lost_or_malformed_plan_is_refuted() -> None:
    assert_refuted(without(whole(), "journal/8.seal"), "plan", "journal/8.seal")
    for data in (b"", b"x", whole()["journal/8.seal"][:-1], encode_frame(b"\x80")):
        assert_refuted(whole() | {"journal/8.seal": data}, "plan", "journal/8.seal")


def test_a_plan_that_does_not_agree_with_the_log_is_refuted() -> None:
    plan = parse_plan(whole()["journal/8.seal"])
    first = plan.taken[0]
    moved = (Taken(first.writer, first.first + 1, first.stop + 1), *plan.taken[1:])
    for changes, words in (
        ({"taken": moved}, "takes entry 0"),
        ({"own": (entry(whole(), 6),)}, "another entry 7"),
        ({"writers": {**plan.writers, WRITER: 9}}, "sealed up to 9"),
        ({"writers": {WRITER: plan.writers[WRITER]}}, "the log gives 2"),
        ({"writers": {**plan.writers, OTHER: 1}}, OTHER.hex()),
        ({"index_size": 5}, "newest full seal of 5"),
        ({"index_digests": {**plan.index_digests, "keys": bytes(32)}}, "(keys)"),
        ({"index_digests": {}}, "(digests, keys, nodes, offsets, values)"),
        ({"index_digests": {**plan.index_digests, "more": bytes(32)}}, "journal/8.seal"),
    ):
        assert_refuted(with_plan(whole(), **changes), "plan", words)  # type: ignore[arg-type]


def test_a_plan_of_a_seal_whose_frames_are_gone_is_refuted() -> None:
    later = Plan(8, 9, (Taken(OTHER, 0, 1),), {OTHER: 1}, (), 8, {})
    assert_refuted(whole() | {later.path: format_plan(later)}, "plan", "journal/9.seal")


def test_a_seal_that_was_interrupted_is_not_refuted() -> None:
    tail = journal_of(metrics(1))
    later = Plan(8, 9, (Taken(OTHER, 0, 1),), {OTHER: 1}, (), 8, {})
    begun = {later.path: format_plan(later), "tile/0/000.p/9": bytes(288), "index/9/checkpoint": b"x"}
    report = assert_cannot_tell(whole() | tail | begun, "plan", "journal/9.seal", "run fgtrac seal")
    assert {f.check for f in report.failures()} == {"plan", "journal"}


def test_a_first_seal_that_was_interrupted_is_not_refuted() -> None:
    first = Plan(0, 2, (Taken(OTHER, 0, 2),), {OTHER: 2}, (), 0, {})
    begun = {first.path: format_plan(first), "tile/0/000.p/2": bytes(64)}
    assert_cannot_tell(journal_of(run(), samples()) | begun, "signature", "run fgtrac seal")
    assert_refuted(begun, "signature", "checkpoint is missing")


# -- the journal and the other files ----------------------------------------------------------------------------------


def test_entries_that_wait_to_be_sealed_are_counted() -> None:
    assert_cannot_tell(whole() | journal_of(metrics(1), metrics(2)), "journal", "2 entries", "run fgtrac seal")


def test_a_hole_in_the_waiting_entries_is_named() -> None:
    tail = journal_of(metrics(1), by(OTHER, 5, metrics(2)))
    assert_cannot_tell(whole() | tail, "journal", "numbers 1 to 4", OTHER.hex())
    assert_cannot_tell(whole() | journal_of(by(OTHER, 2, metrics(2))), "journal", "numbers 0 to 1")


def test_a_frame_that_is_sealed_already_must_be_the_sealed_entry() -> None:
    path = f"journal/{WRITER.hex()}-0.wal"
    kept = b"".join(encode_frame(entry(whole(), n)) for n in (0, 1, 2))
    assert audit(whole() | {path: kept}).verdict is Verdict.HOLDS
    other = encode_event({"time": 1, "writer": WRITER, "seq": 1, **metrics(1)})
    assert_refuted(whole() | {path: encode_frame(other)}, "journal", f"{path} at offset 0", "entry 1")


def test_a_frame_that_is_no_entry_of_its_writer_is_refuted() -> None:
    path, tail = next(iter(journal_of(metrics(1)).items()))
    for data, words in (
        (encode_frame(b"x"), "holds no entry"),
        (tail + encode_frame(entry(whole(), 0)), f"at offset {len(tail)}: an entry of writer {WRITER.hex()}"),
        (tail + next(iter(journal_of(metrics(2)).values())), "stands for two entries"),
        (b"\1" * 20 + tail, "damaged bytes at offset 0"),
    ):
        assert_refuted(whole() | {path: data}, "journal", path, words)


def test_a_frame_that_was_cut_is_named_and_costs_no_other() -> None:
    path, tail = next(iter(journal_of(metrics(1), metrics(2)).items()))
    assert_cannot_tell(whole() | {path: tail[:-1]}, "journal", path, "1 entries are whole")


def test_what_a_crash_leaves_is_noted_and_what_nobody_explains_is_refuted() -> None:
    left = (
        "checkpoint.tmp",
        "index/5/keys.npy",
        "journal/5.seal",
        f"journal/{OTHER.hex()}-0.wal.damaged",
        "artifacts/x",
    )
    report = audit(whole() | dict.fromkeys(left, b"x"))
    assert report.verdict is Verdict.HOLDS
    assert all(any(name in n for n in report.notes) for name in left)
    for name in (
        "x",
        "tile/x",
        "tile/7/000",
        "tile/0/001",
        "index/9/keys.npy",
        "index/8/x.npy",
        "journal/x",
        "receipts/8/x",
    ):
        assert_refuted(whole() | {name: b"x"}, "files", name)


def test_progress_counts_bundles() -> None:
    seen: list[tuple[int, int]] = []
    files = write(run(), *[metrics(n) for n in range(600)])
    audit_trace(MemoryTrace(files), VERIFIER, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
