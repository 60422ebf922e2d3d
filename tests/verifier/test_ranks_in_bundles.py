"""Bundles of a training of several ranks: both verifiers tell whether the record is whole, of every rank."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgtrac.api.trace import open_trace
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from page_verifier import PageVerifier, agrees
from traces import Made, Writing, start_trace

VERIFIER = Path(__file__).parents[2] / "verifier" / "check_bundle.py"
Fields = dict[str, Any]
UNUSED = "digits:9"


def trained(
    folder: Path,
    *,
    ranks: int = 2,
    step: int = 0,
    change: Callable[[int, Fields], Fields] = lambda _rank, fields: fields,
    leaves: bool = True,
    names_leave: bool = True,
    joins: tuple[int, ...] = (0, 1),
    starts_again: bool = False,
) -> Made:
    """A trace of two ranks that use one sample each, with a state kept by rank 0 before the other's uses are laid."""
    made, first = start_trace(folder)
    other = Writing(made, bytes([7]) * 16)
    began = [first.recorder.writer, 0]
    for rank, writing in enumerate((first, other)):
        said = {"rank": rank, "ranks": ranks, "step": step, "began": began}
        if rank in joins:
            writing.recorder.record("join", change(rank, said))
        writing.use([rank])
        writing.use([3])
    if starts_again:
        other.recorder.record("join", {"rank": 0, "ranks": 1, "step": step, "began": [other.recorder.writer, 0]})
    first.recorder.record("checkpoint", {"step": 2, "kept": True, "rule": "kept"})
    first.recorder.rotate()
    made.seal(full=False)
    if leaves:
        other.recorder.record("leave", {})
    if not names_leave:
        other.use([5])
    other.recorder.close()
    first.end()
    made.seal()
    return made


def verdicts(made: Made, page: PageVerifier | None, claim: str, name: str = UNUSED) -> tuple[str, str, str]:
    """What fgtrac and the second verifier say of a proof, and its words. The page's says as fgtrac."""
    data = open_trace(made.trace.path).prove(name, claim)
    bundle = parse_bundle(data)
    theirs = runpy.run_path(str(VERIFIER))
    key = made.verifier.public_key
    said, _found = theirs["Examination"](theirs["read_bundle"](data), key).report()
    verdict = str(check_bundle(bundle, made.verifier).verdict)
    assert agrees(page, verdict, data, made.verifier)
    return verdict, said, bundle.words


@pytest.mark.parametrize("claim", ["never used", "label never used", "history"])
def test_of_a_whole_record_of_two_ranks_everything_can_be_told(
    tmp_path: Path, page: PageVerifier | None, claim: str
) -> None:
    ours, theirs, words = verdicts(trained(tmp_path), page, claim)
    assert (ours, theirs) == ("holds", "holds")
    assert "of a run that" not in words


@pytest.mark.parametrize(
    "lie",
    [
        {"joins": (0,)},
        {"joins": (1,)},
        {"leaves": False},
        {"names_leave": False},
        {"ranks": 9},
        {"change": lambda rank, said: said | {"rank": 0}},
        {"change": lambda rank, said: said | {"ranks": 2 + rank}},
        {"change": lambda rank, said: said | {"began": [bytes(16), 0]}},
        {"change": lambda rank, said: said | {"began": [said["began"][0], rank]}},
        {"starts_again": True},
    ],
)
def test_where_a_rank_is_missing_neither_can_tell_what_was_not_used(
    tmp_path: Path, page: PageVerifier | None, lie: Fields
) -> None:
    made = trained(tmp_path, **lie)
    ours, theirs, words = verdicts(made, page, "never used")
    assert (ours, theirs) == ("cannot tell", "cannot tell")
    assert " of a run that has ended (gaps in its record: 0, and of some ranks it is not whole)." in words
    assert verdicts(made, page, "used", "digits:0")[:2] == ("holds", "holds")


def test_a_state_is_told_of_by_the_steps_that_each_rank_counts(tmp_path: Path, page: PageVerifier | None) -> None:
    """The other rank's entries stand behind the state that it trained up to."""
    ours, theirs, words = verdicts(trained(tmp_path), page, "used", "digits:3")
    assert (ours, theirs) == ("holds", "holds")
    assert "The model state of step 2 was saved after 2 of its uses, by the steps that each rank counts." in words


def test_a_resume_of_what_had_not_ended_is_told(tmp_path: Path, page: PageVerifier | None) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0])
    for ended in (False, True, False):
        if ended:
            writing.recorder.record("end", {"writers": [[writing.recorder.writer, writing.recorder.next_seq - 1]]})
        said = {"writers": [[writing.recorder.writer, writing.recorder.next_seq - 1]], "step": 1}
        writing.recorder.record("resume", said)
    writing.end()
    made.seal()
    ours, theirs, words = verdicts(made, page, "never used")
    assert (ours, theirs) == ("holds", "holds")
    assert " Resumes without an end before: 2. What was done last before those may be lost. " in words
