"""The page of suspects: the list that `suspects` gives, filtered, a page at a time, and as CSV."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import fgtrac
from asgi import App, ask
from fgtrac.score.suspects import MEASURES
from fgtrac.web.explorer import explorer_app
from fgtrac.web.pages.suspects import PAGE_SAMPLES
from lives import live
from softmax_traces import Problem, scored_trace


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def app(problem: Problem) -> App:
    return explorer_app(problem.path)


def data(app: App, query: str = "") -> dict[str, Any]:
    said: dict[str, Any] = json.loads(ask(app, f"/run/run/suspects?format=json{query}").text)
    return said


@pytest.mark.parametrize("by", MEASURES)
def test_the_list_is_the_one_that_suspects_gives(problem: Problem, app: App, by: str) -> None:
    wanted = fgtrac.open(problem.path).suspects(1000, by=by)
    said = data(app, f"&by={quote(by)}")
    assert [{k: v for k, v in row.items() if k != "words"} for row in said["suspects"]] == [
        s.as_json() for s in wanted.suspects
    ]
    assert said["basis"] == wanted.basis
    done = ask(app, f"/run/run/suspects.csv?by={quote(by)}")
    assert done.text == wanted.csv()
    assert done.headers["content-disposition"] == 'attachment; filename="suspects.csv"'
    html = ask(app, f"/run/run/suspects?by={quote(by)}").text
    assert "fidelity not measured" in html
    assert "Nothing here says that a label is wrong" in html


def test_pages_have_every_row_once_in_order(app: App) -> None:
    said, seen = data(app), []
    assert said["pages"] == -(-len(said["suspects"]) // PAGE_SAMPLES) > 1
    for number in range(1, said["pages"] + 1):
        html = ask(app, f"/run/run/suspects?page={number}").text
        seen += re.findall(r'class="mark-suspect" value="([0-9a-f]{64})"', html)
    assert seen == [row["id"] for row in said["suspects"]]


def test_filters_leave_what_they_say(app: App) -> None:
    everything = data(app)["suspects"]
    label = everything[0]["label"]
    assert data(app, f"&label={label}")["suspects"] == [row for row in everything if row["label"] == label]
    assert data(app, "&dataset=extra")["suspects"] == [row for row in everything if row["dataset"] == "extra"]
    assert data(app, "&text=DIGITS:1")["suspects"] == [row for row in everything if "digits:1" in row["words"]]
    beginning = everything[3]["id"][:12]
    assert [row["id"] for row in data(app, f"&text={beginning}")["suspects"]] == [everything[3]["id"]]
    assert data(app, "&text=nothing-is-called-this")["suspects"] == []
    assert "No suspect is like this" in ask(app, "/run/run/suspects?text=nothing-is-called-this").text


def test_nothing_is_marked_where_no_script_runs(app: App) -> None:
    html = ask(app, "/run/run/suspects").text
    boxes = re.findall("<input type=.checkbox.[^>]*>", html)
    assert len(boxes) == PAGE_SAMPLES
    assert all(" disabled" in box and "aria-label=" in box and "name=" not in box for box in boxes)
    assert "Marking needs a script" in html
    assert '<script src="/static/suspects.js" defer></script>' in html
    assert ask(app, "/static/suspects.js").headers["content-type"].startswith("text/javascript")


def test_a_measure_that_is_none_is_refused(app: App) -> None:
    done = ask(app, "/run/run/suspects?by=magic")
    assert done.status == 400
    assert "self-influence, mean loss" in done.text


def test_a_trace_without_factors_or_losses_says_what_is_missing(tmp_path: Path) -> None:
    for path in (live(tmp_path / "a").path, scored_trace(tmp_path / "b", losses=False).path):
        said = data(explorer_app(path))
        assert said["why_none"]
        assert "run.score_with" in said["why_none"]
        assert "suspects" not in said
        html = ask(explorer_app(path), "/run/run/suspects").text
        assert "All " not in html
