"""A history shows the whole way: from a source row through every stage to the updates that used what became of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import fgtrac
from fgtrac.api.trace import Trace
from fgtrac.query import family
from fgtrac.query.history import History
from fgtrac.query.seals import FullSeal
from staged_run import StagedRun, staged_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StagedRun:
    return staged_run(tmp_path_factory.mktemp("family"))


@pytest.fixture
def trace(trained: StagedRun) -> Trace:
    return fgtrac.open(trained.path, key=trained.key)


def test_of_many_children_only_those_that_are_told_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = 2000
    with fgtrac.start_run(tmp_path / "many", key=tmp_path / "key.pem", ids="public") as run:
        frame = pd.DataFrame({"text": ["a" * children]})
        run.register(frame, name="texts")
        run.transform("letters", frame).tokenise(lambda text: [1] * len(text), "text", size=1)
    looked_up: list[bytes] = []
    rows = FullSeal.rows
    monkeypatch.setattr(FullSeal, "rows", lambda seal, one: looked_up.append(one) or rows(seal, one))
    history = fgtrac.open(tmp_path / "many.trace", key=tmp_path / "key.pem").history("texts:0")
    assert len(history.family.descendants) == family.MOST
    assert not history.family.whole
    (made,) = {id(e.details): e.details for e in history.events if e.kind == "transformed"}.values()
    assert len(made["children"]) == children
    assert len(looked_up) < 4 * family.MOST


def lines_of(history: History) -> list[str]:
    return [line.strip() for line in history.text().splitlines()]


@pytest.mark.matrix("pandas", "join, tokenise, pack, train: the history from source row to uses")
def test_a_source_rows_history_names_its_descendants_and_their_uses(trained: StagedRun, trace: Trace) -> None:
    assert trained.truth == {0: 4, 1: 4, 3: 2}
    for row in range(6):
        told = trace.history(f"documents:{row}")
        assert (told.uses, told.family.uses) == (0, trained.truth[row]), row
        assert {one.stage for one in told.family.descendants if one.uses} <= {"pack"}
    lines = lines_of(trace.history("documents:0"))
    assert [line.split(" through ")[1] for line in lines if line.startswith("went into")] == [
        "stage 'label': no part in any update",
        "stage 'tokens': no part in any update",
        "stage 'pack': used 4 times (steps 1 to 3)",
    ]


def test_a_dropped_end_of_the_way_is_told(trace: Trace) -> None:
    empty = lines_of(trace.history("documents:2"))
    assert any(line.endswith("through stage 'label': no part in any update, 1 of 1 dropped later") for line in empty)
    assert any("stage 'label' (join) dropped it" in line for line in lines_of(trace.history("documents:5")))


def test_a_childs_history_leads_back_to_its_sources_and_says_which_items_it_has(trace: Trace) -> None:
    of_first, of_second = (trace.history(f"documents:{row}").family.descendants for row in (0, 1))
    (used,) = {one.id for one in of_first if one.uses} - {one.id for one in of_second}
    told = trace.history(f"id:{used.hex()}")
    sources = {one.called for one in told.family.ancestors if one.generation == 3}
    assert sources == {"documents:0", "labels:0"}
    lines = lines_of(told)
    assert [line.split(" through ")[1] for line in lines if line.startswith("came from")] == [
        "stage 'label'", "stage 'tokens'", "stage 'pack'",
    ]  # fmt: skip
    (made,) = [line for line in lines if "made it from" in line]
    assert made.endswith(("items 0 to 3, 0 to 1", "items 0 to 1, 0 to 3"))
    assert lines[0].endswith("(pack)")
    assert told.as_json()["family"]["ancestors"][0]["generation"] == 1


def test_a_large_family_is_said_to_be_larger(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "MOST", 2)
    told = trace.history("documents:0")
    assert len(told.family.descendants) == 2
    assert "its family is larger: the nearest 2 on each side are told" in lines_of(told)
