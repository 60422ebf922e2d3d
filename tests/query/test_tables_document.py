"""docs/tables.md names every table and column, with the type and meaning that the code has, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import fgtrac
from fgtrac.query.view_files import _ARROW, schema_of
from fgtrac.query.view_schema import NAMES, TYPES, VIEWS
from graph_lives import graph_life

TEXT = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
TABLES = dict(re.findall(r"### `(\w+)`\n(.*?)(?=\n##|\Z)", TEXT, re.DOTALL))


def test_every_table_stands_there_with_its_columns():
    assert set(TABLES) == {*VIEWS, "names"}
    for name, columns in {**VIEWS, "names": NAMES}.items():
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", TABLES[name], re.MULTILINE)
        assert rows == [(column.name, TYPES[column.type], column.says) for column in columns], name


def test_the_types_are_those_of_arrow():
    said = {"float32": "float", "list of float32": "list<item: float>", "timestamp[us]": "timestamp[us]",
            "list of float64": "list<item: double>", "float64": "double",
            "dictionary of string": "dictionary<values=string, indices=int32, ordered=0>"}  # fmt: skip
    assert set(TYPES) == set(_ARROW)
    for kind, words in TYPES.items():
        assert str(_ARROW[kind]).replace("child", "item") == said.get(words, words)
    for columns in VIEWS.values():
        assert schema_of(columns).names == [column.name for column in columns]


def test_its_uses_by_epoch_are_the_uses_of_samples_also_in_a_graph(tmp_path: Path):
    life = graph_life(tmp_path)
    trace = fgtrac.open(life.path)
    query = next(block for block in re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL) if "GROUP BY epoch" in block)
    rows = trace.sql(query).rows
    seeds = [sum(len(u.seeds) for u in life.updates if u.epoch == row["epoch"]) for row in rows]
    assert [row["uses"] for row in rows] == seeds
    assert sum(seeds) == trace.sql("SELECT sum(uses) AS uses FROM samples WHERE role = 'train'").rows[0]["uses"]
    assert sum(seeds) < trace.sql("SELECT count(*) AS n FROM uses WHERE role = 'train'").rows[0]["n"]
