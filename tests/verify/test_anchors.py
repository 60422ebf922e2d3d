"""What is said of heads that are held, and files that no receipt is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from fgtrac.errors import AnchorError, FormatError, ProofError
from fgtrac.verify.anchors import SHOWN, Tally, describe, examine_all, judged, read_receipt, some
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.receipts import RFC3161
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.tree import read_head, read_log
from signed import MemoryTrace, metrics, run, write


def audit() -> Audit:
    """Of nine entries, of which nothing was read but their hashes."""
    files = MemoryTrace(write(run(), *(metrics(n) for n in range(1, 9))))
    return Audit(log=read_log(files, read_head(files)))


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


def seen(by: str, *heads: tuple[int, float], doubt: str = "") -> list[Witnessed]:
    return [Witnessed(size, time_s, by, doubt=doubt) for size, time_s in heads]


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (seen("a", (9, 0)), "1 head stamped by a: of 9 entries at 1970-01-01 00:00:00 UTC"),
        (
            seen("a", (8, 60)),
            "1 head stamped by a: of 8 entries at 1970-01-01 00:01:00 UTC; the last entry is not covered",
        ),
        (
            seen("b", (3, 7), (8, 60), (8, 0)) + seen("a", (3, 1)),
            "2 heads stamped by b: the first of 3 entries at 1970-01-01 00:00:07 UTC, the newest of 8 entries at "
            "1970-01-01 00:00:00 UTC; 1 head stamped by a: of 3 entries at 1970-01-01 00:00:01 UTC; the last entry is "
            "not covered",
        ),
        (
            seen("a", (9, 0), doubt="early") + seen("a", (9, 5), (4, 0)),
            "2 heads stamped by a: the first of 4 entries at 1970-01-01 00:00:00 UTC, the newest of 9 entries at "
            "1970-01-01 00:00:05 UTC",
        ),
        (
            seen("a", (9, 0), (5, 0), doubt="early") + seen("a", (4, 0)),
            "3 heads stamped by a: the first of 4 entries at 1970-01-01 00:00:00 UTC, the newest of 9 entries at "
            "1970-01-01 00:00:00 UTC (not believable: early), and the times of 1 between them are not believable",
        ),
    ],
)
def test_heads_are_told_by_service_with_the_earliest_believable_time_of_each(held: list[Witnessed], words: str) -> None:
    assert describe(held, RFC3161, audit()) == f"{words}; {SHOWN[RFC3161]}"


def test_the_first_few_services_are_named_and_the_others_counted() -> None:
    words = describe([one for by in "abcde" for one in seen(by, (9, 0))], RFC3161, audit())
    assert "by c: of 9 entries at 1970-01-01 00:00:00 UTC and 2 more; " in words


def test_which_epochs_are_bound_is_said_for_heads_of_that_very_size_only() -> None:
    found = audit()
    for number, epoch in enumerate((0, 1)):
        event = {"kind": "sampler", "sampler": "R", "writer": b"w", "loader": 1, "epoch": epoch, "time": 0}
        found.facts.announcements.add(number, event)
    event = {"kind": "use", "epoch": np.array([0, 1]), "writer": b"w", "loader": 1, "time": 0}
    found.facts.announcements.add(2, event)
    words = describe([Witnessed(1, 0, "a"), Witnessed(2, 0, "a", exact=False)], RFC3161, found)
    assert "; anchored before their first use, by the log's own times: 1 of 2 announced epochs; " in words
    found.facts.announcements.add(3, event | {"time": -1})
    assert ": 0 of 2 announced epochs; " in describe([Witnessed(1, 0, "a")], RFC3161, found)


def test_times_are_judged_by_the_entries_and_by_the_clock() -> None:
    found = audit()
    for _ in range(9):
        found.facts.own_times.add(10**12)
    early, good, late = judged(seen("a", (9, 0), (9, 1000), (9, 1e11)), RFC3161, found)
    assert "recorded until 1970-01-01 00:16:40 UTC" in early.doubt
    assert (good.doubt, good.kind) == ("", RFC3161)
    assert "in the future" in late.doubt


def test_one_receipt_of_which_nobody_can_tell_outweighs_those_that_hold_and_one_refuted_all() -> None:
    tally, found = Tally(seen("a", (9, 0))), audit()
    assert tally.conclude(RFC3161, found).startswith("1 head stamped by a")
    assert [one.by for one in found.witnessed] == ["a"]
    for error in (CannotTell("asleep"), AnchorError("away"), PermissionError("locked")):
        with tally.taking("there"):
            raise error
    with pytest.raises(CannotTell, match=r"there: asleep; there: away; there: locked; beside that, 1 head stamped"):
        tally.conclude(RFC3161, found)
    with tally.taking("here"):
        raise FileNotFoundError("gone")
    with pytest.raises(ProofError, match="here: gone"):
        tally.conclude(RFC3161, found)


def test_a_file_that_cannot_be_read_is_not_refuted() -> None:
    errors: dict[str, Exception] = {"a": PermissionError("locked"), "b": CannotTell("asleep")}

    def examine(path: str) -> None:
        raise errors[path]

    with pytest.raises(CannotTell, match="a: locked; b: asleep"):
        examine_all(errors, examine)
    for error in (ProofError("false"), FileNotFoundError("false")):
        errors["c"] = error
        with pytest.raises(ProofError, match=r"^c: false$"):
            examine_all(errors, examine)


def test_what_is_many_is_counted() -> None:
    assert some(["a", "b", "c"]) == "a; b; c"
    assert some(["a", "b", "c", "d"], " and ") == "a and b and c and 1 more"
