"""What is written into the group's store in another's name: neither is it recorded, nor does a rank let go for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from fgtrac.api import gathered
from fgtrac.api.gathered import Receiver, SentJournal
from fgtrac.api.kept import Kept
from fgtrac.api.ranks import Ranks
from fgtrac.api.run import Run, start_run
from fgtrac.commit.gather import clear_sealed, read_segments, read_segments_of
from fgtrac.events.codec import decode, encode
from fgtrac.events.schema import encode_event
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter, encode_frame
from fgtrac.store.trace_dir import TraceDir

MINE, OTHERS = bytes([1]) * 16, bytes([2]) * 16


class Pair:
    """Rank 0 with a run, and the store that rank 1, whose writer is `MINE`, reaches it by."""

    def __init__(self, folder: Path) -> None:
        self.store: Any = dist.HashStore()
        self.run: Run = start_run(folder / "run", key=folder / "key.pem")
        self.first, self.second = (Ranks(rank, 2, self.store, gathers=True) for rank in (0, 1))
        self.receiver = Receiver(self.first, self.run._trace, self.run._vault, self.run._signer)
        self.kept = Kept(self.second, folder / "host" / "run.trace", self.run._signer.trace_id)
        self.second._writer = MINE

    def records(self) -> JournalWriter:
        """Rank 1 joins, and writes one entry and a parcel."""
        (self.kept.folder.parent.parent).mkdir(exist_ok=True)
        self.kept.begin(MINE, self.run._signer.public_keys)
        self.second.tell_joined()
        journal = SentJournal(self.kept, MINE)
        journal.append([entry(MINE, 0)])
        self.kept.send_parcel("names", [])
        journal._segments.sync()
        journal._segments.rotate()
        return journal._segments

    def held(self) -> list[str]:
        """What rank 1 keeps."""
        return sorted(p.parent.name for p in self.kept.folder.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.run.close()


def entry(writer: bytes, seq: int) -> bytes:
    return encode_event({"kind": "gap", "reason": "said", "time": time.time_ns(), "writer": writer, "seq": seq})


def segments(pair: Pair) -> set[bytes]:
    return {segment.writer for segment in read_segments(pair.run._trace)} - {pair.run._recorder.writer}


def test_entries_of_another_writer_are_not_taken_from_a_rank(pair: Pair) -> None:
    pair.second.send(0, ["frames", OTHERS, encode_frame(entry(OTHERS, 0))])
    with pytest.raises(OSError, match=f"entries of writer {OTHERS.hex()} from a rank that has not joined"):
        pair.receiver.take()
    pair.second.tell_joined()
    zero = pair.run._recorder.writer
    for number, writer in enumerate((OTHERS, zero), start=1):
        pair.second.send(number, ["frames", writer, encode_frame(entry(writer, 1))])
        with pytest.raises(OSError, match=f"of writer {writer.hex()} from a rank that joined as {MINE.hex()}"):
            pair.receiver.take()
    pair.store.set("joined/1", OTHERS)  # what it joined as stays
    pair.second.send(3, ["frames", MINE, encode_frame(entry(MINE, 0))])
    pair.receiver.rotate()
    assert segments(pair) == {MINE}
    pair.second.send(4, ["keeps", [OTHERS], b""])
    with pytest.raises(OSError, match="'keeps' is nothing that a rank sends"):
        pair.receiver.take()


def test_what_a_rank_kept_is_of_the_writers_that_it_said_first(pair: Pair) -> None:
    durable.make_folder(pair.kept.journal)
    journal = JournalWriter(pair.kept.journal, OTHERS)
    journal.append([entry(OTHERS, 0)])
    journal.close()
    pair.kept.send_from_before()
    assert pair.receiver.take_kept() == []
    assert segments(pair) == {OTHERS}
    pair.second.tell_joined()
    third = bytes([3]) * 16
    pair.second.send(2, ["frames", third, encode_frame(entry(third, 0))])
    words = f"writer {third.hex()} from a rank that joined as {MINE.hex()} and said to keep {OTHERS.hex()}"
    with pytest.raises(OSError, match=words):
        pair.receiver.take()


def test_no_rank_writes_as_the_rank_0_that_lives(pair: Pair) -> None:
    zero = pair.run._recorder.writer
    pair.first.begin_writing(zero, pair.run._trace.journal, lambda: None)
    pair.second.send(0, ["keeps", [zero], b""])
    pair.second.tell_kept(1)
    assert pair.receiver.take_kept() == []
    pair.second.tell_joined()
    pair.second.send(1, ["frames", zero, encode_frame(entry(zero, 9))])
    with pytest.raises(OSError, match=f"entries of writer {zero.hex()} from a rank that joined as {MINE.hex()}"):
        pair.receiver.rotate()
    assert segments(pair) == set()


def test_what_a_rank_says_too_late_that_it_kept_stays_with_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "KEPT_WAIT_S", 0.0)
    durable.make_folder(pair.kept.journal)
    before = JournalWriter(pair.kept.journal, OTHERS)
    before.append([entry(OTHERS, 0)])
    before.close()
    assert pair.receiver.take_kept() == ["rank 1 of 2 did not say what it kept from before"]
    pair.kept.send_from_before()
    for words in (f"says only now that it kept entries of {OTHERS.hex()}", f"entries of writer {OTHERS.hex()} from a"):
        with pytest.raises(OSError, match=words):
            pair.receiver.take()
    journal = pair.records()
    pair.receiver.rotate()
    assert segments(pair) == {MINE}
    pair.run._sealer.now()
    pair.receiver.tell_sealed()
    assert pair.kept.heed()  # what it writes from then on is let go of as ever
    kept = read_segments(TraceDir(pair.kept.folder))
    assert [segment.writer for segment in kept if segment.frames] == [OTHERS]
    journal.close()


@pytest.mark.parametrize("said", [[], [[MINE]], [[1], b""], [MINE, b""], [[MINE], 1], [[MINE], b"", b""]])
def test_who_says_in_no_known_way_what_it_kept_is_refused(pair: Pair, said: list[Any]) -> None:
    pair.second.send(0, ["keeps", *said])
    with pytest.raises(OSError, match="it is no list of writers"):
        pair.receiver.take_kept()


def test_a_rank_lets_go_of_what_is_signed_for_it_alone(pair: Pair) -> None:
    journal = pair.records()
    pair.run._sealer.now()
    pair.receiver.tell_sealed()  # nothing has been taken yet
    assert pair.kept.heed()
    assert pair.held() == ["journal", "parcels"]
    pair.receiver.rotate()
    pair.run._sealer.now()
    pair.receiver.tell_sealed()
    assert pair.kept.heed()
    assert pair.held() == []
    journal.close()


@pytest.mark.parametrize("field", ["trace", "rank", "start", "writers", "taken", "key"])
def test_a_rank_does_not_let_go_for_what_rank_0_did_not_sign_for_it(pair: Pair, field: str) -> None:
    journal = pair.records()
    pair.run._sealer.now()
    pair.receiver.tell_sealed()
    said, signature = decode(pair.store.get("sealed/1"))
    trace_id, rank, start, writers, taken = decode(said)
    assert (writers, taken) == ([], 0)
    signs = pair.run._signer.sign_envelope
    all_of_it = [trace_id, rank, start, [[MINE, 1]], 9]
    other = {"trace": [bytes(16), *all_of_it[1:]], "rank": [trace_id, 2, *all_of_it[2:]]}
    other |= {"start": [trace_id, rank, bytes(16), *all_of_it[3:]]}
    if field in other:  # truly signed, and for another
        said = encode(other[field])
        signature = signs(pair.run._signer.public_key, "application/vnd.fgtrac.rank-sealed+cbor", said)
    elif field == "key":
        said, signature = encode(all_of_it), os.urandom(64)
    else:
        said = encode([trace_id, rank, start, [[MINE, 1]] if field == "writers" else writers, 9])
    pair.store.set("sealed/1", encode([said, signature]))
    assert not pair.kept.heed()
    assert bool(pair.kept._cut) is (field not in other)
    assert pair.held() == ["journal", "parcels"]
    journal.close()


def test_a_segment_that_a_rank_of_the_same_host_removed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is read, and between that and its removal."""
    trace = TraceDir.create(tmp_path / "run.trace")
    for writer in (MINE, OTHERS):
        journal = JournalWriter(trace.journal, writer)
        journal.append([entry(writer, 0)])
        journal.close()
    found = read_segments_of(trace, [MINE])
    assert [segment.writer for segment in found] == [MINE]
    remove = durable.remove

    def gone(path: Path) -> None:
        remove(path)
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(durable, "remove", gone)
        clear_sealed(found, {MINE: 1})
    plain = TraceDir.plain

    def first_gone(self: TraceDir, path: str) -> Path:
        (self.path / path).unlink()
        return plain(self, path)

    monkeypatch.setattr(TraceDir, "plain", first_gone)
    assert read_segments_of(trace, [OTHERS]) == []
