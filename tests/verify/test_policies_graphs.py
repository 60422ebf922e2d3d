"""In a graph a sample is used as a seed, with its label, or as a neighbour, with its features alone: who minds what."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.events.identity import subject_commitment
from fgtrac.events.schema import NO_STEP
from fgtrac.verify.policy_file import BUILT_IN, ON_DEMAND, OptOut, Policies
from judged import (
    ALICE,
    CANNOT_TELL,
    HOLDS,
    REFUTED,
    Data,
    Found,
    assert_all_hold,
    assert_only,
    check,
    listed,
    opt_out,
)
from signed import Event

ALL = Policies((*BUILT_IN, *ON_DEMAND))
FEATURES = Policies(ON_DEMAND)
GRAPH = Data("graph", 6)
NODES = [*GRAPH.registered(), GRAPH.role("train", [0, 1, 2]), GRAPH.role("test", [4, 5])]


def test_a_held_out_node_may_be_a_neighbour_and_the_answer_says_how_often() -> None:
    found = check(NODES, GRAPH.graph_use(1, [0, 1], [4], [5]), GRAPH.graph_use(2, [2], [4, 3]))
    assert_all_hold(found)
    words = (
        "no use of 2 samples in the role validation, test or excluded is among the 3 uses as seeds in applied updates"
    )
    assert found["held-out"].words == (f"{words}; 2 of the samples were neighbours, with their features alone, 3 times")
    assert found["erased-subjects"].words.endswith("among the 3 uses as seeds and 4 as neighbours in applied updates")


def test_a_held_out_seed_is_refuted_however_often_it_was_a_neighbour() -> None:
    found = check(NODES, GRAPH.graph_use(1, [0, 1], [4], [5]), GRAPH.graph_use(2, [2, 5], [4]))
    broken = assert_only(found, "held-out", REFUTED, "1 use of 1 sample", f"id:{GRAPH.ids[5].hex()} in step 2, epoch 0")
    assert (broken.broken, broken.hops) == ([(GRAPH.ids[5], 2, 6)], [0])


def test_out_of_the_seeds_reach_are_the_neighbours_at_the_last_hop_of_a_whole_graph() -> None:
    whole = GRAPH.graph_use(1, [0, 1, 2], [4], [3], [5], graph="whole")
    words = check(NODES, whole)["held-out"].words
    assert words.endswith(
        "2 of the samples were neighbours, with their features alone, 2 times, 1 of them out of the seeds' reach"
    )
    sampled = check(NODES, GRAPH.graph_use(1, [0, 1, 2], [4], [3], [5]))
    assert "reach" not in sampled["held-out"].words


# -- features ---------------------------------------------------------------------------------------------------------


def test_features_of_held_out_nodes_are_looked_at_only_where_the_file_says_so() -> None:
    uses = GRAPH.graph_use(1, [0, 1], [3], [4]), GRAPH.graph_use(2, [2], [5])
    assert "held-out-features" not in check(NODES, *uses)
    found = assert_only(
        check(NODES, *uses, policies=ALL), "held-out-features", REFUTED, "2 uses of 2 samples in applied updates",
        f"sample id:{GRAPH.ids[4].hex()}, a neighbour at hop 2, in step 1, epoch 0, entry 5",
        "; 2 of the uses were as neighbours",
    )  # fmt: skip
    assert found.broken == [(GRAPH.ids[4], 1, 5), (GRAPH.ids[5], 2, 6)]
    assert (found.hops, found.far) == ([2, 1], [False, False])


def test_what_the_whole_graph_holds_out_of_reach_was_given_to_the_model_all_the_same() -> None:
    whole = GRAPH.graph_use(1, [0, 1, 2], [3], [], [4, 5], graph="whole")
    words = (
        "a neighbour at hop 3, out of the seeds' reach, in step 1",
        "2 of the uses were as neighbours out of the seeds'",
    )
    found = assert_only(check(NODES, whole, policies=ALL), "held-out-features", REFUTED, *words)
    assert (found.hops, found.far) == ([3, 3], [True, True])


def test_a_seed_is_no_neighbour() -> None:
    found = check(NODES, GRAPH.graph_use(1, [0, 4], [3]), policies=FEATURES)
    assert found["held-out-features"].verdict is HOLDS
    assert "is among the 1 as neighbours in applied updates" in found["held-out-features"].words


def test_what_was_made_from_a_held_out_node_is_held_out_as_a_neighbour_too() -> None:
    made = Data("made", 2, content=None)
    log = [*made.registered(), GRAPH.made(made, (4, 0), (0, 1))]
    found = check(NODES, log, GRAPH.graph_use(1, [0, 1, 2], [3]), made.graph_use(2, [1], [0]), policies=ALL)
    assert assert_only(found, "held-out-features", REFUTED).broken == [(made.ids[0], 2, 9)]


def test_neighbours_of_a_batch_that_was_not_applied_are_no_use() -> None:
    unapplied = {"status": np.array([3], np.uint8), "step": np.array([NO_STEP], np.uint64)}
    dropped = GRAPH.graph_use(1, [3], [4], [5]) | unapplied
    found = check(NODES, GRAPH.graph_use(1, [0, 1, 2], [3]), dropped, policies=ALL)
    assert_all_hold(found)
    assert "is among the 1 as neighbours" in found["held-out-features"].words


def test_a_log_that_names_no_neighbours_says_nothing_of_features() -> None:
    plain = check(NODES, GRAPH.use(1, 0, 1, 2), policies=ALL)
    assert_only(plain, "held-out-features", CANNOT_TELL, "no entry names neighbours", "record the graph by its loader")
    unapplied = {"status": np.array([3], np.uint8), "step": np.array([NO_STEP], np.uint64)}
    looked = GRAPH.graph_use(1, [3], [4], graph="whole") | unapplied  # a pass over the graph without an update
    beside = check(NODES, GRAPH.use(1, 0, 1, 2), looked, policies=ALL)
    assert_only(beside, "held-out-features", CANNOT_TELL, "no entry names neighbours in an applied update")
    mixed = check(NODES, GRAPH.use(1, 0, 1), GRAPH.graph_use(2, [2], [3]), policies=ALL)
    assert_all_hold(mixed)
    assert "; 2 uses are in entries that name no neighbours" in mixed["held-out-features"].words


def test_without_held_out_nodes_nothing_says_whose_features_are() -> None:
    found = check(GRAPH.registered("train"), GRAPH.graph_use(1, [0], [1]), policies=FEATURES)["held-out-features"]
    assert found.verdict is CANNOT_TELL
    assert "no registered sample has the role validation, test or excluded" in found.words


def test_superseded_neighbours_are_marked() -> None:
    resumed = {"kind": "resume", "writers": [], "step": 1}
    log = GRAPH.graph_use(1, [0], [3]), GRAPH.graph_use(2, [1], [4]), resumed, GRAPH.graph_use(2, [1, 2], [4])
    found = check(NODES, *log, policies=FEATURES)["held-out-features"]
    assert found.superseded == [True, False]
    assert "1 of the uses were superseded by a resume; 2 of the uses were as neighbours" in found.words


# -- the others -------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_held_out_node_may_be_a_neighbour_too() -> None:
    data = Data("copies", 3, sources=[b"a", b"b", b"a"])
    log = [*data.registered(), data.role("train", [0, 1]), data.role("test", [2])]
    beside = check(log, data.graph_use(1, [1], [0]), policies=Policies(("held-out-contents",)))["held-out-contents"]
    assert beside.verdict is HOLDS
    assert "1 of the samples were neighbours, with their features alone, 1 time" in beside.words
    found = check(log, data.graph_use(1, [1], [0]), data.graph_use(2, [0], [1]))
    assert assert_only(found, "held-out-contents", REFUTED).broken == [(data.ids[0], 2, 6)]


def test_to_be_a_neighbour_is_not_to_be_trained_on() -> None:
    found = check(NODES, GRAPH.graph_use(1, [0, 1], [2]))
    words = "1 of 3 training samples were not used", f"id:{GRAPH.ids[2].hex()}"
    assert_only(found, "every-training-sample-used", REFUTED, *words)


def test_an_erased_subject_is_used_by_its_features_too() -> None:
    bob = subject_commitment(hashlib.sha256(b"bob").digest())
    data = Data("people", 4, scheme="subject", subjects=[ALICE, bob, bob, bob], content=None)
    log = [*data.registered(), data.role("train", [1, 2]), data.role("test", [3]), data.graph_use(1, [1], [0])]
    erased = data.erased(ALICE, 0)
    policies = Policies(("erased-subjects",))
    assert check(log, erased, data.graph_use(2, [2], [3]), policies=policies)["erased-subjects"].verdict is HOLDS
    found = check(log, erased, data.graph_use(2, [2], [3], [0]), policies=policies)["erased-subjects"]
    assert found.broken == [(data.ids[0], 2, 7)]
    assert f"sample id:{data.ids[0].hex()}, a neighbour at hop 2, in step 2" in found.words


def test_who_opted_out_is_used_by_its_features_too() -> None:
    lists = Policies((), opt_outs=(OptOut("list", samples="list.txt"),))
    for row, verdict in ((3, REFUTED), (5, HOLDS)):
        found = check(NODES, GRAPH.graph_use(1, [0], [3, 4]), policies=lists, at_hand=listed(f"graph:{row}"))
        assert found["opt-out list"].verdict is verdict
    after = check(NODES, GRAPH.graph_use(1, [0], [3]), GRAPH.graph_use(2, [0], [4]), at_hand=listed("graph:3"),
                  policies=Policies((), opt_outs=(OptOut("list", samples="list.txt", after=5),)))  # fmt: skip
    assert after["opt-out list"].verdict is HOLDS


def test_a_neighbour_that_may_be_meant_leaves_an_opt_out_open() -> None:
    """Nobody can tell whether it has an opted-out content; it was used all the same."""
    plain = Data("plain", 2, content=None)
    policies = opt_out(contents="list", source="file")
    digests = {"digests": lambda _path: [[hashlib.sha256(b"x").digest()]]}
    log = [*plain.registered("train"), plain.graph_use(1, [0], [1])]
    found = check(NODES, log, GRAPH.graph_use(2, [0]), policies=policies, at_hand=listed(**digests))["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert "(and 1 more) was used" in found.words


# -- against the definition -------------------------------------------------------------------------------------------

nodes = st.permutations(range(6)).flatmap(
    lambda order: st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda n: (order[: n[0]], order[n[0] : n[0] + n[1]], order[n[0] + n[1] :])
    )
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(nodes, st.sampled_from(["sampled", "whole", "plain", "unapplied"])), max_size=5),
       st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))  # fmt: skip
def test_policies_over_a_graph_decide_as_they_are_defined(
    batches: list[tuple[tuple[list[int], list[int], list[int]], str]], test: set[int], gone: set[int]
) -> None:
    roles = [GRAPH.role(role, sorted(rows)) for role, rows in (("train", {0, 1, 2}), ("test", test)) if rows]
    log: list[Event] = []
    seeds, beside = set[tuple[int, int]](), set[tuple[int, int, int, bool]]()
    for step, ((mine, near, rest), how) in enumerate(batches, 1):
        event = GRAPH.use(step, *mine) if how == "plain" else GRAPH.graph_use(
            step, mine, near, rest, graph="whole" if how == "whole" else "sampled")  # fmt: skip
        if how == "unapplied":
            event |= {"status": np.array([2], np.uint8), "step": np.array([NO_STEP], np.uint64)}
        else:
            seeds |= {(step, row) for row in mine}
        if how in ("sampled", "whole"):
            beside |= {(step, row, hop, how == "whole" and hop == 2) for hop, r in ((1, near), (2, rest)) for row in r}
        log.append(event)
    policies = Policies((*BUILT_IN, *ON_DEMAND), opt_outs=(OptOut("list", samples="list.txt"),))
    names = listed(*(f"graph:{row}" for row in sorted(gone)))
    found = check(GRAPH.registered(), roles, log, policies=policies, at_hand=names)

    def broken(policy: Found) -> set[tuple[int, bytes, int, bool]]:
        assert len(policy.broken) == len(set(zip(policy.broken, policy.hops, strict=True)))
        rows = zip(policy.broken, policy.hops, policy.far, strict=True)
        return {(step, sample, hop, far) for (sample, step, _entry), hop, far in rows}

    as_seeds = {(step, row, 0, False) for step, row in seeds}
    for name, rows, uses in (
        ("held-out", test, as_seeds), ("held-out-features", test, beside), ("opt-out list", gone, as_seeds | beside),
    ):  # fmt: skip
        expected = {(step, GRAPH.ids[row], hop, far) for step, row, hop, far in uses if row in rows}
        assert broken(found[name]) == expected, name
        assert (found[name].verdict is REFUTED) == bool(expected)
    if found["held-out"].verdict is HOLDS and beside:
        theirs = [use for use in beside if use[1] in test]
        assert f"{len({use[1] for use in theirs})} of the samples were neighbours" in found["held-out"].words
        assert f"with their features alone, {len(theirs)} time" in found["held-out"].words


@pytest.mark.parametrize("policy", [*BUILT_IN, *ON_DEMAND])
def test_every_policy_that_is_built_in_can_be_asked_alone(policy: str) -> None:
    assert list(check(NODES, GRAPH.graph_use(1, [0], [1]), policies=Policies((policy,)))) == [policy]
