"""Samples to look at: wrong labels and near duplicates are found, and what is free stands beside it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import fgtrac
from fgtrac.errors import ScoreError
from softmax_traces import EXTRA, FLIPPED, RATES, Problem, scored_trace


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


def test_self_influence_is_the_score_of_each_sample_toward_itself(scored: Problem) -> None:
    found = fgtrac.open(scored.path).self_influence(method="tracin")
    np.testing.assert_allclose(found.scores, np.diag(scored.matrix("train")), rtol=1e-4)
    assert [fgtrac.open(scored.path).find(name).id for name in scored.names["train"][:3]] == [
        row.tobytes() for row in found.ids[:3]
    ]
    assert found.labels is not None
    assert found.labels.tolist() == scored.labels["train"].tolist()
    assert found.steps == (10, 20, 30)
    with pytest.raises(ValueError, match="by tracin-cos every sample's self-influence is the same"):
        fgtrac.open(scored.path).self_influence(method="tracin-cos")


@pytest.mark.parametrize("by", ["self-influence", "mean loss"])
def test_wrong_labels_are_among_the_first_by_either_measure(scored: Problem, by: str) -> None:
    found = fgtrac.open(scored.path).suspects(FLIPPED, by=by)
    hits = sum(s.row.dataset == "digits" and int(str(s.row.key)) < FLIPPED for s in found.suspects)
    assert hits > 0.7 * FLIPPED
    ranks = [s.rank_by_self_influence if by == "self-influence" else s.rank_by_mean_loss for s in found.suspects]
    assert ranks == list(range(1, FLIPPED + 1))


def test_both_measures_and_ranks_stand_beside_each_other(scored: Problem) -> None:
    found = fgtrac.open(scored.path).suspects(10)
    losses = np.mean([scored.losses[k, "train"] for k in range(len(RATES))], axis=0)
    own = fgtrac.open(scored.path).self_influence().scores
    for s in found.suspects:
        row = scored.names["train"].index(str(s.row.name))
        assert s.mean_loss == pytest.approx(losses[row], rel=1e-5)
        assert s.self_influence == pytest.approx(own[row], rel=1e-4)
        assert s.rank_by_self_influence == 1 + (own > own[row]).sum()
        assert s.row.label == scored.labels["train"][row]
    assert found.by == "mean loss"  # free, unless the other is known to be better
    assert "nobody knows" in str(found)
    assert found.rows == 300 + EXTRA


def test_with_known_wrong_labels_the_better_measure_is_known_or_said_not_to_be(scored: Problem) -> None:
    found = fgtrac.open(scored.path).suspects(10, wrong=[f"digits:{n}" for n in range(FLIPPED)])
    assert "AUC self-influence 0.9" in found.words
    assert "mean loss 0.9" in found.words
    with pytest.raises(ScoreError, match="digits:345 is not among the training samples"):
        fgtrac.open(scored.path).suspects(10, wrong=["digits:345"])


def test_the_table_has_the_users_own_keys(scored: Problem) -> None:
    found = fgtrac.open(scored.path).suspects(25)
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [f"{row['dataset']}:{row['key']}" for row in rows] == [s.row.name for s in found.suspects]
    assert [float(row["mean_loss"]) for row in rows] == [s.mean_loss for s in found.suspects]
    assert json.loads(json.dumps(found.as_json()))["suspects"][0]["rank_by_mean_loss"] == 1


def test_what_cannot_be_ranked_is_refused(scored: Problem) -> None:
    trace = fgtrac.open(scored.path)
    with pytest.raises(ValueError, match="by 'colour'"):
        trace.suspects(by="colour")
    with pytest.raises(ValueError, match="at least 1"):
        trace.suspects(0)


def test_pairs_that_are_alike_are_listed_with_both_cosines_and_equal_contents(scored: Problem) -> None:
    found = fgtrac.open(scored.path).duplicates(15)
    whole = scored.gradients[2, "train"].whole().astype(np.float64)
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    alike = np.triu(unit @ unit.T, 1)
    best = np.sort(alike.reshape(-1))[::-1][:15]
    assert [p.gradients for p in found.pairs] == pytest.approx(best.tolist(), rel=1e-4)
    for p in found.pairs:
        a, b = (scored.names["train"].index(str(row.name)) for row in (p.first, p.second))
        assert p.gradients == pytest.approx(alike[a, b], rel=1e-4)
        names = [str(row.name).split(":") for row in (p.first, p.second)]
        same = names[0][0] == names[1][0] and int(names[0][1]) // 2 == int(names[1][1]) // 2
        assert p.equal_content == same
    assert found.equal_contents == 300 + EXTRA  # rows 2 n and 2 n + 1 hold the same bytes
    assert "hold exactly the content of another" in str(found)
    assert fgtrac.open(scored.path).duplicates(3, checkpoint=10, by="inputs").step == 10


def test_without_the_losses_there_is_no_baseline_and_that_is_said(tmp_path: Path) -> None:
    trace = fgtrac.open(scored_trace(tmp_path, losses=False).path)
    with pytest.raises(ScoreError, match="the losses of the training samples were not kept"):
        trace.suspects()
    assert trace.explain("digits:345").toward[0].baseline == ()
