"""What `join` and `leave` entries say of the ranks of a training: lies are refuted, and missing ranks told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgtrac.demo.forge import all_entries
from fgtrac.errors import ProofError
from fgtrac.verify.joins import Joins
from fgtrac.verify.updates import read_updates
from traces import Writing, start_trace

Event = dict[str, Any]
ZERO, ONE, OTHER = (bytes([n]) * 16 for n in (1, 2, 3))


def event(kind: str, writer: bytes, seq: int, **fields: Any) -> Event:
    return {"kind": kind, "writer": writer, "seq": seq, **fields}


def join(rank: int, writer: bytes, seq: int, **fields: Any) -> Event:
    return event("join", writer, seq, **{"rank": rank, "ranks": 2, "step": 0, "began": [ZERO, 0]} | fields)


def honest() -> list[Event]:
    """A training of two ranks, as the seal lays it."""
    return [
        event("run", ZERO, 0),
        join(0, ZERO, 1),
        event("use", ZERO, 2),
        join(1, ONE, 0),
        event("use", ONE, 1),
        event("leave", ONE, 2),
        event("end", ZERO, 3),
    ]


def checked(events: list[Event], *, has_gaps: bool = False) -> list[str]:
    joins = Joins()
    for number, one in enumerate(events):
        joins.add(number, one)
    joins.check(has_gaps=has_gaps)
    return joins.missing()


def changed(number: int, **fields: Any) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [e | fields if n == number else e for n, e in enumerate(events)]


def in_order(*numbers: int) -> Callable[[list[Event]], list[Event]]:
    return lambda events: [events[n] for n in numbers]


def test_a_training_of_which_all_ranks_have_left_is_whole() -> None:
    assert checked(honest()) == []
    resumed = [event("resume", OTHER, 0, step=7), join(0, OTHER, 1, ranks=1, step=7, began=[OTHER, 0])]
    assert checked([*honest(), *resumed, event("end", OTHER, 2)]) == []


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (
            in_order(0, 1, 2, 6),
            r"entry 3 \(end\) ends a training without a gap entry, and entry 1 \(join\) says",
        ),
        (in_order(0, 1, 2, 3, 4, 6), "of 1 of them the record is not whole"),
        (lambda e: changed(1, ranks=9)(changed(3, ranks=9)(e)), "of 7 of them the record is not whole"),
        (changed(3, rank=0), "is of rank 0, and rank 0 begins a training and nobody else"),
        (changed(3, began=[OTHER, 0]), "was begun by an entry that is no run and no resume entry before it"),
        (changed(3, began=[ONE, 0]), "was begun by an entry that is no run"),
        (changed(3, ranks=3), "says 3 ranks from step 0; entry 1 says 2 from 0"),
        (changed(3, step=100), "says 2 ranks from step 100"),
        (in_order(0, 1, 2, 4, 5, 3, 6), r"entry 4 \(leave\) is by a writer that has joined as no rank"),
        (in_order(0, 1, 2, 4, 3, 5, 6), r"entry 4 \(join\) is not the first of its writer's"),
        (in_order(0, 2, 1, 3, 4, 5, 6), r"entry 2 \(join\) is not the first"),
        (in_order(0, 1, 2, 3, 5, 4, 6), r"entry 5 \(use\) stands behind its writer's leave, entry 4"),
        (lambda e: [*e[:6], join(1, OTHER, 0), e[6]], "is a second rank 1 of the training that entry 1 joins"),
        (
            lambda e: [*e, event("resume", OTHER, 0, step=7), join(0, OTHER, 1, step=3, began=[OTHER, 0])],
            "counts from step 3, and the training goes on from 7",
        ),
    ],
)
def test_what_no_recording_writes_is_refuted(lie: Callable[[list[Event]], list[Event]], words: str) -> None:
    with pytest.raises(ProofError, match=words):
        checked(lie(honest()))


def test_a_missing_rank_beside_a_gap_or_before_the_end_is_told() -> None:
    said = "entry 1 (join) says 2 ranks, and of 1 of them the record is not whole"
    assert checked(in_order(0, 1, 2, 6)(honest()), has_gaps=True) == [said]
    assert checked(honest()[:5]) == [said]  # it may be at work


@pytest.mark.parametrize(("alone", "words"), [(0, "took part in 1 update on 2 ranks"), (1, "on up to 2 ranks")])
def test_updates_of_one_process_by_itself_are_not_said_to_be_of_all_ranks(
    tmp_path: Path, alone: int, words: str
) -> None:
    made, first = start_trace(tmp_path)
    began = [first.recorder.writer, 0]
    those = [first, Writing(made, bytes([7]) * 16), *[Writing(made, bytes([9]) * 16)] * alone]
    for rank, writing in enumerate(those):
        if rank < 2:
            writing.recorder.record("join", {"rank": rank, "ranks": 2, "step": 0, "began": began})
        writing.use([rank])
        writing.recorder.close()
    made.seal()
    found = read_updates(enumerate(all_entries(made.trace)))
    assert words in found.words
    assert not [doubt for doubt in found.doubtful if "should have joined" in doubt]


def test_a_replay_misses_the_rank_that_never_joined(tmp_path: Path) -> None:
    made, first = start_trace(tmp_path)
    first.recorder.record("join", {"rank": 0, "ranks": 2, "step": 0, "began": [first.recorder.writer, 0]})
    first.use([0])
    first.recorder.close()
    made.seal()
    found = read_updates(enumerate(all_entries(made.trace)))
    assert found.doubtful == ["nothing of 1 rank that should have joined"]
