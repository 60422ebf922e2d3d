"""Scores, suspects and duplicates by an engine's workers: the bytes of one process, also where workers are killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import fgtrac
from fgtrac.api import spread_scores
from fgtrac.api.questions import Question
from fgtrac.api.score_units import ScoreUnit, do_unit, forget
from fgtrac.api.trace import open_trace
from fgtrac.engine.alone import Alone
from fgtrac.engine.local import LocalPool
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError, ScoreError
from fgtrac.score import suspects
from fgtrac.store.far_trace import FarTrace
from folder_objects import far
from killed_units import KillingEngine
from softmax_traces import Problem, scored_trace

TARGETS = ("digits:345", ["digits:301", "digits:350"], "class:2:test", "digits:4")
METHODS = ("tracin", "tracin-cos", "fisher", "ekfac")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def pool() -> Iterator[Engine]:
    with open_engine("local:2") as engine:
        yield engine


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scratch"


@pytest.fixture
def small(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of some of the 340 training rows, which are given out however few they are."""
    monkeypatch.setattr(spread_scores, "UNIT_ROWS", 100)
    monkeypatch.setattr(spread_scores, "BLOCK", 64)
    monkeypatch.setattr(spread_scores, "UNIT_BLOCKS", 2)
    monkeypatch.setattr(spread_scores, "LEAST_ROWS", 1)


