"""One test for each way to break a policy, and for each reason why one cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.events.identity import (
    key_commitment,
    subject_commitment,
)
from fgtrac.verify.policy_file import BUILT_IN, OptOut, Policies
from fgtrac.verify.report import Verdict
from fgtrac.verify.uses import NONE
from judged import (
    BOTH,
    CANNOT_TELL,
    HOLDS,
    REFUTED,
    SECRET,
    SUBJECT,
    TEST,
    TRAIN,
    UNLIKE,
    Data,
    assert_all_hold,
    assert_only,
    check,
    listed,
)
from signed import WRITER, Event, end, run
from signed import gap as lost


def test_a_run_that_keeps_apart_what_it_must_holds_in_every_policy() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1), TRAIN.use(2, 2, 3))
    assert list(found) == list(BUILT_IN)
    assert_all_hold(found)
    assert "no use of 3 samples in the role validation, test or excluded is among the 4 uses" in found["held-out"].words
    assert "each of 4 training samples" in found["every-training-sample-used"].words


# -- held out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["validation", "test", "excluded"])
def test_a_held_out_sample_in_an_applied_update_is_named_with_its_step_and_entry(role: str) -> None:
    data = [*TRAIN.registered("train"), *TEST.registered(role)]
    found = check(data, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 1))
    broken = assert_only(found, "held-out", REFUTED, f"sample id:{TEST.ids[1].hex()} in step 2, epoch 0, entry 8")
    assert broken.broken == [(TEST.ids[1], 2, 8)]


def test_a_held_out_sample_that_was_delivered_and_not_applied_breaks_nothing() -> None:
    unapplied = {"status": np.array([3], np.uint8), "step": np.array([2**64 - 1], np.uint64)}
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(1, 0, **unapplied))
    assert_all_hold(found)


def test_only_the_applied_batches_of_an_entry_are_uses() -> None:
    three = Data("three", 3)
    columns = {
        "epoch": np.zeros(3, np.uint32), "batch": np.zeros(3, np.uint32), "count": np.ones(3, np.uint32),
        "step": np.array([1, 2**64 - 1, 2], np.uint64), "status": np.array([1, 2, 1], np.uint8),
        "attribution": np.ones(3, np.uint8),
    }  # fmt: skip
    found = check(three.registered("test"), three.use(1, 0, 1, 2, **columns), policies=Policies(("held-out",)))
    assert found["held-out"].broken == [(three.ids[0], 1, 4), (three.ids[2], 2, 4)]


def test_a_role_that_is_given_after_the_use_counts() -> None:
    found = check(BOTH[:-1], TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 0), TEST.role("test"))
    assert_only(found, "held-out", REFUTED, "1 use of 1 sample")


def test_a_sample_with_a_second_role_is_held_out_and_its_use_is_not_owed() -> None:
    used = check(BOTH, TRAIN.role("test", [0]), TRAIN.use(1, 0, 1, 2, 3))
    assert used["held-out"].verdict is REFUTED
    spared = check(BOTH, TRAIN.role("test", [0]), TRAIN.use(1, 1, 2, 3))
    assert_all_hold(spared)
    assert "each of 3 training samples" in spared["every-training-sample-used"].words
    assert "1 more are held out" in spared["every-training-sample-used"].words


def test_what_was_made_from_a_held_out_sample_is_held_out() -> None:
    crops, again = Data("crops", 2, content=None), Data("again", 1, content=None)
    made = [*crops.registered(), *again.registered(), TEST.made(crops, (0, 0)), TRAIN.made(crops, (0, 0), (1, 1))]
    made.append(crops.made(again, (0, 0)))
    assert_all_hold(check(BOTH, made, crops.use(1, 1), TRAIN.use(2, 0, 1, 2, 3)))
    found = check(BOTH, made, again.use(1, 0), TRAIN.use(2, 0, 1, 2, 3))
    broken = assert_only(found, "held-out", REFUTED, "3 samples (and 2 made from them)")
    assert [b[0] for b in broken.broken] == [again.ids[0]]


def test_an_id_that_two_blocks_register_is_one_sample() -> None:
    fewer = Data("test", 2)
    found = check(BOTH, fewer.registered(), TRAIN.use(1, 0, 1, 2, 3), fewer.use(2, 1))
    assert [b[0] for b in assert_only(found, "held-out", REFUTED).broken] == [TEST.ids[1]]


def test_the_roles_that_count_are_chosen_in_the_file() -> None:
    policies = Policies(held_out_roles=("validation",))
    data = [*BOTH, TRAIN.role("validation", [3])]
    found = check(data, TRAIN.use(1, 0, 1, 2), TEST.use(2, 0), policies=policies)
    owed = check(BOTH, TRAIN.role("test", [3]), TRAIN.role("validation", [0]), TRAIN.use(1, 1, 2), policies=policies)
    assert_only(owed, "every-training-sample-used", REFUTED, "1 of 3 training samples", f"id:{TRAIN.ids[3].hex()}")
    assert_all_hold(found)


def test_without_a_held_out_sample_nothing_says_what_is_held_out() -> None:
    found = check(TRAIN.registered("train"), TRAIN.use(1, 0, 1, 2, 3))
    for name in ("held-out", "held-out-contents"):
        assert found[name].verdict is CANNOT_TELL
        assert "no registered sample has the role validation, test or excluded" in found[name].words


# -- by content -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["public", "keyed"])
def test_a_copy_of_a_held_out_sample_is_found_by_its_content(scheme: str) -> None:
    copy = Data("copy", 2, scheme=scheme, sources=[b"another", b"test 2"])
    test = Data("test", 3, scheme=scheme)
    entry = run(key_commitment=key_commitment(SECRET))
    found = check(copy.registered("train"), test.registered("test"), copy.use(1, 0, 1), run_entry=entry)
    words = f"sample id:{copy.ids[1].hex()}, which has the content of id:{test.ids[2].hex()}, in step 1"
    broken = assert_only(found, "held-out-contents", REFUTED, words)
    assert [b[0] for b in broken.broken] == [copy.ids[1]]
    assert broken.twins == [test.ids[2]]


def test_a_copy_within_one_data_set_is_found() -> None:
    data = Data("all", 3, sources=[b"a", b"b", b"a"])
    found = check(data.registered(), data.role("train", [0, 1]), data.role("test", [2]), data.use(1, 0, 1))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [data.ids[0]]


def test_a_copy_that_is_registered_and_not_used_breaks_nothing() -> None:
    copy = Data("copy", 1, sources=[b"test 0"])
    assert_all_hold(check(BOTH, copy.registered(), TRAIN.use(1, 0, 1, 2, 3)))


def test_what_was_made_from_a_copy_counts_by_what_it_was_made_from() -> None:
    copy, crops = Data("copy", 2, sources=[b"test 0", b"other"]), Data("crops", 2, content=None)
    made = [*copy.registered(), *crops.registered(), copy.made(crops, (0, 0), (1, 1))]
    assert_all_hold(check(BOTH, made, crops.use(1, 1), TRAIN.use(2, 0, 1, 2, 3)))
    found = check(BOTH, made, crops.use(1, 0, 1), TRAIN.use(2, 0, 1, 2, 3))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [crops.ids[0]]


def test_two_samples_made_from_one_source_are_of_one_content() -> None:
    page, parts = Data("page", 2), Data("parts", 3, content=None)
    made = [*page.registered(), *parts.registered(), page.made(parts, (0, 0), (0, 1), (1, 2))]
    roles = [parts.role("train", [0, 2]), parts.role("test", [1])]
    found = check(made, roles, parts.use(1, 0, 2))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [parts.ids[0]]


def test_a_later_registration_with_other_contents_adds_to_the_first() -> None:
    other = Data("train", 4, sources=[b"x", b"test 1", b"y", b"z"])
    found = check(BOTH, other.registered()[1], TRAIN.use(1, 0, 1, 2, 3))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [TRAIN.ids[1]]


@pytest.mark.parametrize("train", UNLIKE.values(), ids=UNLIKE)
def test_contents_that_cannot_be_compared_are_no_proof_of_difference(train: Data) -> None:
    entry = run(key_commitment=key_commitment(SECRET))
    used = check(TEST.registered("test"), train.registered("train"), train.use(1, 0, 1, 2, 3), run_entry=entry)
    assert_only(used, "held-out-contents", CANNOT_TELL, "(and 3 more) was used: its contents cannot be compared")
    held = check(TRAIN.registered("train"), replace_name(train).registered("test"), TRAIN.use(1, 0, 1, 2, 3),
                 run_entry=entry)  # fmt: skip
    assert_only(held, "held-out-contents", CANNOT_TELL, "cannot be compared with those of every held-out sample")


@pytest.mark.parametrize("kind", ["table", "tensor float32"])
def test_rows_of_another_schema_or_shape_cannot_be_compared(kind: str) -> None:
    def answer(train: str, test: str) -> Verdict:
        data, held = Data("train", 4, content=f"{kind} {train}"), Data("test", 3, content=f"{kind} {test}")
        log = [*data.registered("train"), *held.registered("test"), data.use(1, 0, 1, 2, 3)]
        return check(log)["held-out-contents"].verdict

    assert answer("3x2", "3x2") is HOLDS
    assert answer("3x2", "6") is CANNOT_TELL


def replace_name(data: Data) -> Data:
    return Data("other", 4, scheme=data.scheme, content=data.content, subjects=data.subjects)


def test_equal_contents_of_two_subjects_are_not_linked() -> None:
    ours, theirs = (
        Data(name, 1, scheme="subject", sources=[b"same"], secret=key, subjects=[subject_commitment(key)])
        for name, key in (("ours", SECRET), ("theirs", SUBJECT))
    )
    found = check(ours.registered("train"), theirs.registered("test"), ours.use(1, 0))
    assert_only(found, "held-out-contents", CANNOT_TELL, "equal contents of two subjects are not linked")


def test_digests_of_nobody_knows_what_are_compared_within_a_data_set_only() -> None:
    def unsaid(data: Data, *roles: str) -> list[Event]:
        return [{k: v for k, v in e.items() if k != "content"} for e in data.registered(*roles)]

    found = check(unsaid(TRAIN, "train"), unsaid(TEST, "test"), TRAIN.use(1, 0, 1, 2, 3))
    assert_only(found, "held-out-contents", CANNOT_TELL, "cannot be compared")
    parts = TRAIN.role("train", [0, 1, 2]), TRAIN.role("test", [3])
    assert_all_hold(check(unsaid(TRAIN), *parts, TRAIN.use(1, 0, 1, 2)))
    other = {**TRAIN.registered()[0], "content": "tensor"}
    for twice in ([other, *BOTH], [*BOTH, other]):  # described twice, and not alike
        found = check(twice, TRAIN.use(1, 0, 1, 2, 3))
        assert_only(found, "held-out-contents", CANNOT_TELL, "cannot be compared")


def test_a_data_set_that_no_entry_describes_is_compared_with_nothing_and_has_no_names() -> None:
    undescribed, policies = TRAIN.registered("train")[1:], Policies(opt_outs=(OptOut("list", samples="list.txt"),))
    found = check(undescribed, TEST.registered("test"), TRAIN.use(1, 0, 1, 2, 3), policies=policies,
                  at_hand=listed("train:0"))  # fmt: skip
    answers = {name: finding.verdict for name, finding in found.items() if finding.verdict is not HOLDS}
    assert answers == {"held-out-contents": CANNOT_TELL, "opt-out list": CANNOT_TELL}


def test_a_registration_that_was_cut_short_is_nobody() -> None:
    part = {**Data("cut", 2).registered()[1], "parts": 2}
    assert_all_hold(check(BOTH, part, TRAIN.use(1, 0, 1, 2, 3)))


def test_samples_without_digests_cannot_be_compared_within_their_data_set_either() -> None:
    data = Data("all", 3, content=None)
    found = check(data.registered(), data.role("train", [0, 1]), data.role("test", [2]), data.use(1, 0, 1))
    assert_only(found, "held-out-contents", CANNOT_TELL, "a data set may have no digests")


def test_what_cannot_be_compared_and_was_not_used_does_not_matter() -> None:
    other = Data("other", 2, content=None)
    assert_all_hold(check(BOTH, other.registered(), TRAIN.use(1, 0, 1, 2, 3)))


@pytest.mark.parametrize(
    "child",
    [
        Data("crops", 1, content="tensor"),
        Data("crops", 1, scheme="subject", subjects=[subject_commitment(SUBJECT)]),
    ],
    ids=["of something else", "of a subject"],
)
def test_a_digest_of_its_own_that_cannot_be_compared_is_not_replaced_by_its_parents(child: Data) -> None:
    """What was made from a sample stands for it only where it has no digest; so does what was made from that."""
    last = Data("last", 1, content=None)
    made = [*child.registered(), *last.registered(), TRAIN.made(child, (0, 0)), child.made(last, (0, 0))]
    for used in (child, last):
        found = check(BOTH, made, used.use(1, 0), TRAIN.use(2, 1, 2, 3))
        words = f"sample id:{used.ids[0].hex()} was used: its contents cannot be compared"
        assert_only(found, "held-out-contents", CANNOT_TELL, words)
    assert_all_hold(check(BOTH, made, TRAIN.use(2, 0, 1, 2, 3)))


def test_what_was_made_from_a_held_out_sample_may_have_a_content_that_cannot_be_compared() -> None:
    crops, bare = Data("crops", 1, content="tensor"), Data("bare", 1, content=None)
    made = [*crops.registered(), *bare.registered(), TEST.made(crops, (0, 0)), TEST.made(bare, (1, 0))]
    found = check(BOTH, made, TRAIN.use(1, 0, 1, 2, 3))
    assert_only(found, "held-out-contents", CANNOT_TELL, "cannot be compared with those of every held-out sample")
    assert_all_hold(check(BOTH, bare.registered(), TEST.made(bare, (1, 0)), TRAIN.use(1, 0, 1, 2, 3)))


def test_kin_in_a_circle_is_followed_once_and_has_no_known_content() -> None:
    a, b = Data("a", 1, content=None), Data("b", 1, content=None)
    circle = [*a.registered(), *b.registered(), a.made(b, (0, 0)), b.made(a, (0, 0))]
    found = check(BOTH, circle, a.use(1, 0), TRAIN.use(2, 0, 1, 2, 3))
    assert_only(found, "held-out-contents", CANNOT_TELL, f"sample id:{a.ids[0].hex()} was used")
    assert check(BOTH, circle, a.role("test"), b.use(1, 0))["held-out"].verdict is REFUTED


# -- every training sample --------------------------------------------------------------------------------------------


def test_a_training_sample_that_no_update_used_is_named() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 2, 3))
    broken = assert_only(found, "every-training-sample-used", REFUTED, "1 of 4", f"id:{TRAIN.ids[1].hex()}")
    assert broken.broken == [(TRAIN.ids[1], NONE, NONE)]


def test_a_training_sample_counts_as_used_through_what_was_made_from_it() -> None:
    crops = Data("crops", 2, content=None)
    made = [*crops.registered(), TRAIN.made(crops, (0, 0), (1, 0), (2, 1))]
    assert_all_hold(check(BOTH, made, crops.use(1, 0, 1), TRAIN.use(2, 3)))
    found = check(BOTH, made, crops.use(1, 0), TRAIN.use(2, 3))
    assert_only(found, "every-training-sample-used", REFUTED, f"id:{TRAIN.ids[2].hex()}")


def test_what_a_stage_dropped_need_not_be_used_and_is_counted() -> None:
    found = check(BOTH, TRAIN.dropped(1), TRAIN.use(1, 0, 2, 3))
    assert_all_hold(found)
    words = found["every-training-sample-used"].words
    assert words.endswith(
        'each of 3 training samples, or what was made from it, was used; 1 more were dropped by the stage "filter"'
    )


def test_who_need_not_be_used_is_counted_by_reason_and_once() -> None:
    """Who signs a log can write that a stage dropped a sample: the words say how many rest on that, and on which."""
    eight = Data("eight", 8)
    other = {**eight.dropped(3, 4, 5), "stage": "too dark"}
    log = [*eight.registered("train"), eight.role("test", [0]), eight.dropped(0, 1, 2, 3), other]
    words = check(BOTH, log, TRAIN.use(1, 0, 1, 2, 3), eight.use(2, 6, 7))["every-training-sample-used"].words
    said = (
        '; 1 more are held out; 3 more were dropped by the stage "filter"; 2 more were dropped by the stage "too dark"'
    )
    assert words == f"each of 6 training samples, or what was made from it, was used{said}"


def test_a_drop_behind_the_last_use_excuses_nobody() -> None:
    found = check(BOTH, TRAIN.use(1, 0), TRAIN.dropped(1), TRAIN.use(2, 2), TRAIN.dropped(3))
    words = (
        "1 of 3 training samples were not used",
        "of 1 of them a stage says that it dropped them, behind the last use",
    )
    broken = assert_only(found, "every-training-sample-used", REFUTED, *words)
    assert [b[0] for b in broken.broken] == [TRAIN.ids[3]]


def test_where_every_training_sample_was_dropped_none_is_left_to_be_used() -> None:
    found = check(BOTH, TRAIN.dropped(0, 1, 2, 3), TRAIN.use(1, 0))
    words = 'no training sample is left that would have to be used; 4 more were dropped by the stage "filter"'
    assert_only(found, "every-training-sample-used", CANNOT_TELL, words)


def test_a_use_that_a_resume_superseded_is_no_use_that_stands() -> None:
    resumed = {"kind": "resume", "writers": [], "step": 1}
    found = check(BOTH, TRAIN.use(1, 0), TRAIN.use(2, 1), TRAIN.use(3, 2), resumed, TRAIN.use(2, 2, 3))
    words = "1 of 4", "1 of them only in updates that a resume superseded", f"id:{TRAIN.ids[1].hex()}"
    assert_only(found, "every-training-sample-used", REFUTED, *words)


def test_without_training_samples_nothing_says_who_is_to_be_used() -> None:
    found = check(TRAIN.registered(), TEST.registered("test"), TRAIN.use(1, 0))
    assert_only(found, "every-training-sample-used", CANNOT_TELL, "no registered sample has the role train")


# -- what the record lacks --------------------------------------------------------------------------------------------


def test_a_run_without_an_end_keeps_no_policy_but_may_break_one() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), ended=False)
    assert {f.verdict for f in found.values()} == {CANNOT_TELL}
    assert all("the run has no end entry" in f.words for f in found.values())
    broken = check(BOTH, TRAIN.use(1, 0, 1, 2), TEST.use(2, 0), ended=False)
    assert broken["held-out"].verdict is REFUTED
    assert broken["every-training-sample-used"].verdict is CANNOT_TELL
    assert broken["every-training-sample-used"].broken == []  # it may still be used


def test_training_after_the_end_needs_an_end_of_its_own() -> None:
    again = [end(), {"kind": "resume", "writers": [], "step": 1}]
    assert check(BOTH, TRAIN.use(1, 0, 1, 2, 3), *again, ended=False)["held-out"].verdict is CANNOT_TELL
    later = check(BOTH, TRAIN.use(1, 0, 1), end(), TRAIN.use(2, 2, 3), ended=False)
    assert later["held-out"].verdict is CANNOT_TELL
    assert check(BOTH, TRAIN.use(1, 0, 1), *again, TRAIN.use(2, 2, 3))["held-out"].verdict is HOLDS


def test_what_follows_the_end_without_training_leaves_it_the_end() -> None:
    erased = [TEST.erased(bytes(32), 0), {"kind": "metrics", "step": 1, "values": {}}]
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), end(), *erased, ended=False)
    assert_all_hold(found)


def test_a_gap_may_have_been_a_use() -> None:
    events = [*BOTH, TRAIN.use(1, 0, 1, 2, 3)]
    hole = {**lost(WRITER, len(events) + 1, len(events) + 2), "writer": b"g" * 16}
    after = {**end(), "writer": WRITER, "seq": len(events) + 2}
    found = check(events, hole, after, ended=False)
    assert {f.verdict for f in found.values()} == {CANNOT_TELL}
    assert "something was lost" in found["erased-subjects"].words


# -- marks ------------------------------------------------------------------------------------------------------------


def test_superseded_uses_count_and_are_marked() -> None:
    resumed = {"kind": "resume", "writers": [], "step": 1}
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 0), resumed, TEST.use(2, 1))["held-out"]
    assert found.superseded == [True, False]
    assert "1 of the uses were superseded by a resume" in found.words


# -- against the definition -------------------------------------------------------------------------------------------

rows = st.integers(0, 5)
steps = st.lists(st.tuples(st.integers(1, 6), st.lists(rows, min_size=1, max_size=3), st.booleans()), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["train", "test"]), st.lists(rows, min_size=1)), max_size=4),
    steps,
    st.lists(st.tuples(rows, rows), max_size=4),
    st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=6, max_size=6),
)
def test_policies_decide_as_they_are_defined(
    roles: list[tuple[str, list[int]]],
    steps: list[tuple[int, list[int], bool]],
    pairs: list[tuple[int, int]],
    sources: list[bytes],
) -> None:
    data, made = Data("d", 6, sources=sources), Data("made", 6, sources=[b"%d" % n for n in range(6)])
    named = [data.role(role, sorted(set(some))) for role, some in roles]
    uses = [(made if child else data).use(step, *some) for step, some, child in steps]
    kin = [data.made(made, *pairs)] if pairs else []
    found = check(data.registered(), made.registered(), named, kin, uses)

    held = {r for role, some in roles if role == "test" for r in some}
    train = {r for role, some in roles if role == "train" for r in some}
    banned = {data.ids[r] for r in held} | {made.ids[c] for p, c in pairs if p in held}
    used = {(made if child else data).ids[r] for _, some, child in steps for r in some}
    assert {b[0] for b in found["held-out"].broken} == used & banned
    copies = {r for r in range(6) if sources[r] in {sources[h] for h in held}}
    alike = {data.ids[r] for r in copies} | {made.ids[c] for p, c in pairs if p in copies}
    assert {b[0] for b in found["held-out-contents"].broken} == used & alike - banned
    served = {r for r in range(6) if data.ids[r] in used} | {p for p, c in pairs if made.ids[c] in used}
    lacking = {data.ids[r] for r in train - held - served}
    assert {b[0] for b in found["every-training-sample-used"].broken} == lacking
