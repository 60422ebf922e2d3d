"""Content digests of a table's rows: equal rows have equal ones in every library, and nothing else does."""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fgtrac.api.run import Run
from fgtrac.capture.table_rows import table_digests
from fgtrac.capture.undigested import UndigestedError
from fgtrac.events.codec import encode

NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 5)
COLUMNS: dict[str, Any] = {
    "whole": pa.array([1, None, 3, 1], pa.int32()),
    "number": pa.array([1.5, float("nan"), None, 1.5]),
    "text": ["a", "", "ü", "a"],
    "octets": pa.array([b"x", None, b"", b"x"]),
    "clock": pa.array([NOON, None, dt.datetime(1960, 1, 1), NOON]),
    "moment": pa.array([NOON, None, dt.datetime(1960, 1, 1), NOON], pa.timestamp("us", "UTC")),
    "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1960, 1, 1), dt.date(2024, 2, 29)]),
    "span": pa.array([dt.timedelta(1, 2, 3), None, dt.timedelta(-1), dt.timedelta(1, 2, 3)]),
    "hour": pa.array([dt.time(1, 2, 3, 4), None, dt.time(0), dt.time(1, 2, 3, 4)]),
    "yes": [True, None, False, True],
    "price": pa.array([Decimal("1.10"), None, Decimal("2.20"), Decimal("1.10")]),
    "list": [[1, 2], None, [], [1, 2]],
    "lists": [["a", "bc"], ["abc"], None, ["a", "bc"]],
    "record": [{"x": 1, "y": "q"}, None, {"x": None, "y": ""}, {"x": 1, "y": "q"}],
    "word": pa.array(["u", None, "v", "u"]).dictionary_encode(),
}


def digests(frame: Any) -> list[bytes]:
    found = table_digests(frame)
    assert found is not None
    return [row.tobytes() for row in found]


def test_equal_rows_have_equal_digests_and_others_have_not() -> None:
    rows = digests(pa.table(COLUMNS))
    assert rows[0] == rows[3]
    assert len(set(rows)) == 3


def test_polars_and_pyarrow_give_the_same_digests() -> None:
    table = pa.table(COLUMNS)
    assert digests(pl.from_arrow(table)) == digests(table)
    assert digests(pl.from_arrow(table).lazy()) == digests(table)


def test_pandas_gives_the_same_digests_where_its_types_say_the_same() -> None:
    table = pa.table({"n": [1, 2], "x": [0.5, None], "s": ["a", None], "t": [NOON, None], "l": [[1], [2, 3]]})
    assert digests(table.to_pandas()) == digests(table)
    assert digests(table.to_pandas().set_axis([7, 3])) == digests(table)  # the index is no column


def test_the_bytes_are_those_that_the_documentation_gives() -> None:
    frame = pl.DataFrame({"n": [7, None], "x": [0.5, -0.0], "s": ["é", None]})
    schema = hashlib.sha256(encode(["fgtrac table v1", [["n", "int"], ["x", "float"], ["s", "text"]]])).digest()
    first = b"\1" + struct.pack("<q", 7) + b"\1" + struct.pack("<d", 0.5) + b"\1" + struct.pack("<q", 2) + "é".encode()
    second = b"\0" + bytes(8) + b"\1" + struct.pack("<d", 0.0) + b"\0" + bytes(8)
    assert digests(frame) == [hashlib.sha256(schema + row).digest() for row in (first, second)]


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ([0.0], [-0.0], True),
        ([float("nan")], [np.frombuffer(b"\1\0\0\0\0\0\xf8\xff", "<f8")[0]], True),
        ([float("nan")], [None], False),
        ([None], [0.0], False),
        ([1], [1.0], False),
        (pa.array([1], pa.int8()), pa.array([1], pa.uint32()), True),
        (pa.array([1], pa.uint64()), pa.array([1], pa.int64()), False),
        (pa.array([0.1], pa.float32()), pa.array([0.1], pa.float64()), False),
        (pa.array([0.5], pa.float32()), pa.array([0.5], pa.float64()), True),
        (["ab", "c"], ["a", "bc"], False),
        ([""], [None], False),
        (["a"], [b"a"], False),
        (pa.array([NOON], pa.timestamp("us")), pa.array([NOON], pa.timestamp("ns")), True),
        (pa.array([NOON], pa.timestamp("us")), pa.array([NOON], pa.timestamp("us", "UTC")), False),
        (pa.array([NOON], pa.timestamp("us", "UTC")), pa.array([NOON], pa.timestamp("us", "Asia/Tokyo")), True),
        ([[]], [None], False),
        ([[None]], [[]], False),
        ([["ab"], ["c"]], [["a"], ["bc"]], False),
    ],
)
def test_what_counts_as_equal(one: Any, other: Any, are_equal: bool) -> None:
    first, second = (
        digests(pa.table({"c": pa.array(values) if isinstance(values, list) else values})) for values in (one, other)
    )
    assert (first == second) is are_equal


