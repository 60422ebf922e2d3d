"""A batch that may have left samples out: no claim and no policy takes its word for more than that."""

from __future__ import annotations

from array import array
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.policy_file import BUILT_IN, ON_DEMAND, Policies
from judged import BOTH, CANNOT_TELL, REFUTED, TEST, TRAIN, Data, assert_all_hold, assert_only, check
from page_verifier import PageVerifier, agrees
from proofs import examine
from traces import Made, start_trace

AMONG = {"attribution": np.array([ATTRIBUTION["among"]], np.uint8)}
PERHAPS = "In batches that may have left it out: {} of all uses."


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Rows 0 and 1 in a batch that may have left them out, then rows 0 and 2 in one that has not."""
    made, writing = start_trace(tmp_path)
    for step, (row, sure) in enumerate(((1, "among"), (2, "exact")), 1):
        batch = (0, step - 1, step, STATUS["applied"], ATTRIBUTION[sure])
        writing.recorder.use(writing.placement, 1, 1, batch, array("I", [0, row]))
        writing.recorder.flush()
    writing.end()
    made.seal()
    return made


@pytest.mark.parametrize("entries", [False, True])
def test_used_is_claimed_where_one_use_is_certain_and_cannot_be_told_where_none_is(
    made: Made, other: ModuleType, page: PageVerifier | None, entries: bool
) -> None:
    trace, key = fgtrac.open(made.trace.path), made.verifier.public_key
    for name, verdict, perhaps in (("0", "holds", 1), ("1", "cannot tell", 1), ("2", "holds", 0), ("3", "holds", None)):
        data = trace.prove(f"digits:{name}", "never used" if perhaps is None else "used", entries=entries)
        words = parse_bundle(data).words
        assert (PERHAPS.format(perhaps) in words) == bool(perhaps)
        assert str(examine(data, made.verifier).verdict) == verdict
        assert other.Examination(other.read_bundle(data), key).report()[0] == verdict
        assert agrees(page, verdict, data, made.verifier)


def test_a_history_counts_what_is_certain_and_says_the_rest_is_perhaps(made: Made) -> None:
    trace = fgtrac.open(made.trace.path)
    told = {row: trace.history(f"digits:{row}") for row in range(4)}
    assert [told[row].uses for row in range(4)] == [1, 0, 1, 0]
    assert [told[row].tally.perhaps for row in range(4)] == [1, 1, 0, 0]
    assert "drawn for a batch that held another number of samples, and perhaps used with it in step 1" in str(told[1])
    counts = {sample["id"]: sample["uses"] for sample in trace.sample_counts()}
    assert [counts[made.ids[row].hex()] for row in range(4)] == [1, 0, 1, 0]


def test_a_held_out_sample_that_was_perhaps_used_cannot_be_told() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 1, **AMONG))
    assert_only(found, "held-out", CANNOT_TELL, "1 perhaps use of 3 samples", "(attribution among)")
    assert found["held-out"].broken == []


def test_a_held_out_sample_that_was_certainly_used_beside_is_found() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 1, **AMONG), TEST.use(3, 2))
    assert_only(found, "held-out", REFUTED, f"id:{TEST.ids[2].hex()}")


def test_a_training_sample_that_was_perhaps_used_is_neither_used_nor_left_out() -> None:
    name = "every-training-sample-used"
    perhaps: list[Any] = [TRAIN.use(1, 0, 1), TRAIN.use(2, 2, 3, **AMONG)]
    found = check(BOTH, *perhaps)
    assert_only(found, name, CANNOT_TELL, "2 of 4 training samples perhaps were used")
    assert_all_hold(check(BOTH, *perhaps, TRAIN.use(3, 2, 3)))
    found = check(BOTH, TRAIN.use(1, 0), TRAIN.use(2, 2, 3, **AMONG))
    broken = assert_only(found, name, REFUTED, "1 of 4 training samples were not used", "2 more perhaps were")
    assert [sample for sample, _, _ in broken.broken] == [TRAIN.ids[1]]


def test_a_use_that_a_resume_undid_is_no_perhaps() -> None:
    perhaps = TRAIN.use(2, 2, 3, **AMONG)
    resume = {"kind": "resume", "writers": [], "step": 1}
    found = check(BOTH, TRAIN.use(1, 0, 1), perhaps, resume, TRAIN.use(2, 2))
    assert_only(found, "every-training-sample-used", REFUTED, "1 of 4 training samples were not used")


def test_neighbours_of_such_a_batch_are_perhaps_neighbours() -> None:
    graph = Data("graph", 6)
    nodes = [*graph.registered(), graph.role("train", [0, 1, 2]), graph.role("test", [4, 5])]
    batch = graph.graph_use(2, [1, 2], [4]) | AMONG
    found = check(nodes, graph.graph_use(1, [0, 1, 2], [3]), batch, policies=Policies((*BUILT_IN, *ON_DEMAND)))
    assert_only(found, "held-out-features", CANNOT_TELL, "1 perhaps use of")


def test_that_the_program_itself_said_so_is_said() -> None:
    declared = {"attribution": np.array([ATTRIBUTION["declared"]], np.uint8)}
    found = check(BOTH, TRAIN.use(1, 0, 1), TRAIN.use(2, 2, 3, **declared))
    words = found["every-training-sample-used"].words
    assert words.endswith("was used; 2 of them only as the recording program itself says")
