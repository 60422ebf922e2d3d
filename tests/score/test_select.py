"""Which checkpoints are kept: the rules, their words, and that a log read back leads to the same choices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.score.select import RULES, Mark, Rule, choose_steepest, parse_rule

Told = tuple[Mark | None, float | None, bool]
LOSSES = st.lists(st.integers(0, 8).map(float), max_size=12)


def follow(rule: Rule, losses: list[float], first: int = 0) -> tuple[list[Told], list[str]]:
    """Let the rule decide over these losses, as a run does; what it was told, and the words."""
    told: list[Told] = []
    words = []
    for number, loss in enumerate(losses, first):
        decision = rule.decide(loss)
        words.append(decision.words)
        if decision.displaces is not None:
            told.append((decision.displaces, None, False))
            rule.note(*told[-1])
        told.append(((number, b"") if decision.kept else None, loss, decision.kept))
        rule.note(*told[-1])
    return told, words


def kept_of(told: list[Told]) -> list[int]:
    """Which numbers are kept in the end."""
    kept: set[int] = set()
    for mark, _loss, is_kept in told:
        if mark is not None:
            (kept.add if is_kept else kept.discard)(mark[0])
    return sorted(kept)


def test_a_share_of_improvement_is_measured_from_the_last_one_kept() -> None:
    told, words = follow(parse_rule("improved:0.01"), [1.0, 0.995, 0.98, 2.0])
    assert kept_of(told) == [0, 2]
    assert words[1] == "dropped: 0.995 is not 0.01 below 1"
    assert words[2] == "kept: 0.98 is at least 0.01 below 1"


def test_the_share_is_a_hundredth_by_default() -> None:
    assert kept_of(follow(parse_rule("improved"), [1.0, 0.9901, 0.99])[0]) == [0, 2]


def test_a_checkpoint_without_a_loss_is_kept_where_improvement_counts_and_refused_where_falls_are_ranked() -> None:
    assert parse_rule("improved:0.5").decide(None).words == "kept: no validation loss was given"
    with pytest.raises(ValueError, match=r"budget:2 compares validation losses; pass val_loss="):
        parse_rule("budget:2").decide(None)


def test_a_steeper_fall_displaces_the_least_steep_of_a_full_budget() -> None:
    rule = parse_rule("budget:2")
    told, words = follow(rule, [10.0, 9.0, 8.5])
    assert kept_of(told) == [1, 2]  # the first has no fall: it makes room
    assert words[2] == "kept: a fall of 0.5 from 9 is among the 2 steepest so far"
    assert rule.decide(5.5).displaces == (2, b"")
    assert rule.decide(8.0).words == "dropped: a fall of 0.5 from 8.5 is not among the 2 steepest so far"
    assert rule.decide(9.0).words == "dropped: 9 is not below 8.5"


def test_every_nth_is_counted_from_the_first() -> None:
    told, words = follow(parse_rule("every:3"), [1.0] * 7)
    assert kept_of(told) == [0, 3, 6]
    assert words[:2] == ["kept: number 0; 1 in 3 is kept", "dropped: number 1; 1 in 3 is kept"]
    assert kept_of(follow(parse_rule("all"), [1.0] * 3)[0]) == [0, 1, 2]


@given(LOSSES, st.integers(1, 4))
def test_the_budget_holds_the_steepest_falls_whether_chosen_online_or_afterwards(losses: list[float], k: int) -> None:
    falls = [(float("-inf"), 0)] * bool(losses) + [(a - b, -n) for n, (a, b) in enumerate(pairwise(losses), 1) if b < a]
    steepest = sorted(-number for _fall, number in sorted(falls)[::-1][:k])
    assert kept_of(follow(parse_rule(f"budget:{k}"), losses)[0]) == steepest
    assert choose_steepest(losses, k) == steepest


@given(LOSSES, st.integers(0, 12), st.sampled_from(["improved:0.2", "budget:2", "every:3", "all"]))
def test_a_rule_that_was_told_the_log_goes_on_as_if_nothing_had_happened(
    losses: list[float], cut: int, text: str
) -> None:
    whole = follow(parse_rule(text), losses)
    before, _ = follow(parse_rule(text), losses[:cut])
    resumed = parse_rule(text)
    for told in before:
        resumed.note(*told)
    after, words = follow(resumed, losses[cut:], first=min(cut, len(losses)))
    assert before + after == whole[0]
    assert words == whole[1][cut:]


@pytest.mark.parametrize(
    "text",
    [
        "best",
        "budget",
        "budget:0",
        "budget:x",
        "every:0",
        "every:1.5",
        "improved:1",
        "improved:-0.1",
        "improved:nan",
        "",
    ],
)
def test_what_is_no_rule_is_refused_with_the_rules_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="is no rule") as caught:
        parse_rule(text)
    assert RULES in str(caught.value)
    assert "\n" not in str(caught.value)
