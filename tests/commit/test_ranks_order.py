"""The entries of several ranks in one log: each behind what it rests on, whatever the clocks and the moment say."""

import pytest

from fgtrac.commit import sequencer
from fgtrac.commit.gather import read_segments
from fgtrac.events.schema import decode_event

A, B = b"a" * 16, b"b" * 16  # rank 0 and rank 1


def ordered(world) -> list[tuple[bytes, str]]:
    return [(event["writer"], event["kind"]) for event in map(decode_event, world.log())]


def join(world, writer: bytes, rank: int) -> bytes:
    return world.entry(writer, "join", {"rank": rank, "ranks": 2, "step": 0, "began": [A, 0]})


def test_a_rank_whose_clock_is_behind_comes_after_what_it_joined_and_after_the_registration_of_its_block(world) -> None:
    late = [join(world, B, 1), world.use(B, 1, [1]), world.use(B, 2, [2])]  # B's times are before A's
    world.write(*world.begin(A), world.use(A, 1, [3]))
    world.write(*late)
    world.seal(full=True)
    kinds = [(A, "run"), (B, "join"), (A, "dataset"), (A, "samples"), (B, "use"), (B, "use"), (A, "use")]
    assert ordered(world)[:-1] == kinds
    assert world.kinds()[-1] == "seal"


def test_what_was_registered_while_the_journal_was_read_is_sealed_with_what_rests_on_it(world, monkeypatch) -> None:
    run, *registration = world.begin(A)
    world.write(run)
    world.write(join(world, B, 1), world.use(B, 1, [1]))
    first = read_segments(world.trace)  # rank 0's segment was read before it registered, rank 1's behind it
    world.write(*registration, world.metrics(A, 9))
    readings = iter([first])
    monkeypatch.setattr(sequencer, "read_segments", lambda trace: next(readings, None) or read_segments(trace))
    world.seal(full=True)
    assert ordered(world)[:-1] == [(A, "run"), (B, "join"), (A, "dataset"), (A, "samples"), (B, "use")]
    monkeypatch.undo()
    assert world.seal(full=False).new_entries == 1  # the rest of rank 0's is the next seal's


@pytest.mark.parametrize("stop", [1, 2])
def test_where_the_registration_may_not_be_taken_yet_what_rests_on_it_waits_too(world, stop: int) -> None:
    world.write(*world.begin(A))
    world.write(join(world, B, 1), world.use(B, 1, [1]))
    sequencer.seal(world.trace, world.signer, full=False, clock=lambda: 10**9, before={A: stop})
    assert sorted(ordered(world)) == sorted([*[(A, "run"), (A, "dataset")][:stop], (B, "join")])
    world.seal(full=True)
    assert ordered(world)[-2:] == [(B, "use"), (ordered(world)[-1][0], "seal")]


def test_entries_that_rest_on_each_other_in_a_circle_are_sealed_as_they_come(world) -> None:
    world.write(world.entry(A, "join", {"rank": 0, "ranks": 2, "step": 0, "began": [B, 0]}))
    world.write(world.entry(B, "join", {"rank": 1, "ranks": 2, "step": 0, "began": [A, 0]}))
    world.seal(full=False)
    assert sorted(ordered(world)) == [(A, "join"), (B, "join")]