def periods(frequency: str) -> Any:
    return pd.PeriodIndex(["2020-01"], freq=frequency)


def intervals(closed: Any) -> Any:
    return pd.IntervalIndex.from_tuples([(0, 1)], closed=closed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            pd.DataFrame({"c": periods("Y")}),
            pd.DataFrame({"c": periods("M") - (periods("M").asi8 - periods("Y").asi8)}),
        ),
        (pd.DataFrame({"c": intervals("left")}), pd.DataFrame({"c": intervals("right")})),
        (pd.DataFrame({1: [5]}), pd.DataFrame({"1": [5]})),
        (pd.DataFrame({("a", 1): [5]}), pd.DataFrame({"('a', 1)": [5]})),
        (pd.DataFrame({dt.date(2020, 1, 1): [5]}), pd.DataFrame({"2020-01-01": [5]})),
        (
            pa.table({"c": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16], pa.binary(16)))}),
            pa.table({"c": [b"x" * 16]}),
        ),
    ],
    ids=["periods", "intervals", "numbered columns", "columns of two levels", "dated columns", "uuids"],
)
def test_what_only_lies_alike_is_not_equal(one: Any, other: Any) -> None:
    assert digests(one) == digests(one.copy() if isinstance(one, pd.DataFrame) else one)
    assert digests(one) != digests(other)


def test_a_columns_name_and_place_count() -> None:
    tables = [pa.table({"a": [1], "b": [2]}), pa.table({"b": [2], "a": [1]}), pa.table({"a": [1], "c": [2]})]
    assert len({digests(table)[0] for table in tables}) == 3


def test_slices_and_chunks_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(COLUMNS)
    rows = digests(table)
    assert digests(pa.concat_tables([table.slice(1, 2), table.slice(3), table.slice(0, 1)])) == [*rows[1:], rows[0]]
    monkeypatch.setattr("fgtrac.capture.table_rows.PIECE_ROWS", 3)
    assert digests(pa.concat_tables([table, table])) == rows * 2


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"odd": [object()]}), "column 'odd' of object has no canonical bytes"),
        (pd.DataFrame({"mixed": [1, "a"]}), "column 'mixed' of object"),
        (pd.DataFrame({"m": ["x", b"x"]}), "column 'm' of object, with bytes and text in it,"),
        (pd.DataFrame({"m": [{"k": ["x"]}, {"k": [b"x"]}]}), "column 'm' of object, with bytes and text in it,"),
        (pd.DataFrame({"m": pd.Categorical(["x", b"x"])}), "column 'm' of category, with bytes and text in it,"),
        (pd.DataFrame({"m": [NOON, NOON.replace(tzinfo=dt.UTC)]}), "'m' of object, with instant and wall clock in it,"),
        (pd.DataFrame({"m": [[NOON], [NOON.date()]]}), "column 'm' of object, with date and wall clock in it,"),
        (pd.DataFrame({"n": [2**70]}), "column 'n' of object"),
        (pd.DataFrame([[1]], columns=pd.Index(["\ud800"], dtype=object)), r"column '\\ud800' of int64"),
        (pl.DataFrame({"n": pl.Series([2**100], dtype=pl.Int128)}), "column 'n' of Int128"),
        (pl.DataFrame({"n": pl.Series([2**100], dtype=pl.UInt128)}), "column 'n' of UInt128"),
        (pd.DataFrame({"n": [1 + 2j]}), "column 'n' of complex128"),
        (pl.DataFrame({"odd": [object()]}), "column 'odd' of Object"),
        (pa.table({"m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}), "column 'm' of map"),
    ],
)
def test_a_type_without_canonical_bytes_is_refused_by_name(frame: Any, words: str) -> None:
    with pytest.raises(UndigestedError, match=f"{words}.*give the bytes with source=, or pass content=False"):
        table_digests(frame)


def test_a_planted_copy_is_found_across_libraries(run: Run, log: Any) -> None:
    train, test = pd.DataFrame({"t": ["a", "b"], "y": [0, 1]}), pl.DataFrame({"t": ["c", "b"], "y": [0, 1]})
    run.register(train, role="train", name="train")
    run.register(test, role="test", name="test")
    run.close()
    said = log(run.path)
    schema = hashlib.sha256(encode(["fgtrac table v1", [["t", "text"], ["y", "int"]]])).hexdigest()
    assert [event["content"] for event in said.kind("dataset")] == [f"table {schema[:16]}"] * 2
    contents = [
        {event["contents"][n : n + 32] for n in range(0, len(event["contents"]), 32)} for event in said.kind("samples")
    ]
    assert len(contents[0] & contents[1]) == 1
