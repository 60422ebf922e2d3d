"""One test for each way in which what lies beside a trace's log can be wrong: artifacts, plan, journal, other files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.commit.plan import Plan, Taken, format_plan, parse_plan
from fgtrac.events.schema import encode_event
from fgtrac.store.journal import encode_frame
from fgtrac.verify.report import Verdict
from signed import (
    OTHER,
    SEALER,
    VERIFIER,
    WRITER,
    Files,
    MemoryTrace,
    by,
    metrics,
    run,
    samples,
    seal,
    write,
)
from whole_traces import (
    MODEL,
    artifact,
    assert_cannot_tell,
    assert_refuted,
    audit,
    entry,
    journal_of,
    rotated,
    whole,
    with_plan,
    without,
)

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


class Starved(MemoryTrace):
    """A trace on a machine that cannot read one of its files."""

    def __init__(self, files: Files, starved: str, error: Exception) -> None:
        super().__init__(files)
        self.starved, self.error = starved, error

    def read(self, path: str) -> bytes:
        if path == self.starved:
            raise self.error
        return super().read(path)


def interrupted() -> Files:
    """A trace with a key that was replaced, and a seal that was begun."""
    later = Plan(4, 5, (Taken(WRITER, 2, 3),), {WRITER: 3, SEALER: 1, OTHER: 1}, (), 4, {})
    frame = encode_frame(encode_event({"time": 9, "writer": WRITER, "seq": 2, **metrics(1)}))
    return rotated() | {later.path: format_plan(later), f"journal/{WRITER.hex()}-1.wal": frame}


def begun() -> Files:
    """A trace of which the first seal was begun."""
    first = Plan(0, 2, (Taken(OTHER, 0, 2),), {OTHER: 2}, (), 0, {})
    return journal_of(run(), samples()) | {first.path: format_plan(first), "tile/0/000.p/2": bytes(64)}


NUMBERS = (errno.EMFILE, errno.EIO, errno.EACCES, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENOSYS)


@pytest.mark.parametrize("make", [whole, interrupted, begun])
def test_what_a_machine_lacks_is_no_fault_of_the_trace(make: Callable[[], Files]) -> None:
    files = make()
    for path in files:
        for error in (*(OSError(number, os.strerror(number)) for number in NUMBERS), MemoryError()):
            report = audit_trace(Starved(files, path, error), VERIFIER)
            assert report.verdict is Verdict.CANNOT_TELL, (path, error, report.failures())
            words = str(error) or "the memory ran out"
            assert make is not whole or any(words in f.words for f in report.failures()), (path, error)


def test_what_is_not_there_refutes_however_the_system_says_so() -> None:
    for number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG):
        trace = Starved(whole(), "tile/entries/000.p/8", OSError(number, os.strerror(number)))
        assert audit_trace(trace, VERIFIER).verdict is Verdict.REFUTED


def test_progress_counts_bundles() -> None:
    seen: list[tuple[int, int]] = []
    files = write(run(), *[metrics(n) for n in range(600)])
    audit_trace(MemoryTrace(files), VERIFIER, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
