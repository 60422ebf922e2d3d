"""Ranges through a cache are the bytes of the whole; arrays far away are those on disk, row by row."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.store.range_reads import BLOCK_BYTES, MOST_BYTES, WALK_BLOCKS, BlockCache, FarArray, FarFile
from fgtrac.tlog.npy import npy_header

DATA = np.random.default_rng(3).bytes(40 * BLOCK_BYTES + 17)


class Far:
    """An object far away, and what was asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def fetch(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        self.asked.append((start, length))
        return self.data[start : start + length], len(self.data)


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 9), st.integers(0, 5 * BLOCK_BYTES)), max_size=30))
def test_any_ranges_are_those_of_the_whole_though_little_is_kept(ranges: list[tuple[int, int]]) -> None:
    cache = BlockCache(Far(DATA).fetch, limit_bytes=3 * BLOCK_BYTES)
    for start, length in ranges:
        assert cache.read("x", start, length) == DATA[start : start + length]


def test_a_block_is_fetched_once_and_who_reads_on_gets_more_at_a_time() -> None:
    far = Far(DATA)
    cache = BlockCache(far.fetch)
    for _ in range(3):
        assert cache.read("x", 5 * BLOCK_BYTES + 3, 10) == DATA[5 * BLOCK_BYTES + 3 :][:10]
    assert far.asked == [(5 * BLOCK_BYTES, BLOCK_BYTES)]  # which says how long it is, too
    for at in range(6 * BLOCK_BYTES, len(DATA), 100):
        cache.read("x", at, 2)
    assert len(far.asked) <= 8
    assert max(length for _start, length in far.asked) <= MOST_BYTES


def test_who_goes_from_entry_to_entry_takes_few_requests_and_others_what_they_read() -> None:
    walked, read = Far(DATA), Far(DATA)
    for far, near, most in ((walked, WALK_BLOCKS, 5), (read, 0, 11)):
        file = FarFile(BlockCache(far.fetch), "x", near)
        for at in range(0, len(DATA), 60_000):
            assert file.read_at(at, 2) == DATA[at : at + 2]
        assert len(far.asked) == most
    assert {length for _start, length in read.asked} == {BLOCK_BYTES}


def test_fewer_bytes_than_were_promised_are_refused() -> None:
    cache = BlockCache(lambda path, start, length: (DATA[start : start + length][:-1], len(DATA)))
    with pytest.raises(FormatError, match="bytes came where"):
        FarFile(cache, "x")


@pytest.mark.parametrize("shape", [(5000,), (5000, 33), (0,), (0, 33)])
def test_an_array_far_away_is_the_one_on_disk(shape: tuple[int, ...]) -> None:
    dtype = np.dtype("<u8") if len(shape) == 1 else np.dtype("u1")
    near = np.random.default_rng(5).integers(0, 255, shape).astype(dtype)
    far = Far(npy_header(near) + near.tobytes())
    array = FarArray(BlockCache(far.fetch), "x")
    assert (len(array), array.shape, array.dtype, array.ndim) == (len(near), near.shape, near.dtype, near.ndim)
    assert np.array_equal(np.asarray(array), near)
    assert np.array_equal(np.load(io.BytesIO(far.data)), near)
    if len(near):
        far.asked.clear()
        again = FarArray(BlockCache(far.fetch), "x")
        assert again[4321].tobytes() == near[4321].tobytes() == again[4321 - 5000].tobytes()
        assert again[17:40].tobytes() == near[17:40].tobytes()
        assert sum(length for _start, length in far.asked) <= 2 * BLOCK_BYTES
        assert again[::7].tobytes() == near[::7].tobytes()
        assert again[3, ...].tobytes() == near[3, ...].tobytes()
        with pytest.raises(IndexError):
            again[5000]
