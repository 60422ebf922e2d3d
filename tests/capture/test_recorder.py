"""The recorder: in order, without holes, in entries that fit; and what it says where writing fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.capture.hops import Hops
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import ENTRY_PAYLOAD_BYTES, Placement, cut_batches
from fgtrac.errors import CaptureError
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS, decode_event

WRITER = b"w" * 16
APPLIED, EXACT = STATUS["applied"], ATTRIBUTION["exact"]
ONE = Placement((b"a" * 16,), np.arange(100_000, dtype=np.uint32)[::-1].copy(), None)


class Memory:
    """A journal in memory, whose appends and syncs fail while `broken`."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.calls: list[str] = []
        self.broken = False
        self.errno = errno.ENOSPC
        self.wrote = threading.Event()
        self.syncing = threading.Event()
        self.let_sync_end = threading.Event()
        self.let_sync_end.set()

    def append(self, entries: list[bytes]) -> None:
        if self.broken:
            raise OSError(self.errno, os.strerror(self.errno))
        self.calls.append("append")
        self.entries += entries
        self.wrote.set()

    def sync(self) -> None:
        self.syncing.set()
        assert self.let_sync_end.wait(60)
        if self.broken:
            raise OSError(self.errno, os.strerror(self.errno))
        self.calls.append("sync")

    def rotate(self) -> None:
        self.calls.append("rotate")

    def close(self) -> None:
        self.calls.append("close")

    @property
    def events(self) -> list[dict[str, Any]]:
        return [decode_event(e) for e in self.entries]


@pytest.fixture
def journal() -> Memory:
    return Memory()


def made(journal: Memory, **options: Any) -> Recorder:
    return Recorder(journal, WRITER, **{"clock": lambda: 1, "flush_interval_s": 0, **options})


def use(recorder: Recorder, positions: list[int], number: int = 0, placement: Placement = ONE, **more: Any) -> None:
    recorder.use(placement, 1, 1, (0, number, number + 1, APPLIED, EXACT), array("I", positions), **more)


