"""One test for each way in which a trace's log can be wrong, and the check that says so."""

from __future__ import annotations

import numpy as np
import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, sign_note
from fgtrac.verify.report import Verdict
from findings import verdict_of, words_of
from signed import (
    KEY,
    PUBLIC_KEY,
    VERIFIER,
    Event,
    MemoryTrace,
    metrics,
    note,
    run,
    samples,
    seal,
    use,
    write,
)
from whole_traces import (
    STRANGER,
    assert_cannot_tell,
    assert_refuted,
    audit,
    entry,
    journal_of,
    whole,
    without,
)


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
