"""What a push leaves beside a trace far away says where checkpoints lie: it saves requests, and is not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.api.trace import Trace
from fgtrac.errors import ProofError
from fgtrac.events.codec import decode, encode
from fgtrac.query.found_places import decode_places, encode_places
from fgtrac.query.seals import open_full_seal
from fgtrac.store.trace_dir import TraceDir
from folder_objects import far
from traces import start_trace

ENTRIES, CHECKPOINTS = 520, 40  # in three bundles more
BULK = {f"metric-{number:04d}": float(number) for number in range(500)}  # 11 KB an entry


def long_trace(folder: Path, checkpoints: int) -> TraceDir:
    """A sealed trace with checkpoints among long entries."""
    made, writing = start_trace(folder)
    for number in range(260):  # a bundle of short ones, in which the sample is
        writing.use([3, 4] if number == 7 else [5, 6])
    for number in range(ENTRIES):
        if number % (ENTRIES // checkpoints) == 0:
            fields = {"step": number + 300, "kept": True, "rule": "all", "digest": number.to_bytes(32, "big")}
            writing.recorder.record("checkpoint", fields)
        else:
            writing.recorder.record("metrics", {"step": 1, "values": BULK})
    writing.end()
    made.seal()
    return made.trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> TraceDir:
    return long_trace(tmp_path_factory.mktemp("long"), CHECKPOINTS)


@pytest.fixture(scope="module")
def places(trace: TraceDir) -> bytes:
    return open_full_seal(trace).places()


def asked(trace: TraceDir, places: bytes | None) -> tuple[dict[str, Any], int, int]:
    """A history far away, and the requests and bytes that it took."""
    there = far(trace.path, places)
    said = Trace(there, None).history("digits:3").as_json()
    objects: Any = there.objects
    return said, objects.requests, objects.bytes_read


def test_a_history_fetches_the_checkpoints_and_not_the_log(trace: TraceDir, places: bytes, tmp_path: Path) -> None:
    near = Trace(trace, None).history("digits:3").as_json()
    told, requests, fetched = asked(trace, places)
    blind, _, all_of_it = asked(trace, None)
    assert told == blind == near
    assert len(near["checkpoints"]) == CHECKPOINTS
    log = sum(path.stat().st_size for path in trace.path.glob("tile/entries/**/*") if path.is_file())
    assert all_of_it > log
    assert fetched < all_of_it / 3
    few = long_trace(tmp_path, 4)
    _, fewer, less = asked(few, open_full_seal(few).places())
    assert requests - fewer <= 2 * (CHECKPOINTS - 4)
    assert fetched - less <= (CHECKPOINTS - 4) * (16 << 10)


def changed(places: bytes, change: Callable[[list[Any]], object]) -> bytes:
    """The places with something else said of checkpoints: [[number, start, stop], ...]."""
    root, kinds = decode(places)
    change(dict(kinds)["checkpoint"])
    return encode([root, kinds])


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "another root": lambda said: said.replace(decode(said)[0], bytes(32)),
    "one less": lambda said: changed(said, lambda mine: mine.pop()),
    "one twice": lambda said: changed(said, lambda mine: mine.__setitem__(1, mine[0])),
    "another entry": lambda said: changed(said, lambda mine: mine[3].__setitem__(0, mine[3][0] + 1)),
    "an entry of another kind": lambda said: changed(said, lambda mine: mine.__setitem__(0, [0, 2, 100])),
    "another place": lambda said: changed(said, lambda mine: mine[3].__setitem__(1, mine[3][1] + 1)),
    "backwards": lambda said: changed(said, lambda mine: mine[3].reverse()),
    "behind the end of the log": lambda said: changed(said, lambda mine: mine[3].__setitem__(0, 10**6)),
    "behind the end of a bundle": lambda said: changed(
        said, lambda mine: mine.__setitem__(3, [mine[3][0], 2**40, 2**41])
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_whatever_lies_there_changes_no_answer(name: str, trace: TraceDir, places: bytes) -> None:
    assert asked(trace, WRONG[name](places))[0] == asked(trace, places)[0]


def test_an_entry_that_was_changed_is_told_as_ever(tmp_path: Path) -> None:
    trace = long_trace(tmp_path, CHECKPOINTS)
    seal = open_full_seal(trace)
    number = seal.log.find_kind("checkpoint", CHECKPOINTS)[3]
    bundle = trace.path / "tile/entries/001"
    data = bytearray(bundle.read_bytes())
    data[seal.log.places_of([number])[number][1] - 1] ^= 1
    bundle.write_bytes(data)
    for places in (None, seal.places()):
        with pytest.raises(ProofError, match=f"entry {number} in tile/entries/001 is not the one that was sealed"):
            asked(trace, places)


@given(st.binary(max_size=200))
def test_any_bytes_say_something_or_nothing(data: bytes) -> None:
    assert decode_places(data, b"r" * 32) == {}
    assert decode_places(encode_places(b"r" * 32, {"checkpoint": {7: (2, 9)}}) + data[:1], b"r" * 32) in (
        {},
        {"checkpoint": {7: (2, 9)}},
    )
