"""SQL over a trace: it reads the tables and nothing else, from however many threads, and errors are one line."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fgtrac
from erasable import write_small
from fgtrac.api.trace import Trace
from fgtrac.query.sql import refused
from views_logs import everything_on_disk


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return fgtrac.open(everything_on_disk(tmp_path))


FILES = [
    "SELECT * FROM read_csv('{file}')", "SELECT * FROM '{file}'", "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')", "SELECT * FROM read_parquet('{file}')", "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_json('{file}')", "SELECT * FROM parquet_schema('{file}')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')", "SELECT * FROM sniff_csv('{file}')",
]  # fmt: skip
CHANGES = [
    "COPY uses TO '{folder}/out.parquet'", "COPY (SELECT 1) TO '{folder}/out.csv'", "ATTACH '{folder}/out.db'",
    "EXPORT DATABASE '{folder}/out'", "INSTALL httpfs", "LOAD httpfs", "SET threads = 1", "RESET threads",
    "CREATE TABLE t AS SELECT 1", "CREATE VIEW samples AS SELECT 1", "DROP VIEW samples", "DELETE FROM samples",
    "INSERT INTO samples SELECT * FROM samples", "UPDATE samples SET uses = 0", "PRAGMA enable_profiling",
    "CALL pragma_version()", "BEGIN", "CHECKPOINT", "CREATE SECRET s (TYPE s3)", "USE memory", "DETACH memory",
    "PREPARE p AS SELECT 1", "EXPLAIN ANALYZE COPY uses TO '{folder}/out.csv'", "VACUUM",
    "CREATE MACRO f() AS 1", "SELECT 1; DROP VIEW samples", "", ";", "-- nothing",
    *(f"{explain} {change}" for explain in ("EXPLAIN", "explain\tAnalyze", "EXPLAIN (ANALYZE)", "EXPLAIN /**/ ANALYZE")
      for change in ("CREATE OR REPLACE VIEW samples AS SELECT 0 AS uses", "DROP VIEW samples", "CALL pragma_version()",
                     "CREATE TEMP TABLE t (a INT)",
                     "COPY (SELECT 1 AS a) TO '{view}' (FORMAT parquet, USE_TMP_FILE false)")),
    "EXPLAIN ANALYZE SELECT 1; DROP VIEW samples", "EXPLAIN ANALYZE EXPLAIN SELECT 1",
    "WITH x AS (COPY (SELECT 1 AS a) TO '{view}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1 AS a) TO '{view}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "SELECT * FROM query('WITH x AS (CO'||'PY (SELECT 1 AS a) TO ''{view}'' (FORMAT parquet)) FROM x')",
    "WITH x AS (INSERT INTO samples SELECT * FROM samples RETURNING *) FROM x", "PIVOT samples ON role USING count(*)",
]  # fmt: skip


@pytest.mark.parametrize("sql", [*FILES, *CHANGES])
def test_nothing_but_the_tables_is_read_and_nothing_is_changed(trace: Trace, tmp_path: Path, sql: str):
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\nkept\n")
    (view,) = trace.views().paths("samples")
    before, whole = set(tmp_path.rglob("*")), view.read_bytes()
    with pytest.raises(ValueError, match=r"\S") as refused:
        list(trace.sql(sql.format(file=secret, folder=tmp_path, view=view)).to_tuples())
    assert view.read_bytes() == whole
    assert "\n" not in str(refused.value)
    assert "kept" not in str(refused.value)
    assert set(tmp_path.rglob("*")) == before
    assert trace.sql("SELECT count(*) AS n FROM samples").rows == [{"n": 9}]


def test_a_select_may_be_explained(trace: Trace):
    for explain in ("EXPLAIN", "explain analyze", "\n EXPLAIN"):
        assert trace.sql(f"{explain} SELECT sum(uses) FROM samples WHERE sample > ?", [1]).rows
    assert trace.sql("SELECT 'to copy' AS copy").rows == [{"copy": "to copy"}]
    assert trace.sql("PIVOT samples ON role IN ('train') USING count(*) GROUP BY dataset").rows


def test_the_names_cannot_be_changed_by_a_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    named = fgtrac.open(write_small(tmp_path))
    before = named.sql("SELECT count(*) AS n FROM names").rows
    for change in ("DELETE FROM names", "INSERT INTO names FROM names", "UPDATE names SET name = ''"):
        with pytest.raises(ValueError, match="read-only"):
            named.sql(f"WITH x AS ({change} RETURNING *) FROM x").to_arrow()
    assert named.sql("SELECT count(*) AS n FROM names").rows == before != [{"n": 0}]
    with pytest.raises(ValueError, match="only for a query that has its name"):
        named.sql("FROM query_table('na' || 'mes')").to_arrow()


def test_variables_of_the_program_are_no_tables(trace: Trace):
    mine = trace.samples().to_arrow()
    assert len(mine) == 9
    with pytest.raises(ValueError, match="mine does not exist"):
        trace.sql("SELECT * FROM mine")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "Parser Error"),
        ("SELECT nothing FROM uses", 'column "nothing"'),
        ("SELECT * FROM nothing", "nothing does not exist"),
        ("SELECT CAST('x' AS INTEGER)", "Conversion Error"),
        ("SELECT error('failed\nhere')", "failed here"),
        ("SELECT 'a'::INTEGER FROM uses", "Conversion Error"),
        ("SELECT * FROM uses WHERE sample = ?", "parameter"),
        ("SELECT * FROM names", "no vault"),
        ("SELECT sum(18446744073709551615::UBIGINT) AS s FROM uses", "cast it to DOUBLE"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, r"\S"),
        ("SELECT '\0'; x", r"\S"),
        ("PIVOT samples ON role USING count(*)", r"PIVOT without its values \(ON role IN"),
    ],
)
def test_what_is_wrong_with_a_query_is_said_on_one_line(trace: Trace, sql: str, words: str):
    with pytest.raises(ValueError, match=words) as refused:
        trace.sql(sql).to_arrow()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_an_answer_may_be_read_more_than_once_and_a_piece_at_a_time(trace: Trace):
    answer = trace.sql("SELECT sample FROM uses ORDER BY ALL")
    assert answer.columns == ("sample",)
    assert answer.to_arrow().equals(answer.to_arrow())
    assert [row["sample"] for row in answer.rows] == sorted(row["sample"] for row in trace.uses().to_dicts())
    some = next(iter(trace.sql("SELECT * FROM range(10_000_000) r").to_batches()))
    assert 0 < some.num_rows < 10_000_000


def test_a_column_may_be_called_names_where_there_is_no_vault(trace: Trace):
    assert trace.sql("SELECT 1 AS names").rows == [{"names": 1}]


def test_columns_of_one_name_are_all_in_the_tuples(trace: Trace):
    assert list(trace.sql("SELECT 1 AS a, 2 AS a").to_tuples()) == [(1, 2)]


def test_columns_of_one_name_are_all_shown(trace: Trace):
    joined = trace.sql("SELECT * FROM uses u JOIN samples s ON u.sample = s.sample ORDER BY ALL")
    shown = joined._repr_html_()
    assert shown.count('<th scope="col"') == len(joined.columns) == joined.to_arrow().num_columns
    assert trace.sql("SELECT 'one' AS a, 'two' AS a")._repr_html_().count('"row">one</th><td>two</td>') == 1
    with pytest.raises(ValueError, match="give one 'sample' another with AS"):
        joined.to_polars()


@pytest.mark.parametrize("value", ["'infinity'::TIMESTAMP", "'9999-12-31'::DATE + 100000"])
def test_a_date_that_python_has_not_is_said_on_one_line(trace: Trace, value: str):
    with pytest.raises(ValueError, match="cast it to VARCHAR") as refused:
        _ = trace.sql(f"SELECT {value} AS t").rows
    assert "\n" not in str(refused.value)


def test_a_query_that_the_user_stopped_is_an_interruption():
    with pytest.raises(KeyboardInterrupt), refused():
        raise RuntimeError("Query interrupted")  # as duckdb says it
    with pytest.raises(RuntimeError, match="other"), refused():
        raise RuntimeError("other")


def test_threads_ask_side_by_side(trace: Trace):
    wanted = trace.sql("SELECT count(*) AS n FROM uses").rows
    begin = threading.Barrier(8)

    def ask(_number: int) -> object:
        begin.wait()
        return trace.views().query("SELECT count(*) AS n FROM uses WHERE sample >= ?", [0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [wanted] * 8


def test_what_the_documents_ask_is_answered(trace: Trace):
    docs = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    queries = [block.partition("\n```")[0] for block in docs.split("```sql\n")[1:]]
    assert len(queries) > 3
    for query in queries:
        assert trace.sql(query).columns


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow", "pandas", "polars"])
def test_a_library_that_is_not_there_is_named_with_its_remedy(
    trace: Trace, monkeypatch: pytest.MonkeyPatch, missing: str
):
    if missing in ("duckdb", "pyarrow"):
        for name in [name for name in sys.modules if name.startswith(("fgtrac.query.view", "fgtrac.query.sql"))]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=f"needs? {missing}: pip install"):
        trace.samples().to_pandas() if missing == "pandas" else trace.samples().to_polars()


def test_keys_of_any_content_come_through_as_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    keys = ["'; DROP TABLE names; --", '"quoted"', "two\nlines", "nul\0here", "x" * 1_000_000, "\u202eeman", ("a", 1)]
    with fgtrac.start_run(tmp_path / "run") as run:
        run.register(list(range(len(keys))), name="d\"'\0", key=keys, content=False)
    trace = fgtrac.open(tmp_path / "run.trace")
    found = trace.sql("SELECT id, name FROM names").rows
    assert {row["id"]: row["name"] for row in found} == {trace.find(row["name"]).id.hex(): row["name"] for row in found}
    assert len(found) == len(keys)
    for row in found:
        assert trace.sql("SELECT id FROM names WHERE name = ?", [row["name"]]).rows == [{"id": row["id"]}]
    assert trace.sql("SELECT DISTINCT dataset FROM samples").rows == [{"dataset": "d\"'\0"}]
