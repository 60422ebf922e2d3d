"""Batches of a graph in a log: none names a neighbour twice, and those on the whole graph name all its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.events.schema import NO_STEP, STATUS
from fgtrac.verify.report import Finding, Verdict
from signed import IDS, OTHER, VERIFIER, WRITER, Event, MemoryTrace, by, end, gap, run, samples, seal, use, write

HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL
Batch = tuple[int, Sequence[int], Sequence[Sequence[int]]]  # its step, its seeds, its neighbours by hop


def uses(*batches: Batch, graph: str = "whole", **changes: Any) -> Event:
    """An entry with these batches in applied updates."""
    rows = [hop for _step, _seeds, hops in batches for hop in hops]
    steps = np.array([step for step, *_ in batches], np.uint64)
    seeds = [seeds for _step, seeds, _hops in batches]
    columns = {
        "epoch": np.zeros(len(batches), np.uint32), "batch": (steps - 1).astype(np.uint32), "step": steps,
        "status": np.full(len(batches), STATUS["applied"], np.uint8), "graph": graph, "hops": len(batches[0][2]),
        "attribution": np.ones(len(batches), np.uint8), "count": np.array([len(s) for s in seeds], np.uint32),
        "ordinals": np.array([n for some in seeds for n in some], np.uint32),
        "hop_count": np.array([len(hop) for hop in rows], np.uint32),
        "hop_ordinals": np.array([n for hop in rows for n in hop], np.uint32),
    }  # fmt: skip
    return use(1) | columns | changes


def sampled(*batches: Batch, **changes: Any) -> Event:
    return uses(*batches, graph="sampled", **changes)


def found(*entries: Event) -> Finding:
    """What the check finds of entries from number 2 on."""
    report = audit_trace(MemoryTrace(write(run(), samples(), *entries, seal())), VERIFIER)
    (finding,) = [f for f in report.findings if f.check == "graphs"]
    return finding


def ended(*entries: Event) -> Finding:
    """The same of a run that wrote its end."""
    return found(*entries, end((WRITER, 1 + len(entries))))


WHOLE: Batch = (1, [0, 1], [[2], [3, 4], [5]])
SAMPLED: Batch = (1, [0, 1], [[2], [3]])
LACKING: Batch = (1, [0, 1], [[2], [3], [5]])


def test_without_a_graph_the_check_is_not_made() -> None:
    report = audit_trace(MemoryTrace(write(run(), samples(), use(1, 0, 1), seal())), VERIFIER)
    assert "graphs" not in [f.check for f in report.findings]


def test_batches_that_name_each_node_once_hold() -> None:
    more = (2, [5], [[1], [2, 3], [0, 4]]), (3, [0, 1, 2, 3, 4, 5], [[], [], []])
    finding = ended(uses(WHOLE, *more), sampled(SAMPLED, (2, [4], [[], []])))
    assert finding.verdict is HOLDS
    assert finding.words == (
        "5 batches of a graph, none with a neighbour twice; 3 of them on the whole graph, with all its nodes; at "
        "which hops, in a log without edges, is not shown"
    )


@pytest.mark.parametrize("beside", [[WHOLE[1:]], []])
@pytest.mark.parametrize("at", [0, 1])
def test_a_node_that_a_whole_graph_leaves_out_is_missed(beside: list[Any], at: int) -> None:
    batches = [(n, *rest) for n, rest in enumerate([*beside[:at], LACKING[1:], *beside[at:]], 1)]
    finding = ended(uses(*batches))
    assert finding.verdict is REFUTED
    place = min(at, len(beside))
    words = f"entry 2 (use): batch {place} of epoch 0, is on the whole graph, and names 5 of its 6 nodes"
    assert finding.words == words


@pytest.mark.parametrize("graph", ["whole", "sampled"])
@pytest.mark.parametrize(
    ("hops", "twice"), [([[2, 2], [3, 4, 5]], 2), ([[2], [2, 3, 4, 5]], 2), ([[1], [2, 3, 4, 5]], 1)]
)
def test_a_neighbour_is_named_once_and_is_no_seed(graph: str, hops: list[list[int]], twice: int) -> None:
    finding = ended(uses((1, [0], [[1], [2, 3, 4, 5]]), (2, [0, 1], hops), graph=graph))
    assert finding.verdict is REFUTED
    assert finding.words == (f"entry 2 (use): batch 1 of epoch 0, names the node {IDS[twice].hex()} more than once")


def test_a_batch_whose_end_may_be_missing_names_nobody_twice_either() -> None:
    assert found(uses((1, [0], [[1], [2]]))).verdict is HOLDS
    assert found(uses((1, [0], [[1], [1]]))).verdict is REFUTED


def test_one_node_in_place_of_all_neighbours_is_refuted() -> None:
    assert ended(uses((1, [0, 1], [[0], [0, 0], [0]]))).verdict is REFUTED


def test_seeds_may_be_drawn_twice() -> None:
    assert ended(sampled((1, [0, 0, 1], [[2], [3]]))).verdict is HOLDS
    assert ended(uses((1, [0, 0, 1], [[2], [3, 4, 5]]))).verdict is HOLDS


def test_one_optimizer_may_discard_a_batch_more_than_once() -> None:
    discarded = {"status": np.full(2, STATUS["discarded"], np.uint8), "step": np.full(2, NO_STEP, np.uint64)}
    batches = uses((1, [0, 1], [[2], [3, 4, 5]]), (1, [0, 1], [[2], [3, 4, 5]])) | discarded
    assert ended(batches).verdict is HOLDS
    more = uses((1, [0, 1], [[2], [3, 4, 5]]), (1, [0, 1], [[2, 3], [3, 4, 5]])) | discarded
    assert ended(more).verdict is REFUTED


# -- pieces -----------------------------------------------------------------------------------------------------------

PIECES = uses((1, [0, 1], [[], [], []])), uses((1, [], [[2], [3], []])), uses((1, [], [[], [4], [5]]))


def with_others(between: str, n: int) -> list[Event]:
    """What stands behind piece n: another loader's batches, or another optimizer's, or none of a graph."""
    there = {"loader": sampled((n, [0], [[2], [3]]), loader=2), "optimizer": uses((n, *WHOLE[1:]), optimizer=2)}
    return {name: [entry] for name, entry in (there | {"plain": use(n, 0, 1)}).items()}.get(between, [])


@pytest.mark.parametrize("between", ["nothing", "loader", "optimizer", "plain"])
def test_the_pieces_of_a_batch_lie_in_several_entries(between: str) -> None:
    log = [entry for n, piece in enumerate(PIECES, 1) for entry in (piece, *with_others(between, n))]
    assert ended(*log).verdict is HOLDS
    assert ended(*log, uses((2, *WHOLE[1:]))).verdict is HOLDS
    assert ended(*(entry for entry in log if entry is not PIECES[1])).verdict is REFUTED
    again = ended(*log, PIECES[1])
    assert again.verdict is REFUTED
    assert "more than once" in again.words


def test_a_batch_may_begin_behind_others_and_end_before_others() -> None:
    first, last = (1, *WHOLE[1:]), (3, *WHOLE[1:])
    begins, ends = uses(first, (2, [0, 1], [[2], [], []])), uses((2, [], [[], [3, 4], [5]]), last)
    finding = ended(begins, ends)
    assert (finding.verdict, finding.words[:9]) == (HOLDS, "3 batches")
    short = uses((2, [], [[], [3], [5]]), last)
    assert "entry 2 (use): batch 1 of epoch 0, is on the whole graph, and names 5" in ended(begins, short).words


@pytest.mark.parametrize("pieces", [1, 2])
def test_what_a_crash_cuts_off_is_not_refuted(pieces: int) -> None:
    cut = found(uses((1, *WHOLE[1:])), *(piece | {"step": piece["step"] + 1} for piece in PIECES[:pieces]))
    assert cut.verdict is HOLDS
    assert "of 1 batch the end may be missing" in cut.words
    resume = by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, pieces + 1]], "step": 0})
    again = [by(OTHER, n, piece) for n, piece in enumerate(PIECES, 1)]
    after = found(*PIECES[:pieces], resume, *again, by(OTHER, 4, end((WRITER, pieces + 1), (OTHER, 3))))
    assert after.verdict is HOLDS, after


def test_beside_a_gap_nobody_can_tell_of_missing_nodes() -> None:
    log = [by(WRITER, 2, PIECES[0]), by(WRITER, 4, PIECES[2]), by(WRITER, 5, uses((2, *WHOLE[1:])))]
    lost = found(*log, by(OTHER, 0, gap(WRITER, 3, 4)))
    assert lost.verdict is CANNOT_TELL
    assert (
        "names 4 of its 6 nodes: the others may be in what is lost; entry 5 says that something was lost" in lost.words
    )
    twice = found(
        *log,
        by(WRITER, 6, uses((3, [0], [[1], [1], []]))),
        by(WRITER, 7, uses((4, *WHOLE[1:]))),
        by(OTHER, 0, gap(WRITER, 3, 4)),
    )
    assert twice.verdict is REFUTED
