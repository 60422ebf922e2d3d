"""Journal segments: whole frames survive any cut, damage is found and bounded, a live segment is held."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from fgtrac.store import durable, journal
from fgtrac.store.checksums import prefix_checksums
from fgtrac.store.journal import HEADER, JournalWriter, encode_frame, scan

WRITER = b"w" * 16
ENTRIES = [bytes([n]) * (1 + 7 * n) for n in range(1, 9)]


def test_a_segment_cut_at_any_byte_keeps_exactly_its_whole_frames() -> None:
    data = b"".join(map(encode_frame, ENTRIES))
    ends = [sum(len(e) + HEADER.size for e in ENTRIES[: n + 1]) for n in range(len(ENTRIES))]
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends)
        found = scan(data[:cut])
        assert [entry for _, entry in found.frames] == ENTRIES[:whole]
        assert found.torn == cut - ([0, *ends][whole])
        assert found.bad == ()


def test_a_flipped_bit_loses_the_frame_it_is_in_and_no_other() -> None:
    data = b"".join(map(encode_frame, ENTRIES))
    starts = [sum(len(e) + HEADER.size for e in ENTRIES[:n]) for n in range(len(ENTRIES))]
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 8)
        hit = sum(start <= at for start in starts) - 1
        found = scan(bytes(damaged))
        assert [entry for _, entry in found.frames] == ENTRIES[:hit] + ENTRIES[hit + 1 :]
        assert found.bad or found.torn


def test_a_segment_is_held_while_its_writer_has_it_open(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, WRITER)
    journal.append([b"one"])
    (path,) = tmp_path.iterdir()
    assert durable.is_held(path)
    journal.rotate()
    assert not durable.is_held(path)
    journal.append([b"two"])
    assert len(list(tmp_path.iterdir())) == 2
    journal.close()


def test_a_write_that_fails_half_way_leaves_no_torn_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = JournalWriter(tmp_path, WRITER)
    journal.append([b"first"])
    (path,) = tmp_path.iterdir()
    before, original = path.read_bytes(), durable._write

    def half(fd: int, data: memoryview) -> int:
        original(fd, data[: len(data) // 2])
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(durable, "_write", half)
    with pytest.raises(OSError, match="no space"):
        journal.append([b"second"])
    assert path.read_bytes() == before
    monkeypatch.undo()
    journal.append([b"third"])
    journal.close()
    assert [entry for _, entry in scan(path.read_bytes()).frames] == [b"first", b"third"]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_checksums_of_all_prefixes_are_those_of_zlib(size: int) -> None:
    data, before = random.Random(size).randbytes(size), zlib.crc32(b"before")
    for sums, front in ((prefix_checksums(data), b""), (prefix_checksums(data, before), b"before")):
        assert sums.tolist() == [zlib.crc32(front + data[:n]) for n in range(size + 1)]


def test_behind_damage_the_search_finds_what_trying_each_offset_finds() -> None:
    draw = random.Random(1)

    def some() -> bytes:
        length = struct.pack("<I", draw.randint(0, 60))
        whole = encode_frame(draw.randbytes(draw.randint(1, 40)))
        return draw.choice([whole, draw.randbytes(draw.randint(0, 30)), length + draw.randbytes(5), bytes(9)])

    for _ in range(300):
        data = b"".join(some() for _ in range(draw.randint(1, 5)))
        search = journal._Search(data)
        for damaged in range(-1, len(data)):
            tried = (at for at in range(damaged + 1, len(data) - 8) if journal._frame_at(data, at) is not None)
            assert search.behind(damaged) == next(tried, len(data))


def test_frames_on_both_sides_of_a_stretch_are_found_behind_damage() -> None:
    frame = encode_frame(b"entry" * 400)
    data = b"\0" + frame * 100
    assert [at for at, _ in scan(data).frames] == list(range(1, len(data), len(frame)))
    assert len(data) > 3 * journal.STRETCH
