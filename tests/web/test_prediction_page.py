"""The page of a prediction: what the log says the model said, who `explain` says taught it, and why something is not
there."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

import fgtrac
from asgi import App, ask
from fgtrac.query.history import Event
from fgtrac.web.asked import address
from fgtrac.web.explorer import explorer_app
from fgtrac.web.scoring import Scoring
from lives import Life, live
from softmax_traces import Problem, scored_trace


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def scored(problem: Problem) -> App:
    return explorer_app(problem.path)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("lived"), vault=True)


@pytest.fixture(scope="module")
def lived(life: Life) -> App:
    return explorer_app(life.path)


def page(app: App, sample: bytes, **query: str) -> tuple[dict[str, Any], str]:
    """Its data, and then its HTML: by then all is computed."""
    asked = "".join(f"&{name}={value}" for name, value in query.items())
    path = f"/run/run/prediction/{sample.hex()}"
    data = json.loads(ask(app, f"{path}?format=json{asked}").text)
    return data, ask(app, f"{path}?{asked.lstrip('&')}").text


@pytest.mark.parametrize("method", ["tracin", "fisher"])
def test_proponents_and_opponents_are_those_that_explain_names(problem: Problem, scored: App, method: str) -> None:
    sample = problem.made.ids[305]
    data, html = page(scored, sample, method=method)
    found = fgtrac.open(problem.path).explain(f"id:{sample.hex()}", method=method, k=10)
    for side in ("proponents", "opponents", "baseline"):
        listed = [{k: v for k, v in one.items() if k != "words"} for one in data["explanation"][side]]
        told = [one.as_json() | {"trace": list(one.trace)} for one in getattr(found.toward[0], side)]
        assert listed == json.loads(json.dumps(told))
        for one in told:
            assert f'href="{address("run", "run", "sample", one["id"])}"' in html
    assert found.basis in html
    assert "for comparison" in html.lower()
    assert "fidelity not measured" in html
    assert html.index("Proponents") < html.index("Opponents") < html.index("For comparison")


def test_the_contribution_trace_adds_up_to_the_score(problem: Problem, scored: App) -> None:
    data, html = page(scored, problem.made.ids[300])
    for one in data["explanation"]["proponents"] + data["explanation"]["opponents"]:
        assert sum(one["trace"]) == pytest.approx(one["score"], rel=1e-4)
    assert "Contributions at each kept checkpoint" in html


def test_a_sample_without_a_recorded_prediction_says_what_records_one(problem: Problem, scored: App) -> None:
    data, html = page(scored, problem.made.ids[300])
    assert data["predictions"] == []
    assert "<strong>cannot tell</strong> what the model said" in html
    assert "run.predictions(data, outputs)" in html


def test_without_factors_the_prediction_is_shown_and_what_is_missing_said(life: Life, lived: App) -> None:
    data, html = page(lived, life.made.ids[2])
    [said] = data["predictions"]
    assert (said["step"], said["highest"], said["output_count"], said["loss"]) == (2, 1, 2, 0.125)
    assert said["outputs"] == pytest.approx([0.1, 0.9])
    assert "1 (of 2 outputs)" in html
    assert "Outputs at step 2" in html
    assert data["explanation"] is None
    assert "fgtrac score TRACE --with FILE.py:FUNCTION" in html


def test_of_many_predictions_the_last_are_read_and_others_said_not_to_be(
    life: Life, lived: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgtrac.query.history.READ_ENTRIES", 0)
    data, html = page(lived, life.made.ids[2])
    assert [(one["is_read"], one["loss"]) for one in data["predictions"]] == [(True, 0.125)]
    assert "not read" not in html
    unread = {"code": 0}
    monkeypatch.setattr(
        "fgtrac.query.history.Historian.newest", lambda *_: [Event("prediction", 9, 2, None, "", unread)]
    )
    data, html = page(lived, life.made.ids[2])
    assert [(one["is_read"], one["outputs"]) for one in data["predictions"]] == [(False, None)]
    assert html.count("not read") == 2


def test_a_loss_that_is_not_finite_is_said_and_not_drawn(life: Life, lived: App) -> None:
    data, html = page(lived, life.made.ids[8])
    assert data["predictions"][0]["loss"] == "inf"
    assert ">inf</td>" in html


def test_a_training_sample_is_marked_where_it_stands_in_its_own_list(problem: Problem, scored: App) -> None:
    data, html = page(scored, problem.made.ids[0])
    own = [one for one in data["explanation"]["proponents"] if one["id"] == problem.made.ids[0].hex()]
    assert ("(the sample itself)" in html) is bool(own)
    assert own


def test_what_is_no_sample_is_said_once_and_clearly(scored: App) -> None:
    assert ask(scored, f"/run/run/prediction/{'ab' * 32}").status == 404
    elsewhere = ask(scored, "/run/run/prediction/digits:305")
    assert (elsewhere.status, elsewhere.headers["location"]) == (303, address("run", "run", "find", q="digits:305"))
    refused = ask(scored, f"/run/run/prediction/{'ab' * 32}?method=magic")
    assert refused.status == 400
    assert "magic is none of tracin" in refused.text


def test_the_command_says_the_same(problem: Problem, scored: App) -> None:
    sample = problem.made.ids[300].hex()
    html = ask(scored, f"/run/run/prediction/{sample}").text
    assert f"fgtrac score {problem.path} --toward id:{sample} --method tracin" in html


def test_scores_are_worked_out_beside_the_page_once_for_each_state(problem: Problem) -> None:
    scoring, may_end, asked = Scoring(), threading.Event(), []

    def slow(trace: Any, progress: Any) -> str:
        asked.append(trace.path)
        progress(1, 2)
        assert may_end.wait(10)
        return f"answer {len(asked)}"

    first = scoring.of(problem.path, "state 1", "what", slow, 0.2)
    assert (first.known(), first.done, first.total) == (None, 1, 2)
    may_end.set()
    assert scoring.of(problem.path, "state 1", "what", slow, 10).known() == "answer 1"
    assert scoring.of(problem.path, "state 1", "what", slow, 10).known() == "answer 1"
    assert scoring.of(problem.path, "state 2", "what", slow, 10).known() == "answer 2"
    scoring.stop()


def test_no_page_of_a_trace_waits_for_scores(problem: Problem) -> None:
    app = explorer_app(problem.path)
    html = ask(app, f"/run/run/prediction/{problem.made.ids[301].hex()}?method=ekfac").text
    assert re.search("being computed|Proponents", html)
    assert "data-again" in html or "Proponents" in html
