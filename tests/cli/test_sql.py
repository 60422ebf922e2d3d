"""`fgtrac sql`: a table for people, CSV and JSON for programs, one line for what is wrong."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from traces import make_trace
from views_logs import HOSTILE, everything_on_disk


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(everything_on_disk(tmp_path))


QUERY = "SELECT epoch, count(*) AS uses FROM uses WHERE role = 'train' AND hop = 0 GROUP BY epoch ORDER BY epoch"


def test_an_answer_as_a_table_as_csv_and_as_json(path: str, run):
    said = run("sql", path, QUERY, "--json")
    assert (said.code, said.json["columns"]) == (0, ["epoch", "uses"])
    assert said.json["rows"]
    assert said.json["pending"] == 0
    assert "signature was not checked" in said.json["rests_on"]
    lines = list(csv.reader(io.StringIO(run("sql", path, QUERY, "--csv").out)))
    assert lines == [["epoch", "uses"], *([str(v) for v in row] for row in said.json["rows"])]
    table = run("sql", path, QUERY)
    assert table.code == 0
    assert all(str(uses) in table.out for _, uses in said.json["rows"])
    assert table.err == ""


def test_a_query_has_as_much_memory_as_it_is_told(path: str, run):
    sort = "SELECT range, repeat('x', 40) AS s FROM range(1_000_000) ORDER BY hash(range)"
    small = run("sql", path, sort, "--memory", "1M")
    assert (small.code, small.out) == (2, "")
    assert "needs more than 1.0 MiB of memory; give it more (--memory" in small.err
    assert run("sql", path, QUERY, "--memory", "1M", "--csv").out == run("sql", path, QUERY, "--csv").out
    assert "'much' is no amount of memory" in run("sql", path, QUERY, "--memory", "much").err


def test_values_of_every_type_are_json_and_csv(path: str, run):
    query = (
        "SELECT time, learning_rates, digest, epoch, kept, 1.5::DECIMAL(5, 2) AS d, 'nan'::DOUBLE AS n, "
        "'ab'::BLOB AS b, {'a': [1]} AS s, sum(step) OVER () AS w FROM checkpoints ORDER BY entry"
    )
    first = run("sql", path, query, "--json").json["rows"][0]
    assert first[0].startswith("1970-01-01T00:00:00")
    assert first[1:] == [[0.1, 0.2], (b"d" * 32).hex(), 0, True, "1.50", "nan", b"ab".hex(), {"a": [1]}, first[-1]]
    row = next(csv.DictReader(io.StringIO(run("sql", path, query, "--csv").out)))
    assert json.loads(row["learning_rates"]) == [0.1, 0.2]


def test_hostile_names_move_no_cursor_and_are_whole_in_csv_and_json(path: str, run):
    query = "SELECT DISTINCT dataset FROM samples WHERE dataset <> 'd'"
    assert run("sql", path, query, "--json").json["rows"] == [[HOSTILE]]
    assert list(csv.reader(io.StringIO(run("sql", path, query, "--csv").out)))[1] == [HOSTILE]
    shown = run("sql", path, query).out
    assert "\x1b" not in shown
    assert "\0" not in shown


def test_of_many_rows_the_first_are_shown_and_the_rest_is_not_hidden(path: str, run):
    shown = run("sql", path, "SELECT range AS r FROM range(101)").out
    assert "the first 100 rows; --csv or --json has all of them" in shown
    assert len(run("sql", path, "SELECT range AS r FROM range(101)", "--csv").out.splitlines()) == 102
    assert "the first" not in run("sql", path, "SELECT range AS r FROM range(100)").out


def test_entries_in_no_full_seal_are_said_to_be_missing(tmp_path: Path, run):
    made = make_trace(tmp_path, uses=12, seals=(5,), sealed=False)
    made.seal(full=False)
    assert "later entries are in no full seal yet" in run("sql", made.trace.path, QUERY).out
    as_csv = run("sql", made.trace.path, QUERY, "--csv")
    assert "later entries are in no full seal yet" in as_csv.err
    assert "later" not in as_csv.out
    out = Path(made.trace.path).parent / "out"
    assert "later entries are in no full seal yet" in run("export", "csv", made.trace.path, "-o", out).out
    span = "SELECT max(time) - min(time) AS d FROM entries"
    assert run("sql", made.trace.path, span, "--csv").out.startswith("d\n0 months 11 days 49599 s")
    assert run("sql", made.trace.path, QUERY, "--json").json["pending"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SELEC"], "Parser Error"),
        (["DROP VIEW samples"], "a trace is only read: DROP is refused"),
        (["SELECT * FROM read_text('/etc/hostname')"], "Permission Error"),
        (["SELECT 'a'::INTEGER FROM uses", "--csv"], "Conversion Error"),
        (["SELECT * FROM names"], "no vault"),
        (["SELECT 1", "--csv", "--json"], "ask for one of them"),
    ],
)
def test_what_is_wrong_is_one_line_and_2(path: str, run, arguments: list[str], words: str):
    done = run("sql", path, *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_without_the_extra_the_remedy_is_one_line(path: str, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for name in [name for name in sys.modules if name.startswith(("fgtrac.query.views", "fgtrac.query.sql"))]:
        monkeypatch.delitem(sys.modules, name)
    done = run("sql", path, "SELECT 1")
    assert (done.code, done.err) == (2, "fgtrac: tables and SQL need duckdb: pip install 'fgtrac[query]'\n")


def test_a_log_that_was_changed_gives_no_rows(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    path = everything_on_disk(tmp_path)
    bundle = next((path / "tile" / "entries").rglob("000.p/*"))
    old = np.array([0, 1, 2, 3, 1], "<u4").tobytes()
    bundle.write_bytes(bundle.read_bytes().replace(old, np.array([0, 1, 2, 3, 4], "<u4").tobytes()))
    done = run("sql", path, QUERY)
    assert (done.code, done.out) == (1, "")
    assert "do not lead to the root" in done.err
