"""Stages of tables where lineage could be told wrong: it is told right, or refused in one line with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from fgtrac.api.run import Run
from fgtrac.errors import CaptureError
from table_frames import Make, column, fate, ids_at, in_each_library, parents

Read = Callable[[Path], Any]
GROUPS = {"u": [1, 1, 1, 2, 2, 2], "x": [100, 1, 5, 200, 2, 7]}
COMPUTED: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "pandas max": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).max()),
    "pandas min": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).min()),
    "pandas sum": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).sum()),
    "pandas mean": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).mean()),
    "pandas median": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).median()),
    "pandas count": (pd.DataFrame, lambda f: f.groupby("u", as_index=False).count()),
    "pandas columns sorted apart": (pd.DataFrame, lambda f: f.apply(np.sort)),
    "polars max": (pl.DataFrame, lambda f: f.group_by("u", maintain_order=True).max()),
    "polars median": (pl.DataFrame, lambda f: f.group_by("u", maintain_order=True).median()),
    "polars lazy min": (lambda c: pl.DataFrame(c).lazy(), lambda f: f.group_by("u", maintain_order=True).min()),
    "pyarrow max": (
        pa.table,
        lambda f: (g := f.group_by("u", use_threads=False).aggregate([(n, "max") for n in f.column_names[1:]]))
        .rename_columns([name.removesuffix("_max") for name in g.column_names]),
    ),
}  # fmt: skip
CHOSEN: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "the first of each group": lambda f: f.groupby("u").head(1),
    "one row for each value": lambda f: f.drop_duplicates("u", keep="last"),
    "the largest by a column": lambda f: f.loc[f.groupby("u")["x"].idxmax()],
    "a left join that found some": lambda f: pd.DataFrame({"x": [2, 9, 100]}).merge(f, on="x", how="left").dropna(),
    "lists in an order of their own": lambda f: f.groupby("u", as_index=False).agg(lambda s: sorted(set(s))),
}


def table(run: Run, make: Make, columns: dict[str, Any], name: str = "people") -> Any:
    frame = make(columns)
    run.register(frame, name=name)
    return frame


@pytest.mark.parametrize("case", COMPUTED)
def test_a_function_that_computes_with_row_numbers_is_refused(run: Run, log: Read, case: str) -> None:
    make, function = COMPUTED[case]
    frame = table(run, make, GROUPS)
    with pytest.raises(ValueError, match=r"names other rows|has fractions|numbers outside|use aggregate\(by"):
        run.transform("each", frame).apply(function)
    run.close()
    assert not log(run.path).kind("transform")


@pytest.mark.parametrize("case", CHOSEN)
def test_a_function_that_chooses_rows_or_lists_them_is_followed(run: Run, case: str) -> None:
    frame = table(run, pd.DataFrame, GROUPS)
    made = run.transform("each", frame).apply(CHOSEN[case])
    assert made.equals(CHOSEN[case](pd.DataFrame(GROUPS)))
    if not case.startswith("lists"):
        truth = [GROUPS["x"].index(x) for x in made["x"]]
        assert ids_at(run, made) == [ids_at(run, frame)[row] for row in truth]


def test_a_function_that_fills_missing_cells_from_dropped_rows_is_refused(run: Run, log: Read) -> None:
    gaps = {"u": [1, 1, 2, 2], "x": [None, 5.0, 7.0, None]}
    frame, other = table(run, pd.DataFrame, gaps), table(run, pl.DataFrame, gaps, "other")
    with pytest.raises(ValueError, match=r"fills missing cells .* use aggregate\(by, function\)"):
        run.transform("first", frame).apply(lambda f: f.groupby("u", as_index=False).first())
    with pytest.raises(ValueError, match="fills missing cells"):
        run.transform("first", other).apply(
            lambda f: f.group_by("u", maintain_order=True).agg(pl.all().drop_nulls().first())
        )
    whole: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
        lambda f: f.groupby("u").head(1),
        lambda f: f.dropna().drop_duplicates("u"),
        lambda f: f[f["x"].isna()],
    ]
    rows = [column(run.transform(f"stage {n}", frame).apply(choose), "x") for n, choose in enumerate(whole)]
    assert rows == [[None, 7.0], [5.0, 7.0], [None, None]]


@in_each_library("aggregate, in another order than the groups")
def test_an_aggregated_row_is_told_by_its_key_in_any_order(run: Run, log: Read, make: Make) -> None:
    frame = table(run, make, {"u": [2, 2, 1, 3, 1], "n": [0, 1, 2, 3, 4]})

    def firsts(groups: Any) -> Any:
        if isinstance(frame, pd.DataFrame):
            return groups.head(1)
        if isinstance(frame, pa.Table):
            return groups.aggregate([("n", "min")]).rename_columns(["u", "n"]).sort_by([("u", "descending")])
        return groups.agg(pl.col("n").first()).sort("u")

    made = run.transform("first", frame).aggregate("u", firsts)
    ids = ids_at(run, made)
    run.close()
    assert len(set(column(made, "u"))) == 3
    truth = {1: [("people", 2), ("people", 4)], 2: [("people", 0), ("people", 1)], 3: [("people", 3)]}
    assert parents(log(run.path), "first") == {i: truth[u] for i, u in zip(ids, column(made, "u"), strict=True)}


def test_an_aggregation_that_loses_its_keys_is_refused_with_the_remedy(run: Run) -> None:
    frame, other = table(run, pd.DataFrame, GROUPS), table(run, pl.DataFrame, GROUPS, "other")
    for wrong in (lambda g: g.sum().reset_index(drop=True), lambda g: g.sum().rename(index={1: 9})):
        with pytest.raises(ValueError, match=r"cannot tell which group .* keep the columns u as they are"):
            run.transform("sums", frame).aggregate("u", wrong)
    with pytest.raises(ValueError, match="cannot tell which group"):
        run.transform("sums", other).aggregate("u", lambda g: g.agg(pl.col("x").sum()).with_columns(u=1))
    with pytest.raises(TypeError, match="gave a Series, and no table"):
        run.transform("sums", frame).aggregate("u", lambda g: g["x"].sum())


def test_rows_without_a_key_are_in_the_groups_that_the_library_makes(run: Run, log: Read) -> None:
    few = {"k": [1.0, None, 1.0, float("nan")], "x": [1, 2, 3, 4]}
    frame, other = table(run, pd.DataFrame, few), table(run, pl.DataFrame, few, "other")
    one = run.transform("pandas", frame).aggregate("k", lambda g: g.sum())
    three = run.transform("polars", other).aggregate("k", lambda g: g.agg(pl.col("x").sum()))
    ids = ids_at(run, three)
    run.close()
    assert (one["x"].tolist(), three["x"].to_list()) == ([4], [4, 2, 4])
    assert fate(log(run.path), "pandas") == {"dropped": [("people", 1), ("people", 3)]}
    assert [parents(log(run.path), "polars")[i] for i in ids] == [
        [("other", 0), ("other", 2)], [("other", 1)], [("other", 3)],
    ]  # fmt: skip


def test_a_lazy_frame_has_the_rows_that_it_was_registered_with(run: Run, log: Read) -> None:
    turns = []

    def turn(frame: pl.DataFrame) -> pl.DataFrame:
        turns.append(1)
        return frame.reverse() if len(turns) % 2 else frame

    lazy = pl.DataFrame({"n": [3, 4, 5]}).lazy().map_batches(turn)
    run.register(lazy, name="lazy", key="n")
    assert len(turns) == 1
    made = [run.transform(f"stage {n}", lazy).filter(pl.col("n") > 3) for n in range(3)]
    whole = run.transform("whole", lazy).sort("n")
    ids = [dict(zip(frame["n"], ids_at(run, frame), strict=True)) for frame in (*made, whole)]
    assert ids[0] == ids[1] == ids[2] == {n: i for n, i in ids[3].items() if n > 3}
    (root,) = run._registry.registered()
    assert root.contents is not None
    run.close()
    said = log(run.path)
    assert sorted(said.names[i][1] for i in ids[3].values()) == [3, 4, 5]
    assert {n: said.names[i][1] for n, i in ids[3].items()} == {3: 3, 4: 4, 5: 5}


def test_an_aligned_map_of_a_lazy_frame_gives_an_eager_one(run: Run) -> None:
    lazy = pl.DataFrame(GROUPS).lazy()
    run.register(lazy, name="lazy")
    made = run.transform("x", lazy).map(lambda frame: frame.select("x"), aligned=True)
    assert made.equals(pl.DataFrame({"x": GROUPS["x"]}))
    assert ids_at(run, made) == ids_at(run, lazy)


def test_a_lazy_frame_in_whose_order_other_rows_are_said_to_be_is_refused(run: Run) -> None:
    lazy = table(run, pl.DataFrame, GROUPS).lazy()
    for data, rows in ((TensorDataset(torch.zeros(6)), lazy), (lazy, pl.DataFrame(GROUPS))):
        with pytest.raises(ValueError, match=r"LazyFrame may have its rows in another order.*collect it once"):
            run.register(data, rows=rows)


@in_each_library("deduplicate and split where a sample repeats")
def test_a_sample_that_repeats_goes_on_where_one_copy_does(run: Run, log: Read, make: Make) -> None:
    frame = table(run, make, {"x": [1.0, 2.0, 3.0]})
    twice = run.transform("twice", frame).select([0, 0, 1, 2])
    run.transform("once", twice).deduplicate()
    run.transform("parts", twice).split(["a", None, "a", None])
    run.close()
    said = log(run.path)
    assert fate(said, "once") == {"kept": [("people", 0), ("people", 1), ("people", 2)]}
    assert fate(said, "parts") == {"kept a": [("people", 0), ("people", 1)], "dropped": [("people", 2)]}


def test_an_item_that_repeats_goes_on_where_one_copy_does(run: Run, log: Read) -> None:
    data = TensorDataset(torch.tensor([[1.0], [2.0], [3.0]]))
    run.register(data, name="items")
    twice, calls = Subset(data, [0, 0, 1, 2]), []
    run.transform("once", twice).deduplicate()
    run.transform("parts", twice).split(["a", None, "a", None])
    run.transform("some", twice).filter(lambda _: calls.append(1) or len(calls) > 1)
    run.close()
    said, all_three = log(run.path), [("items", 0), ("items", 1), ("items", 2)]
    assert fate(said, "once") == fate(said, "some") == {"kept": all_three}
    assert fate(said, "parts") == {"kept a": all_three[:2], "dropped": all_three[2:]}


def test_a_copy_that_a_map_made_another_is_no_end_of_its_sample(run: Run, log: Read) -> None:
    data = datasets.Dataset.from_dict({"x": [1, 2]})
    run.register(data, name="rows")
    three = run.transform("other", data.select([0, 1, 0])).map(lambda _, n: {"x": min(n, 1)}, with_indices=True)
    run.transform("once", three).deduplicate()
    run.close()
    assert fate(log(run.path), "once") == {"kept": [("rows", 0), ("rows", 1)]}


def test_a_mask_is_laid_on_the_rows_by_its_index(run: Run) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}, index=[3, 1, 0, 2])
    run.register(frame, name="rows")
    mask = frame.sort_index()["x"] > 2
    assert column(run.transform("some", frame).filter(mask), "x") == [3.0, 4.0]
    for wrong in (mask.reset_index(drop=True).rename({0: 9}), mask.rename({1: 0})):
        with pytest.raises(ValueError, match="a mask with another index than the frame's"):
            run.transform("none", frame).filter(wrong)


@pytest.mark.parametrize("change", ["extend", "vstack"])
def test_a_polars_frame_that_grew_in_place_is_refused(run: Run, change: str) -> None:
    frame = table(run, pl.DataFrame, {"x": [1, 2, 3]})
    more = pl.DataFrame({"x": [7]})
    frame.extend(more) if change == "extend" else frame.vstack(more, in_place=True)
    with pytest.raises(CaptureError, match=r"may be others .* added to .* through run.transform"):
        run.transform("mixed", frame).shuffle(0)


@in_each_library("pack of texts, of lists, and in a column named row")
def test_items_of_any_kind_are_packed_and_missing_ones_refused(run: Run, make: Make) -> None:
    frame = table(run, make, {
        "row": [[1, 2], [3]], "texts": [["a", "b"], ["c"]], "lists": [[[1], [2, 3]], [[4]]], "gaps": [[1, None], [2]],
    })  # fmt: skip
    for name, items in (
        ("row", [[1], [2], [3]]),
        ("texts", [["a"], ["b"], ["c"]]),
        ("lists", [[[1]], [[2, 3]], [[4]]]),
    ):
        packed = run.transform(f"pack {name}", frame).pack(name, 1)
        assert [[np.asarray(v).tolist() for v in row] for row in column(packed, name)] == items
    if not isinstance(frame, pd.DataFrame):  # whose lists are Python's own
        with pytest.raises(ValueError, match="lists of column 'gaps' have missing items; fill or drop them"):
            run.transform("gaps", frame).pack("gaps", 1)


def test_a_column_of_the_users_named_like_a_mask_stays(run: Run) -> None:
    frame = table(run, pl.DataFrame, {"fgtrac_mask": [1, 0, 1]})
    assert run.transform("some", frame).filter(pl.col("fgtrac_mask") > 0).to_dict(as_series=False) == {
        "fgtrac_mask": [1, 1]
    }


@in_each_library("deduplicate: NaN is one value, and so is zero")
def test_zeros_of_both_signs_are_equal(run: Run, make: Make) -> None:
    frame = table(run, make, {"x": [0.0, -0.0, float("nan"), float("nan"), 1.0]})
    made = run.transform("once", frame).deduplicate()
    assert ids_at(run, made) == [ids_at(run, frame)[row] for row in (0, 2, 4)]


@in_each_library("stages over no rows", lazy=False)
def test_a_stage_over_what_a_stage_emptied_gives_no_rows(run: Run, log: Read, make: Make) -> None:
    frame = table(run, make, {"x": [1, 2], "l": [[1], [2]]})
    none = run.transform("none", frame).filter([False, False])
    again = [
        run.transform("sorted", none).sort("x"),
        run.transform("once", none).deduplicate("x"),
        run.transform("same", none).apply(lambda f: f),
        run.transform("items", none).explode("l"),
        run.transform("packed", none).pack("l", 2),
        run.transform("some", none).filter([]),
        *run.transform("split", none).train_test_split(0.5, seed=0),
    ]
    assert [len(made) for made in again] == [0] * 8
    both = run.transform("both", none).concat(frame)
    assert ids_at(run, both) == ids_at(run, frame)
    run.register(none, role="train")
    run.close()
    assert fate(log(run.path), "none") == {"dropped": [("people", 0), ("people", 1)]}


def test_frames_that_no_verb_can_take_are_refused_in_one_line(run: Run) -> None:
    levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    lists = {"l": [[1], [1]]}
    cases: list[tuple[type[Exception], str, Any, Callable[[Any], Any]]] = [
        (ValueError, "columns have several levels; flatten them first", levels, lambda s: s.map(lambda f: f)),
        (ValueError, "a frame with two columns 'a'; rename one", twice, lambda s: s.deduplicate()),
        (TypeError, "cannot compare the cells .* name the columns", pd.DataFrame(lists), lambda s: s.deduplicate()),
        (TypeError, "cannot compare the cells .* name the columns", pa.table(lists), lambda s: s.deduplicate("l")),
    ]
    for number, (kind, words, frame, verb) in enumerate(cases):
        run.register(frame, name=f"frame {number}", content=False)
        with pytest.raises(kind, match=words):
            verb(run.transform("stage", frame))


def test_a_stage_that_makes_samples_needs_a_name_of_its_own(run: Run) -> None:
    frame = table(run, pd.DataFrame, {"l": [[1, 2], [3]]})
    run.transform("items", frame).explode("l")
    for name in ("items", "people"):
        with pytest.raises(ValueError, match=f"would be the data set '{name}'.* give each stage a name of its own"):
            run.transform(name, frame).explode("l")


def test_what_a_verb_says_stands_before_the_users_parameters(run: Run, log: Read) -> None:
    frame = table(run, pd.DataFrame, {"x": [1, 2]})
    run.transform("mixed", frame, {"seed": 99, "why": "order"}).shuffle(1)
    run.close()
    (entry,) = log(run.path).kind("transform")
    assert entry["parameters"] == {"seed": 1, "why": "order"}
