"""The check `scores` by an engine's workers says what it says in one process, also where a worker is killed or errs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from fgtrac.api import factor_passes, remaking
from fgtrac.api.rescore import scores_demand
from fgtrac.api.trace import open_for_verification
from fgtrac.api.user_functions import load_function
from fgtrac.engine.alone import Alone
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import EngineError
from fgtrac.verify.report import Finding, Verdict
from scored_by_workers import CALLER, Inside, Recorded, record, rows_a_shard

GIVEN = """
import os, signal
from pathlib import Path
from scored_by_workers import CALLER, _give

NOTE = Path(__file__).with_name("died")

def again(run):
    return _give(run)

def killed(run):
    if os.environ[CALLER] != str(os.getpid()) and not NOTE.exists():
        NOTE.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _give(run)

def other(run):
    return _give(run, forward=lambda model, batch: (1.5 * model(batch[0]), batch[1]))
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    recorded = Recorded(tmp_path_factory.mktemp("recorded"))
    record(recorded.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CALLER, str(os.getpid()))
        patch.setattr(factor_passes, "shard_rows", rows_a_shard)
        recorded.score(None)
    (recorded.folder / "given.py").write_text(GIVEN)
    return recorded


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 16 rows, so that the 20 validation samples are two units; and who gives them out."""
    monkeypatch.setattr(remaking, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(factor_passes, "shard_rows", rows_a_shard)  # as workers put it in place
    monkeypatch.setenv(CALLER, str(os.getpid()))


def asked(scored: Recorded, name: str, engine: str | Engine | None) -> Finding:
    named = f"{scored.folder / 'given.py'}:{name}"
    demand = scores_demand(12, 1, load_function(named), named=named, engine=engine)
    report = open_for_verification(scored.folder / "run.trace", key=str(scored.folder / "key.pem")).verify(
        demands=[demand], engine="local:1"
    )
    return next(found for found in report.findings if found.check == "scores")


@pytest.fixture(scope="module")
def pool() -> Iterator[Engine]:
    with open_engine("local:2") as engine:
        yield engine


def test_a_worker_killed_in_the_middle_and_one_with_other_data_change_no_word(
    scored: Recorded, pool: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = asked(scored, "again", None)
    assert here.verdict is Verdict.HOLDS, here.words
    assert "at 3 model states" in here.words
    assert asked(scored, "again", "local:1") == here
    assert asked(scored, "killed", pool) == here
    assert (scored.folder / "died").exists()
    monkeypatch.setenv("WORKER_LIES", "")
    assert asked(scored, "again", Inside()) == here


def test_what_is_refuted_is_refuted_with_the_same_numbers(scored: Recorded, pool: Engine) -> None:
    found = [asked(scored, "other", engine) for engine in (None, "local:1", pool)]
    assert {one.verdict for one in found} == {Verdict.REFUTED}
    assert found[1] == found[2]
    assert "given make" in found[0].words


class Lost(Alone):
    """An engine whose workers are lost as soon as there is a unit."""

    def results(self, *given: Any, **how: Any) -> Any:
        raise EngineError("lost")


def test_lost_workers_refute_nothing_and_few_rows_need_none(scored: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="lost"):
        asked(scored, "again", Lost())
    monkeypatch.setattr(remaking, "NUMBERS_AT_ONCE", 1 << 21)
    assert asked(scored, "again", Lost()).verdict is Verdict.HOLDS
