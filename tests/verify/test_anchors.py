"""What is said of heads that are held, and files that no receipt is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from fgtrac.errors import AnchorError, FormatError, ProofError
from fgtrac.verify.anchors import Tally, Witnessed, describe, read_receipt, some, utc
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.tree import Log, read_head, read_log
from signed import MemoryTrace, metrics, run, write

NOBODY = Announcements()


def log() -> Log:
    files = MemoryTrace(write(run(), *(metrics(n) for n in range(1, 9))))
    return read_log(files, read_head(files))


class Endless:
    """A file without an end."""

    def pieces(self, path: str) -> Iterator[bytes]:
        return itertools.repeat(b"x" * 1000)

    def read(self, path: str) -> bytes:
        raise AssertionError("read as a whole")

    def names(self) -> list[str]:
        return []


def test_a_file_is_read_as_far_as_a_receipt_can_go() -> None:
    with pytest.raises(FormatError, match="more than 1,000,000 bytes"):
        read_receipt(Endless(), "receipts/7/checkpoint")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([Witnessed(9, 0, "a")], "1 head seen by a: of 9 entries at 1970-01-01 00:00:00 UTC"),
        (
            [Witnessed(8, 60, "a")],
            "1 head seen by a: of 8 entries at 1970-01-01 00:01:00 UTC; the last entry is not covered",
        ),
        (
            [Witnessed(8, 60, "b"), Witnessed(8, 0, "a"), Witnessed(3, 7, "a")],
            "2 heads seen by a and b: the first of 3 entries at 1970-01-01 00:00:07 UTC, the newest of 8 entries at "
            "1970-01-01 00:00:00 UTC; the last entry is not covered",
        ),
    ],
)
def test_heads_are_told_by_size_with_the_earliest_time_of_each(held: list[Witnessed], words: str) -> None:
    assert describe(held, "seen", 9, NOBODY) == words


def test_an_epoch_is_bound_by_a_head_of_that_very_size_only() -> None:
    announced = Announcements()
    for number, epoch in enumerate((0, 1)):
        announced.add(number, {"kind": "sampler", "sampler": "R", "writer": b"w", "loader": 1, "epoch": epoch})
    words = describe([Witnessed(1, 0, "a"), Witnessed(2, 0, "a", exact=False)], "seen", 2, announced)
    assert words.endswith("; anchored before their first use: 1 of 2 announced epochs")


def test_one_receipt_of_which_nobody_can_tell_outweighs_those_that_hold_and_one_refuted_all() -> None:
    tally = Tally([Witnessed(9, 0, "a")])
    assert tally.conclude("seen", log(), NOBODY).startswith("1 head seen by a")
    for error in (CannotTell("asleep"), AnchorError("away")):
        with tally.taking("there"):
            raise error
    with pytest.raises(CannotTell, match=r"there: asleep; there: away; beside that, 1 head seen by a"):
        tally.conclude("seen", log(), NOBODY)
    with tally.taking("here"):
        raise ProofError("false")
    with pytest.raises(ProofError, match="here: false"):
        tally.conclude("seen", log(), NOBODY)


def test_what_is_many_is_counted() -> None:
    assert some(["a", "b", "c"]) == "a; b; c"
    assert some(["a", "b", "c", "d"], " and ") == "a and b and c and 1 more"


@pytest.mark.parametrize("time", [2.0**63, -(2.0**63), float("nan")])
def test_a_time_that_no_calendar_has_is_a_format_error(time: float) -> None:
    with pytest.raises(FormatError, match="no time of this era"):
        utc(time)
