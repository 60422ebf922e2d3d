"""Scores by the workers of a Ray cluster: the bytes of one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.api import factor_passes, spread_scores
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError
from scored_by_workers import CALLER, Recorded, record, rows_a_shard


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder)
    return folder


@pytest.fixture(autouse=True)
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CALLER, str(os.getpid()))
    monkeypatch.setattr(factor_passes, "shard_rows", rows_a_shard)


def test_factors_contributions_and_the_matrix_are_those_of_one_process(
    cluster: Any, recorded: Path, tmp_path: Path
) -> None:
    there, here = (Recorded.copy(recorded, tmp_path / name) for name in ("there", "here"))
    with open_engine(cluster.client) as engine:
        found = there.score(engine, "some_with_matrix")
        targets = [f"test:{row}" for row in range(15)]
        opened = fgtrac.open(there.folder / "run.trace")
        opened.write_scores(tmp_path / "scores", *targets, method="fisher", rows_a_part=16, engine=engine)
    assert found == here.score("local:1", "some_with_matrix")
    assert there.recorded_scores() == here.recorded_scores() != {}
    opened.write_scores(tmp_path / "alone", *targets, method="fisher", rows_a_part=16, engine="local:1")
    parts = sorted((tmp_path / "alone").glob("scores-*.npy"))
    assert [np.load(path).shape for path in parts] == [(16, 15)] * 3 + [(2, 15)]
    for path in parts:
        assert path.read_bytes() == (tmp_path / "scores" / path.name).read_bytes()


def test_answers_suspects_and_duplicates_are_those_of_one_process(
    cluster: Any, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Recorded.copy(recorded, tmp_path / "mine")
    mine.score(None)
    for name, value in {"UNIT_ROWS": 45, "BLOCK": 16, "UNIT_BLOCKS": 3, "LEAST_ROWS": 1}.items():
        monkeypatch.setattr(spread_scores, name, value)
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    trace = fgtrac.open(mine.folder / "run.trace")

    def answers(engine: str | Engine) -> list[dict[str, Any]]:
        return [
            trace.explain("test:3", "role:validation", method="ekfac", by="class", engine=engine).as_json(),
            trace.suspects(method="tracin", engine=engine).as_json(),
            trace.duplicates(engine=engine).as_json(),
        ]

    with open_engine(cluster.client) as engine:
        there = answers(engine)
        monkeypatch.setenv("FGTRAC_CACHE", str(cluster.unseen / "cache"))
        with pytest.raises(EngineError, match="does not see"):
            trace.duplicates(engine=engine)
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    assert there == answers("local:1")


def test_a_trace_that_the_nodes_do_not_see_is_refused_before_anything_is_made(cluster: Any, recorded: Path) -> None:
    trace = Recorded.copy(recorded, cluster.unseen / "copy")
    with pytest.raises(EngineError, match="does not see"):
        trace.score(cluster.client)
    assert {path.partition("-")[0] for path in trace.files()} <= {"rows"}
