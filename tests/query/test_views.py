"""The tables of a trace say what its log says, in every library's own form; only a log that is whole gives any."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import fgtrac
from erasable import write_small
from fgtrac.api.trace import Trace
from fgtrac.errors import ProofError
from fgtrac.query import view_build, view_files, view_rows, view_uses
from fgtrac.query.through import WORDS, kin_of, used_through
from fgtrac.query.view_schema import VIEWS
from graph_lives import graph_life
from lives import live, live_on_a_graph, use_excluded_samples
from signed import BLOCK, Event, run, samples, seal, use, write
from softmax_traces import scored_trace
from staged_run import staged_run
from traces import make_trace
from views_logs import HOSTILE, about, batches, everything, everything_on_disk, role, trace_of
from views_truth import tables_of

Row = dict[str, Any]


def rows_of(trace: Trace, view: str) -> list[Row]:
    return list(trace.views().view(view).to_dicts())


def same(found: list[Row], wanted: list[Row]) -> None:
    """Equal rows, in whatever order; NaN is equal to itself."""
    columns = sorted(found[0]) if found else []

    def plain(row: Row) -> list[Any]:
        return [
            str(row[name]) if isinstance(row[name], float) and math.isnan(row[name]) else row[name] for name in columns
        ]

    assert sorted(map(plain, found), key=repr) == sorted(map(plain, wanted), key=repr)


def assert_true(path: Path) -> Trace:
    """Every view has exactly the rows that the log gives."""
    trace = fgtrac.open(path)
    truth = tables_of(path)
    for view in VIEWS:
        assert len(trace.views().view(view)) == len(truth[view])
        same(rows_of(trace, view), truth[view])
    return trace


def test_every_row_of_a_log_in_which_everything_occurs(tmp_path: Path):
    trace = assert_true(everything_on_disk(tmp_path))
    assert all(len(trace.views().view(view)) for view in VIEWS)
    assert {row["standing"] for row in rows_of(trace, "checkpoints")} == {"kept", "dropped", "superseded"}
    assert {row["superseded"] for row in rows_of(trace, "uses")} == {True, False}
    assert {row["rank"] for row in rows_of(trace, "uses")} == {0, 1}


def test_rows_are_the_same_however_they_are_dealt_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, small in (("BUCKET_SAMPLES", 3), ("MOST_BUCKETS", 4), ("AT_ONCE", 3), ("BATCHES", 2), ("GROUP_ROWS", 2)):
        monkeypatch.setattr(view_uses, name, small)
    monkeypatch.setattr(view_rows, "AT_ONCE", 2)
    monkeypatch.setattr(view_files, "GROUP_ROWS", 2)
    monkeypatch.setattr(view_files, "GROUP_BYTES", 100)
    monkeypatch.setattr(view_build, "AT_ONCE", 2)
    assert_true(everything_on_disk(tmp_path / "few"))
    monkeypatch.setattr(view_files, "GROUP_BYTES", 1 << 20)
    monkeypatch.setattr(view_files, "GROUP_ROWS", 1 << 20)
    monkeypatch.setattr(view_files, "_PIECES", 2)
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    assert_true(everything_on_disk(tmp_path / "pieces"))


@pytest.mark.parametrize("make", [live, live_on_a_graph, graph_life, use_excluded_samples])
def test_rows_of_recorded_lives(tmp_path: Path, make: Any):
    made = make(tmp_path)
    assert_true(getattr(made, "path", None) or made.made.trace.path)


def test_rows_of_a_scored_trace(tmp_path: Path):
    scored_trace(tmp_path)
    trace = assert_true(next(tmp_path.rglob("*.trace")))
    assert len(trace.contributions()) or len(trace.checkpoints())


def test_rows_of_a_run_whose_samples_were_made_by_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    assert_true(staged_run(tmp_path).path)


def test_a_use_is_told_of_whatever_the_sample_was_made_from():
    pairs = [(np.array([0, 1]), np.array([2, 2])), (np.array([2, 3, 5]), np.array([4, 4, 6]))]
    used, perhaps = np.arange(8) == 6, np.arange(8) == 4
    codes = used_through(kin_of(pairs), used, perhaps).tolist()
    assert [None if code < 0 else WORDS[code] for code in codes] == [*["perhaps"] * 4, None, "used", None, None]
    assert set(used_through(kin_of([]), used, perhaps).tolist()) == {-1}


def test_counts_are_those_of_the_index(tmp_path: Path):
    trace = fgtrac.open(everything_on_disk(tmp_path))
    counts = trace.sample_counts()
    rows = rows_of(trace, "samples")
    assert [row["id"] for row in rows] == [i.tobytes().hex() for i in counts.ids]
    for name in ("uses", "neighbours", "deliveries", "predictions", "dropped"):
        assert [row[name] for row in rows] == getattr(counts, name).tolist()


def test_entries_behind_the_newest_full_seal_are_in_no_table(tmp_path: Path):
    made = make_trace(tmp_path, uses=12, seals=(5,), sealed=False)
    made.seal(full=False)
    trace = assert_true(made.trace.path)
    assert trace.pending
    assert len(trace.views().view("entries")) == trace.views().size


def test_a_new_seal_is_seen_by_a_trace_that_is_opened_then(tmp_path: Path):
    made = make_trace(tmp_path, uses=12, seals=(5,), sealed=False)
    before = fgtrac.open(made.trace.path)
    seen = len(before.uses())
    made.seal()
    assert len(before.uses()) == seen
    assert len(assert_true(made.trace.path).uses()) > seen


def test_each_library_takes_a_table_as_it_is(tmp_path: Path):
    trace = fgtrac.open(everything_on_disk(tmp_path))
    for view in (trace.samples(), trace.uses(), trace.checkpoints(), trace.contributions(), trace.predictions(),
                 trace.attention(), trace.sql("SELECT * FROM uses")):  # fmt: skip
        table = view.to_arrow()
        assert isinstance(table, pa.Table)
        assert tuple(table.column_names) == view.columns
        assert str(pa.table(view).to_pylist()) == str(table.to_pylist())
        assert pl.DataFrame(view).shape == view.to_polars().shape == table.shape
        assert isinstance(view.to_pandas(), pd.DataFrame)
        assert view.to_pandas().shape == table.shape
        assert duckdb.sql("SELECT count(*) FROM view").fetchall() == [(table.num_rows,)]
        assert sum(batch.num_rows for batch in view.to_batches()) == table.num_rows
        assert len(list(view.to_dicts())) == table.num_rows


def test_hostile_names_come_through_as_they_are(tmp_path: Path):
    long = "x" * 50_000 + HOSTILE
    trace = fgtrac.open(
        everything_on_disk(tmp_path, batches(BLOCK, [1], [1], step=[4], attribution=["declared"], fit=long))
    )
    assert trace.sql("SELECT DISTINCT fit FROM uses WHERE fit IS NOT NULL ORDER BY length(fit)").to_arrow()[
        "fit"
    ].to_pylist() == [HOSTILE, long]
    assert trace.sql("SELECT count(*) n FROM samples WHERE dataset = ?", [HOSTILE]).rows == [{"n": 4}]
    assert trace.sql("SELECT count(*) n FROM metrics WHERE name = $m", {"m": HOSTILE}).rows == [{"n": 1}]


def test_numbers_keep_their_types(tmp_path: Path):
    trace = fgtrac.open(everything_on_disk(tmp_path))
    named = {"u2": "uint16", "u4": "uint32", "u8": "uint64", "f4": "float", "f8": "double", "bool": "bool"}
    for view, columns in VIEWS.items():
        schema = trace.views().view(view).to_arrow().schema
        for column in columns:
            found = str(schema.field(column.name).type)
            assert found.startswith(named.get(column.type, "")), column
    assert str(trace.sql("SELECT sum(uses) AS s FROM samples").to_arrow().schema.field("s").type) == "int64"


def changed(files: dict[str, bytes]) -> dict[str, bytes]:
    """A use of another sample, with nothing else changed."""
    (name,) = [
        name for name in files if name.startswith("tile/entries/000.p/") and name == max(files, key=len_of(files))
    ]
    old = np.array([0, 1, 2, 3, 1], "<u4").tobytes()
    assert files[name].count(old) == 1
    return {**files, name: files[name].replace(old, np.array([0, 1, 2, 3, 4], "<u4").tobytes())}


def len_of(files: dict[str, bytes]) -> Any:
    return lambda name: len(files[name]) if name.startswith("tile/entries/") else 0


def test_a_changed_log_gives_no_table_and_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    path = trace_of(tmp_path, changed(write(*everything(), seal())))
    trace = fgtrac.open(path)
    with pytest.raises(ProofError, match="do not lead to the root of its full seal"):
        trace.uses().to_arrow()
    assert not list((tmp_path / "cache").rglob("*.parquet"))


@pytest.mark.parametrize("new", [b"usf", b"xse"])
def test_an_entry_that_is_none_any_more_is_said_to_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bytes
):
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    files = write(run(), samples(), use(1, 0), seal())
    name = "tile/entries/000.p/4"
    assert files[name].count(b"dkindcuse") == 1
    trace = fgtrac.open(trace_of(tmp_path, {**files, name: files[name].replace(b"dkindcuse", b"dkindc" + new)}))
    with pytest.raises(ProofError, match=r"entry 2 in .* is not the one that was sealed"):
        trace.uses().to_arrow()
    assert not list((tmp_path / "cache").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (use(1, 6), "entry 2 names ordinal 6 of a block of 6 samples"),
        ({**use(1, 0), "block": b"x" * 16}, "no entries register all of it"),
        (about("contribution", [b"x" * 16, 1], [0], target="t", method="m", scores=np.zeros(1, "<f4")), "checkpoint"),
        (role("train", b"x" * 16, 0), "no entries register all of it"),
    ],
)
def test_entries_that_contradict_the_log_give_no_table(tmp_path: Path, lie: Event, words: str):
    trace = fgtrac.open(trace_of(tmp_path, write(run(), samples(), lie, seal())))
    with pytest.raises(ProofError, match=words):
        trace.uses().to_arrow()


def test_a_seal_that_counts_other_entries_gives_no_table(tmp_path: Path):
    counts = {"run": 1, "samples": 1}
    trace = fgtrac.open(trace_of(tmp_path, write(run(), samples(), use(1, 0), seal(counts=counts))))
    with pytest.raises(ProofError, match="its seal counts"):
        trace.uses().to_arrow()


def test_an_erasure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    path = write_small(tmp_path)
    assert_true(path)
    fgtrac.erase(path, subject="bob")
    assert sum(row["erased"] for row in rows_of(assert_true(path), "samples")) == 3