def pairs(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(batch, ordinal) of every sample of every use entry."""
    out = []
    for event in events:
        batches = np.repeat(event["batch"], event["count"])
        out += zip(batches.tolist(), event["ordinals"].tolist(), strict=True)
    return out


# -- what is written, and when --------------------------------------------------------------------------------------


def test_batches_wait_until_a_flush_and_become_one_entry(journal: Memory) -> None:
    recorder = made(journal)
    use(recorder, [0, 1], 0)
    use(recorder, [2], 1)
    assert journal.entries == []
    recorder.flush()
    (event,) = journal.events
    assert pairs([event]) == [(0, 99_999), (0, 99_998), (1, 99_997)]
    assert (event["step"].tolist(), event["seq"], event["writer"]) == ([1, 2], 0, WRITER)
    recorder.flush()
    assert len(journal.entries) == 1


def test_a_full_buffer_is_written_without_a_flush(journal: Memory) -> None:
    recorder = made(journal)
    for number in range(58):
        use(recorder, list(range(256)), number)
    assert len(journal.entries) == 1
    assert 55_000 < len(journal.entries[0]) <= 65_535


def test_the_background_thread_flushes_by_the_clock(journal: Memory) -> None:
    recorder = made(journal, flush_interval_s=0.01, sync_interval_s=0.0)
    use(recorder, [3])
    assert journal.wrote.wait(60)
    assert journal.syncing.wait(60)
    recorder.close()
    assert pairs(journal.events) == [(0, 99_996)]
    assert journal.calls[-1] == "close"


def test_nobody_waits_in_use_while_the_disk_is_syncing(journal: Memory) -> None:
    journal.let_sync_end.clear()
    recorder = made(journal, flush_interval_s=0.01, sync_interval_s=0.0)
    assert journal.syncing.wait(60)
    for number in range(58):  # more than a buffer: encoded and written too
        use(recorder, list(range(256)), number)
    assert len(journal.entries) == 1
    journal.let_sync_end.set()
    recorder.close()


def test_a_segment_is_not_changed_while_it_is_being_synced(journal: Memory) -> None:
    journal.let_sync_end.clear()
    recorder = made(journal, flush_interval_s=0.01, sync_interval_s=0.0)
    assert journal.syncing.wait(60)
    rotating = threading.Thread(target=recorder.rotate)
    rotating.start()
    rotating.join(0.05)
    assert "rotate" not in journal.calls
    journal.let_sync_end.set()
    rotating.join(60)
    recorder.close()
    assert journal.calls[journal.calls.index("rotate") - 1] == "sync"


def test_events_and_uses_are_numbered_without_a_hole(journal: Memory) -> None:
    recorder = made(journal)
    refs = [recorder.record("metrics", {"step": n, "values": {}}) for n in range(3)]
    use(recorder, [1])
    recorder.close()
    assert refs == [(WRITER, 0), (WRITER, 1), (WRITER, 2)]
    assert [e["seq"] for e in journal.events] == [0, 1, 2, 3]
    with pytest.raises(CaptureError, match="this run is closed"):
        recorder.record("metrics", {"step": 0, "values": {}})


def test_an_event_that_does_not_fit_is_refused_and_leaves_no_hole(journal: Memory) -> None:
    recorder = made(journal)
    with pytest.raises(ValueError, match="the most is 65,535"):
        recorder.record("metrics", {"step": 0, "values": {f"{n:060}": n for n in range(1200)}})
    recorder.record("metrics", {"step": 0, "values": {}})
    recorder.flush()
    assert [e["seq"] for e in journal.events] == [0]


@pytest.mark.parametrize("losses", [False, True])
def test_a_batch_too_large_for_an_entry_is_cut_and_keeps_its_number(journal: Memory, losses: bool) -> None:
    recorder = made(journal)
    positions = list(range(40_000))
    said = np.linspace(0, 1, 40_000).astype(np.float16) if losses else None
    use(recorder, positions, 7, losses=said)
    use(recorder, [5], 8, losses=None if said is None else said[:1])
    recorder.flush()
    events = journal.events
    assert pairs(events) == [(7, 99_999 - p) for p in positions] + [(8, 99_994)]
    assert all(len(e) <= 65_535 for e in journal.entries)
    assert {int(s) for e in events for s in e["step"]} == {8, 9}
    if said is not None:
        assert np.array_equal(np.concatenate([e["losses"] for e in events]), [*said, said[0]])


def test_batches_over_several_blocks_are_filed_in_each(journal: Memory) -> None:
    blocks = tuple(bytes([n]) * 16 for n in range(4))
    which = np.array([0, 1, 2, 0, 1], dtype=np.uint16)
    placement = Placement(blocks, np.array([10, 20, 30, 11, 21], dtype=np.uint32), which)
    recorder = made(journal)
    use(recorder, [4, 0, 3], 0, placement, losses=np.array([4, 0, 3], dtype=np.float16))
    use(recorder, [2], 1, placement, losses=np.array([2], dtype=np.float16))
    recorder.flush()
    found = {e["block"]: (pairs([e]), e["losses"].tolist()) for e in journal.events}
    assert found == {
        blocks[0]: ([(0, 10), (0, 11)], [0.0, 3.0]),
        blocks[1]: ([(0, 21)], [4.0]),
        blocks[2]: ([(1, 30)], [2.0]),
    }


def test_a_new_placement_of_the_same_loader_does_not_mix_with_the_old(journal: Memory) -> None:
    other = Placement((b"b" * 16,), np.arange(10, dtype=np.uint32), None)
    recorder = made(journal)
    use(recorder, [1], 0)
    use(recorder, [1], 1, other)
    recorder.flush()
    assert [(e["block"][:1], pairs([e])) for e in journal.events] == [(b"a", [(0, 99_998)]), (b"b", [(1, 1)])]


def test_batches_are_cut_where_an_entry_is_full() -> None:
    counts = np.array([0, 14_000, 990, 20_000, 5], dtype=np.uint32)
    most = (ENTRY_PAYLOAD_BYTES - 22) // 4
    cuts = cut_batches(counts, 4, np.zeros((5, 0), np.uint32))
    assert [(cut.first, cut.samples.start, cut.samples.stop, cut.counts.tolist()) for cut in cuts] == [
        (0, 0, 14_000, [0, 14_000]),
        (2, 14_000, 14_990, [990]),
        (3, 14_990, 14_990 + most, [most]),
        (3, 14_990 + most, 34_990, [20_000 - most]),
        (4, 34_990, 34_995, [5]),
    ]


@pytest.mark.parametrize("with_losses", [False, True])
def test_batches_with_neighbours_are_cut_and_nothing_of_them_is_lost(journal: Memory, with_losses: bool) -> None:
    """Random batches, some larger than an entry: put together again they are what was said, and every entry is full."""
    rng = np.random.default_rng(1)
    placement = Placement((b"a" * 16,), rng.permutation(100_000).astype(np.uint32), None)
    recorder, told = made(journal), []
    for batch in range(40):
        large = batch % 7 == 3
        n, hops = int(rng.integers(0, 30_000 if large else 300)), int(rng.integers(0, 4))
        counts = rng.integers(0, 20_000 if large else 400, hops)
        seeds, near = np.split(rng.permutation(100_000)[: n + counts.sum()].astype(np.uint32), [n])
        losses = rng.random(n).astype(np.float16) if with_losses else None
        row = (0, batch, batch + 1, 1, 1)
        whole = Hops("sampled", near, tuple(counts.tolist()))
        recorder.use(placement, 1, 1, row, array("I", seeds.tobytes()), losses, whole)
        parts = np.split(placement.ordinals[near], np.cumsum(counts))[:-1]
        told.append((placement.ordinals[seeds].tolist(), [p.tolist() for p in parts], losses))
    recorder.flush()
    assert sum(len(seeds) + sum(map(len, near)) for seeds, near, _ in told) == recorder.events
    found: list[Any] = [([], [[], [], []], []) for _ in told]
    for event in journal.events:
        columns = [value for value in event.values() if isinstance(value, np.ndarray)]
        assert sum(column.nbytes for column in columns) <= ENTRY_PAYLOAD_BYTES
        seeds = np.split(event["ordinals"], np.cumsum(event["count"]))
        losses = np.split(event["losses"], np.cumsum(event["count"])) if with_losses else [np.empty(0)] * len(seeds)
        near = np.split(event["hop_ordinals"], np.cumsum(event["hop_count"]))
        for place, batch in enumerate(event["batch"].tolist()):
            assert (event["step"][place], event["graph"]) == (batch + 1, "sampled")
            found[batch][0].extend(seeds[place].tolist())
            found[batch][2].extend(losses[place].tolist())
            for hop in range(event["hops"]):
                found[batch][1][hop].extend(near[place * event["hops"] + hop].tolist())
    for (seeds, parts, losses), (said, near, lost) in zip(told, found, strict=True):
        assert said == seeds
        assert near == parts + [[]] * (3 - len(parts))
        assert losses is None or lost == losses.tolist()


# -- where writing fails --------------------------------------------------------------------------------------------


def test_what_could_not_be_written_is_named_by_a_gap(journal: Memory) -> None:
    recorder = made(journal)
    recorder.record("metrics", {"step": 0, "values": {}})
    recorder.flush()
    journal.broken = True
    use(recorder, [1])
    with pytest.warns(RuntimeWarning, match="entries 1 to 1 of this process were not written"):
        recorder.flush()
    recorder.record("metrics", {"step": 1, "values": {}})
    recorder.flush()  # fails again: the range grows
    journal.broken = False
    recorder.record("metrics", {"step": 2, "values": {}})
    recorder.close()
    first, gap, last = journal.events
    assert (first["seq"], last["seq"], last["step"]) == (0, 5, 2)
    assert (gap["kind"], gap["lost_writer"], gap["first"], gap["stop"]) == ("gap", WRITER, 1, gap["seq"])
    assert (gap["seq"], gap["reason"]) == (4, "write failed")


@pytest.mark.parametrize("strict", [False, True])
def test_a_batch_that_names_no_sample_of_its_data_set_does_not_take_the_others_with_it(
    journal: Memory, strict: bool
) -> None:
    few = Placement((b"a" * 16,), np.arange(3, dtype=np.uint32), None)
    recorder = Recorder(journal, WRITER, flush_interval_s=0, strict=strict)
    for batch, position in enumerate([0, 3, 2]):
        near = Hops("sampled", np.array([1], dtype=np.uint32), (1,))
        recorder.use(few, 1, 1, (0, batch, batch, APPLIED, EXACT), array("I", [position]), None, near)
    if strict:
        with pytest.raises(CaptureError, match="leave data as they are once they are watched"):
            recorder.close()
    else:
        with pytest.warns(RuntimeWarning, match="1 batches name samples that their data set does not have"):
            recorder.close()
    assert journal.calls[-1] == "close"
    uses = [(e["batch"].tolist(), e["ordinals"].tolist()) for e in journal.events if e["kind"] == "use"]
    assert uses == [([0], [0]), ([2], [2])]
    (gap,) = (e for e in journal.events if e["kind"] == "gap")
    assert gap["reason"] == "1 batches name samples that their data set does not have, and are not recorded"
    assert "index 3 is out of bounds" in gap["detail"]


def test_strict_raises_at_the_write_and_at_whatever_comes_next(journal: Memory) -> None:
    recorder = made(journal, strict=True)
    journal.broken = True
    use(recorder, [1])
    with pytest.raises(CaptureError, match="No space left on device; free the disk, then begin again"):
        recorder.flush()  # without a warning beside it, which would be an error here
    with pytest.raises(CaptureError, match="cannot be written"):
        use(recorder, [2])


def test_a_failed_sync_is_strict_too(journal: Memory) -> None:
    recorder = made(journal, strict=True)
    recorder.record("metrics", {"step": 0, "values": {}})
    recorder.flush()
    journal.broken = True
    with pytest.raises(CaptureError, match="No space left"):
        recorder.sync()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_journal_that_may_not_be_written_is_told_from_a_full_disk(journal: Memory, number: int) -> None:
    recorder = made(journal, strict=True)
    journal.broken, journal.errno = True, number
    use(recorder, [1])
    with pytest.raises(CaptureError, match="make it writable for you, then begin again"):
        recorder.flush()


def test_an_end_that_could_not_be_written_is_an_error(journal: Memory) -> None:
    recorder = made(journal)
    journal.broken = True
    use(recorder, [1])
    with pytest.warns(RuntimeWarning), pytest.raises(CaptureError, match="the end of the run is not in the trace"):
        recorder.close()
    assert journal.calls == ["close"]


def test_discarded_batches_carry_no_step(journal: Memory) -> None:
    recorder = made(journal)
    recorder.use(ONE, 1, 0, (2, 3, NO_STEP, STATUS["discarded"], EXACT), array("I", [1]))
    recorder.flush()
    (event,) = journal.events
    assert (event["epoch"].tolist(), event["step"].tolist()) == ([2], [NO_STEP])


FULL_DISK = """
import resource, sys, warnings
from torch.utils.data import DataLoader
from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError

strict, folder = sys.argv[1] == "strict", sys.argv[2]
warnings.simplefilter("ignore", RuntimeWarning)
run = start_run(folder + "/run", key=folder + "/key.pem", strict=strict, flush_interval_s=0)
loader = run.watch(DataLoader([0] * 40_000, batch_size=20_000, collate_fn=len))
run._recorder.flush()
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
size = max(p.stat().st_size for p in (run.path / "journal").iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5_000, unlimited[1]))
try:
    for _ in range(3):
        list(loader)
    run._recorder.flush()
