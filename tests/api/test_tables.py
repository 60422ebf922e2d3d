"""The tables of a real training agree with the other answers of its trace, and with what it recorded."""

from __future__ import annotations

import numpy as np
import pytest

import fgtrac
from views_truth import tables_of


@pytest.fixture(scope="module")
def trace(scored) -> fgtrac.Trace:
    return fgtrac.open(scored.folder / "run.trace")


def test_contributions_add_up_to_the_explanation_toward_the_validation_samples(trace):
    explained = trace.explain("role:validation", k=90).toward[0]
    wanted = {one.id.hex(): one.score for one in (*explained.proponents, *explained.opponents)}
    found = {row["id"]: row["contribution"] for row in trace.samples().to_dicts() if row["contribution"] is not None}
    assert found.keys() == wanted.keys()
    assert len(found) == 90
    np.testing.assert_allclose([found[i] for i in wanted], list(wanted.values()), rtol=1e-4, atol=1e-7)


def test_a_history_says_the_same_of_a_sample_as_the_tables(trace):
    for row in trace.sql("SELECT * FROM samples WHERE uses > 0 ORDER BY sample LIMIT 5").rows:
        history = trace.history(f"id:{row['id']}", details=True)
        assert history.uses == row["uses"]
        uses = trace.sql("SELECT * FROM uses WHERE sample = ? ORDER BY entry, step", [row["sample"]]).rows
        said = [e for e in history.events if e.kind == "used"]
        assert [(e.entry, e.step, e.epoch) for e in said] == [(u["entry"], u["step"], u["epoch"]) for u in uses]
        assert [e.details["batch"] for e in said] == [u["batch"] for u in uses]


def test_checkpoints_and_metrics_are_those_of_the_log(trace):
    truth = tables_of(trace.path)
    assert list(trace.checkpoints().to_dicts()) == [
        {name: row[name] for name in trace.checkpoints().columns} for row in truth["checkpoints"]
    ]
    assert trace.sql("SELECT count(*) AS n FROM metrics").rows == [{"n": len(truth["metrics"])}]
