"""A few thousand changed bundles, as `make fuzz` makes 100,000: none holds for another claim than a true one does."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from every_bundle import Case, every_bundle
from fgtrac.verify.bundle import parse_bundle
from mutated_bundles import CHANGES, changed, judge, meaning, run


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return list(every_bundle(tmp_path_factory.mktemp("bundles")))


def test_no_changed_bundle_holds_for_another_claim(cases: list[Case]) -> None:
    counts, findings = run(3000, 20, cases)
    assert findings == []
    total: Counter[str] = Counter()
    for (_how, outcome), n in counts.items():
        total[outcome] += n
    assert set(total) == {"malformed", "refuted", "cannot tell", "holds, and says the same"}
    assert total["refuted"] > 1000  # they reach the checks, and do not all end at the parser


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_changes_something(name: str, cases: list[Case]) -> None:
    draw = random.Random(3)
    before = [draw.choice(cases) for _ in range(60)]
    after = [json.loads(case.data) for case in before]
    for said in after:
        CHANGES[name](draw, said, json.loads(draw.choice(cases).data))
    assert sum(json.loads(case.data) != said for case, said in zip(before, after, strict=True)) > 20


def test_a_bundle_that_holds_for_what_nobody_proved_is_a_finding(cases: list[Case]) -> None:
    holds = [c for c in cases if judge(c.data, c, c.secret, {meaning(parse_bundle(c.data))}).how.startswith("holds")]
    assert len(holds) > 100
    assert all(judge(case.data, case, case.secret, set()).is_another for case in holds)


def test_neighbours_show_the_absence_of_every_id_between_them_and_of_no_other(cases: list[Case]) -> None:
    absent = "80" * 32
    case = next(c for c in cases if json.loads(c.data)["id"] == {"value": absent} and c.secret is None)
    true = {meaning(parse_bundle(case.data))}
    expected = {"80" * 31 + "81": "holds for another absent id", "00" * 32: "refuted", "ff" * 32: "refuted"}
    for other, how in expected.items():
        outcome = judge(case.data.replace(absent.encode(), other.encode()), case, None, true)
        assert (outcome.how, outcome.is_another) == (how, False)


def test_the_same_seed_changes_the_same(cases: list[Case]) -> None:
    assert [changed(random.Random(5), cases)[2] for _ in range(2)] == [changed(random.Random(5), cases)[2]] * 2