except CaptureError as error:
    print("raised", error)
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
try:
    run.log(after=1)
    run.close()
except CaptureError as error:
    print("raised", error)
"""


def on_a_full_disk(mode: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, mode, str(folder)], capture_output=True, text=True, timeout=600, check=True
    )
    return done.stdout


def test_a_full_disk_leaves_a_gap_in_the_sealed_log(tmp_path: Path, log: Callable[[Path], Any]) -> None:
    assert on_a_full_disk("lenient", tmp_path) == ""
    said = log(tmp_path / "run.trace")
    gaps = said.kind("gap")
    assert gaps
    assert all(gap["reason"] == "write failed" and "File too large" in gap["detail"] for gap in gaps)
    written = {e["seq"] for e in said.events if e["writer"] == gaps[0]["lost_writer"]}
    assert written == set(range(max(written) + 1)) - {n for g in gaps for n in range(g["first"], g["stop"])}
    assert said.kind("metrics")[0]["values"] == {"after": 1}
    assert len(said.kind("end")) == 1


def test_a_full_disk_raises_in_strict_mode(tmp_path: Path) -> None:
    words = on_a_full_disk("strict", tmp_path).splitlines()
    assert words
    assert all(w.startswith("raised the trace cannot be written: [Errno 27] File too large") for w in words)