@pytest.fixture
def aligned(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process alone: blocks of 64 rows too, so that units end where blocks do."""
    monkeypatch.setattr(suspects, "BLOCK", 64)
    monkeypatch.setattr("fgtrac.score.kernel.BLOCK_NUMBERS", 128)


def explained(scored: Problem, engine: Any, method: str = "tracin", **options: Any) -> dict[str, Any]:
    return fgtrac.open(scored.path).explain(*TARGETS, method=method, k=7, engine=engine, **options).as_json()


class Counting(Alone):
    """This process, which says of which kinds the units were; after `stop` of them, its workers are lost."""

    name = "counting"

    def __init__(self, stop: int = 1 << 30) -> None:
        self.kinds: list[str] = []
        self._stop = stop

    def results(self, work: Any, units: Any, **how: Any) -> Iterator[Any]:
        for number, result in super().results(work, units, **how):
            self.kinds.append(units[number].kind)
            yield number, result
            if len(self.kinds) == self._stop:
                raise EngineError("lost")


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_is_that_of_one_process(scored: Problem, aligned: None, scratch: Path, method: str) -> None:
    engine = Counting()
    with threadpool_limits(1):
        here = explained(scored, None, method)
    there = explained(scored, engine, method)
    assert engine.kinds.count("ranking") == 2 * 6  # single targets and means; 340 rows in units of one block of 64
    if method in ("tracin", "tracin-cos"):
        assert there == here
    for one, other in zip(here["toward"], there["toward"], strict=True):
        assert [s["name"] for s in one["proponents"]] == [s["name"] for s in other["proponents"]]
        scores = [s["score"] for s in one["opponents"]]
        assert scores == pytest.approx([s["score"] for s in other["opponents"]], rel=1e-4)
    assert list(scratch.iterdir()) == []


def test_sums_by_group_self_influence_and_pairs_are_those_of_one_process(scored: Problem, aligned: None) -> None:
    here, there = explained(scored, None, by="subject"), explained(scored, Counting(), by="subject")
    for one, other in zip(here["toward"], there["toward"], strict=True):
        assert [share["group"] for share in one["shares"]] == [share["group"] for share in other["shares"]]
        sums = [share["sum"] for share in one["shares"]]
        assert sums == pytest.approx([share["sum"] for share in other["shares"]], rel=1e-5, abs=1e-6)
    trace, engine = fgtrac.open(scored.path), Counting()
    with threadpool_limits(1):
        own, pairs = trace.self_influence(method="tracin").scores, trace.duplicates(30).as_json()
        listed = trace.suspects(5, method="tracin").as_json()
    assert np.array_equal(trace.self_influence(method="tracin", engine=engine).scores, own)
    assert trace.suspects(5, method="tracin", engine=engine).as_json() == listed
    assert trace.duplicates(30, engine=engine).as_json() == pairs
    assert {kind: engine.kinds.count(kind) for kind in engine.kinds} == {"influence": 2 * 3 * 4, "pairs": 6}


def test_a_worker_killed_in_each_kind_of_unit_is_replaced_and_the_answers_are_those_of_one(
    scored: Problem, small: None, tmp_path: Path, pool: Engine
) -> None:
    killing, trace = KillingEngine(pool, tmp_path), fgtrac.open(scored.path)
    assert explained(scored, killing, "ekfac", by="class") == explained(scored, "local:1", "ekfac", by="class")
    own = trace.self_influence(method="tracin", engine=killing).scores
    assert np.array_equal(own, trace.self_influence(method="tracin", engine="local:1").scores)
    assert trace.duplicates(30, engine=killing).as_json() == trace.duplicates(30, engine="local:1").as_json()
    marks = {path.name.removesuffix("-0") for path in tmp_path.glob("*-0")}
    assert marks == {"sums", "turned", "ranking", "influence", "pairs"}


@pytest.mark.parametrize("stop", [3, 13, 20, 30])
def test_what_was_done_before_workers_were_lost_is_not_done_again(
    scored: Problem, small: None, scratch: Path, stop: int
) -> None:
    whole = Counting()
    undisturbed = explained(scored, whole, "ekfac")
    with pytest.raises(EngineError, match="lost"):
        explained(scored, Counting(stop), "ekfac")
    (left,) = scratch.iterdir()
    some = min(path for path in left.glob("*.safetensors") if path.with_suffix(".sha256").exists())
    some.write_bytes(some.read_bytes()[:-1])  # what is damaged since is made again
    again, told = Counting(), list[tuple[int, int]]()
    assert explained(scored, again, "ekfac", progress=lambda *step: told.append(step)) == undisturbed
    most = 2 * 4 if some.name.startswith(("curvature", "bases")) else 1  # a state's two passes, or a unit
    assert len(again.kinds) <= len(whole.kinds) - stop + most
    assert told[-1][0] == told[-1][1]
    assert list(scratch.iterdir()) == []


def test_little_work_starts_no_process(scored: Problem, scratch: Path) -> None:
    engine, trace = LocalPool(2), fgtrac.open(scored.path)
    assert explained(scored, engine, "fisher", by="class")["training_samples"] == 340
    trace.suspects(5, engine=engine)
    trace.duplicates(5, engine=engine)
    assert engine._pool is None


def test_an_engines_answer_changes_no_answer_without_one(scored: Problem, small: None) -> None:
    trace = fgtrac.open(scored.path)
    before = trace.self_influence().scores.tobytes()
    other = trace.self_influence(engine="local:1").scores.tobytes()
    assert (
        trace.self_influence().scores.tobytes() == before == fgtrac.open(scored.path).self_influence().scores.tobytes()
    )
    assert fgtrac.open(scored.path).self_influence(engine="local:1").scores.tobytes() == other


def test_recorded_scores_by_an_engine_are_computed_again_by_verify(tmp_path: Path, small: None) -> None:
    mine, engine = scored_trace(tmp_path / "mine"), Counting()
    done = fgtrac.open(mine.path).record("digits:345", "class:1", method="fisher", key=mine.key, engine=engine)
    assert (done.entries, done.scores) == (2 * 3 * 2, 2 * 3 * 340)
    assert engine.kinds == ["sums"] * 3 * 4
    report = fgtrac.open(mine.path).verify(mine.made.signer.public_key.hex())
    assert any("2,040 scores" in found.words for found in report.findings), report


def test_what_an_engine_cannot_be_asked_is_refused_before_it_is_opened(scored: Problem, scratch: Path) -> None:
    trace, nowhere = fgtrac.open(scored.path), {"engine": "ray://nowhere:1"}
    unseen: dict[str, Any] = {"model": object(), "loss": len, **nowhere}
    for ask, words in (
        (lambda: trace.explain(0, **unseen), "with model= is answered in this process"),
        (lambda: trace.record(0, **unseen), "with model= is answered in this process"),
        (lambda: trace.explain(**nowhere), "nothing was named to be explained"),
        (lambda: trace.explain("class:1", by="colour", **nowhere), "by='colour' is none of"),
        (lambda: trace.explain("class:1", k=0, **nowhere), "the 0 strongest are none"),
        (lambda: trace.self_influence(method="tracin-cos", **nowhere), "every sample's self-influence"),
        (lambda: trace.duplicates(by="colour", **nowhere), "pairs by 'colour'"),
        (lambda: trace.suspects(engine="many"), "'many' is no engine"),
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    assert not scratch.exists()


def test_a_worker_that_finds_another_trace_at_the_path_says_so(scored: Problem, small: None, tmp_path: Path) -> None:
    seen: list[Question] = []

    class Looking(Alone):
        def results(self, work: Any, units: Any, **how: Any) -> Iterator[Any]:
            seen.append(units[0].question)
            yield from super().results(work, units, **how)

    explained(scored, Looking())
    other = scored_trace(tmp_path / "other", seed=1)
    unit = ScoreUnit(replace(seen[0], trace=str(other.path)), str(tmp_path), "ranking", (0, 0, 64))
    try:
        with pytest.raises(ScoreError, match="has other factors or samples at a worker than where this was asked"):
            do_unit(unit)
    finally:
        forget()


def test_a_long_list_of_suspects_has_the_names_of_a_short_one(scored: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = fgtrac.open(scored.path).suspects(None).csv()
    monkeypatch.setattr("fgtrac.api.suspects.LOOKED_UP", 0)
    assert fgtrac.open(scored.path).suspects(None).csv() == one_by_one


def test_workers_open_a_trace_far_away_by_its_address(
    scored: Problem, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FarTrace] = []

    def open_far(path: Path, _bytes: int = 0) -> FarTrace:
        assert str(path) in ("s3://bucket/run.trace", "s3:/bucket/run.trace")
        opened.append(far(scored.path))
        return opened[-1]

    monkeypatch.setattr(FarTrace, "open", open_far)
    there, engine = open_trace("s3://bucket/run.trace"), Counting()
    assert there.suspects(5, engine=engine).as_json()["by"] == "mean loss"
    found = there.duplicates(5, engine=engine).as_json()["pairs"]
    here = fgtrac.open(scored.path).duplicates(5, engine="local:1").as_json()["pairs"]
    assert [pair["gradients"] for pair in found] == [pair["gradients"] for pair in here]
    assert engine.kinds.count("pairs") == 6
    assert len(opened) == 3  # by whoever asked, and by the worker of each question
    for trace in opened:
        if trace._scratch is not None:
            trace._scratch.cleanup()
