"""The policies about people: subjects who were erased, and subjects who opted out."""

from __future__ import annotations

import pytest

from fgtrac.verify.opt_outs import AtHand
from fgtrac.verify.policy_file import Policies
from judged import (
    ALICE,
    BOB,
    CANNOT_TELL,
    HOLDS,
    REFUTED,
    TRAIN,
    Data,
    assert_only,
    check,
    opt_out,
)

# -- erased subjects --------------------------------------------------------------------------------------------------

PEOPLE = Data("people", 4, scheme="subject", subjects=[ALICE, ALICE, BOB, BOB])
ERASED = Policies(("erased-subjects",))


def test_an_erased_subject_that_is_used_later_is_named() -> None:
    uses = [PEOPLE.use(1, 0, 2), PEOPLE.erased(ALICE, 0, 1), PEOPLE.use(2, 1, 3)]
    found = check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"]
    assert found.verdict is REFUTED
    assert found.broken == [(PEOPLE.ids[1], 2, 6)]
    assert "2 samples of 1 erased subject after the erasure" in found.words


def test_uses_before_the_erasure_break_nothing() -> None:
    uses = [PEOPLE.use(1, 0, 1, 2), PEOPLE.erased(ALICE, 0, 1), PEOPLE.use(2, 2, 3)]
    assert check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"].verdict is HOLDS


def test_a_sample_of_the_subject_that_the_erasure_does_not_list_is_erased_too() -> None:
    uses = [PEOPLE.use(1, 0), PEOPLE.erased(ALICE, 0), PEOPLE.use(2, 1)]
    found = check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"]
    assert [b[0] for b in found.broken] == [PEOPLE.ids[1]]


def test_what_was_made_from_an_erased_subject_is_erased_too() -> None:
    crops = Data("crops", 1, content=None)
    made = [*crops.registered(), PEOPLE.made(crops, (0, 0))]
    found = check(PEOPLE.registered(), made, PEOPLE.erased(ALICE, 0, 1), crops.use(1, 0), policies=ERASED)
    assert [b[0] for b in found["erased-subjects"].broken] == [crops.ids[0]]


def test_the_first_of_two_erasures_counts() -> None:
    erased = PEOPLE.erased(ALICE, 0)
    found = check(PEOPLE.registered(), erased, PEOPLE.use(1, 1), erased, policies=ERASED)["erased-subjects"]
    assert found.verdict is REFUTED


@pytest.mark.parametrize("data", [PEOPLE, TRAIN], ids=["by pseudonym", "as listed"])
def test_a_use_is_after_the_erasure_by_its_place_in_the_log_or_by_its_time(data: Data) -> None:
    earlier, later = data.use(1, 0, time=50), data.use(1, 0, time=30)
    erased = data.erased(ALICE, 0, time=40)
    for uses, verdict in (((earlier, erased), REFUTED), ((erased, later), REFUTED), ((later, erased), HOLDS)):
        assert check(data.registered(), *uses, policies=ERASED)["erased-subjects"].verdict is verdict


def test_an_erased_training_sample_need_not_be_used() -> None:
    parts = PEOPLE.role("train"), PEOPLE.role("test", [3])
    found = check(PEOPLE.registered(), *parts, PEOPLE.use(1, 2), PEOPLE.erased(ALICE, 0, 1))
    assert_only(found, "held-out-contents", CANNOT_TELL, "equal contents of two subjects are not linked")
    assert "each of 1 training samples" in found["every-training-sample-used"].words


# -- opted-out subjects -----------------------------------------------------------------------------------------------


def test_an_opted_out_subject_may_be_used_before_the_date_and_not_after_it() -> None:
    uses = [PEOPLE.use(1, 0, time=100), PEOPLE.use(2, 2, time=300)]
    for after, verdict in ((100, HOLDS), (99, REFUTED), (None, REFUTED)):
        policies = opt_out(subjects=(ALICE.hex(),), after=after)
        assert check(PEOPLE.registered(), uses, policies=policies)["opt-out list"].verdict is verdict
    policies = opt_out(subjects=(ALICE.hex(), BOB.hex()), after=100)
    found = check(PEOPLE.registered(), uses, policies=policies)["opt-out list"]
    assert [b[:2] for b in found.broken] == [(PEOPLE.ids[2], 2)]
    assert "after 1970-01-01T00:00:00Z (by the recorder's clock)" in found.words


def test_a_subject_by_name_takes_a_vault() -> None:
    policies = opt_out(subjects=("bob",))
    known = AtHand(pseudonym=lambda name: BOB if name == "bob" else None)
    assert (
        check(PEOPLE.registered(), PEOPLE.use(1, 2), policies=policies, at_hand=known)["opt-out list"].verdict
        is REFUTED
    )
    assert (
        check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=policies, at_hand=known)["opt-out list"].verdict is HOLDS
    )
    found = check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=policies)["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '1 of 1 subjects, the first is "bob", have no secret' in found.words


def test_samples_without_a_subject_may_be_anybody_s() -> None:
    """A log that records no subjects says nothing of any; what was made from a subject's samples is that subject's."""
    policies, crops = opt_out(subjects=(ALICE.hex(),)), Data("crops", 2, content=None)
    made = [*PEOPLE.registered(), *TRAIN.registered(), *crops.registered(), PEOPLE.made(crops, (2, 0))]
    for uses, verdict in (
        ([PEOPLE.use(1, 2)], HOLDS), ([crops.use(1, 0)], HOLDS), ([crops.use(1, 1)], CANNOT_TELL),
        ([PEOPLE.use(1, 2), TRAIN.use(2, 0, 1)], CANNOT_TELL), ([PEOPLE.use(1, 0), TRAIN.use(2, 0)], REFUTED),
    ):  # fmt: skip
        found = check(made, uses, policies=policies)["opt-out list"]
        assert found.verdict is verdict
        assert ("it has no subject in the log, and may be anybody's" in found.words) is (verdict is CANNOT_TELL)
    found = check(made, PEOPLE.use(1, 2), TRAIN.use(2, 0, 1), policies=opt_out(subjects=("zoe",)))["opt-out list"]
    assert "(and 1 more) was used: it has no subject in the log" in found.words
    assert f'id:{PEOPLE.ids[2].hex()} was used: 1 of 1 subjects, the first is "zoe", have no secret' in found.words
    late = opt_out(subjects=(ALICE.hex(),), after=10**6)
    assert check(made, TRAIN.use(1, 0), policies=late)["opt-out list"].verdict is HOLDS


def test_samples_that_were_given_nobody_as_their_subject_have_none() -> None:
    """Beside others that were given one; whoever has the run's key tells them by their pseudonym."""
    mixed = Data("mixed", 2, scheme="subject", subjects=[ALICE, BOB])
    policies = opt_out(subjects=(ALICE.hex(),))
    for nobody, verdict in ((None, HOLDS), (BOB, CANNOT_TELL)):
        at_hand = AtHand(nobody=nobody)
        found = check(mixed.registered(), mixed.use(1, 1), policies=policies, at_hand=at_hand)["opt-out list"]
        assert found.verdict is verdict


def test_a_pseudonym_that_no_sample_has_may_be_a_misspelling() -> None:
    found = check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=opt_out(subjects=("ab" * 32,)))["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '1 of 1 subjects, the first is "abab' in found.words
    assert "have no sample in this log" in found.words
